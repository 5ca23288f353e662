"""What a search decides: one network, or a front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import data, pareto, run_folder
from nasjax import search as searches
from nasjax.cli import metrics as metric_parts
from nasjax.cli import parts, training
from nasjax.hardware import schedules
from nasjax.search import ranking
from nasjax.spaces import genotype
from nasjax.spaces import space as spaces


def described(problem, decided, expected, accuracy, limits) -> dict[str, Any]:
  """A decided network as genotype.json holds it.

  Args:
    problem: what was searched.
    decided: the architecture.
    expected: each metric's expected value before deciding; None where
      nothing was relaxed.
    accuracy: at the supernet's weights, on validation images.
    limits: pairs (metric, bound).

  Returns:
    JSON values.
  """
  metrics = {
    n: {"value": float(m.exact(decided)), "unit": m.unit, "source": m.source}
    for n, m in problem.metrics.items()
  }
  metrics["valid_accuracy"] = {
    "value": accuracy,
    "unit": "",
    "source": "supernet's weights",
  }
  value = genotype.to_json(
    decided,
    metrics=metrics,
    limits={m.name: bound for m, bound in limits},
    seed=problem.config.seed,
  )
  if expected is not None:
    value["expected"] = expected
  orders = _schedules(problem, decided)
  if orders:
    value["schedules"] = orders
  return value


def _schedules(problem, decided) -> dict[str, Any]:
  """By device: the execution order behind its peak memory."""
  in_place = metric_parts.in_place(problem.config)
  bits = {
    d.name: d.profile.bits
    for d in parts.devices(problem.config)
    if d.profile is not None
  }
  return {
    m.device: schedules.as_json(
      schedules.plan(decided, bits[m.device], in_place=in_place), m.source
    )
    for name, m in problem.metrics.items()
    if metric_parts.plain(name) == "peak_sram_bytes"
  }


def decide_front(problem, relaxation, state, folder: Path, stop) -> None:
  """Decides every member; writes front.csv and a genotype.json for each.

  `members/N/genotype.json` is member N's; the run's own is the balanced one.
  """
  accuracy = searches.supernet_accuracy(
    problem.space,
    training.variables(problem, state),
    problem.valid,
    data.statistics(problem.train),
  )
  values, rows = [], []
  for number, own in enumerate(searches.members(state)):
    stop.check()
    limits = problem.members[number]
    weights = training.expected(relaxation, own)
    decided = problem.space.decide(weights, limits)
    expected = {
      n: float(m.expected(weights)) for n, m in problem.metrics.items()
    }
    hit = accuracy(decided)
    values.append(described(problem, decided, expected, hit, limits))
    row: dict[str, Any] = {"member": number}
    row |= {f"limit_{m.name}": bound for m, bound in limits}
    row |= {f"expected_{m.name}": expected[m.name] for m, _ in limits}
    row |= {n: float(m.exact(decided)) for n, m in problem.metrics.items()}
    rows.append(row | {"valid_accuracy": hit})
  names = [m.name for m, _ in problem.limits]
  points = np.array(
    [[1.0 - r["valid_accuracy"], *map(r.get, names)] for r in rows]
  )
  best = pareto.front(points)
  chosen = int(best[pareto.choose(points[best])])
  for number, row in enumerate(rows):
    row["on_front"] = int(number in best)
    row["chosen"] = int(number == chosen)
  run_folder.write_atomic(
    folder / run_folder.FRONT, run_folder.csv_text(list(rows[0]), rows)
  )
  for number, value in enumerate(values):
    own = folder / run_folder.MEMBERS / str(number)
    own.mkdir(parents=True, exist_ok=True)
    run_folder.write_atomic(
      own / run_folder.GENOTYPE, run_folder.json_text(value)
    )
  # Last: with it the run is finished.
  run_folder.write_atomic(
    folder / run_folder.GENOTYPE, run_folder.json_text(values[chosen])
  )
  _show_front(rows, names, folder)


def _show_front(rows, names, folder) -> None:
  console = Console()
  table = Table("member", title="decided front")
  for name in names:
    for kind in ("limit", "expected", "decided"):
      table.add_column(f"{name}, {kind}", justify="right")
  for name in ("validation accuracy", "on the front", "chosen"):
    table.add_column(name, justify="right")
  for row in rows:
    cells = [str(row["member"])]
    for name in names:
      cells += [
        f"{row[key]:.4g}" for key in (f"limit_{name}", f"expected_{name}", name)
      ]
    cells.append(f"{row['valid_accuracy']:.4f}")
    cells += ["yes" if row[k] else "" for k in ("on_front", "chosen")]
    table.add_row(*cells)
  console.print(table)
  console.print(
    "accuracies at the supernet's weights, on validation images",
    highlight=False,
  )
  console.print(f"written to {escape(str(folder))}", highlight=False)


def check_ranking(problem, state, folder: Path, stop) -> None:
  """Compares the supernet's ranking with networks trained alone, if asked.

  Writes ranking.csv and prints Spearman's correlation.
  """
  count = problem.config.check_ranking
  if count is None:
    return
  config = problem.config
  rng = np.random.default_rng(config.seed + 2)
  drawn = spaces.random_choices(problem.space, rng, count)
  sample = [
    spaces.Architecture(problem.space, {n: r[i] for n, r in drawn.items()})
    for i in range(count)
  ]
  accuracy = searches.supernet_accuracy(
    problem.space,
    training.variables(problem, state),
    problem.valid,
    data.statistics(problem.train),
  )
  shared = [accuracy(a) for a in sample]
  train = ranking.standalone(
    problem.space,
    problem.train,
    problem.valid,
    steps=problem.steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
    seed=config.seed,
  )
  alone = []
  for architecture in sample:
    stop.check()
    alone.append(train(architecture))
  rows = [
    {"architecture": i, "supernet_accuracy": s, "standalone_accuracy": a}
    for i, (s, a) in enumerate(zip(shared, alone, strict=True))
  ]
  run_folder.write_atomic(
    folder / run_folder.RANKING, run_folder.csv_text(list(rows[0]), rows)
  )
  rho = ranking.rank_correlation(shared, alone)
  print(
    f"rank correlation of supernet and standalone accuracy: {rho:.3f}"
    f" (Spearman, {count} random architectures, {problem.steps} steps each)",
    flush=True,
  )


def row_of(problem, architecture: spaces.Architecture) -> dict[str, Any]:
  """An architecture and its metrics as columns of a CSV file."""
  names = [n for row in architecture.names().values() for n in row]
  return {"architecture": "|".join(names)} | {
    n: float(m.exact(architecture)) for n, m in problem.metrics.items()
  }


def baselines(problem, columns) -> list[dict[str, Any]]:
  """What was decided and what it is compared with, a row each.

  Args:
    problem: what was searched.
    columns: (title, architecture, accuracy on validation images) each.

  Returns:
    Rows of baselines.csv.
  """
  return [
    {"network": title, **row_of(problem, one), "valid_accuracy": accuracy}
    for title, one, accuracy in columns
  ]


def mobilenet_like(problem) -> spaces.Architecture | None:
  """Inverted residuals from the first edge on, as many as the limits let.

  The other edges skip. None where the space has no such candidate, or where
  not even skips keep the limits.
  """
  space = problem.space
  if len(space.groups) != 1:
    return None
  (group,) = space.groups
  names = list(space.groups[group].candidates)
  blocks = [n for n in names if "inverted_residual" in n]
  if not blocks or "skip_connect" not in names:
    return None
  block, skip = names.index(blocks[0]), names.index("skip_connect")
  mask = np.asarray(space.masks[group])
  edges = len(mask)
  for count in range(edges, -1, -1):
    row = np.where(np.arange(edges) < count, block, skip)
    if not mask[np.arange(edges), row].all():
      continue
    found = spaces.architecture(space, {group: row})
    if all(m.exact(found) <= bound for m, bound in problem.limits):
      return found
  return None
