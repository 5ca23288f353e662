"""What every search space offers, architectures, and the exact decision.

A space is a frozen dataclass; a user's own needs no base class, only the
functions of `Space`. See `plan.py` for the machinery that staged spaces
share.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

from nasjax.errors import InputError, nearest
from nasjax.hardware.workload import SpaceWorkloads
from nasjax.spaces import ranking
from nasjax.types import (
  Array,
  Choices,
  Constraint,
  Group,
  Key,
  Masks,
  Metric,
  Sampled,
  Weights,
)

# Weights below this count as this: a candidate with no probability can still
# be needed to meet a limit.
SMALLEST_WEIGHT = 1e-30

Limit = Constraint | tuple[Metric, float]


class Architecture(NamedTuple):
  """A decided network (genotype): choices i32[E] for each group."""

  space: Any
  choices: dict[str, np.ndarray]

  def names(self) -> dict[str, list[str]]:
    """The candidates chosen, by name."""
    return {
      group: [self.space.groups[group].candidates[int(k)] for k in row]
      for group, row in self.choices.items()
    }

  def one_hot(self) -> dict[str, np.ndarray]:
    """Weights f32[E, K] that say the same."""
    return {
      group: np.eye(len(self.space.groups[group].candidates), dtype=np.float32)[
        row
      ]
      for group, row in self.choices.items()
    }

  def sampled(self) -> Sampled:
    """For `space.apply`: only the chosen candidates are executed."""
    paths = {
      g: np.asarray(r, np.int32)[:, None] for g, r in self.choices.items()
    }
    return Sampled(self.one_hot(), paths)


class Space(Protocol):
  """The contract of a search space."""

  @property
  def name(self) -> str:
    """As the command line spells it."""

  @property
  def arguments(self) -> dict[str, Any]:
    """What to call the space's constructor with to get this one again."""

  @property
  def groups(self) -> dict[str, Group]:
    """The choices: edges and candidate names of each group."""

  @property
  def masks(self) -> Masks:
    """bool[E, K] a group: the candidates that exist."""

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K] a group: candidates without parameters that do nothing."""

  @property
  def cuts(self) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """Sets of edges that may not all be `none`, by group; mostly empty."""

  def init(self, key: Key) -> dict:
    """Variables of the supernet: {"params", "batch_stats"}."""

  def apply(
    self, variables: Mapping, sampled: Sampled, images: Array, train: bool
  ) -> tuple[Array, Any]:
    """Runs the supernet: (logits f32[B, classes], new batch statistics)."""

  def build(self, architecture: Architecture) -> Any:
    """The decided network as a flax module, called with (images, train)."""

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`."""

  def workloads(self) -> SpaceWorkloads:
    """Which workloads each choice stands for, and the fixed ones."""

  def decide(
    self, weights: Weights, limits: Sequence[Limit] = ()
  ) -> Architecture:
    """The most probable architecture within the limits."""


def architecture(space: Space, choices: Mapping[str, Any]) -> Architecture:
  """An architecture from indices or candidate names.

  Args:
    space: the space.
    choices: for each group, E indices or E names.

  Returns:
    The architecture.

  Raises:
    InputError: a group is missing or unknown, has another number of edges, or
      a choice does not exist.
  """
  if set(choices) != set(space.groups):
    raise InputError(
      "choices",
      f"has groups {sorted(choices)}",
      f"the space {space.name} has {sorted(space.groups)}",
    )
  decided = {}
  for name, group in space.groups.items():
    row = list(choices[name])
    if len(row) != group.edges:
      raise InputError(
        f"choices.{name}", f"has {len(row)} choices, {group.edges} are needed"
      )
    mask = np.asarray(space.masks[name])
    indices = []
    for edge, choice in enumerate(row):
      where = f"choices.{name}[{edge}]"
      if isinstance(choice, str):
        if choice not in group.candidates:
          raise InputError(
            where,
            f"unknown candidate {choice!r}",
            nearest(choice, group.candidates),
          )
        choice = group.candidates.index(choice)
      if not 0 <= int(choice) < len(group.candidates) or not mask[edge][choice]:
        raise InputError(where, f"candidate {choice} does not exist here")
      indices.append(int(choice))
    decided[name] = np.array(indices, np.int32)
  return Architecture(space, decided)


