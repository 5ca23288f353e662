"""Plain DARTS collapses to skips; what prevents it.

First-order DARTS over NAS-Bench-201 (C = 4, N = 3) on Fashion-MNIST averaged to
14x14, 1380 steps of batch 64 without warm-up, Adam at 0.02 on the logits. The
benchmark's own paper finds DARTS to end in cells of nothing but skips there, on
every seed (Dong and Yang 2020, table 5; 54.3% on CIFAR-10). Three seeds; of the
six edges of what is decided, those that are skip or none and those that are
convolutions, and the accuracy when it is trained alone for 300 steps:

                        skip, none  convolution  accuracy alone
    plain               5 6 5       0 0 1        .558 .523 .616
    warm-up of half     5 5 3       1 0 1        .596 .558 .673
    operation dropout   2 0 0       2 3 4        .672 .778 .769
    stop on two skips   5 4 5       1 2 1        .641 .747 .781  6, 8, 3 epochs
    limit skips=1       0 0 0       0 1 2        .529 .657 .749
    sigmoid             3 4 3       3 1 3        .794 .648 .798
    perturbed           3 3 1       3 3 5        .781 .781 .793

Plain: the weights of skip and none rise to 0.5 to 0.8 of nearly every edge
while accuracy in training and validation still rises. Operation dropout keeps
skips out on every seed, and so does a limit on them, which cannot keep average
pools from taking their place (all six edges of one seed). Sigmoid (Chu et al.
2020), where candidates do not compete, and perturbed logits (noise on them;
Chen and Hsieh 2020) leave half of the edges to convolutions. Stopping when
skips lead two of a cell's edges (Liang et al. 2019) decides as many skips as
`plain`, but better networks; a warm-up of the weights does not help.

Chains of separable convolutions and skips on digits, tried before, collapsed on
some seeds and builds only.

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
STOP = 2 / 6  # of the edges led by skips: two in a cell (DARTS+)
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
