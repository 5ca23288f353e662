"""What the benchmarks share: the PyTorch process, alternating runs, tables."""

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

LAYOUTS = ("channels_last", "contiguous")


def arguments(description, keys):
  """Parses --json, --only KEY, --runs N and --pytorch PYTHON."""
  parser = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--json", action="store_true", help="one object at last")
  parser.add_argument("--only", choices=keys, metavar="KEY", help=str(keys))
  parser.add_argument("--runs", type=int, default=7, help="alternating runs")
  parser.add_argument(
    "--pytorch",
    default=sys.executable,
    help="a Python that has torch==2.13.0 and numpy; default: this one",
  )
  found = parser.parse_args()
  if found.pytorch == sys.executable and not importlib.util.find_spec("torch"):
    parser.exit(
      2,
      "error: no PyTorch here; pip install torch==2.13.0 into a virtual"
      " environment and name its Python with --pytorch\n",
    )
  return found


class Peer:
  """The PyTorch process, where JAX runs too; asks one thing at a time."""

  def __init__(self, python):
    """Starts the worker with the Python that has PyTorch."""
    worker = Path(__file__).parent / "peer" / "worker.py"
    device = "cpu"
    if jax.default_backend() == "gpu":
      device = "cuda"
      # No TF32 on either side, or their outputs could not be compared.
      jax.config.update("jax_default_matmul_precision", "float32")
    self._process = subprocess.Popen(
      [python, str(worker), device],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    self._held = tempfile.TemporaryDirectory(prefix="nasjax-benchmark-")
    self.folder = Path(self._held.name)

  def ask(self, do, **fields):
    self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
    self._process.stdin.flush()
    line = self._process.stdout.readline()
    if not line:
      raise SystemExit(f"the PyTorch process failed in {do!r}, see above")
    return json.loads(line)

  def save(self, name, **arrays):
    """Writes arrays to a file that the peer can read; returns its path."""
    path = self.folder / f"{name}.npz"
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})
    return str(path)

  def close(self):
    self._process.stdin.close()
    self._process.wait()
    self._held.cleanup()


def flat(tree):
  """Variables by their path: params/stem/convolution_0/kernel."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {"/".join(k.key for k in path): leaf for path, leaf in leaves}


def timed(function):
  start = time.perf_counter()
  function()
  return time.perf_counter() - start


def alternate(sides, runs):
  """Seconds of each side: {name: list}; each is called once a round.

  Args:
    sides: {name: function that returns the seconds of its own unit of work};
      warmed up.
    runs: rounds.

  Returns:
    {name: seconds of every round}.
  """
  seconds = {name: [] for name in sides}
  for _ in range(runs):
    for name, run in sides.items():
      seconds[name].append(run())
  return seconds


def medians(seconds):
  return {name: statistics.median(s) for name, s in seconds.items()}


def peak_memory():
  """Bytes, the largest resident size of this process."""
  scale = 1 if sys.platform == "darwin" else 1024
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def peak():
  """FLOP/s of a float32 matrix product, 2048 x 2048; best of 5."""
  x = jnp.ones((2048, 2048))
  product = jax.jit(lambda x: x @ x)
  jax.block_until_ready(product(x))
  best = min(timed(lambda: jax.block_until_ready(product(x))) for _ in range(5))
  return 2 * 2048**3 / best


def report(figures, as_json):
  """Prints a table of the figures, and the JSON object at last if wanted."""
  for key, figure in figures.items():
    parts = [
      f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
      for name, value in figure.items()
    ]
    print(f"{key:24s} {'  '.join(parts)}")
  if as_json:
    print(json.dumps({"figures": figures}))
