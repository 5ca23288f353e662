"""Fits a per-choice table to latencies of whole networks.

Non-negative least squares over the chosen candidates (Lawson and Hanson,
"Solving Least Squares Problems", 1974): that a layer cannot take negative time
is what makes few networks enough. Entries that stand for the same workloads
are drawn towards their mean, how strongly is decided by cross-validation, and
so is whether edges that lead nowhere cost anything (`choices.COUNTED`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from nasjax.hardware import choices as tables
from nasjax.hardware.scores import Errors, folds, prediction_errors
from nasjax.types import Choices, Group

__all__ = ["Fit", "fit", "gauge_of", "ties_of"]

# Strengths of the pull towards the mean, in networks: 10 weighs as much as
# ten measured networks that hold the entry.
STRENGTHS = (0.0, 0.1, 1.0, 10.0, 100.0, 1000.0)
_TINY = 1e-9  # decides entries that no network tells apart
_DEPENDENT = 1e-8  # share of the largest singular value


class Fit(NamedTuple):
  """A fitted table, f64[E, K] a group."""

  constant: float
  tables: dict[str, np.ndarray]
  counted: str  # see choices.COUNTED
  strength: float  # of the pull towards entries of the same workloads
  errors: Errors  # by cross-validation
  # Entries whose costs the networks do not tell apart: they are split evenly.
  collinear: tuple[str, ...] = ()


class _Slots(NamedTuple):
  """The unknowns: entries of the table but the gauge, and the constant."""

  entries: list[tuple[str, int, int]]
  pull: np.ndarray  # f64[P, slots + 1]: differences from the means of ties


def gauge_of(groups: Mapping[str, Group], names=("none", "skip")) -> dict:
  """The candidate of each group whose entries are 0, if it has one.

  Sums over one candidate an edge do not tell a constant on all candidates of
  an edge from the network's constant: one candidate is set to 0.

  Args:
    groups: of the space.
    names: the candidates to take, in this order.
  """
  found = {}
  for group, (_, candidates) in groups.items():
    have = [n for n in names if n in candidates]
    found[group] = candidates.index(have[0]) if have else 0
  return found


def ties_of(space: Any) -> dict[str, list[list[Any]]]:
  """What each entry stands for: equal values are the same workloads."""
  return {
    name: [[tuple(w.key for w in cell) for cell in row] for row in edges]
    for name, edges in space.workloads().groups.items()
  }


def _slots(groups, gauge, ties):
  entries = [
    (name, edge, k)
    for name, group in groups.items()
    for edge in range(group.edges)
    for k in range(len(group.candidates))
    if k != gauge[name]
  ]
  alike: dict[Any, list[int]] = {}
  for slot, (name, edge, k) in enumerate(entries):
    alike.setdefault(
      ties[name][edge][k] if ties else (name, edge, k), []
    ).append(slot)
  pull = []
  for members in alike.values():
    for slot in members if len(members) > 1 else ():
      row = np.zeros(len(entries) + 1)
      row[members] -= 1.0 / len(members)
      row[slot] += 1.0
      pull.append(row)
  return _Slots(entries, np.array(pull).reshape(-1, len(entries) + 1))


def _design(slots, groups, choices, counted, ends):
  """f64[N, slots + 1]: what each unknown adds to each network."""
  weights = tables.counted_weights(
    tables.one_hot(choices, groups), groups, counted, ends
  )
  columns = [weights[name][:, edge, k] for name, edge, k in slots.entries]
  return np.stack([*columns, np.ones(len(columns[0]))], axis=1)


def _solve(slots, design, values, strength):
  pull = np.sqrt(strength + _TINY) * slots.pull
  target = np.concatenate([values, np.zeros(len(pull))])
  system = np.concatenate([design, pull])
  return nnls(system, target, maxiter=30 * system.shape[1])[0]


def _held_out(slots, design, values, strength, parts):
  predicted = np.zeros(len(values))
  for rest, held in parts:
    found = _solve(slots, design[rest], values[rest], strength)
    predicted[held] = design[held] @ found
  return predicted


def _check_seen(slots, groups, design):
  """Refuses entries of which the networks say nothing."""
  seen = design[:, :-1].any(axis=0)
  tied = (slots.pull[:, :-1] @ np.diag(1.0 * seen) != 0).astype(np.float64)
  known = seen | ((np.abs(slots.pull[:, :-1]).T @ tied) > 0).any(axis=1)
  missing = [s for s, k in zip(slots.entries, known, strict=True) if not k]
  if missing:
    name, edge, k = missing[0]
    raise ValueError(
      f"no measured network has {name}[{edge}] = {groups[name].candidates[k]}"
      + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
    )


def _collinear(slots, design) -> list[tuple[str, int, int]]:
  """Entries whose costs the networks, and equal workloads, do not tell apart.

  Those with a part in the null space of what the costs are fitted to.
  """
  system = np.concatenate([design, slots.pull])
  scale = np.linalg.norm(system, axis=0)
  system = system / np.where(scale > 0, scale, 1.0)
  _, values, rows = np.linalg.svd(system, full_matrices=True)
  rank = int((values > _DEPENDENT * values[0]).sum())
  part = np.abs(rows[rank:]).max(0, initial=0.0)
  return [
    entry
    for entry, own in zip(slots.entries, part, strict=False)
    if own > np.sqrt(_DEPENDENT)
  ]


def fit(
  groups: Mapping[str, Group],
  choices: Choices,
  values: Any,
  *,
  ends: tables.Ends | None = None,
  ties: Mapping[str, Sequence[Sequence[Any]]] | None = None,
  gauge: Mapping[str, int] | None = None,
  counted: Sequence[str] | None = None,
  strengths: Sequence[float] = STRENGTHS,
  parts: int = 5,
  seed: int = 0,
) -> Fit:
  """Fits a per-choice table to measured networks.

  Args:
    groups: of the space.
    choices: i32[N, E] a group, the networks.
    values: f[N], what they cost, not negative.
    ends: nodes of the edges, see `choices.ends_of`; {} for none.
    ties: see `ties_of`; None: no two entries are alike.
    gauge: the candidate of each group with entries 0; default `gauge_of`.
    counted: which of `choices.COUNTED` are tried; default: all that the
      groups allow.
    strengths: which pulls towards the mean are tried.
    parts: of the cross-validation.
    seed: of its parts.

  Returns:
    The table with the smallest cross-validated mean absolute error. Of several
    within a thousandth of each other the first of `counted` is taken. Its
    `errors` are those of the choice that was made, which choosing among few
    flatters by little.

  Raises:
    ValueError: fewer than 2 networks, a value that is negative or not finite,
      or an entry that no network has nor one of the same workloads.
  """
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or len(values) < 2:
    raise ValueError(f"{values.size} networks are measured, 2 are needed")
  if not np.isfinite(values).all() or (values < 0).any():
    raise ValueError("a measured value is negative or not finite")
  ends = ends or {}
  gauge = gauge_of(groups) if gauge is None else gauge
  if counted is None:
    cells = set(ends) == set(groups) and all(
      "none" in g.candidates for g in groups.values()
    )
    counted = tables.COUNTED if cells else tables.COUNTED[:1]
  slots = _slots(groups, gauge, ties)
  scale = float(np.mean(values)) or 1.0  # keeps nnls's tolerance meaningful
  splits = list(folds(len(values), parts, seed))
  best = None
  designs = {c: _design(slots, groups, choices, c, ends) for c in counted}
  for design in designs.values():
    _check_seen(slots, groups, design)
  tried = strengths if len(slots.pull) else strengths[:1]
  for rule, strength in itertools.product(counted, tried):
    predicted = scale * _held_out(
      slots, designs[rule], values / scale, strength, splits
    )
    loss = float(np.mean(np.abs(predicted - values)))
    if best is None or loss < 0.999 * best[0]:
      best = loss, rule, strength, predicted
  _, rule, strength, predicted = best
  alike = _collinear(slots, designs[rule])
  found = scale * _solve(slots, designs[rule], values / scale, strength)
  made = {n: np.zeros((g.edges, len(g.candidates))) for n, g in groups.items()}
  for (name, edge, k), value in zip(slots.entries, found[:-1], strict=True):
    made[name][edge, k] = value
  return Fit(
    float(found[-1]),
    made,
    rule,
    strength,
    prediction_errors(predicted, values),
    tuple(f"{n}[{e}] {groups[n].candidates[k]}" for n, e, k in alike),
  )
