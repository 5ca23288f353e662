"""What a search step's time goes into, by kind of operation, on one core.

Where supernet_step.py's ratios fall short, this says of what. A kind is what an
operation is, or the costliest part of a fusion. XLA hands convolutions and
matrix products to threads of their own and times only how long that takes, so
on one core they are what remains of a step.

    python experiments/benchmarks/step_profile.py edge/gdas [--steps 8]
"""

import argparse
import collections
import os
import re
import tempfile
import time
from pathlib import Path

# Before XLA makes its threads.
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import jax  # noqa: E402
from supernet_step import KEYS, batches, lowered, supernet  # noqa: E402

PRODUCTS = "convolution or matrix product"
# kind -> operations of HLO; the first kind that a fusion holds is its own.
KINDS = {
  PRODUCTS: ("convolution", "dot"),
  "sum or maximum": ("reduce", "reduce-window", "select-and-scatter"),
  "kept by loops": ("dynamic-update-slice", "dynamic-slice"),
  "copy": ("copy", "transpose", "concatenate", "pad", "scatter", "gather"),
}
REST = "elementwise"
_HOLDS = ("while", "conditional", "call")  # what other operations are in
_INSTRUCTION = re.compile(r"%?([\w.-]+) = .*? ([a-z-]+)\(")
_FUSED = re.compile(r"calls=%?([\w.-]+)")


def kinds(text):
  """Instruction -> kind, of a compiled module's text."""
  inside, own, fused = collections.defaultdict(set), {}, {}
  computation = ""
  for line in text.splitlines():
    if line.endswith("{") and " = " not in line:
      computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
    elif found := _INSTRUCTION.search(line):
      name, code = found.groups()
      own[name] = code
      inside[computation].add(code)
      if code == "fusion":
        fused[name] = _FUSED.search(line)[1]

  def kind(name, code):
    held = inside[fused[name]] if name in fused else {code}
    return next((k for k, codes in KINDS.items() if held & {*codes}), REST)

  return {n: kind(n, code) for n, code in own.items() if code not in _HOLDS}


def seconds(folder):
  """Operation -> seconds, of the trace in a folder."""
  (path,) = Path(folder).rglob("*.xplane.pb")
  found = collections.Counter()
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        found[event.name] += event.duration_ns / 1e9
  return found


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("key", choices=[k for k in KEYS if "/" in k])
  parser.add_argument("--steps", type=int, default=8)
  found = parser.parse_args()
  space, shape, batch, relaxation = supernet(found.key)
  _, _, train, valid = batches(shape, batch)
  program, state = lowered(space, relaxation, found.steps, train, valid)
  run = program.compile()
  state = jax.block_until_ready(run(state))
  with tempfile.TemporaryDirectory() as folder:
    with jax.profiler.trace(folder):
      start = time.perf_counter()
      jax.block_until_ready(run(state))
      whole = (time.perf_counter() - start) / found.steps
    spent = seconds(folder)
  kind_of, total = kinds(run.as_text()), collections.Counter()
  for name in spent.keys() & kind_of.keys():  # the trace has Python's, too
    total[kind_of[name]] += spent[name] / found.steps
  total[PRODUCTS] = whole - (sum(total.values()) - total[PRODUCTS])
  for name, value in total.most_common():
    print(f"{name:30} {1e3 * value:8.1f} ms {value / whole:6.1%}")


if __name__ == "__main__":
  main()
