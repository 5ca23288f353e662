"""Compile times: five cells a stage over one, and the default search's start.

`start` is the time from the start of `nasjax search` to the end of its first
step, with an empty compilation cache and with the one that this filled.

Measured on 2 cores (x86-64, shared with other machines), JAX 0.10.2:

    start                   53.9 s cold, 17.7 s warm
    nasbench201-n5/softmax  18.2 against 14.2 s, 1.28
    nasbench201-n5/gdas     16.0 against 15.0 s, 1.07

one run each. In other runs 50.9 to 78.9 and 15.5 to 22.9 s, as fast as the
machine was, 1.24 to 1.33 and 1.00 to 1.09. That programs of under a second are
cached too saves 0.7 and 2.1 of 21 and 23 s (two pairs). The start took 79 and
24 s before convolutions were primitives and a value was stored at no cost.
Where it went then, in seconds: imports, data and
1000 random networks' costs 4.5; tracing the update 6.4; lowering it 2.5;
compiling what makes the first state 3, the step 46 or, from the cache, 3.8. Of
the step's compilation, in processor time: XLA's passes over the program 10 s,
on one core; lowering about 4000 fusions 15; LLVM 30 for the 1000 of them that
differ. It is three stages of 12 candidates, forwards, and forwards again with
backwards, for the architecture's step and for the weights'.

LLVM's optimisation level 0 saves a quarter to a third; what a step then takes
was not measured. Convolutions as functions of their own, which shorten DARTS's
compilation, leave this one as it is. XLA_FLAGS without gain: fewer modules, no
verification of emitters, the fast-compile preset, no expensive LLVM passes.

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
