"""Accuracy of decided architectures at a supernet's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax import data
from nasjax.search.epochs import on_device
from nasjax.spaces.space import Architecture


def supernet_accuracy(
  space: Any,
  variables: Any,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  most: int = 5120,
) -> Callable[[Architecture], float]:
  """Makes a function from architectures to accuracy with shared weights.

  Normalisation uses each batch's own statistics: the supernet's running ones
  mix those of all paths.

  Args:
    space: the space.
    variables: of its supernet.
    images: to score on; at most the first `most`.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    most: how many images are used.

  Returns:
    architecture -> accuracy in 0..1; compiled once for all architectures.
  """
  size = min(len(images.labels), most)
  batch = min(batch_size, size)
  rows = jnp.arange(size // batch * batch).reshape(-1, batch)
  pool = on_device(images)
  mean, std = statistics

  @jax.jit
  def accuracy(variables, sampled):
    def score(hits, row):
      found = data.gather(pool, row, mean, std)
      outputs, _ = space.apply(variables, sampled, found.images, True)
      return hits + jnp.sum(jnp.argmax(outputs, -1) == found.labels), None

    hits, _ = lax.scan(score, jnp.int32(0), rows)
    return hits / rows.size

  def of(architecture: Architecture) -> float:
    return float(accuracy(variables, architecture.sampled()))

  return of
