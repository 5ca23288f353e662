"""Images on the device, in an array of one of a few sizes.

What differs between sets of one shape (how many images there are, their mean
and deviation) is data of a compiled program here, never a constant in it: a
second set of about as many images compiles nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.data import augmentation, inputs
from nasjax.data.inputs import Images
from nasjax.types import Array, Batch


class Pool(NamedTuple):
  """Images on the device, and how they are scaled. A pytree.

  Attributes:
    images: uint8[P, H, W, C] or f32[P, H, W, C]; rows from `size` on are
      zeros that nothing may read.
    labels: i32[P].
    size: i32[], the number of images.
    mean: f32[C], of the images that train the weights.
    std: f32[C], of the same.
  """

  images: Array
  labels: Array
  size: Array
  mean: Array
  std: Array


def padded(size: int) -> int:
  """The next of the few sizes that pools have: at most an eighth more.

  Eight of them lie between two powers of two.
  """
  step = 1 << max(0, size.bit_length() - 4)
  return -(-size // step) * step


def make_pool(images: Images, statistics: tuple) -> Pool:
  """Puts a set on the device, in the order of its own that all sets have.

  Args:
    images: N rows in any order, at least one.
    statistics: (mean, std), f32[C] each, see `augmentation.statistics`.

  Returns:
    The pool; row i of it is row i of `inputs.ordered(images)`.

  Raises:
    ValueError: there is no image.
  """
  size = len(images.labels)
  if not size:
    raise ValueError("a pool needs at least one image")
  more = padded(size) - size
  images = inputs.ordered(images)
  pixels = np.pad(images.images, [(0, more), (0, 0), (0, 0), (0, 0)])
  labels = np.pad(np.asarray(images.labels, np.int32), (0, more))
  mean, std = (jnp.asarray(v, jnp.float32) for v in statistics)
  return Pool(
    jnp.asarray(pixels), jnp.asarray(labels), jnp.int32(size), mean, std
  )


def gather(pool: Pool, rows: Array) -> Batch:
  """Takes rows of a pool, and scales them.

  Args:
    pool: of the images.
    rows: i32[B], each below the pool's size.

  Returns:
    images f32[B, H, W, C] and labels i32[B].
  """
  images = Images(pool.images, pool.labels)
  return augmentation.gather(images, rows, pool.mean, pool.std)


def epoch_rows(key: jax.Array, size: int, steps: int, batch: int) -> np.ndarray:
  """Row numbers of an epoch, i32[steps, batch], drawn on the host.

  Each row comes once before any comes twice. Nothing is compiled for it,
  whatever the size.

  Args:
    key: a `jax.random.key`.
    size: rows in the set, at least `batch`.
    steps: batches in the epoch.
    batch: rows in a batch.

  Raises:
    ValueError: the set has fewer rows than a batch, or there is no step.
  """
  if steps < 1 or batch < 1 or batch > size:
    raise ValueError(
      f"{steps} steps of {batch} rows cannot be drawn of {size} rows; use a"
      " smaller batch"
    )
  words = np.asarray(jax.random.key_data(key)).ravel().tolist()
  generator = np.random.default_rng(words)
  each = size // batch
  rounds = [
    generator.permutation(size)[: each * batch].reshape(each, batch)
    for _ in range(-(-steps // each))
  ]
  return np.concatenate(rounds)[:steps].astype(np.int32)
