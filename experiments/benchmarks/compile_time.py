"""Compile times: five cells a stage over one, and the default search's start.

`start` is the time from the start of `nasjax search` to the end of its first
step, with an empty compilation cache and with the one that this filled.

    python experiments/benchmarks/compile_time.py [--json] [--only KEY]
        [--runs 3]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

from harness import report
from supernet_step import RELAXATIONS, batches, compiled

from nasjax import spaces

KEYS = (*(f"nasbench201-n5/{r}" for r in RELAXATIONS), "start")


def cells(relaxation, runs):
  """Seconds to compile a step with N = 1 and N = 5."""
  _, _, train, valid = batches((32, 32, 3))
  found = {1: [], 5: []}
  for _ in range(runs):
    for count in found:
      space = spaces.nasbench201(channels=16, cells=count)
      own = RELAXATIONS[relaxation]()
      found[count].append(compiled(space, own, 1, train, valid)[1])
  one, five = (statistics.median(s) for s in found.values())
  return {"ratio": five / one, "n1_s": one, "n5_s": five}


def _first_step(cache, out):
  """Seconds from the process's start until its first step is saved."""
  start = time.perf_counter()
  process = subprocess.Popen(
    [
      *(sys.executable, "-u", "-m", "nasjax", "search"),
      *("--out", out, "--checkpoint-minutes", "0"),
    ],
    env={**os.environ, "XDG_CACHE_HOME": cache},
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  for line in process.stdout:
    if line.startswith("CHECKPOINT"):
      break
  else:
    raise SystemExit(f"nasjax search ended early, code {process.wait()}")
  seconds = time.perf_counter() - start
  process.kill()
  process.wait()
  return seconds


def start(runs):
  """Seconds to the first step, cold and warm."""
  cold, warm = [], []
  with tempfile.TemporaryDirectory(prefix="nasjax-start-") as top:
    for run in range(runs):
      cache = f"{top}/cache-{run}"
      cold.append(_first_step(cache, f"{top}/cold-{run}"))
      warm.append(_first_step(cache, f"{top}/warm-{run}"))
  return {
    "cold_s": statistics.median(cold),
    "warm_s": statistics.median(warm),
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--json", action="store_true", help="one object at last")
  parser.add_argument("--only", choices=KEYS, metavar="KEY", help=str(KEYS))
  parser.add_argument("--runs", type=int, default=3, help="alternating runs")
  found = parser.parse_args()
  figures = {}
  for key in [found.only] if found.only else KEYS:
    if key == "start":
      figures[key] = start(found.runs)
    else:
      figures[key] = cells(key.rpartition("/")[2], found.runs)
  report(figures, found.json)


if __name__ == "__main__":
  main()
