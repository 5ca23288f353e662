"""What a search decides: one network, or a front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import pareto, run_folder
from nasjax import search as searches
from nasjax.cli import baselines, hints, low_bits, parts, tables, training
from nasjax.cli import metrics as metric_parts
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
  bits = low_bits.described(problem.config)
  metrics["valid_accuracy"] = {
    "value": accuracy,
    "unit": "",
    "source": "supernet's weights"
    + (f" ({bits})" if bits else "")
    + f", {problem.scored} validation images",
  }
  value = genotype.to_json(
    decided,
    metrics=metrics,
    limits={m.name: bound for m, bound in limits},
    seed=problem.config.seed,
    classes=problem.config.classes,
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


def decide_front(
  problem, relaxation, state, history, folder: Path, stop
) -> None:
  """Decides every member; writes front.csv and a genotype.json for each.

  `baselines.csv` compares each with others under its own limits.
  `members/N/genotype.json` is member N's; the run's own is the balanced one.

  Args:
    problem: what was searched.
    relaxation: of the search.
    state: at its end.
    history: rows of metrics.csv.
    folder: of the run.
    stop: says when a signal has come.
  """
  accuracy = training.scorer(problem, state)
  values, rows, compared, members = [], [], [], []

  def score(architecture):
    stop.check()
    return accuracy(architecture)

  for number, own in enumerate(searches.members(state)):
    limits = problem.members[number]
    weights = training.expected(relaxation, own)
    decided = problem.space.decide(weights, limits)
    expected = {
      n: float(m.expected(weights)) for n, m in problem.metrics.items()
    }
    members.append(decided)
    hit = score(decided)
    column = baselines.Column("decided", decided, hit)
    columns = baselines.compare(problem, column, limits, score)
    compared.append(({"member": number}, columns))
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
  baselines.write(problem, compared, folder)
  _write_volumes(problem, history, points, folder)
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
  _show_front(problem, rows, members, names, folder)


def _write_volumes(problem, history, decided, folder) -> None:
  """Writes hypervolume.csv: what the members' expectations cover, by epoch.

  Of (error, what is limited over the most expensive random architecture), up
  to (1, 1, ...). Epochs that warm the weights up are left out.

  Args:
    problem: what was searched.
    history: rows of metrics.csv.
    decided: f[P, 1 + M] of the decided networks.
    folder: of the run.
  """
  names = [m.name for m, _ in problem.limits]
  if not names:
    return
  scale = [1.0] + [
    max(float(problem.costs[n].of(problem.random).max()), 1e-30) for n in names
  ]

  def volume(points):
    return pareto.hypervolume(points / np.array(scale), np.ones(len(scale)))

  rows = []
  for row in history:
    found = [
      [row[f"{n}__{i}"] for n in ("valid_accuracy", *_expected(names))]
      for i in range(len(decided))
    ]
    if any("" in own for own in found):
      continue
    points = np.array(found, float)
    points[:, 0] = 1.0 - points[:, 0]
    rows.append({"epoch": row["epoch"], "hypervolume": volume(points)})
  if rows:
    run_folder.write_atomic(
      folder / run_folder.HYPERVOLUME, run_folder.csv_text(list(rows[0]), rows)
    )
  print(f"hypervolume of the decided front {volume(decided):.4f}", flush=True)


def _expected(names) -> list[str]:
  return [f"expected_{name}" for name in names]


def _show_front(problem, rows, decided, names, folder) -> None:
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
  if said := hints.dominated(rows):
    console.print(f"note: {said}", highlight=False)
  for row, member, limits in zip(rows, decided, problem.members, strict=True):
    for line in hints.unfilled(problem, member, limits):
      said = f"note: member {row['member']}: {escape(line)}"
      console.print(said, highlight=False)
  tables.show_scoring(problem, console)
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
  accuracy = training.scorer(problem, state)
  shared = [accuracy(a) for a in sample]
  train = ranking.standalone(
    problem.space,
    problem.train,
    problem.valid,
    steps=problem.steps,
    batch_size=config.batch_size,
    learning_rate=config.learning_rate,
    seed=config.seed,
    most=problem.scored,
    low_bits=parts.low_bits(config),
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
