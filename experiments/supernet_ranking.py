"""How well a supernet ranks networks that are trained alone.

Supernets are trained on uniform single paths, a seed each. Random networks are
scored at their weights, with batch statistics of their own, and by training
each alone from fresh weights, some times over: Spearman's correlation of two
such trainings says how well one ranks at all. All are scored on images that no
weight was trained on.

    python experiments/supernet_ranking.py [--data fashion-mnist] \
        [--space nasbench201] [--images 4096] [--scored 4096] [--seeds 3] \
        [--networks 30] [--repeats 2] [--epochs 40] [--alone 10] [--json]

Images of 28 pixels or more are halved, so that it takes minutes.

On digits (`--data digits --images 768 --scored 512 --epochs 200`: supernets of
2400 steps, seeds 0, 1, 2) it falls short of the 0.5 that is asked for:

    --space      --alone  accuracies alone  Spearman, supernet 0, 1, 2
    edge         30       92.4-97.5%         0.03   0.24  -0.10
    nasbench201  30       95.9-98.6%         0.11   0.12   0.20
    nasbench201   5       88.1-96.5%         0.13   0.44   0.10

(Against the mean of two standalone trainings, in the second row against one;
the last row was added after the others were seen, with the same seeds.)
Networks that are trained alone for 360 steps hardly differ there: in edge the
standard deviation of their mean accuracies is 0.9 points, that of one
training's noise 0.7, and one training and its repeat agree with 0.54, one
supernet and another with 0.36 to 0.58. Two of the three networks that begin
with a max pool stand above the median alone and in the lowest fifth of every
supernet. At 60 steps noise is no reason: one training and its repeat agree with
0.78, one supernet and another with 0.66 to 0.81, and yet the two rank
differently; among the better half of the networks even -0.22 to -0.33. That may
be because so short a training ranks by how fast networks learn; it was not
looked into further.

Fashion-MNIST has not been run to its end: 30 standalone trainings of the edge
space take 31 ms a step there, over 10 minutes of CPU time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from typing import Any

import jax
import numpy as np
import path_supernet

from nasjax import data, spaces
from nasjax.errors import BAD_INPUT, InputError, one_line
from nasjax.search import genes as genetics
from nasjax.search import ranking
from nasjax.spaces import space as space_tools

# Small: about a minute to compile.
SPACES = {
  "edge": (spaces.edge, {"channels": 16, "nodes": 2, "stages": 3}),
  "nasbench201": (spaces.nasbench201, {"channels": 8, "cells": 1}),
}


def drawn(space, count: int) -> np.ndarray:
  """Genes i32[count, G] of random networks that see their input, each once."""
  found = space_tools.random_choices(
    space, np.random.default_rng(0), 10 * count
  )
  genes = genetics.from_choices(space, found)
  _, first = np.unique(genes, axis=0, return_index=True)
  whole = [
    row
    for row in genes[np.sort(first)]
    if space_tools.is_connected(genetics.architecture(space, row))
  ]
  return np.array(whole[:count])


def run(found: argparse.Namespace) -> dict[str, Any]:
  dataset = path_supernet.halved(data.load(found.data))
  make, arguments = SPACES[found.space]
  space = make(
    image_shape=data.shape(dataset.train),
    num_classes=dataset.num_classes,
    **arguments,
  )
  networks = drawn(space, found.networks)
  train, steps = path_supernet.trainer(space, found.images, found.epochs)
  fit, few = (
    (train, steps)
    if found.alone == found.epochs
    else path_supernet.trainer(space, found.images, found.alone)
  )
  images = path_supernet.images_of(dataset, found.images, 0, found.scored)
  statistics = data.statistics(images["train"])
  make_score = path_supernet.scorer(space)

  def accuracies(of, key, genes, points):
    variables = of(key, images["train"], *statistics, genes)
    score = make_score(variables, images["train"], images["valid"], statistics)
    return score(points)

  first = found.first_seed
  shared, alone = [], []
  for seed in range(first, first + found.seeds):
    start = time.process_time()
    every = path_supernet.all_paths(space)
    shared.append(accuracies(train, jax.random.key(seed), every, networks))
    show(f"supernet {seed}, {steps} steps", shared[-1], start)
  for seed in range(first, first + found.repeats):
    start = time.process_time()
    # Others than the supernets'.
    keys = jax.random.split(jax.random.key(1000 + seed), len(networks))
    alone.append(
      np.array(
        [
          accuracies(fit, key, genes, genes[None])[0]
          for key, genes in zip(keys, networks, strict=True)
        ]
      )
    )
    show(f"each alone, repeat {seed}, {few} steps", alone[-1], start)
    rho = [ranking.rank_correlation(one, alone[-1]) for one in shared]
    print(f"  Spearman with each supernet: {np.round(rho, 3)}", flush=True)
  return summary(np.array(shared), np.array(alone))


def show(title: str, accuracies: np.ndarray, start: float) -> None:
  low, middle, high = np.percentile(accuracies, [0, 50, 100])
  print(
    f"{title}: accuracies {low:.3f}, {middle:.3f}, {high:.3f} (least, median,"
    f" most); {time.process_time() - start:.0f} s of CPU time",
    flush=True,
  )


def summary(shared: np.ndarray, alone: np.ndarray) -> dict[str, Any]:
  """Rank correlations.

  Args:
    shared: f64[S, N], accuracies at S supernets' weights.
    alone: f64[R, N], of R standalone trainings.
  """
  between = ranking.rank_correlation
  mean = alone.mean(0)
  upper = mean >= np.median(mean)
  return {
    "spearman": [between(one, mean) for one in shared],
    "to_one_alone": [between(s, a) for s in shared for a in alone],
    "in_the_upper_half": [between(one[upper], mean[upper]) for one in shared],
    "alone_to_alone": [
      between(*pair) for pair in itertools.combinations(alone, 2)
    ],
    "supernet_to_supernet": [
      between(*pair) for pair in itertools.combinations(shared, 2)
    ],
    "shared": shared.tolist(),
    "alone": alone.tolist(),
  }


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--data", default="fashion-mnist")
  parser.add_argument("--space", default="nasbench201", choices=SPACES)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--first-seed", type=int, default=0)
  parser.add_argument("--networks", type=int, default=30)
  parser.add_argument("--repeats", type=int, default=2, help="of standalone")
  parser.add_argument("--images", type=int, default=4096, help="to train on")
  parser.add_argument("--scored", type=int, default=4096, help="to score on")
  parser.add_argument("--epochs", type=int, default=40, help="the supernet's")
  parser.add_argument("--alone", type=int, default=10, help="a network's")
  parser.add_argument("--json", action="store_true", help="last line: JSON")
  found = parser.parse_args()
  for name, least in (
    ("seeds", 1),
    ("first_seed", 0),
    ("networks", 3),
    ("repeats", 1),
    ("images", 256),
    ("scored", 256),
    ("epochs", 1),
    ("alone", 1),
  ):
    if getattr(found, name) < least:
      flag = "--" + name.replace("_", "-")
      parser.error(f"{flag} must be at least {least}")
  try:
    result = run(found)
  except InputError as error:
    print(f"error: {one_line(error)}", file=sys.stderr)
    return BAD_INPUT
  for name, title in (
    ("spearman", "each supernet and the mean of the standalone trainings"),
    ("to_one_alone", "each supernet and each standalone training"),
    ("in_the_upper_half", "as the first, among the better half of networks"),
    ("alone_to_alone", "one standalone training and another"),
    ("supernet_to_supernet", "one supernet and another"),
  ):
    shown = " ".join(f"{rho:.3f}" for rho in result[name])
    print(f"Spearman, {title}: {shown or 'there is only one'}")
  if found.json:
    print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
