"""A new device from ten networks: with and without other devices' tables.

python experiments/device_transfer.py --devices nasbench201_devices.csv.gz \
    --targets raspi4,fpga,gold_6226 --samples 10 --repeats 20 --json

Mean Spearman over all cells, 20 times 10 samples, 10 other devices as sources:

             transfer   no transfer
  raspi4        .947          .934
  fpga         .9986         .9964
  gold_6226    .9836         .9722
  mean          .976          .967

`no transfer` is the same method with a prior that knows nothing. On fpga,
whose latency is exactly a sum of operation counts, a least-squares fit of
counts is exact from 10 cells and no method can beat it.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import tables

from nasjax.hardware import fit as fitting
from nasjax.hardware.scores import prediction_errors
from nasjax.hardware.transfer import Samples, transfer

_PREFIX = "latency_ms__"


def run(arguments) -> dict:
  problem = tables.Problem(arguments.space)
  columns = tables.read(arguments.devices)
  choices = tables.choices(columns, problem, arguments.devices)
  devices = [c[len(_PREFIX) :] for c in columns if c.startswith(_PREFIX)]
  targets = arguments.targets.split(",")
  sources = (
    arguments.sources.split(",")
    if arguments.sources
    else [d for d in devices if d not in targets]
  )
  for name in targets + sources:
    if name not in devices:
      raise SystemExit(f"error: no device {name}; known: {', '.join(devices)}")
  values = {d: tables.column(columns, _PREFIX + d) for d in targets + sources}
  gauge = fitting.gauge_of(problem.groups)
  scores = {}
  for kind in ("transfer", "no_transfer"):
    for target in targets:
      known = [Samples(choices, values[s]) for s in sources if s != target]
      known = (
        _thinned(known, arguments.source_rows) if kind == "transfer" else []
      )
      found = []
      for repeat in range(arguments.repeats):
        rng = np.random.default_rng([arguments.seed, repeat])
        rows = rng.permutation(len(values[target]))[: arguments.samples]
        made = transfer(
          problem.groups,
          Samples(tables.take(choices, rows), values[target][rows]),
          known,
          ends=problem.ends,
          ties=problem.ties,
          gauge=gauge,
        )
        # Ties are ties: what differs by rounding alone is not ranked.
        predicted = np.round(made.of(choices), 4)
        found.append(prediction_errors(predicted, values[target]))
      scores[kind, target] = found
      line = {
        "device": target,
        "kind": kind,
        "spearman": _mean(found, "spearman"),
        "lowest": float(min(f.spearman for f in found)),
        "within_5_percent": _mean(found, "within_5_percent"),
        "within_10_percent": _mean(found, "within_10_percent"),
        "rmse_ms": _mean(found, "rmse"),
      }
      print(json.dumps(line) if arguments.json else line, flush=True)
  mean = {key: _mean(found, "spearman") for key, found in scores.items()}
  return {
    "mean_spearman": float(np.mean([mean["transfer", t] for t in targets])),
    "per_device": {t: mean["transfer", t] for t in targets},
    "no_transfer": {t: mean["no_transfer", t] for t in targets},
  }


def _thinned(samples, rows):
  """At most so many rows of each source, evenly spaced."""
  step = max(1, len(samples[0].values) // rows)
  return [
    Samples(tables.take(s.choices, slice(None, None, step)), s.values[::step])
    for s in samples
  ]


def _mean(found, name) -> float:
  return float(np.mean([getattr(f, name) for f in found]))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--devices", required=True, metavar="FILE.csv[.gz]")
  parser.add_argument("--space", default="nasbench201")
  parser.add_argument("--targets", required=True, help="names with commas")
  parser.add_argument("--sources", help="names with commas; default: others")
  parser.add_argument("--samples", type=int, default=10)
  parser.add_argument("--repeats", type=int, default=20)
  parser.add_argument("--source-rows", type=int, default=2000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--json", action="store_true", help="JSON lines")
  print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
  main()
