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

from harness import alternate, medians
from supernet_step import batches, compiled

from nasjax import relaxations, spaces


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--pairs", type=int, default=7)
  arguments = parser.parse_args()
  space = spaces.nasbench201(channels=16, cells=1)
  _, _, train, valid = batches((32, 32, 3))
  sides = {
    "softmax": compiled(space, relaxations.softmax(), 2, train, valid)[0],
    "gdas": compiled(space, relaxations.gdas(), 10, train, valid)[0],
  }
  found = medians(alternate(sides, arguments.pairs))
  ratio = found["softmax"] / found["gdas"]
  print(f"softmax  {found['softmax']:.3f} s a step")
  print(f"gdas     {found['gdas']:.3f} s a step")
  print(f"softmax / gdas = {ratio:.2f}")
  if arguments.json:
    print(
      json.dumps(
        {
          "figures": {
            "nasbench201/gdas-over-softmax": {
              "ratio": ratio,
              "softmax_s": found["softmax"],
              "gdas_s": found["gdas"],
            }
          }
        }
      )
    )


if __name__ == "__main__":
  main()
