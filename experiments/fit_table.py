"""A per-choice table from whole networks: how well it ranks all the others.

python experiments/fit_table.py --networks nasbench201_devices.csv.gz \
    --column latency_ms__raspi4 --space nasbench201 --samples 60 --draws 5

Mean Spearman on all cells not seen, predictions rounded to 1e-4 (5 draws):
fpga 1.0000, gold_6226 .9853, raspi4 .9504 (the additive table of all 15,625
cells reaches .9427 there; a table that counts only edges that reach the
output, which cross-validation mostly finds, more). With 400 FBNet networks
(`--space fbnet --samples 400 --lut fbnet_lut.csv --lut-device raspi4`):
entries within 9e-7 ms and totals within 4e-6 ms.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import tables

from nasjax.hardware import choices as choice_tables
from nasjax.hardware import fit as fitting
from nasjax.hardware.scores import prediction_errors


def run(arguments) -> dict:
  problem = tables.Problem(arguments.space)
  columns = tables.read(arguments.networks)
  values = tables.column(columns, arguments.column)
  choices = tables.choices(columns, problem, arguments.networks)
  if not 2 <= arguments.samples < len(values):
    raise SystemExit(f"error: --samples must be 2 to {len(values) - 1}")
  found = []
  for draw in range(arguments.draws):
    rng = np.random.default_rng([arguments.seed, draw])
    order = rng.permutation(len(values))
    seen, rest = order[: arguments.samples], order[arguments.samples :]
    fitted = fitting.fit(
      problem.groups,
      tables.take(choices, seen),
      values[seen],
      ends=problem.ends,
      ties=problem.ties,
    )
    table = choice_tables.ChoiceTable(
      arguments.networks,
      {},
      "latency_ms",
      fitted.constant,
      fitted.tables,
      problem.groups,
      fitted.counted,
    )
    # Ties are ties: what differs by rounding alone is not ranked.
    predicted = np.round(table.of(choices, problem.ends), 4)
    errors = prediction_errors(predicted[rest], values[rest])
    row = {
      "draw": draw,
      "spearman": errors.spearman,
      "within_5_percent": errors.within_5_percent,
      "within_10_percent": errors.within_10_percent,
      "rmse": errors.rmse,
      "largest_error": float(np.abs(predicted[rest] - values[rest]).max()),
      "counted": fitted.counted,
      "strength": fitted.strength,
      "cross_validated": str(fitted.errors),
    }
    if arguments.lut:
      row |= compare(table, arguments.lut, arguments.lut_device, choices)
    found.append(row)
    print(json.dumps(row) if arguments.json else "  ".join(
      f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}"
      for k, v in row.items()
    ))  # fmt: skip
  return {
    "mean_spearman": float(np.mean([r["spearman"] for r in found])),
    "within_10_percent": float(
      np.mean([r["within_10_percent"] for r in found])
    ),
  }


def compare(table, path, device, choices) -> dict:
  """Largest differences from a known table `device,layer,op,..,latency_ms`."""
  reference = tables.layerwise(path, device, table.groups)
  ((group, known),) = reference.tables.items()
  difference = np.abs(reference.of(choices, {}) - table.of(choices, {}))
  return {
    "entries_off_ms": float(np.abs(known - table.tables[group]).max()),
    "constant_off_ms": abs(reference.constant - table.constant),
    "totals_off_ms": float(difference.max()),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--networks", required=True, metavar="FILE.csv[.gz]")
  parser.add_argument("--column", required=True)
  parser.add_argument("--space", required=True, help="nasbench201 or fbnet")
  parser.add_argument("--samples", type=int, default=60)
  parser.add_argument("--draws", type=int, default=5)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--lut", help="a known table to compare entries with")
  parser.add_argument("--lut-device", help="its device")
  parser.add_argument("--json", action="store_true", help="JSON lines")
  result = run(parser.parse_args())
  print(json.dumps(result))


if __name__ == "__main__":
  main()