def check_connected(architecture: Architecture) -> None:
  """Refuses a network whose output does not depend on its input.

  Raises:
    InputError: `none` was chosen all across one of the space's cuts.
  """
  space = architecture.space
  for group, cuts in space.cuts.items():
    names = architecture.names()[group]
    for cut in cuts:
      if all(names[edge] == "none" for edge in cut):
        raise InputError(
          f"choices.{group}",
          "no way leads from the input to the output: choices"
          f" {', '.join(map(str, cut))} are none",
          "choose an operation for one of them",
        )


def random_choices(
  space: Space, rng: np.random.Generator, count: int
) -> dict[str, np.ndarray]:
  """Uniform random choices, i32[count, E] a group, among those that exist."""
  drawn = {}
  for name, group in space.groups.items():
    mask = np.asarray(space.masks[name])
    scores = rng.random((count, group.edges, len(group.candidates)))
    drawn[name] = np.where(mask, scores, -1.0).argmax(-1).astype(np.int32)
  return drawn


class AdditiveCosts(NamedTuple):
  """A metric as constant + the sum of one table entry an edge (float64)."""

  constant: float
  tables: dict[str, np.ndarray]  # f64[E, K]

  def of(self, choices: Choices) -> np.ndarray:
    """Values f64[...] of choices i32[..., E]."""
    value = np.float64(self.constant)
    for name, table in self.tables.items():
      row = np.asarray(choices[name])
      value = value + table[np.arange(len(table)), row].sum(-1)
    return value

  def arrays(self) -> list[np.ndarray]:
    """All that it consists of."""
    return [np.asarray(self.constant), *self.tables.values()]

  def extremes(self, masks: Masks) -> tuple[float, float]:
    """Smallest and largest value over all architectures."""
    low = high = self.constant
    for name, table in self.tables.items():
      mask = np.asarray(masks[name])
      low += np.where(mask, table, np.inf).min(-1).sum()
      high += np.where(mask, table, -np.inf).max(-1).sum()
    return float(low), float(high)


class NotAdditiveError(ValueError):
  """A metric is not a sum over the choices."""


def additive_costs(space: Space, metric: Metric) -> AdditiveCosts:
  """Reads a metric's tables off its values at single-choice changes.

  Args:
    space: the space.
    metric: a metric of it.

  Returns:
    Its additive form.

  Raises:
    NotAdditiveError: the metric is not a sum over the choices.
  """
  masks = {n: np.asarray(m) for n, m in space.masks.items()}
  base = {n: m.argmax(-1).astype(np.int32) for n, m in masks.items()}
  start = float(metric.exact(Architecture(space, base)))
  tables = {}
  for name, mask in masks.items():
    table = np.zeros(mask.shape)
    for edge, k in zip(*np.nonzero(mask), strict=True):
      row = base[name].copy()
      row[edge] = k
      changed = Architecture(space, {**base, name: row})
      table[edge, k] = float(metric.exact(changed)) - start
    tables[name] = table
  costs = AdditiveCosts(start, tables)
  drawn = random_choices(space, np.random.default_rng(0), 8)
  for i in range(8):
    choices = {n: rows[i] for n, rows in drawn.items()}
    value = float(metric.exact(Architecture(space, choices)))
    if not np.isclose(value, costs.of(choices), rtol=1e-6, atol=1e-9):
      raise NotAdditiveError(f"{metric.name} is not additive over the choices")
  return costs


def costs_of(
  space: Space, metric: Metric, drawn: Choices
) -> AdditiveCosts | ranking.SampledCosts:
  """The costs of architectures, in additive form where there is one.

  Args:
    space: the space.
    metric: a metric of it.
    drawn: choices i32[N, E] a group, by which the extremes of another metric
      are told.
  """
  try:
    return additive_costs(space, metric)
  except NotAdditiveError:
    return ranking.SampledCosts(space, metric, Architecture, drawn)


class _Programme(NamedTuple):
  """The decision as an integer programme over one variable a candidate."""

  slots: list[tuple[str, int, int]]  # (group, edge, candidate)
  rows: np.ndarray  # f64[edges, slots]: one candidate an edge
  cuts: np.ndarray  # f64[cuts, slots]: at least one of these

  def choices(self, space, x):
    chosen = {n: np.zeros(g.edges, np.int32) for n, g in space.groups.items()}
    for (name, edge, k), on in zip(self.slots, x, strict=False):
      if on > 0.5:
        chosen[name][edge] = k
    return chosen


