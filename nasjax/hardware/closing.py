"""Candidates that the rules of devices and of quantisation close."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.errors import InputError
from nasjax.hardware import roofline
from nasjax.hardware.products import Product
from nasjax.hardware.profile import Rule
from nasjax.hardware.workload import Workload

__all__ = [
  "broken_by",
  "closed",
  "expansion",
  "has_other_channels",
  "unbounded",
  "without",
]

Cell = tuple[Workload, ...]  # the workloads of a candidate
_CONVOLUTIONS = ("convolution", "depthwise")


def _speaks_of(rules: Sequence[Rule]) -> Callable[[Cell], bool]:
  """Whether a rule speaks of one of a candidate's workloads."""
  return lambda cell: any(roofline.matches(r, w) for r in rules for w in cell)


def _broken(breaks: Callable[[Cell], bool], product: Product) -> np.ndarray:
  """bool[K_1, ..., K_n]: combinations that break a rule."""
  return product.table(breaks).values.astype(bool)


def _filled(product: Product) -> np.ndarray:
  """bool[K_1, ..., K_n]: combinations with any workload."""
  return product.table(len).values > 0


def _guilty(broken, filled, product: Product) -> list[tuple[str, int, int]]:
  """Candidates (group, row, k) all of whose combinations are broken."""
  found = []
  for axis, (group, row) in enumerate(product.choices):
    bad, some = (np.moveaxis(a, axis, 0) for a in (broken, filled))
    bad, some = (a.reshape(len(a), -1) for a in (bad, some))
    guilty = some.any(1) & (bad | ~some).all(1)
    if not guilty[some.any(1)].all():  # else no choice of this axis helps
      found += [(group, row, int(k)) for k in np.flatnonzero(guilty)]
  return found


def _together(broken, filled, product: Product) -> str:
  """The groups that decide together whether a rule is broken."""
  varying = []
  for axis, (group, _) in enumerate(product.choices):
    bad = np.moveaxis(broken, axis, 0)
    some = np.moveaxis(filled, axis, 0)
    if ((bad & some).any(0) & (~bad & some).any(0)).any():
      varying.append(group)
  return " with ".join(varying) or "layers whatever is chosen"


def broken_by(rule: Rule, space: Any) -> list[str]:
  """Candidates with a workload that a rule speaks of.

  Where several choices shape a layer, those that break the rule whatever the
  others are, or else `GROUP with GROUP` where combinations of them do.
  """
  works = space.workloads()
  found: dict[str, None] = {}
  for group, edges in works.groups.items():
    names = space.groups[group].candidates
    for row in edges:
      for name, cell in zip(names, row, strict=True):
        if any(roofline.matches(rule, w) for w in cell):
          found[name] = None
  for product in works.products:
    broken, filled = _broken(_speaks_of([rule]), product), _filled(product)
    guilty = _guilty(broken, filled, product)
    for group, _, k in guilty:
      found[f"{group} {space.groups[group].candidates[k]}"] = None
    if broken.any() and not guilty:
      found[_together(broken, filled, product)] = None
  return list(found)


def closed(devices: Sequence[Any], space: Any) -> Mapping[str, np.ndarray]:
  """Masks of a space without the candidates that devices' rules close.

  Args:
    devices: all of which the network must run on.
    space: the space.

  Returns:
    bool[E, K] a group. Where several choices shape a layer, candidates are
    closed that break a rule whatever the others are.

  Raises:
    InputError: no candidate of a choice is left, or combinations that break a
      rule are.
  """
  rules = [
    (d, rule)
    for d in devices
    if d.profile is not None
    for rule in d.profile.rules
    if rule.closes
  ]
  if not rules:
    return {group: np.array(mask) for group, mask in space.masks.items()}
  said = ", ".join(f"{d.name}: {r.name}" for d, r in rules)
  return _shut(space, _speaks_of([r for _, r in rules]), "--device", said)


def without(
  space: Any, breaks: Callable[[Cell], bool], where: str
) -> Mapping[str, np.ndarray]:
  """Masks of a space without the candidates that break a rule.

  Args:
    space: the space.
    breaks: whether the workloads of a candidate do.
    where: what messages call the rule.

  Returns:
    bool[E, K] a group, see `closed`.

  Raises:
    InputError: as `closed`, or what every network has breaks the rule.
  """
  for work in space.workloads().fixed:
    if breaks((work,)):
      raise InputError(
        where, f"every network of the space {space.name} has {work}"
      )
  return _shut(space, breaks, where, "they break it")


def _shut(space, breaks, where, said) -> Mapping[str, np.ndarray]:
  """The masks without what breaks a rule; raises InputError."""
  works = space.workloads()
  masks = {group: np.array(mask) for group, mask in space.masks.items()}
  for group, edges in works.groups.items():
    for e, row in enumerate(edges):
      for k, cell in enumerate(row):
        masks[group][e, k] &= not breaks(cell)
  for product in works.products:
    broken = _broken(breaks, product)
    for group, row, k in _guilty(broken, _filled(product), product):
      masks[group][row, k] = False
    opened = [masks[group][row] for group, row in product.choices]
    if broken[np.ix_(*map(np.flatnonzero, opened))].any():
      raise InputError(
        where,
        "rules close combinations of"
        f" {', '.join(f'{g} {r}' for g, r in product.choices)}, which are"
        f" chosen apart: {said}",
        "leave the candidates that break them out of the space",
      )
  for group, left in masks.items():
    for e in np.flatnonzero(~left.any(-1)):
      raise InputError(
        where, f"rules leave no candidate for choice {e} of {group}: {said}"
      )
  return masks


def unbounded(cell: Cell) -> bool:
  """Whether a candidate has an activation without an upper bound.

  The range of an unbounded one is set by its largest value, which leaves few
  steps for the others (Sheng et al. 2018, section 3; Howard et al. 2017 on
  ReLU6 at low precision).
  """
  return any(work.kind in ("relu", "hswish") for work in cell)


def expansion(cell: Cell) -> float:
  """The widest hidden convolution of a candidate's blocks over their input.

  Wide hidden layers spread the ranges of their channels and set the peak of the
  memory. A block's last convolution is its output, not hidden.
  """
  found, inputs, hidden = 0.0, 1, 0
  for work in cell:
    if not work.after:  # a block's start
      inputs, hidden = work.channels_in, 0
    if work.kind in _CONVOLUTIONS:
      found = max(found, hidden / inputs)
      hidden = max(hidden, work.channels_out)
  return found


def has_other_channels(cell: Cell, multiple: int) -> bool:
  """Whether a convolution's outputs are no multiple of so many channels."""
  return any(
    work.kind in _CONVOLUTIONS and work.channels_out % multiple for work in cell
  )
