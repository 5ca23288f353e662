"""A predictor on relaxed weights from few measured cells.

python experiments/architecture_predictor.py \
    --networks nasbench201_devices.csv.gz --column latency_ms__raspi4 \
    --samples 300 --draws 5

Mean Spearman on all other cells, 5 times 300: raspi4 .966, fpga .9995,
gold_6226 .988. Within two standard deviations: 91 to 97% on raspi4.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import tables

from nasjax import spaces
from nasjax.hardware import predictor
from nasjax.hardware.scores import prediction_errors


def run(arguments) -> dict:
  space, problem = spaces.nasbench201(), tables.Problem("nasbench201")
  columns = tables.read(arguments.networks)
  values = tables.column(columns, arguments.column)
  choices = tables.choices(columns, problem, arguments.networks)
  found = []
  for draw in range(arguments.draws):
    rng = np.random.default_rng([arguments.seed, draw])
    order = rng.permutation(len(values))
    seen, rest = order[: arguments.samples], order[arguments.samples :]
    made = predictor.architecture_predictor(
      space, tables.take(choices, seen), values[seen]
    )
    predicted, spread = made.of(tables.take(choices, rest))
    errors = prediction_errors(predicted, values[rest])
    noise = made.process.noise * made.process.variance
    spread = np.sqrt(spread**2 + noise * made.process.deviation**2)
    found.append(errors)
    row = {
      **errors._asdict(),
      "left_out_spearman": made.errors.spearman,
      "within_2_deviations": float(
        np.mean(np.abs(predicted - values[rest]) <= 2 * spread)
      ),
    }
    print(json.dumps(row) if arguments.json else row, flush=True)
  return {
    "mean_spearman": float(np.mean([e.spearman for e in found])),
    "within_10_percent": float(np.mean([e.within_10_percent for e in found])),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--networks", required=True, metavar="FILE.csv[.gz]")
  parser.add_argument("--column", required=True)
  parser.add_argument("--samples", type=int, default=300)
  parser.add_argument("--draws", type=int, default=5)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--json", action="store_true", help="JSON lines")
  print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
  main()
