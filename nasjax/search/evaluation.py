"""Accuracy of decided architectures at a supernet's weights.

What is measured is what would be deployed: a network runs in inference mode,
with batch statistics of its own from class-mixed batches of training images,
over every image that is named, in an order that no file decides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasjax import data
from nasjax.data import pool as pools
from nasjax.layers.normalization import MOMENTUM
from nasjax.search import genes
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Choices, Sampled

SCORED = 10_000  # images that score a network
# Where many networks are compared a standard error of a point is enough.
SCORED_OF_MANY = 2048
CALIBRATION_BATCHES = 4


class Scoring(NamedTuple):
  """The images that networks are scored with. A pytree."""

  calibration: pools.Pool  # training images, for batch statistics
  images: pools.Pool  # what is scored on


def scoring(
  calibration: data.Images,
  images: data.Images,
  statistics: tuple,
  *,
  most: int | None = SCORED,
  batch_size: int = 256,
  calibration_batches: int = CALIBRATION_BATCHES,
) -> Scoring:
  """Puts on the device what networks are scored with.

  Args:
    calibration: training images; each class has its share of the
      `calibration_batches` batches that are taken of them.
    images: to score on.
    statistics: (mean, std) that the images were trained with.
    most: how many images are scored, each class by its share; None: all.
    batch_size: images at once.
    calibration_batches: as many at most.
  """
  return Scoring(
    calibration_pool(
      calibration,
      statistics,
      batch_size=batch_size,
      batches=calibration_batches,
    ),
    pools.make_pool(_share(images, most), statistics),
  )


def calibration_pool(
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  batches: int = CALIBRATION_BATCHES,
) -> pools.Pool:
  """The training images that batch statistics are taken of.

  Args:
    images: the training images.
    statistics: (mean, std) that they are scaled with.
    batch_size: images at once.
    batches: as many at most, each class by its share.
  """
  few = _share(images, batch_size * batches)
  return pools.make_pool(few, statistics)


def _share(images: data.Images, most: int | None) -> data.Images:
  """At most so many images, each class by its share."""
  if most is None or len(images.labels) <= most:
    return images
  images = data.ordered(images)
  return data.take(images, data.stratified(images.labels, most))


def network_accuracy(
  space: Any,
  variables: Any,
  sampled: Sampled,
  scoring: Scoring,
  *,
  batch_size: int = 256,
) -> Array:
  """The accuracy of one path of a supernet, f32[] in 0..1; for use in jit.

  The path gets batch statistics of its own, the mean over batches of training
  images (Yu and Huang 2019, "Universally slimmable networks", section 3.2; Guo
  et al. 2020, section 3.4); then every image is scored as the decided network
  would score it alone.

  Args:
    space: the space.
    variables: of its supernet.
    sampled: one path.
    scoring: the images.
    batch_size: images at once.
  """
  own = with_own_statistics(
    space, variables, sampled, scoring.calibration, batch_size
  )
  return share_of_hits(
    lambda images: space.apply(own, sampled, images, False)[0],
    scoring.images,
    batch_size,
  )


def share_of_hits(
  network: Callable[[Array], Array], pool: pools.Pool, batch_size: int = 256
) -> Array:
  """The share of a pool's images that a network gets right, f32[].

  Args:
    network: images f32[B, H, W, C] -> outputs f32[B, classes], each row of
      them by itself.
    pool: all its images are scored.
    batch_size: images at once.
  """
  return hits_by_class(network, pool, batch_size).sum() / pool.size


def hits_by_class(
  network: Callable[[Array], Array], pool: pools.Pool, batch_size: int = 256
) -> Array:
  """How many of a pool's images of each class a network gets right.

  Args:
    network: see `share_of_hits`.
    pool: all its images are scored.
    batch_size: images at once.

  Returns:
    i32[classes].
  """
  batch = min(batch_size, len(pool.labels))

  def score(index, hits):
    rows = index * batch + jnp.arange(batch)
    # What fills up the last batch is shown again, and counts nothing.
    found = pools.gather(pool, rows % pool.size)
    right = jnp.argmax(network(found.images), -1) == found.labels
    counts = (right & (rows < pool.size)).astype(jnp.int32)
    return hits.at[found.labels].add(counts)

  example = jax.ShapeDtypeStruct((batch, *pool.images.shape[1:]), jnp.float32)
  classes = jax.eval_shape(network, example).shape[-1]
  batches = (pool.size + batch - 1) // batch
  return lax.fori_loop(0, batches, score, jnp.zeros(classes, jnp.int32))


def supernet_accuracy(
  space: Any,
  variables: Any,
  calibration: data.Images,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  most: int | None = SCORED,
) -> Callable[[Architecture], float]:
  """Makes a function from architectures to accuracy with shared weights.

  Args:
    space: the space.
    variables: of its supernet.
    calibration: training images, see `scoring`.
    images: to score on.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    most: how many images are scored, each class by its share; None: all.

  Returns:
    architecture -> accuracy in 0..1, see `network_accuracy`; compiled once for
    all architectures.
  """
  shown = scoring(
    calibration, images, statistics, most=most, batch_size=batch_size
  )
  accuracy = jax.jit(partial(network_accuracy, space, batch_size=batch_size))

  def of(architecture: Architecture) -> float:
    return float(accuracy(variables, architecture.sampled(), shown))

  return of


def population_scores(
  space: Any,
  variables: Any,
  choices: Choices,
  scoring: Scoring,
  *,
  batch_size: int = 256,
) -> Array:
  """The accuracies of a population, f32[N] in 0..1; for use in jit.

  Args:
    space: the space.
    variables: of its supernet.
    choices: i32[N, E] a group. Architectures are scored one after another:
      each runs one path an edge.
    scoring: the images.
    batch_size: images at once.
  """

  def one(row):
    sampled = genes.one_path(space.masks, row)
    return network_accuracy(
      space, variables, sampled, scoring, batch_size=batch_size
    )

  return lax.map(one, choices)


def population_accuracy(
  space: Any,
  calibration: data.Images,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  calibration_batches: int = CALIBRATION_BATCHES,
  most: int | None = SCORED_OF_MANY,
) -> Callable[[Any, Choices], Array]:
  """Makes a function from a population to its accuracies, for use in jit.

  Args:
    space: the space.
    calibration: training images, see `scoring`.
    images: to score on.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    calibration_batches: as many at most.
    most: how many images are scored, each class by its share; None: all.

  Returns:
    (variables of the supernet, choices i32[N, E] a group) -> f32[N] in 0..1,
    see `population_scores`.
  """
  shown = scoring(
    calibration,
    images,
    statistics,
    most=most,
    batch_size=batch_size,
    calibration_batches=calibration_batches,
  )

  def of(variables, choices):
    return population_scores(
      space, variables, choices, shown, batch_size=batch_size
    )

  return of


def with_own_statistics(
  space: Any,
  variables: Any,
  sampled: Sampled,
  pool: pools.Pool,
  batch_size: int = 256,
) -> Any:
  """Gives one path of a supernet batch statistics of its own; for use in jit.

  Args:
    space: the space.
    variables: of its supernet.
    sampled: one path.
    pool: training images, all of which are shown.
    batch_size: images at once.

  Returns:
    The variables with the mean of the batches' statistics on that path.
  """

  def seen(variables, images):
    return space.apply(variables, sampled, images, True)[1]

  return own_statistics(seen, variables, pool, batch_size)


def own_statistics(
  seen: Callable[[Any, Array], Any],
  variables: Any,
  pool: pools.Pool,
  batch_size: int = 256,
) -> Any:
  """Variables whose batch statistics are those of a pool; for use in jit.

  Args:
    seen: (variables, images f32[B, H, W, C]) -> the batch statistics that a
      training step on these images leaves.
    variables: {"params", "batch_stats"}.
    pool: training images; a last part-batch is filled up with the first ones.
    batch_size: images at once.

  Returns:
    The variables with the mean of the batches' statistics.
  """
  batch = min(batch_size, len(pool.labels))
  batches = (pool.size + batch - 1) // batch
  zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
  fresh = {**variables, "batch_stats": zero}

  def add(index, total):
    rows = (index * batch + jnp.arange(batch)) % pool.size
    images = pools.gather(pool, rows).images
    return jax.tree.map(jnp.add, total, seen(fresh, images))

  total = lax.fori_loop(0, batches, add, zero)
  # From 0 a running statistic moves by 1 - momentum of the batch's.
  scale = 1.0 / ((1.0 - MOMENTUM) * batches)
  return {
    **variables,
    "batch_stats": jax.tree.map(lambda v: v * scale, total),
  }