def _programme(space):
  slots, edges = [], []
  for name in space.groups:
    mask = np.asarray(space.masks[name])
    for edge, k in zip(*np.nonzero(mask), strict=True):
      slots.append((name, int(edge), int(k)))
      edges.append((name, int(edge)))
  order = {edge: i for i, edge in enumerate(dict.fromkeys(edges))}
  rows = np.zeros((len(order), len(slots)))
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
  cuts = np.array(cuts, np.float64).reshape(len(cuts), len(slots))
  return _Programme(slots, rows, cuts)


def decide(
  space: Space, weights: Weights, limits: Sequence[Limit] = ()
) -> Architecture:
  """The most probable architecture whose metrics keep their limits, exactly.

  Maximises sum log weights over one candidate an edge by an integer programme
  (HiGHS, no gap), after which every limit is checked in float64. Where a
  metric is no sum over the choices, architectures are visited by falling
  probability instead, 100,000 at most.

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
  weights = {n: np.asarray(w, np.float64) for n, w in weights.items()}
  try:
    costs = [additive_costs(space, metric) for metric, _ in pairs]
  except NotAdditiveError:
    return ranking.decide(space, weights, pairs, Architecture, SMALLEST_WEIGHT)
  bounds = np.array([float(limit) for _, limit in pairs])
  programme = _programme(space)
  score = np.array(
    [
      np.log(max(weights[n][e, k], SMALLEST_WEIGHT))
      for n, e, k in programme.slots
    ]
  )
  ones = np.ones(len(programme.rows))
  constraints = [
    LinearConstraint(programme.rows, ones, ones),
    *_uncut(programme.cuts),
  ]
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
      integrality=np.ones(len(score)),
      bounds=Bounds(0, 1),
      options={"mip_rel_gap": 0.0},
    )
    if solved.x is None:
      raise _infeasible(space, programme, pairs, costs, bounds, table)
    found = Architecture(space, programme.choices(space, solved.x))
    if all(metric.exact(found) <= bound for metric, bound in pairs):
      return found
    # Over the limit by less than the solver's tolerance: rule it out alone.
    x = np.round(solved.x)
    constraints.append(LinearConstraint(x[None], -np.inf, x.sum() - 1))
  raise AssertionError("unreachable")


def _uncut(cuts):
  return [LinearConstraint(cuts, 1.0, np.inf)] if len(cuts) else []


def _scale(bound):
  return max(abs(bound), 1e-30)


def _scaled(programme, costs, bounds):
  return np.array(
    [
      [c.tables[n][e, k] / _scale(b) for n, e, k in programme.slots]
      for c, b in zip(costs, bounds, strict=True)
    ]
  ).reshape(len(costs), len(programme.slots))


def _infeasible(space, programme, pairs, costs, bounds, table):
  """The error that names the values nearest to the limits."""
  size = len(programme.slots)
  excess = np.zeros(size + 1)
  excess[-1] = 1.0
  ones = np.ones(len(programme.rows))
  rows = np.pad(programme.rows, ((0, 0), (0, 1)))
  limits = np.pad(table, ((0, 0), (0, 1)), constant_values=-1.0)
  room = np.array(
    [(b - c.constant) / _scale(b) for b, c in zip(bounds, costs, strict=True)]
  )
  solved = milp(
    excess,
    constraints=[
      LinearConstraint(rows, ones, ones),
      *_uncut(np.pad(programme.cuts, ((0, 0), (0, 1)))),
      LinearConstraint(limits, -np.inf, room),
    ],
    integrality=np.r_[np.ones(size), 0.0],
    bounds=Bounds(np.r_[np.zeros(size), -np.inf], np.r_[np.ones(size), np.inf]),
    options={"mip_rel_gap": 0.0},
  )
  asked = " ".join(
    f"{m.name}={b:g}" for (m, _), b in zip(pairs, bounds, strict=True)
  )
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


def count_skips(architecture: Architecture) -> tuple[int, int]:
  """How many of the choices are skips or none, and of how many."""
  skips = total = 0
  for name, row in architecture.choices.items():
    mask = np.asarray(architecture.space.skips[name])
    skips += int(mask[np.arange(len(row)), row].sum())
    total += len(row)
  return skips, total
