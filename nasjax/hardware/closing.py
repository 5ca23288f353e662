"""Candidates that the rules of devices close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.errors import InputError
from nasjax.hardware import roofline
from nasjax.hardware.products import Product
from nasjax.hardware.profile import Rule

__all__ = ["broken_by", "closed"]


def _broken(rules: Sequence[Rule], product: Product) -> np.ndarray:
  """bool[K_1, ..., K_n]: combinations with a workload that a rule speaks of."""
  return product.table(
    lambda cell: any(roofline.matches(r, w) for r in rules for w in cell)
  ).values.astype(bool)


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
    broken, filled = _broken([rule], product), _filled(product)
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
  said = ", ".join(f"{d.name}: {r.name}" for d, r in rules)
  works = space.workloads()
  masks = {group: np.array(mask) for group, mask in space.masks.items()}
  for group, edges in works.groups.items():
    left = masks[group]
    for e, row in enumerate(edges):
      for k, cell in enumerate(row):
        for _, rule in rules:
          left[e, k] &= not any(roofline.matches(rule, w) for w in cell)
  for product in works.products if rules else ():
    broken = _broken([rule for _, rule in rules], product)
    for group, row, k in _guilty(broken, _filled(product), product):
      masks[group][row, k] = False
    opened = [masks[group][row] for group, row in product.choices]
    if broken[np.ix_(*map(np.flatnonzero, opened))].any():
      raise InputError(
        "--device",
        "rules close combinations of"
        f" {', '.join(f'{g} {r}' for g, r in product.choices)}, which are"
        f" chosen apart: {said}",
        "leave the candidates that break them out of the space",
      )
  for group, left in masks.items():
    for e in np.flatnonzero(~left.any(-1)):
      raise InputError(
        "--device",
        f"rules leave no candidate for choice {e} of {group}: {said}",
      )
  return masks
