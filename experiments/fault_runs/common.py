"""A tiny run, started, killed, resumed and compared."""

import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FLAGS = (
  "--space nasbench201 --channels 2 --cells 1 --relaxation softmax"
  " --hypergradient single_level --warmup 0 --epochs 6 --batch-size 8"
  " --checkpoint-minutes 0"
).split()
# One core and two differ in bits.
CORES = {min(os.sched_getaffinity(0))}
SLOWEST = 1800  # s; a command that takes longer hangs


class Bench:
  """A folder with tiny data, a warm compilation cache and a finished run."""

  def __init__(self):
    """Writes the data."""
    self._held = tempfile.TemporaryDirectory(prefix="nasjax-faults-")
    self.folder = Path(self._held.name)
    self.data = self.folder / "tiny.npz"
    rng = np.random.default_rng(0)
    np.savez(
      self.data,
      x_train=rng.integers(256, size=(80, 8, 8, 1), dtype=np.uint8),
      y_train=np.arange(80) % 3,
      x_test=rng.integers(256, size=(6, 8, 8, 1), dtype=np.uint8),
      y_test=np.arange(6) % 3,
    )

  def __enter__(self):
    """Itself."""
    return self

  def __exit__(self, *exception):
    """Removes the folder."""
    self._held.cleanup()

  def start(self, *words):
    """Starts `nasjax WORDS` with pinned cores; its log is a pipe."""
    environment = os.environ | {
      "XDG_CACHE_HOME": str(self.folder / "cache"),
      # Every program, so that a restart compiles nothing.
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.Popen(
      [sys.executable, "-u", "-m", "nasjax", *map(str, words)],
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
      preexec_fn=lambda: os.sched_setaffinity(0, CORES),
    )

  def call(self, *words):
    """(exit code, output) of a command."""
    process = self.start(*words)
    output, _ = process.communicate(timeout=SLOWEST)
    return process.returncode, output

  def search(self, out):
    """Words of the tiny search into a folder."""
    return ["search", "--data", self.data, *FLAGS, "--out", out]

  def undisturbed(self):
    """The result of a run that nothing disturbs; warms the cache first."""
    out = self.folder / "undisturbed"
    code, output = self.call(*self.search(out))
    if code:
      raise SystemExit(f"the undisturbed run failed ({code}):\n{output}")
    return self.result(out)

  def result(self, out):
    """What must be the same: last state, genotype, metrics but seconds."""
    code, output = self.call("checkpoint", "verify", out)
    lines = output.splitlines()
    with open(out / "metrics.csv", newline="") as file:
      rows = [
        {k: v for k, v in row.items() if not k.endswith("_seconds")}
        for row in csv.DictReader(file)
      ]
    genotype = (out / "genotype.json").read_text()
    return {
      "verify": code,
      "state": lines[-1] if lines else "",
      "genotype": genotype,
      "metrics": rows,
    }


def wait_for(process, word, heard):
  """Reads the log until a line that starts with `word`, or the end."""
  for line in process.stdout:
    heard.append(line.rstrip())
    if line.startswith(word):
      return True
  return False


def differences(found, want):
  return [name for name in want if found[name] != want[name]]


class Table:
  """Tries and failures by kind, printed as they come."""

  def __init__(self, title):
    """An empty one."""
    self.title, self.tries, self.failures = title, {}, {}
    self._start = time.monotonic()

  def add(self, kind, failure=""):
    self.tries[kind] = self.tries.get(kind, 0) + 1
    if failure:
      self.failures[kind] = self.failures.get(kind, 0) + 1
      print(f"FAILED {kind}: {failure}", flush=True)

  def done(self):
    """Prints the table; returns the number of failures."""
    print(f"{self.title:30s} {'tries':>6s} {'failures':>9s}")
    for kind, tries in self.tries.items():
      print(f"{kind:30s} {tries:6d} {self.failures.get(kind, 0):9d}")
    failed = sum(self.failures.values())
    total = sum(self.tries.values())
    taken = time.monotonic() - self._start
    print(f"{'all':30s} {total:6d} {failed:9d}   {taken:.0f} s")
    return failed
