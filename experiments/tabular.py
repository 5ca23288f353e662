"""Searches a finished table of architectures and says how much of it it found.

python experiments/tabular.py --accuracy nasbench201_cifar10.csv.gz \
    --cost nasbench201_devices.csv.gz \
    --objectives error,latency_ms__raspi4 --strategy nsga2 --seeds 10 --json

Any table with a column `arch` does: NAS-Bench-201's strings, one digit a layer,
or words with spaces; `error` is 100 - `--accuracy-column`. The true
hypervolume is that of all architectures, each objective's range on 0..1 among
those whose error is below 100 - 100 / classes - 0.1 (the others learn nothing
and take no part), with reference 1. A unique evaluation is a unique
architecture. Random search at equal unique evaluations stands beside it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import moocore
import numpy as np
from tabular_strategies import Options, Table, reading
from tabular_strategies import random as random_search

from nasjax import pareto
from nasjax.errors import BAD_INPUT, InputError, one_line

_FOLDER = Path(__file__).parent / "tabular_strategies"
_SHARED = ("__init__", "guesses", "reading")
STRATEGIES = tuple(
  sorted(f.stem for f in _FOLDER.glob("*.py") if f.stem not in _SHARED)
)


class Measure(NamedTuple):
  """Scores sets of rows against the whole table."""

  points: np.ndarray  # f64[N, M], each objective's range on 0..1
  learns: np.ndarray  # bool[N]: those that take part
  front: np.ndarray  # f64[F, M], the true front without repeats
  volume: float  # its hypervolume

  def _points(self, rows):
    rows = np.asarray(rows)
    return self.points[rows[self.learns[rows]]]

  def ratio(self, rows) -> float:
    """Hypervolume over the true one."""
    one = np.ones(self.points.shape[1])
    return pareto.hypervolume(self._points(rows), one) / self.volume

  def igd_plus(self, rows) -> float:
    points = self._points(rows)
    if not len(points):
      return float("inf")
    return float(moocore.igd_plus(points, ref=self.front))

  def recall(self, rows) -> float:
    """The share of the true front's points that were found."""
    found = {tuple(p) for p in self._points(rows)}
    return sum(tuple(p) in found for p in self.front) / len(self.front)

  def evaluations_to(self, rows, ratio: float) -> int:
    """How many of the rows reach a ratio; one more than there are if none."""
    low, high = 0, len(rows) + 1
    while low + 1 < high:
      middle = (low + high) // 2
      if self.ratio(rows[:middle]) >= ratio:
        high = middle
      else:
        low = middle
    return high


def measure(table: Table) -> Measure:
  """How sets of rows are scored."""
  points, learns = table.objectives, table.violations <= 0
  if not learns.any():
    raise InputError("--accuracy", "no architecture is better than chance")
  low, high = points[learns].min(0), points[learns].max(0)
  points = (points - low) / np.where(high > low, high - low, 1.0)
  best = moocore.is_nondominated(points[learns], keep_weakly=False)
  front = points[learns][best]
  volume = pareto.hypervolume(front, np.ones(points.shape[1]))
  return Measure(points, learns, front, volume)


def run(arguments, strategy, options: Options) -> dict:
  table = reading.read(
    arguments.accuracy,
    arguments.accuracy_column,
    arguments.cost,
    arguments.objectives,
    arguments.classes,
    arguments.reward_column,
  )
  scores = measure(table)
  head = {
    "architectures": len(table.architectures),
    "true_hypervolume": scores.volume,
    "front": len(scores.front),
  }
  print(json.dumps(head) if arguments.json else head, flush=True)
  result: dict[str, list] = {}
  for seed in range(
    arguments.first_seed, arguments.first_seed + arguments.seeds
  ):
    key = jax.random.key(seed)
    found = strategy.search(table, key, options)
    _, first = np.unique(found.rows, return_index=True)
    rows = found.rows[np.sort(first)]
    apart = jax.random.fold_in(key, 1)  # not the draws of the strategy
    chance = random_search.rows(table, apart, len(rows))
    row = {
      "hv_ratio": scores.ratio(rows),
      "random_hv_ratio": scores.ratio(chance),
      "igd_plus": scores.igd_plus(rows),
      "recall": scores.recall(rows),
      "evaluations": len(rows),
      **found.report,
    }
    for name, figures in found.others.items():
      row[f"{name}_hv_ratio"] = scores.ratio(figures)
      row[f"{name}_evaluations"] = len(np.unique(figures))
      row[f"share_to_{name}"] = (
        scores.evaluations_to(rows, row[f"{name}_hv_ratio"])
        / row[f"{name}_evaluations"]
      )
    print(json.dumps({"seed": seed, **row}) if arguments.json else "  ".join(
      f"{k} {v:.5g}" for k, v in {"seed": seed, **row}.items()
    ), flush=True)  # fmt: skip
    for name, value in row.items():
      result.setdefault(name, []).append(value)
  means = {name: float(np.mean(values)) for name, values in result.items()}
  print(json.dumps({"mean": means}) if arguments.json else f"mean {means}")
  return result


def _positive(text: str) -> int:
  value = int(text)
  if value < 1:
    raise argparse.ArgumentTypeError(f"{value} is below 1")
  return value


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--accuracy", metavar="FILE.csv[.gz]")
  parser.add_argument("--accuracy-column", default="test_acc_200ep")
  parser.add_argument("--cost", metavar="FILE.csv[.gz]")
  parser.add_argument("--objectives", required=True, help="names with commas")
  parser.add_argument(
    "--reward-column",
    metavar="COLUMN",
    help="enas: an accuracy that its reward reads in place of the error",
  )
  parser.add_argument("--strategy", choices=STRATEGIES, default="nsga2")
  for name, value in Options()._asdict().items():
    parser.add_argument(
      "--" + name.replace("_", "-"), type=_positive, help=f"default {value}"
    )
  parser.add_argument("--classes", type=_positive, default=10)
  parser.add_argument("--seeds", type=_positive, default=10)
  parser.add_argument("--first-seed", type=int, default=0)
  parser.add_argument("--json", action="store_true", help="JSON lines")
  arguments = parser.parse_args()
  strategy = importlib.import_module(f"tabular_strategies.{arguments.strategy}")
  given = {
    name: value
    for name in Options._fields
    if (value := getattr(arguments, name)) is not None
  }
  for name in given:
    if name not in strategy.OPTIONS:
      flag = "--" + name.replace("_", "-")
      parser.error(f"{flag} is not used by --strategy {arguments.strategy}")
  if arguments.reward_column and arguments.strategy != "enas":
    parser.error(
      f"--reward-column is not used by --strategy {arguments.strategy}"
    )
  try:
    result = run(arguments, strategy, Options(**given))
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return BAD_INPUT
  print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
