"""The exact decision: the most probable architecture within limits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from nasjax.errors import InputError
from nasjax.spaces import ranking
from nasjax.spaces.costs import (
  ADDITIVE,
  additive_costs,
  largest_costs,
  resolved,
)
from nasjax.spaces.space import (
  Architecture,
  Limit,
  Space,
  kept_of,
  log_weights,
)
from nasjax.types import Constraint, Weights

# Weights below this count as this: a candidate with no probability can still
# be needed to meet a limit.
SMALLEST_WEIGHT = 1e-30


class _Programme(NamedTuple):
  """The decision as an integer programme over one variable a candidate.

  Costs of combinations of choices have a variable each besides, which is 1
  where all of the combination is chosen: for each candidate, those that it is
  part of add up to its own. With whole candidates they are whole too.
  """

  slots: list[tuple[str, int, int]]  # (group, edge, candidate)
  entries: list[tuple[Any, tuple[int, ...]]]  # (choices, index)
  # Each f64[constraints, variables], slots and then entries.
  rows: np.ndarray  # one candidate an edge
  cuts: np.ndarray  # at least one of these
  kept: np.ndarray  # so many of these
  ties: np.ndarray  # entries of a candidate, less the candidate: 0
  counts: np.ndarray  # f64[sets]

  @property
  def integrality(self) -> np.ndarray:
    """f64[variables]: 1 for those that are whole by themselves."""
    return np.repeat([1.0, 0.0], [len(self.slots), len(self.entries)])

  def over_slots(self, values, rest: float) -> np.ndarray:
    """f64[variables]: values of the slots, and `rest` for the entries."""
    return np.r_[values, np.full(len(self.entries), rest)]

  def choices(self, space, x):
    chosen = {n: np.zeros(g.edges, np.int32) for n, g in space.groups.items()}
    for (name, edge, k), on in zip(self.slots, x, strict=False):
      if on > 0.5:
        chosen[name][edge] = k
    return chosen

  def table(self, costs) -> np.ndarray:
    """f64[variables]: what each adds to an additive metric."""
    joint = {}
    for product in costs.products:
      joint[product.choices] = joint.get(product.choices, 0) + product.values
    singles = [
      costs.tables[n][e, k] if n in costs.tables else 0.0
      for n, e, k in self.slots
    ]
    combined = [
      joint[places][index] if places in joint else 0.0
      for places, index in self.entries
    ]
    return np.array([*singles, *combined])

  def constraints(self, over: int = 0) -> list[LinearConstraint]:
    """What every network keeps; `over` more variables do not matter."""
    ones = np.ones(len(self.rows))
    found = [
      (self.rows, ones, ones),
      (self.kept, self.counts, self.counts),
      (self.cuts, 1.0, np.inf),
      (self.ties, 0.0, 0.0),
    ]
    return [
      LinearConstraint(
        sparse.csr_array(np.pad(matrix, ((0, 0), (0, over)))), low, high
      )
      for matrix, low, high in found
      if len(matrix)
    ]


def _programme(space, costs):
  slots, edges = [], []
  for name in space.groups:
    mask = np.asarray(space.masks[name])
    for edge, k in zip(*np.nonzero(mask), strict=True):
      slots.append((name, int(edge), int(k)))
      edges.append((name, int(edge)))
  places = dict.fromkeys(p.choices for c in costs for p in c.products)
  shut = {n: np.asarray(mask) for n, mask in space.masks.items()}
  entries = [
    (choices, index)
    for choices in places
    for index in itertools.product(
      *(np.flatnonzero(shut[g][row]).tolist() for g, row in choices)
    )
  ]
  size = len(slots) + len(entries)
  order = {edge: i for i, edge in enumerate(dict.fromkeys(edges))}
  rows = np.zeros((len(order), size))
  for i, edge in enumerate(edges):
    rows[order[edge], i] = 1.0
  cuts = [
    [
      n == group and e in cut and space.groups[n].candidates[k] != "none"
      for n, e, k in slots
    ]
    for group, found in space.cuts.items()
    for cut in found
  ]
  sets = [(n, *one) for n, found in kept_of(space).items() for one in found]
  kept = [
    [
      n == group and e in edges and space.groups[n].candidates[k] != "none"
      for n, e, k in slots
    ]
    for group, edges, _ in sets
  ]

  def matrix(found):
    matrix = np.zeros((len(found), size))
    matrix[:, : len(slots)] = np.reshape(found, (len(found), len(slots)))
    return matrix

  return _Programme(
    slots,
    entries,
    rows,
    matrix(cuts),
    matrix(kept),
    _ties(slots, entries),
    np.array([count for *_, count in sets], np.float64),
  )


def _ties(slots, entries):
  """f64[ties, variables], see `_Programme`."""
  of_slot = {slot: i for i, slot in enumerate(slots)}
  ties: dict[Any, int] = {}
  cells = []
  for column, (choices, index) in enumerate(entries, start=len(slots)):
    for (group, row), k in zip(choices, index, strict=True):
      slot = (group, row, k)
      tie = ties.setdefault((choices, slot), len(ties))
      cells.append((tie, column, 1.0))
      cells.append((tie, of_slot[slot], -1.0))
  found = np.zeros((len(ties), len(slots) + len(entries)))
  for tie, column, value in cells:
    found[tie, column] = value
  return found


def decide(
  space: Space, weights: Weights, limits: Sequence[Limit] = ()
) -> Architecture:
  """The most probable architecture whose metrics keep their limits, exactly.

  Maximises sum log weights over one candidate an edge by an integer programme
  (HiGHS, no gap), after which every limit is checked in float64. Where a
  metric's form is "other", or a user's own is no sum, architectures are visited
  by falling probability instead; after 100,000 a local search goes on, see
  `ranking`. On edges of which a fixed number is kept (`kept`)
  `none` has no say: those that are kept are the most probable without it, for
  two a node DARTS's rule (Liu et al. 2019, section 2.4).

  Args:
    space: the space.
    weights: f32[E, K] a group, as `Relaxation.expect` gives them.
    limits: constraints, or pairs (metric, upper bound).

  Returns:
    The architecture.

  Raises:
    InputError: no architecture keeps the limits; names the nearest values.
  """
  pairs = [
    (item.metric, item.limit) if isinstance(item, Constraint) else item
    for item in limits
  ]
  pairs = [(resolved(space, metric), bound) for metric, bound in pairs]
  if any(metric.form == "other" for metric, _ in pairs):
    return ranking.decide(space, weights, pairs, Architecture, SMALLEST_WEIGHT)
  peaks = [
    (m, float(b), largest_costs(space, m)) for m, b in pairs if m.form == "max"
  ]
  pairs = [(m, b) for m, b in pairs if m.form in ADDITIVE]
  costs = [additive_costs(space, metric) for metric, _ in pairs]
  bounds = np.array([float(limit) for _, limit in pairs])
  programme = _programme(space, costs)
  logs = log_weights(space, weights, SMALLEST_WEIGHT)
  score = [logs[n][e, k] for n, e, k in programme.slots]
  score = programme.over_slots(score, 0.0)
  constraints = programme.constraints()
  highest = _open(space, programme, peaks)
  table = _scaled(programme, costs, bounds)
  if pairs:
    room = np.array(
      [(b - c.constant) / _scale(b) for b, c in zip(bounds, costs, strict=True)]
    )
    constraints.append(LinearConstraint(table, -np.inf, room))
  for _ in itertools.count():
    solved = milp(
      -score,
      constraints=constraints,
      integrality=programme.integrality,
      bounds=Bounds(0, highest),
      options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
      raise _infeasible(
        space, programme, pairs, costs, bounds, table, peaks, highest
      )
    found = Architecture(space, programme.choices(space, solved.x))
    x = np.round(solved.x) * programme.integrality
    conflict = _conflict(space, programme, peaks, found)
    if conflict is not None:
      constraints.append(
        LinearConstraint(conflict[None], -np.inf, conflict.sum() - 1)
      )
    elif all(metric.exact(found) <= bound for metric, bound in pairs):
      return found
    else:
      # Over the limit by less than the solver's tolerance: rule it out alone.
      constraints.append(LinearConstraint(x[None], -np.inf, x.sum() - 1))
  raise AssertionError("unreachable")


def _open(space, programme, peaks):
  """f64[variables]: 0 for what alone is over a "max" limit."""
  # Where some edges are kept, no network has every choice at its smallest.
  least = "the smallest reachable value is"
  least = "nothing is below" if kept_of(space) else least
  for metric, bound, costs in peaks:
    if costs.constant > bound:
      raise InputError(
        f"--limit {metric.name}={bound:g}",
        "no architecture of the space keeps it",
        f"{least} {metric.name}={costs.constant:.6g}"
        + (f" {metric.unit}" if metric.unit else ""),
      )
  found = [
    float(all(c.tables[n][e, k] <= bound for _, bound, c in peaks))
    for n, e, k in programme.slots
  ]
  return programme.over_slots(found, 1.0)


def _conflict(space, programme, peaks, found):
  """f64[variables]: choices that break a "max" limit together; None if none do.

  Choices go back to their smallest as long as the limit stays broken: what is
  left breaks it whatever the others are.
  """
  for metric, bound, costs in peaks:
    if metric.exact(found) <= bound:
      continue
    rows = {n: r.copy() for n, r in found.choices.items()}
    guilty = []
    for name, row in rows.items():
      for edge in range(len(row)):
        kept, row[edge] = row[edge], costs.base[name][edge]
        if metric.exact(Architecture(space, rows)) <= bound:
          row[edge] = kept
          guilty.append((name, edge, int(kept)))
    found = [float(slot in guilty) for slot in programme.slots]
    return programme.over_slots(found, 0.0)
  return None


def _scale(bound):
  return max(abs(bound), 1e-30)


def _scaled(programme, costs, bounds):
  size = len(programme.slots) + len(programme.entries)
  return np.array(
    [programme.table(c) / _scale(b) for c, b in zip(costs, bounds, strict=True)]
  ).reshape(len(costs), size)


def _infeasible(space, programme, pairs, costs, bounds, table, peaks, highest):
  """The error that names the values nearest to the limits."""
  if not pairs:
    asked = " ".join(f"{m.name}={b:g}" for m, b, _ in peaks)
    least = ", ".join(
      f"{m.name}={c.constant:.6g} {m.unit}".strip() for m, _, c in peaks
    )
    return InputError(
      f"--limit {asked}",
      "no architecture of the space keeps it",
      f"raise it; nothing is below {least}",
    )
  size = len(programme.slots) + len(programme.entries)
  excess = np.zeros(size + 1)
  excess[-1] = 1.0
  limits = np.pad(table, ((0, 0), (0, 1)), constant_values=-1.0)
  room = np.array(
    [(b - c.constant) / _scale(b) for b, c in zip(bounds, costs, strict=True)]
  )
  solved = milp(
    excess,
    constraints=[
      *programme.constraints(over=1),
      LinearConstraint(limits, -np.inf, room),
    ],
    integrality=np.r_[programme.integrality, 0.0],
    bounds=Bounds(np.r_[np.zeros(size), -np.inf], np.r_[highest, np.inf]),
    options={"mip_rel_gap": 0.0},
  )
  asked = " ".join(
    f"{m.name}={b:g}" for m, b in [*pairs, *((m, b) for m, b, _ in peaks)]
  )
  if solved.x is None:
    return InputError(f"--limit {asked}", "no architecture keeps them together")
  choices = programme.choices(space, solved.x)
  values = ", ".join(
    f"{m.name}={float(c.of(choices)):.6g}{' ' + m.unit if m.unit else ''}"
    for (m, _), c in zip(pairs, costs, strict=True)
  )
  kind = "smallest" if len(pairs) == 1 else "nearest"
  return InputError(
    f"--limit {asked}",
    "no architecture of the space keeps it",
    f"the {kind} reachable value is {values}"
    if len(pairs) == 1
    else f"the {kind} reachable values are {values}",
  )
