"""How well a supernet ranks networks that are trained alone.

The supernet of the edge space is trained on uniform single paths; random
networks are scored at its weights, with batch statistics of their own, and by
training each alone from fresh weights, all on images that no weight was trained
on. Each seed has a supernet, images and standalone trainings of its own, the
networks are the same: so Spearman's correlation of two seeds' standalone
accuracies says how well one training ranks at all.

    python experiments/supernet_ranking.py [--data fashion-mnist] [--seeds 3] \
        [--networks 30] [--epochs 40] [--alone 20] [--json]

Images of 28 pixels or more are halved, so that it takes minutes.
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

CHANNELS, NODES, STAGES = 16, 2, 3


def drawn(space, count: int) -> np.ndarray:
  """Genes i32[count, G] of random networks, each once."""
  found = space_tools.random_choices(
    space, np.random.default_rng(0), 10 * count
  )
  genes = genetics.from_choices(space.masks, found)
  _, first = np.unique(genes, axis=0, return_index=True)
  return genes[np.sort(first)[:count]]


def run(found: argparse.Namespace) -> dict[str, Any]:
  dataset = path_supernet.halved(data.load(found.data))
  space = spaces.edge(
    image_shape=data.shape(dataset.train),
    num_classes=dataset.num_classes,
    channels=CHANNELS,
    nodes=NODES,
    stages=STAGES,
  )
  networks = drawn(space, found.networks)
  train, steps = path_supernet.trainer(space, found.images, found.epochs)
  fit, few = (
    (train, steps)
    if found.alone == found.epochs
    else path_supernet.trainer(space, found.images, found.alone)
  )
  make_score = path_supernet.scorer(space)
  shared, alone = [], []
  for seed in range(found.first_seed, found.first_seed + found.seeds):
    start = time.process_time()
    images = path_supernet.images_of(dataset, found.images, seed, found.scored)
    statistics = data.statistics(images["train"])

    def score(key, of, genes, points, images=images, statistics=statistics):
      variables = of(key, images["train"], *statistics, genes)
      return make_score(
        variables, images["train"], images["valid"], statistics
      )(points)

    both, one = jax.random.split(jax.random.key(seed))
    every = path_supernet.all_paths(space)
    shared.append(score(both, train, every, networks))
    keys = jax.random.split(one, len(networks))
    alone.append(
      np.array(
        [
          score(key, fit, genes, genes[None])[0]
          for key, genes in zip(keys, networks, strict=True)
        ]
      )
    )
    print(
      f"seed {seed}: Spearman"
      f" {ranking.rank_correlation(shared[-1], alone[-1]):.3f} of"
      f" {len(networks)} networks; supernet {steps} steps, accuracies"
      f" {shared[-1].min():.3f} to {shared[-1].max():.3f}; alone {few} steps,"
      f" {alone[-1].min():.3f} to {alone[-1].max():.3f};"
      f" {time.process_time() - start:.0f} s of CPU time",
      flush=True,
    )
  return summary(np.array(shared), np.array(alone))


def summary(shared: np.ndarray, alone: np.ndarray) -> dict[str, Any]:
  """Rank correlations of accuracies f64[S, N] of S seeds."""
  between = ranking.rank_correlation
  mean = alone.mean(0)
  upper = mean >= np.median(mean)
  return {
    "spearman": [between(*pair) for pair in zip(shared, alone, strict=True)],
    "to_the_mean_alone": [between(one, mean) for one in shared],
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
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--first-seed", type=int, default=0)
  parser.add_argument("--networks", type=int, default=30)
  parser.add_argument("--images", type=int, default=4096, help="to train on")
  parser.add_argument("--scored", type=int, default=4096, help="to score on")
  parser.add_argument("--epochs", type=int, default=40, help="the supernet's")
  parser.add_argument("--alone", type=int, default=20, help="a network's")
  parser.add_argument("--json", action="store_true", help="last line: JSON")
  found = parser.parse_args()
  for name, least in (
    ("seeds", 1),
    ("first_seed", 0),
    ("networks", 3),
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
    ("spearman", "supernet and standalone of one seed"),
    ("to_the_mean_alone", "supernet and the mean of all seeds' standalone"),
    ("in_the_upper_half", "the same among the better half of networks"),
    ("alone_to_alone", "standalone of one seed and of another"),
    ("supernet_to_supernet", "supernet of one seed and of another"),
  ):
    shown = " ".join(f"{rho:.3f}" for rho in result[name])
    print(f"Spearman, {title}: {shown or 'one seed has none'}")
  if found.json:
    print(json.dumps(result))
  return 0


if __name__ == "__main__":
  sys.exit(main())
