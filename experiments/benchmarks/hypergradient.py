"""What second order costs: an unrolled step over a first-order one.

NAS-Bench-201 supernet, softmax, C=16, N=1, batch 64, three steps in a program.
`flops_ratio` is that of the compiled programs; PyTorch's second order (DARTS's
finite differences, as its code has them) stands beside it. Measured on 2 cores:
2.56 times a first-order step (2.68 to 2.84 in earlier runs), 2.59 times its
FLOPs, 1.46 times as fast as PyTorch (1.27 to 1.49).

    python experiments/benchmarks/hypergradient.py [--json] [--only KEY]
        [--runs 7] [--pytorch PYTHON]
"""

import jax
from harness import Peer, alternate, arguments, flat, medians, report
from supernet_step import STEPS, batches, compiled

from nasjax import hypergradients, relaxations, spaces

KEYS = ("nasbench201",)
_OPTIONS = dict(channels=16, cells=1)


def measure(peer, runs):
  space = spaces.nasbench201(**_OPTIONS)
  images, labels, train, valid = batches((32, 32, 3))
  sides, flops, compile_s = {}, {}, {}
  for order in ("first_order", "unrolled"):
    sides[order], compile_s[order], flops[order], _ = compiled(
      space,
      relaxations.softmax(),
      STEPS,
      train,
      valid,
      {"hypergradient": getattr(hypergradients, order)()},
    )
  number = peer.ask(
    "build",
    name="nasbench201",
    arguments={**_OPTIONS, "batch": len(train.labels)},
    data=peer.save("data", images=images, labels=labels),
    weights=peer.save("weights", **flat(space.init(jax.random.key(1)))),
    layout="channels_last",
  )["id"]

  def theirs():
    answer = peer.ask(
      "step", id=number, relaxation="softmax", steps=STEPS, second_order=True
    )
    return answer["seconds"] / STEPS

  theirs()
  sides["pytorch"] = theirs
  found = medians(alternate(sides, runs))
  return {
    "ratio": found["pytorch"] / found["unrolled"],
    "nasjax_s": found["unrolled"],
    "pytorch_s": found["pytorch"],
    "over_first_order": found["unrolled"] / found["first_order"],
    "flops_ratio": flops["unrolled"] / flops["first_order"],
    "compile_s": compile_s["unrolled"],
  }


def main():
  found = arguments(__doc__, KEYS)
  peer = Peer(found.pytorch)
  figures = {"nasbench201": measure(peer, found.runs)}
  peer.close()
  report(figures, found.json)


if __name__ == "__main__":
  main()
