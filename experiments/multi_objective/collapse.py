"""Plain DARTS collapses to skips; what prevents it.

Each safeguard is that of the command line: warm-up of the weights, operation
dropout on skips, and stopping as skips take over.

No figures yet: it has not been run to its end.

Run: python -m experiments.multi_objective.collapse [SEEDS]
"""

from __future__ import annotations

import sys

import jax
import numpy as np
import optax

from experiments.multi_objective import common
from nasjax import data, relaxations, search, spaces
from nasjax.spaces import space as space_tools

EPOCHS = 30
BATCH = 32
STOP = 0.4


def main(seeds: str = "3") -> None:
  dataset = data.load("digits")
  train, valid = data.split(dataset.train, seed=0)
  space = spaces.nasbench201(
    image_shape=data.shape(train), num_classes=10, channels=4, cells=1
  )
  made = common.Setup(space, train, valid, dataset.augmentation, {}, {}, {})
  each = min(len(train.labels), len(valid.labels)) // BATCH
  steps = EPOCHS * each
  dropped = relaxations.operation_dropout(
    relaxations.softmax(),
    space.skips,
    optax.linear_schedule(0.5, 0.0, steps),
  )
  kinds = {
    "plain": (relaxations.softmax(), 0.0, False),
    "warm-up": (relaxations.softmax(), 0.5, False),
    "operation dropout": (dropped, 0.0, False),
    "stop on skips": (relaxations.softmax(), 0.0, True),
    "warm-up and dropout": (dropped, 0.5, False),
  }
  for kind, (relaxation, warmup, stops) in kinds.items():
    searcher = search.differentiable(
      space,
      relaxation=relaxation,
      **common.options(EPOCHS, each, warmup=warmup, arch_rate=0.02, rate=0.025),
    )
    skips, scores, ends = [], [], []
    for seed in range(int(seeds)):
      state, end = _run(made, searcher, seed, relaxation, stops)
      weights = common.expected(state, relaxation)
      decided = space.decide(weights)
      skips.append(space_tools.count_skips(decided)[0])
      scores.append(common.accuracy(made, state)(decided))
      ends.append(end)
    edges = space_tools.count_skips(decided)[1]
    print(
      f"{kind}: skips or none {skips} of {edges}, accuracy"
      f" {np.mean(scores):.3f} {np.round(scores, 3)}, epochs {ends}",
      flush=True,
    )


def _run(made, searcher, seed, relaxation, stops):
  state = jax.jit(searcher.init)(jax.random.fold_in(jax.random.key(seed), 0))
  for epoch in search.run_epochs(
    searcher,
    state,
    made.train,
    made.valid,
    epochs=EPOCHS,
    batch_size=BATCH,
    augmentation=made.augmentation,
    key=jax.random.fold_in(jax.random.key(seed), 1),
  ):
    state = epoch.state
    weights = common.expected(state, relaxation)
    best = space_tools.Architecture(
      made.space, {n: w.argmax(-1) for n, w in weights.items()}
    )
    skips, edges = space_tools.count_skips(best)
    if stops and skips >= STOP * edges:
      break
  return state, epoch.number


if __name__ == "__main__":
  main(*sys.argv[1:])
