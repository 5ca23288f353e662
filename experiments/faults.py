"""Fault runs: what a search survives; each prints tries and failures.

    python experiments/faults.py kill --tries 50
    python experiments/faults.py damage --tries 200
    python experiments/faults.py crash-points
    python experiments/faults.py signal --tries 20
    python experiments/faults.py soak --steps 10000
    python experiments/faults.py bad-input

The exit code is 1 if anything failed.
"""

import argparse
import importlib
import sys
from pathlib import Path

TRIES = {"kill": 50, "damage": 200, "signal": 20, "bad-input": 10_000}


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  runs = parser.add_subparsers(dest="run", required=True)
  for name in ("kill", "damage", "crash-points", "signal", "soak", "bad-input"):
    command = runs.add_parser(name)
    if name in TRIES:
      command.add_argument("--tries", type=int, default=TRIES[name])
    if name == "soak":
      command.add_argument("--steps", type=int, default=10_000)
  arguments = parser.parse_args()
  sys.path.insert(0, str(Path(__file__).parent))
  # No file there may be named as a module that Python itself imports.
  module = {"signal": "stopping"}.get(arguments.run, arguments.run)
  module = module.replace("-", "_")
  run = importlib.import_module(f"fault_runs.{module}").run
  numbers = [
    getattr(arguments, n) for n in ("tries", "steps") if n in arguments
  ]
  return 1 if run(*numbers) else 0


if __name__ == "__main__":
  sys.exit(main())
