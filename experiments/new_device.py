"""A run moved to another device, against a search made afresh for it.

For each seed: a search for the first device, one for the second, and
`--from FIRST --device SECOND` with a quarter of the steps; each under the same
percentile of random networks' latency on its device. Every decided network is
trained alone, from fresh weights, and scored on the validation images. It also
shows how each device's own network does on the other device.

    python experiments/new_device.py [--seeds 3] [--devices A B] [--json]

raspberry-pi-4 to jetson-orin-nano, seeds 0 to 2, default options: the moved
networks score +0.4, +0.8 and +2.5 points against the fresh ones (+0.8, +0.8 and
-0.4 with convolutions that summed in another order), with 25% of the steps (41
of 164 epochs), at 0.867, 0.968 and 0.800 of the new device's limit. The first
device's own networks are no better on it than those that were searched for the
other: the two rooflines rank alike.

stm32f746 and jetson-orin-nano, whose rooflines rank random networks with a
Spearman of 0.33 (`--own`, seeds 0 to 2), latency over each device's limit:

    searched for       on stm32f746       on jetson-orin-nano
    stm32f746          0.60 0.78 0.79     1.00 1.13 1.46
    jetson-orin-nano   0.55 1.58 0.60     0.86 0.87 0.90

Each keeps its own limit; jetson-orin-nano's networks are the faster ones on it
in every seed, stm32f746's in one of three: below its limit nothing makes a
network faster still.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from nasjax import data, hardware, spaces
from nasjax.search import ranking
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import genotype
from nasjax.spaces import space as space_tools


def search(out: Path, *words: str) -> None:
  command = [sys.executable, "-m", "nasjax", "search", "--out", str(out)]
  subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)


def steps_of(out: Path) -> int:
  with open(out / "metrics.csv") as file:
    return len(file.readlines()) - 1


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument(
    "--devices", nargs=2, default=["raspberry-pi-4", "jetson-orin-nano"]
  )
  parser.add_argument("--percentile", type=float, default=30.0)
  parser.add_argument("--penalty", default="equality")
  parser.add_argument("--steps", type=int, default=1000, help="trained alone")
  parser.add_argument(
    "--own", action="store_true", help="each device's own search alone"
  )
  parser.add_argument("--json", action="store_true")
  found = parser.parse_args()
  dataset = data.load("digits")
  space = spaces.edge(image_shape=data.shape(dataset.train), num_classes=10)
  draws = space_tools.random_choices(space, np.random.default_rng(0), 5000)
  metrics, limits = {}, {}
  for name in found.devices:
    metrics[name] = hardware.device(name).latency(space)
    costs = cost_tables.additive_costs(space, metrics[name]).of(draws)
    limits[name] = float(np.percentile(costs, found.percentile))
  one, two = found.devices
  rows = []
  for seed in range(found.seeds):
    train, valid = data.split(dataset.train, seed=seed)
    score = ranking.standalone(
      space,
      train,
      valid,
      steps=found.steps,
      batch_size=64,
      learning_rate=0.05,
      seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
      names = ("first", "fresh") if found.own else ("first", "fresh", "moved")
      runs = {n: Path(folder) / n for n in names}
      same = ["--seed", str(seed), "--penalty", found.penalty]

      def limit(name):
        return ["--device", name, "--limit", f"latency_ms={limits[name]:.6g}"]

      search(runs["first"], *same, *limit(one))
      search(runs["fresh"], *same, *limit(two))
      if not found.own:
        search(runs["moved"], "--from", str(runs["first"]), *same, *limit(two))
      row = {"seed": seed}
      for name, out in runs.items():
        decided, _ = genotype.read(out, {"edge": spaces.edge})
        row[name] = {
          "epochs": steps_of(out),
          "accuracy": score(spaces.architecture(space, decided.choices)),
          "of_limit": {
            device: metrics[device].exact(decided) / limits[device]
            for device in found.devices
          },
        }
    rows.append(row)
    print(json.dumps(row), flush=True)
  report = {
    "devices": [one, two],
    "first_of_limits": [r["first"]["of_limit"] for r in rows],
    "fresh_of_limits": [r["fresh"]["of_limit"] for r in rows],
  }
  if not found.own:
    gap = [r["moved"]["accuracy"] - r["fresh"]["accuracy"] for r in rows]
    report |= {
      "accuracy_moved_less_fresh": gap,
      "mean_gap": float(np.mean(gap)),
      "share_of_steps": [
        r["moved"]["epochs"] / r["fresh"]["epochs"] for r in rows
      ],
      "moved_of_limit": [r["moved"]["of_limit"][two] for r in rows],
    }
  if found.json:
    print(json.dumps(report))
  else:
    for name, value in report.items():
      print(f"{name}: {value}")


if __name__ == "__main__":
  main()
