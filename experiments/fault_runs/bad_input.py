"""Malformed inputs of every group, and the fuzz, each judged.

Run by `python experiments/faults.py bad-input`, or on its own.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
  sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fault_runs import cases, fuzz

GROUPS = (
  "bad_tables",
  "bad_genotypes",
  "bad_yaml",
  "bad_data",
  "bad_images",
  "bad_parts",
  "bad_spaces",
  "bad_checkpoints",
  "bad_commands",
)


def all_cases() -> list[cases.Case]:
  """The cases of every group."""
  found = []
  for name in GROUPS:
    if (Path(__file__).parent / f"{name}.py").exists():
      found += importlib.import_module(f"fault_runs.{name}").CASES
  return found


def run(count: int = 10_000, only: str = "") -> int:
  """Runs all cases and `count` fuzzed ones; prints a table.

  Returns:
    The number of failures.
  """
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  found: dict[str, list[str]] = {}
  seconds: dict[str, float] = {}
  with tempfile.TemporaryDirectory(prefix="nasjax-bad-input-") as top:
    os.environ["XDG_CACHE_HOME"] = f"{top}/cache"
    chosen = [c for c in all_cases() if only in c.group]
    for number, case in enumerate(chosen):
      folder = Path(top, str(number))
      folder.mkdir()
      start = time.monotonic()
      wrong = cases.run_case(case, folder)
      seconds[case.group] = (
        seconds.get(case.group, 0.0) + time.monotonic() - start
      )
      found.setdefault(case.group, []).append(wrong)
      if wrong:
        print(f"FAILED {case.group}: {case.name[:60]}: {wrong}", flush=True)
  print(f"{'group':<14}{'cases':>7}{'failures':>10}{'seconds':>9}")
  for group, results in found.items():
    failures = sum(map(bool, results))
    print(f"{group:<14}{len(results):>7}{failures:>10}{seconds[group]:>9.1f}")
  total = [r for results in found.values() for r in results]
  failures = sum(map(bool, total))
  print(f"{'all':<14}{len(total):>7}{failures:>10}", flush=True)
  return failures + _fuzz(count)


def _fuzz(count: int) -> int:
  """Runs the fuzz; prints a table of it."""
  with tempfile.TemporaryDirectory(prefix="nasjax-fuzz-") as top:
    counts, wrong = fuzz.run(count, Path(top))
  for text in wrong:
    print(f"FAILED fuzz: {text[:1000]}")
  print(f"{'fuzz':<14}{'cases':>7}{'read':>7}{'refused':>9}{'longest s':>11}")
  for name, (cases_, read, refused, longest) in counts.items():
    print(f"{name:<14}{cases_:>7}{read:>7}{refused:>9}{longest:>11.2f}")
  print(f"fuzz: {count} cases, {len(wrong)} failures")
  return len(wrong)


if __name__ == "__main__":
  words = [*sys.argv[1:], "10000", ""]
  sys.exit(bool(run(int(words[0]), words[1] if len(sys.argv) > 2 else "")))
