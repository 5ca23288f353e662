"""A small supernet, trained on uniform single paths and asked for accuracies.

One program trains it for any seed, and one scores any networks, weights and
images of one size: neither is compiled anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import data
from nasjax.errors import InputError
from nasjax.hardware.quantization import FLOAT
from nasjax.search import evaluation
from nasjax.search import genes as genetics
from nasjax.search.shared import default_optimizer, supernet

EPOCHS, BATCH, RATE = 40, 64, 0.05
CHUNK = 8  # networks scored by one call
SIDE = 28  # images from this size on are halved: it takes minutes, not hours

# genes i32[N, G] -> accuracies f64[N]
Score = Callable[[np.ndarray], np.ndarray]


def images_of(
  dataset, count: int, seed: int, few: int | None = None
) -> dict[str, data.Images]:
  """`count` training images, and `few` each to choose and to test by.

  No image stands in two of them; `few` is a quarter of `count` by default.
  """
  few = count // 4 if few is None else few
  rows = len(dataset.train.labels)
  # Equal images stay together: the parts may be a few rows off, so a tenth
  # more is split, and what is over is left.
  taken = int(1.1 * (count + few))
  if dataset.test is None or taken > rows:
    raise InputError(
      f"--data {dataset.name}",
      f"a test set and {taken} training images are needed; it has"
      f" {'no' if dataset.test is None else 'a'} test set and {rows} images",
      "lower --images",
    )
  drawn = np.random.default_rng(seed).permutation(rows)[:taken]
  train, valid = data.split(
    data.Images(*(a[drawn] for a in dataset.train)),
    seed=seed,
    fraction=count / (count + few),
  )
  return {
    "train": data.Images(*(a[:count] for a in train)),
    "valid": data.Images(*(a[:few] for a in valid)),
    "test": data.Images(*(a[:few] for a in dataset.test)),
  }


def halved(dataset: data.Dataset) -> data.Dataset:
  """Images of means of 2x2 pixels, where they are large; an odd row is left."""
  height, width, channels = data.shape(dataset.train)
  if min(height, width) < SIDE:
    return dataset

  def half(images):
    pixels = images.images[:, : height // 2 * 2, : width // 2 * 2]
    blocks = pixels.reshape(
      len(pixels), height // 2, 2, width // 2, 2, channels
    )
    means = np.round(blocks.mean((2, 4))).astype(np.uint8)
    return images._replace(images=means)

  test = None if dataset.test is None else half(dataset.test)
  return dataset._replace(train=half(dataset.train), test=test)


def trainer(space, images: int, epochs: int = EPOCHS):
  """(key, training images, mean, std, genes i32[G]) -> variables; its steps.

  Each step trains one path: where a gene is below 0 that of a uniform draw (Guo
  et al. 2020, section 3.2), else its own. So one program trains the supernet
  (all below 0) and any network alone.
  """
  each = images // BATCH
  steps = epochs * each
  network = supernet(
    space,
    optimizer=default_optimizer(optax.cosine_decay_schedule(RATE, steps)),
    remat=None,
    activations=jnp.float32,
    low_bits=FLOAT,
    name="path_supernet",
  )
  counts = genetics.cardinalities(space)

  @jax.jit
  def train(key, pool, mean, std, genes):
    start, order, draws = jax.random.split(key, 3)
    rows = jax.vmap(lambda k: data.epoch_indices(k, images, each, BATCH))(
      jax.random.split(order, epochs)
    )

    def step(shared, drawn):
      row, chance = drawn
      own = jnp.where(genes < 0, chance, genes)
      path = genetics.one_path(space.masks, genetics.to_choices(space, own))
      batch = data.gather(pool, row, mean, std)
      return network.weight_step(shared, path, batch)[0], None

    drawn = rows.reshape(steps, BATCH), genetics.random(draws, counts, steps)
    return jax.lax.scan(step, network.init(start), drawn)[0].variables

  return train, steps


def all_paths(space) -> np.ndarray:
  """What `trainer` takes for a supernet, i32[G]."""
  return np.full(len(genetics.cardinalities(space)), -1, np.int32)


def scorer(space):
  """(variables, training images, others, statistics) -> Score.

  One program for all networks, weights and images of one size.
  """
  accuracy = jax.jit(partial(evaluation.population_scores, space))

  def make(variables, train, images, statistics) -> Score:
    shown = evaluation.scoring(
      train, images, statistics, most=None, calibration_batches=1
    )
    known: dict[bytes, float] = {}  # searches meet the same networks

    def score(points):
      new = {p.tobytes(): p for p in points if p.tobytes() not in known}
      rows, scores = list(new.values()), []
      for first in range(0, len(rows), CHUNK):
        part = np.resize(rows[first : first + CHUNK], (CHUNK, len(rows[0])))
        choices = genetics.to_choices(space, part)
        # Not waited for: calls run side by side.
        scores.append(accuracy(variables, choices, shown))
      found = np.concatenate([np.zeros(0), *scores])[: len(rows)]
      known.update(zip(new, found.tolist(), strict=True))
      return np.array([known[p.tobytes()] for p in points])

    return score

  return make
