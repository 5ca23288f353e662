"""What a decided network is compared with: chance, and a network by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax import run_folder
from nasjax.errors import InputError
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as spaces
from nasjax.spaces.space import Architecture
from nasjax.types import Metric

__all__ = [
  "Column",
  "compare",
  "mobilenet_like",
  "random_within",
  "row_of",
  "write",
]

_RANDOM = 10
_DRAWN = 20_000
_TRIED = 2000  # random architectures within the sums, for the other limits
# MobileNetV2's block (Sandler et al. 2018, section 3.3), by the names of the
# spaces that have it whole.
_BLOCKS = ("inverted_residual", "k3_e6", "mb3_k3")
_SKIPS = ("skip_connect", "skip", "identity")
# ... and by its parts, the nearest first.
_PARTS = {
  "width": ("1", "0.75", "0.5", "0.35"),
  "depth": ("keep", "skip"),
  "expansion": ("6", "5", "4", "3", "2", "1"),
  "kernel": ("3", "5", "7"),
  "squeeze_excite": ("no", "yes"),
  "activation": ("relu6", "relu", "hswish"),
}
_OTHERS = 8  # rank of a candidate that MobileNetV2 does not have

Bounds = Sequence[tuple[Metric, float]]


class Column(NamedTuple):
  """A network of the comparison."""

  title: str
  architecture: Architecture
  accuracy: float  # on validation images


def compare(
  problem,
  own: Column,
  limits: Bounds,
  accuracy: Callable[[Architecture], float],
  chance: tuple[str, Architecture] | None = None,
) -> list[Column]:
  """The network and its rivals under the same limits.

  Args:
    problem: what was searched.
    own: what was decided.
    limits: what it keeps.
    accuracy: scores an architecture as `own` was scored.
    chance: title and best network of a random search; None: of ten random
      architectures within the limits.

  Returns:
    `own` first.
  """
  if chance is None:
    drawn = random_within(problem, limits, _RANDOM)
    scored = [
      Column(f"best of {_RANDOM} random", one, accuracy(one)) for one in drawn
    ]
    columns = [own, max(scored, key=lambda column: column.accuracy)]
  else:
    columns = [own, Column(*chance, accuracy(chance[1]))]
  by_hand = mobilenet_like(problem.space, limits)
  if by_hand is not None:
    columns.append(Column("MobileNetV2-like", by_hand, accuracy(by_hand)))
  return columns


def mobilenet_like(space: Any, limits: Bounds) -> Architecture | None:
  """The network within the limits that is nearest to MobileNetV2.

  Its blocks wherever there is room, else skips; where expansion, kernel and the
  like are chosen apart, the fewest steps away from expansion 6, kernel 3 and
  neither squeeze-and-excite nor h-swish.

  Args:
    space: the space.
    limits: what it keeps.

  Returns:
    The network; None where the space has no such block, or where none was
    found within the limits.
  """
  weights, known = {}, False
  for name, group in space.groups.items():
    whole = [c for part in _BLOCKS for c in group.candidates if part in c][:1]
    skips = [c for c in _SKIPS if c in group.candidates]
    order = [*whole, *skips] if whole else list(_PARTS.get(name, ()))
    known = known or bool(whole) or "6" in order
    ranks = [
      order.index(c) if c in order else _OTHERS for c in group.candidates
    ]
    weights[name] = np.asarray(space.masks[name]) * 10.0 ** -np.array(ranks)
  if not known:
    return None
  try:
    return space.decide(weights, limits)
  except InputError:
    # A limit that is no sum of the choices: only so many are tried.
    return None


def random_within(problem, limits: Bounds, count: int) -> list[Architecture]:
  """Random architectures within the limits."""
  rng = np.random.default_rng(problem.config.seed + 1)
  drawn = spaces.random_choices(problem.space, rng, _DRAWN)
  good = np.ones(_DRAWN, bool)
  for metric, bound in limits:
    if metric.form in cost_tables.ADDITIVE:
      good &= problem.costs[metric.name].of(drawn) <= bound
  found = []
  for i in np.flatnonzero(good)[:_TRIED]:
    picked = {n: r[i] for n, r in drawn.items()}
    picked = Architecture(problem.space, picked)
    if all(m.exact(picked) <= bound for m, bound in limits):
      found.append(picked)
    if len(found) == count:
      break
  while len(found) < count:
    # Limits so tight that chance does not meet them: decide random weights.
    weights = {
      n: rng.dirichlet(np.ones(np.shape(m)[1]), np.shape(m)[0]) * m
      for n, m in problem.space.masks.items()
    }
    found.append(problem.space.decide(weights, limits))
  return found


def row_of(problem, architecture: Architecture) -> dict[str, Any]:
  """An architecture and its metrics as columns of a CSV file."""
  names = [n for row in architecture.names().values() for n in row]
  return {"architecture": "|".join(names)} | {
    n: float(m.exact(architecture)) for n, m in problem.metrics.items()
  }


def write(
  problem, groups: Sequence[tuple[dict[str, Any], Sequence[Column]]], folder
) -> None:
  """Writes baselines.csv, a row a network.

  Args:
    problem: what was searched.
    groups: what goes before each row of a comparison, and the comparison.
    folder: of the run.
  """
  rows = [
    {
      **before,
      "network": column.title,
      **row_of(problem, column.architecture),
      "valid_accuracy": column.accuracy,
    }
    for before, columns in groups
    for column in columns
  ]
  run_folder.write_atomic(
    Path(folder) / run_folder.BASELINES,
    run_folder.csv_text(list(rows[0]), rows),
  )
