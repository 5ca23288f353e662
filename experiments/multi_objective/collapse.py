"""Plain DARTS collapses to skips; what prevents it.

First-order DARTS on digits (1100 steps of batch 64, weights' rate 0.1,
architecture's 0.01) over skips and separable convolutions, S2's candidates of
Zela et al. 2020, in a chain of 18 edges: six cells of three, all cells with the
same choices. A skip is the only way past a convolution there (Chu et al. 2021),
and as the weights fit, the skips' weights rise from a half to 0.67 to 0.93.
Three seeds; every decided network is trained alone for 300 steps:

                        skips of 3   accuracy alone
    plain               2 3 3        0.871 0.342 0.342
    warm-up of half     3 3 3        0.342 0.342 0.342
    operation dropout   0 0 0        0.543 0.543 0.543
    stop on skips       2 2 3        0.871 0.920 0.342   epochs 22, 8, 15
    limit skips=1       0 0 0        0.543 0.543 0.543
    sigmoid             2 1 3        0.871 0.855 0.342   Chu et al. 2020
    residual links      0 0 2        0.873 0.873 0.369
    perturbed           0 1 1        0.543 0.676 0.676   Chen and Hsieh 2020

Operation dropout, a limit on skips, residual links and perturbed logits prevent
the collapse on every seed; warm-up, stopping on skips and sigmoid do not. Where
a search ends is sensitive to rounding: an earlier build, whose gradients differ
by 1e-6, collapsed with 3 3 3 skips, and there warm-up (0 2 2), stopping on
skips (2 2 2) and sigmoid (2 2 2) prevented it too; the first four did both
times. The networks without skips are 18 convolutions deep without a way past
them and train badly alone, so fewer skips is not always better; residual links
are in the decided network too, as in edge. `perturbed` is noise on the logits.
The setting was the first tried on this chain, on seed 0. Where cells have a
residual path of their own no search collapsed: three nodes and three edges a
cell gave 2 skips of 3 after 1200 steps (one seed), the cells of edge 3 or 4 of
9.

Run: python -m experiments.multi_objective.collapse [SEEDS] [KINDS]
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from experiments import small_fashion
from experiments.multi_objective import common
from nasjax import constraints, data, hardware, relaxations, search, spaces
from nasjax.search import ranking
from nasjax.spaces import space as space_tools

CHANNELS, CELLS = 4, 3  # cells a stage
STEPS = 1380
RATE, ARCH_RATE = 0.05, 0.02
STOP = 0.5  # of the edges led by skips
MOST = 1.0  # skips


class Kind(NamedTuple):
  """A search: plain but for what its fields say."""

  relaxation: Any = relaxations.softmax()
  warmup: float = 0.0
  skips: float | None = None  # the most there may be
  stops: bool = False


def kinds(space, steps) -> dict[str, Kind]:
  """What is compared, by name."""
  softmax, function = relaxations.softmax(), relaxations.from_function
  rate = optax.linear_schedule(0.5, 0.0, steps)
  dropped = relaxations.operation_dropout(softmax, space.skips, rate)

  def perturbed(key, logits, step):
    del step
    noise = jax.random.uniform(key, logits.shape, minval=-1.0, maxval=1.0)
    return jax.nn.softmax(logits + noise)

  def sigmoid(key, logits, step):
    del key, step
    return jax.nn.sigmoid(logits)

  return {
    "plain": Kind(),
    "warm-up": Kind(warmup=0.5),
    "operation dropout": Kind(dropped),
    "stop on skips": Kind(stops=True),
    "limit on skips": Kind(skips=MOST),
    "sigmoid": Kind(function(sigmoid, simplex=False)),
    "perturbed": Kind(function(perturbed)),
  }


def main(
  seeds: str = "3",
  only: str = "",
  arch_rate: str = str(ARCH_RATE),
  steps: str = str(STEPS),
  rate: str = str(RATE),
) -> None:
  dataset = data.load("fashion-mnist")
  images = small_fashion.smaller(dataset.train, small_fashion.IMAGES)
  train, valid = data.split(images, seed=0)
  space = spaces.nasbench201(
    channels=CHANNELS,
    cells=CELLS,
    image_shape=data.shape(train),
    num_classes=dataset.num_classes,
  )
  made = common.Setup(space, train, valid, data.Augmentation(), {}, {}, {})
  each, edges = common.steps_an_epoch(made), space.groups["cell"].edges
  epochs = int(steps) // each
  for name, kind in kinds(space, epochs * each).items():
    if only and name not in only.split(","):
      continue
    limits = []
    if kind.skips is not None:
      penalty = constraints.augmented_lagrangian()
      metric = hardware.skips(space)
      limits = [constraints.at_most(metric, kind.skips, penalty=penalty)]
    searcher = search.differentiable(
      space,
      relaxation=kind.relaxation,
      constraints=limits,
      **common.options(
        epochs,
        each,
        warmup=kind.warmup,
        arch_rate=float(arch_rate),
        rate=float(rate),
      ),
    )
    run = common.runner(made, searcher, epochs)
    bounds = [(c.metric, c.limit) for c in limits]
    found = [_search(space, run, kind, bounds, s) for s in range(int(seeds))]
    skips = [space_tools.count_skips(a)[0] for a, _ in found]
    scores = _scores(space, train, valid, [a for a, _ in found])
    print(
      f"{name}: skips {skips} of {edges}, accuracy alone"
      f" {np.mean(scores):.3f} {np.round(scores, 3)}, epochs"
      f" {[end for _, end in found]} of {epochs}",
      flush=True,
    )


def _scores(space, train, valid, architectures) -> list[float]:
  """Accuracies of networks trained alone, each of them once."""
  alone = ranking.standalone(
    space,
    train,
    valid,
    steps=300,
    batch_size=common.BATCH,
    learning_rate=0.05,
    seed=0,
  )
  known: dict = {}
  for one in architectures:
    names = tuple(one.names()["cell"])
    if names not in known:
      known[names] = alone(one)
      print(f"  {names}: {known[names]:.4f} alone", flush=True)
  return [known[tuple(one.names()["cell"])] for one in architectures]


def _search(space, run, kind, bounds, seed):
  """(the decided architecture, the epochs it took)."""
  seen = []

  def decide(state):
    weights = common.expected(state, kind.relaxation)
    return space.decide(weights, bounds), weights

  def led(epoch):
    _, weights = decide(epoch.state)
    seen.append(epoch.number)
    if epoch.number % 10 == 0:
      share = weights["cell"] / weights["cell"].sum(-1, keepdims=True)
      share = (share * space.skips["cell"]).sum(-1)
      print(
        f"  seed {seed} epoch {epoch.number}: skips' weights"
        f" {np.round(share, 2)}, accuracy {epoch.info.train_accuracy:.3f}"
        f" {epoch.info.valid_accuracy:.3f}",
        flush=True,
      )
    return kind.stops and search.led_by_skips(space, weights) >= STOP

  state, seconds = run(seed, between=led)
  decided, _ = decide(state)
  print(f"  seed {seed}: {decided.names()['cell']} {seconds:.0f} s", flush=True)
  return decided, seen[-1]


if __name__ == "__main__":
  main(*sys.argv[1:])
