"""`--quantization-rule`: what makes the networks of any space quantise well."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax import hardware
from nasjax.cli import metrics
from nasjax.cli.config import MAX_SIDE, SearchConfig
from nasjax.errors import InputError, nearest
from nasjax.hardware import closing
from nasjax.reader import whole

BOUNDED = "relu6"
_FLAG = "--quantization-rule"
_NAMES = (
  "bounded_activations",
  "largest_expansion",
  "channel_multiple",
)


class Rules(NamedTuple):
  """What the rules of a configuration say."""

  bounded_activations: bool = False
  largest_expansion: int | None = None
  channel_multiple: int | None = None


def read(config: SearchConfig) -> Rules:
  """The rules asked for; raises InputError."""
  found: dict[str, Any] = {}
  for text in config.quantization_rule:
    name, value = metrics.split_assignment(text, _FLAG)
    flag = f"{_FLAG} {name}"
    if name not in _NAMES:
      raise InputError(flag, "unknown rule", nearest(name, _NAMES))
    if name in found:
      raise InputError(flag, "is given twice")
    if (value is None) != (name == "bounded_activations"):
      raise InputError(
        flag, "has no value" if value is None else f"takes no value {value!r}"
      )
    if name == "bounded_activations":
      found[name] = True
    elif value == "device":
      found[name] = _vectors(config, name, flag)
    else:
      found[name] = whole(value, flag, low=1, high=MAX_SIDE)
  return Rules(**found)


def _vectors(config, name, flag) -> int:
  """Channels that fill the vectors of all devices, as their rules ask too."""
  if name != "channel_multiple":
    raise InputError(flag, "device is no number")
  sheets = [hardware.device(d).profile for d in config.device]
  if not sheets or None in sheets:
    raise InputError(
      f"{flag}=device", "needs devices with profiles", "add --device"
    )
  return math.lcm(
    *(max(1, p.simd_bits // p.bits) for p in sheets),
    *(rule.channels_multiple for p in sheets for rule in p.rules),
  )


def arguments(
  rules: Rules, given: Mapping[str, Any], known: Sequence[str]
) -> dict[str, Any]:
  """A space's arguments with what the rules want, as far as it has them.

  Args:
    rules: of the configuration.
    given: its arguments; None: not given.
    known: names of the arguments that the space has.

  Returns:
    The arguments.

  Raises:
    InputError: one that was given breaks a rule.
  """
  wanted: dict[str, Any] = {}
  if rules.bounded_activations:
    wanted |= {"activation": BOUNDED, "activations": (BOUNDED,)}
  if rules.channel_multiple is not None:
    wanted["channel_multiple"] = rules.channel_multiple
  made = dict(given)
  for name, value in wanted.items():
    if name not in known:
      continue
    if made.get(name) not in (None, value):
      raise InputError(
        f"--{name.replace('_', '-')} {made[name]}",
        f"breaks {_FLAG}, which wants {value}",
        "leave one out",
      )
    made[name] = value
  return made


def restricted(rules: Rules, space: Any) -> Any:
  """The space without the candidates that break a rule.

  Raises:
    InputError: what every network has breaks one, or nothing else is left.
  """
  checks = []
  if rules.bounded_activations:
    checks.append(("bounded_activations", closing.unbounded))
  if rules.largest_expansion is not None:
    most = rules.largest_expansion
    checks.append(
      (
        f"largest_expansion={most}",
        lambda cell: closing.expansion(cell) > most,
      )
    )
  if rules.channel_multiple is not None:
    multiple = rules.channel_multiple
    checks.append(
      (
        f"channel_multiple={multiple}",
        lambda cell: closing.has_other_channels(cell, multiple),
      )
    )
  for said, breaks in checks:
    where = f"{_FLAG} {said}"
    masks = closing.without(space, breaks, where)
    if all(np.array_equal(masks[n], m) for n, m in space.masks.items()):
      continue
    if not hasattr(space, "allowed"):
      raise InputError(where, f"the space {space.name} cannot close choices")
    space = dataclasses.replace(space, allowed=masks)
  return space
