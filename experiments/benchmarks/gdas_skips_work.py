"""Does a sampled path really skip the others' work?

Times one update (weight step + architecture step) of the softmax and of the
gdas relaxation on the NAS-Bench-201 supernet, alternating the two in one
process, both warmed up. gdas is averaged over blocks of steps, since its time
depends on the paths that are drawn.

    python experiments/benchmarks/gdas_skips_work.py [--json]

Measured (2 cores, float32, C=16, N=1, batch 64, 32x32x3, medians of 7 pairs):

    softmax  0.616 s a step
    gdas     0.242 s a step
    softmax / gdas = 2.55
"""

import argparse
import json
import statistics
import time

import jax
import numpy as np

from nasjax import relaxations, search, spaces
from nasjax.types import Batch


def compiled(relaxation, steps, batch):
  space = spaces.nasbench201(channels=16, cells=1)
  made = search.differentiable(space, relaxation=relaxation)
  state = jax.jit(made.init)(jax.random.key(0))

  def block(state):
    return jax.lax.scan(
      lambda s, _: made.update(s, batch, batch), state, length=steps
    )[0]

  run = jax.jit(block).lower(state).compile()

  def timed(state):
    start = time.perf_counter()
    state = jax.block_until_ready(run(state))
    return state, (time.perf_counter() - start) / steps

  state, _ = timed(state)
  return state, timed


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--pairs", type=int, default=7)
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  batch = Batch(
    rng.normal(size=(64, 32, 32, 3)).astype(np.float32),
    rng.integers(10, size=64).astype(np.int32),
  )
  sides = {
    "softmax": compiled(relaxations.softmax(), 2, batch),
    "gdas": compiled(relaxations.gdas(), 10, batch),
  }
  states = {name: state for name, (state, _) in sides.items()}
  seconds = {name: [] for name in sides}
  for _ in range(arguments.pairs):
    for name, (_, timed) in sides.items():
      states[name], taken = timed(states[name])
      seconds[name].append(taken)
  medians = {n: statistics.median(s) for n, s in seconds.items()}
  ratio = medians["softmax"] / medians["gdas"]
  print(f"softmax  {medians['softmax']:.3f} s a step")
  print(f"gdas     {medians['gdas']:.3f} s a step")
  print(f"softmax / gdas = {ratio:.2f}")
  if arguments.json:
    print(
      json.dumps(
        {
          "figures": {
            "nasbench201/gdas-over-softmax": {
              "ratio": ratio,
              "softmax_s": medians["softmax"],
              "gdas_s": medians["gdas"],
            }
          }
        }
      )
    )


if __name__ == "__main__":
  main()
