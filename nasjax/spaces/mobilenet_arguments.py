"""The arguments of the MobileNet space, checked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nasjax.errors import nearest
from nasjax.layers import blocks
from nasjax.spaces import staged

__all__ = ["check"]


def check(a: Mapping[str, Any], space: str = "mobilenet") -> None:
  """Refuses arguments that make no network.

  Args:
    a: all of `mobilenet`.
    space: what messages call the space.

  Raises:
    ValueError: names the argument.
  """
  staged.check_positive(
    space,
    **{
      n: a[n]
      for n in (
        "channels",
        "cells",
        "num_classes",
        "head_channels",
        "channel_multiple",
      )
    },
  )
  for name, low, high in (
    ("expansions", 2, 16),
    ("kernels", 1, 11),
    ("widths", 10, 400),
    ("stage_channels", 1, 4096),
    ("stage_depths", 1, 64),
    ("stage_strides", 1, 2),
  ):
    for value in a[name]:
      if not isinstance(value, (int, np.integer)) or not low <= value <= high:
        raise ValueError(
          f"{space}: {name}={a[name]} must be whole numbers of {low} to {high}"
        )
  for name in ("kernels", "expansions", "widths"):
    if not a[name] or list(a[name]) != sorted(set(a[name])):
      raise ValueError(f"{space}: {name}={a[name]} must rise and not be empty")
  if any(k % 2 == 0 for k in a["kernels"]):
    raise ValueError(f"{space}: kernels={a['kernels']} must be odd")
  for name, known in (
    ("squeeze_excite", ("no", "yes")),
    ("activations", blocks.ACTIVATIONS),
  ):
    for value in a[name]:
      if value not in known:
        raise ValueError(f"{space}: {name}={value!r}; {nearest(value, known)}")
    if not a[name] or len(set(a[name])) < len(a[name]):
      raise ValueError(f"{space}: {name}={a[name]} must name each once")
  if a["activation"] not in blocks.ACTIVATIONS:
    fix = nearest(a["activation"], blocks.ACTIVATIONS)
    raise ValueError(f"{space}: activation={a['activation']!r}; {fix}")
  stages = len(a["stage_channels"])
  if stages < 2 or len(a["stage_depths"]) != stages:
    raise ValueError(
      f"{space}: stage_channels and stage_depths must have one number for each"
      f" of at least 2 stages, not {stages} and {len(a['stage_depths'])}"
    )
  if a["stage_depths"][0] != 1:
    raise ValueError(
      f"{space}: stage_depths must begin with 1: the first stage is one fixed"
      " layer"
    )
  if len(a["stage_strides"]) != stages + 1:
    raise ValueError(
      f"{space}: stage_strides must have one number for the stem and for each"
      f" of {stages} stages, not {len(a['stage_strides'])} in all"
    )
