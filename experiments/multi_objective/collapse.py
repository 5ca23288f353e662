"""Does plain DARTS collapse to skips, and what prevents it?

A short search (digits, 40 epochs of 11 steps) over skips and separable
convolutions alone, the candidates of S2 of Zela et al. 2020, in the cells of
edge. Each safeguard is that of the command line: warm-up of the weights,
operation dropout on skips, and stopping as skips take over.

Not shown yet: no search here collapsed. Skips chosen, of 9, three seeds:

    plain              4 3 4
    warm-up            3 2 4
    operation dropout  3 0 1

The other two were not run to their end. After 100 epochs plain search chose 1
skip of 9 (one seed). With all candidates of edge it leads to pools, and on
nasbench201 (C = 4, 1 or 2 cells, 660 and 1650 steps) to at most 1 skip of 6.

Run: python -m experiments.multi_objective.collapse [SEEDS]
"""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np
import optax

from experiments.multi_objective import common
from nasjax import data, relaxations, search, spaces
from nasjax.spaces import space as space_tools

EPOCHS = 40
BATCH = 64
STOP = 0.4
CANDIDATES = ("skip_connect", "sep_conv_3x3", "sep_conv_5x5")


def main(seeds: str = "3") -> None:
  dataset = data.load("digits")
  train, valid = data.split(dataset.train, seed=0)
  space = spaces.edge(image_shape=data.shape(train), num_classes=10, channels=8)
  (group,) = space.groups
  names = space.groups[group].candidates
  kept = np.array([name in CANDIDATES for name in names])
  allowed = {group: np.asarray(space.masks[group]) & kept}
  space = dataclasses.replace(space, allowed=allowed)
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
