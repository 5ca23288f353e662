"""What is done to images inside the compiled step: gather, scale, augment.

Everything here is pure and of static shape. Images are scaled before they are
augmented, so that the zeros of a crop's border and of a cutout are the mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Batch

if TYPE_CHECKING:
  from nasjax.data.datasets import Images

_LEVELS = 255.0
_CHUNK = 4096


class Augmentation(NamedTuple):
  """What may be done to a training image; static under `jax.jit`.

  Attributes:
    flip: mirror left and right in half of the cases.
    crop: pixels of zero padding before a random crop back; 0 for none.
    cutout: side in pixels of a square set to zero; 0 for none.
  """

  flip: bool = False
  crop: int = 0
  cutout: int = 0


def statistics(images: Images) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation of every channel, pixels counted from 0 to 1.

  Give the part that trains the weights, so that nothing of the others leaks.

  Args:
    images: uint8[N,H,W,C] and labels, at least one row.

  Returns:
    mean f32[C] and std f32[C]; std is at least one gray level, 1/255.

  Raises:
    ValueError: there is no image.
  """
  pixels = images.images
  counts = np.zeros((pixels.shape[-1], 256), np.int64)
  # Counting levels is exact, whatever the order, and needs no float copy.
  for start in range(0, len(pixels), _CHUNK):
    for channel, count in enumerate(counts):
      part = pixels[start : start + _CHUNK, ..., channel]
      count += np.bincount(part.ravel(), minlength=256)
  if not counts.sum():
    raise ValueError("statistics need at least one image")
  weights = counts / counts.sum(axis=1, keepdims=True)
  levels = np.arange(256) / _LEVELS
  mean = weights @ levels
  variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
  std = np.maximum(np.sqrt(variance), 1 / _LEVELS)
  return mean.astype(np.float32), std.astype(np.float32)


def normalize(
  images: jax.Array | np.ndarray,
  mean: jax.Array | np.ndarray,
  std: jax.Array | np.ndarray,
) -> jax.Array:
  """Scales uint8[...,C] to f32[...,C]: mean 0 and deviation 1 a channel.

  Args:
    images: uint8[...,C].
    mean: f32[C], as `statistics` gives it.
    std: f32[C], not 0.
  """
  images = jnp.asarray(images)
  shape = (1,) * (images.ndim - 1) + (-1,)
  mean = jnp.asarray(mean, jnp.float32).reshape(shape)
  std = jnp.asarray(std, jnp.float32).reshape(shape)
  return (images.astype(jnp.float32) / _LEVELS - mean) / std


def gather(
  images: Images,
  indices: jax.Array,
  mean: jax.Array | np.ndarray,
  std: jax.Array | np.ndarray,
) -> Batch:
  """Takes rows of a set that lies on the device, and scales them.

  Args:
    images: uint8[N,H,W,C] and labels int32[N].
    indices: i32[B], each from 0 to N-1.
    mean: f32[C].
    std: f32[C].
  """
  pixels = jnp.asarray(images.images)[indices]
  labels = jnp.asarray(images.labels)[indices].astype(jnp.int32)
  return Batch(normalize(pixels, mean, std), labels)


def augment(
  key: jax.Array, images: jax.Array, augmentation: Augmentation
) -> jax.Array:
  """Flips, crops and cuts out of every image by its own key.

  The key of row i is `fold_in(key, i)`: a row's fate does not depend on the
  size of the batch.

  Args:
    key: a `jax.random.key`.
    images: f32[B,H,W,C], already scaled.
    augmentation: what to do; Python values, static under `jax.jit`.

  Returns:
    f32[B,H,W,C].

  Raises:
    ValueError: crop or cutout is negative.
  """
  if augmentation.crop < 0 or augmentation.cutout < 0:
    raise ValueError(f"crop and cutout must be 0 or more: {augmentation}")
  if not any(augmentation):
    return images

  def one(index, image):
    flip_key, crop_key, cutout_key = jax.random.split(
      jax.random.fold_in(key, index), 3
    )
    if augmentation.flip:
      mirror = jax.random.bernoulli(flip_key)
      image = jnp.where(mirror, image[:, ::-1, :], image)
    if augmentation.crop:
      image = _crop(crop_key, image, augmentation.crop)
    if augmentation.cutout:
      image = _cutout(cutout_key, image, augmentation.cutout)
    return image

  indices = jnp.arange(images.shape[0], dtype=jnp.uint32)
  return jax.vmap(one)(indices, images)


def _crop(key, image, pixels):
  padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
  y, x = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
  return jax.lax.dynamic_slice(padded, (y, x, 0), image.shape)


def _cutout(key, image, side):
  """Zeroes a square around a random pixel, cut off at the image's edge."""

  def near(key, length):
    middle = jax.random.randint(key, (), 0, length)
    places = jnp.arange(length) - middle + side // 2
    return (places >= 0) & (places < side)

  y_key, x_key = jax.random.split(key)
  rows, columns = near(y_key, image.shape[0]), near(x_key, image.shape[1])
  square = rows[:, None, None] & columns[None, :, None]
  return jnp.where(square, jnp.zeros((), image.dtype), image)


def epoch_indices(
  key: jax.Array, size: int, steps: int, batch: int
) -> jax.Array:
  """Row indices i32[steps,batch] of one epoch, none of them twice.

  Args:
    key: a `jax.random.key`.
    size: rows in the set.
    steps: batches in the epoch.
    batch: rows in a batch.

  Raises:
    ValueError: the set is too small for that many rows.
  """
  if steps < 1 or batch < 1 or steps * batch > size:
    raise ValueError(
      f"{steps} steps of {batch} rows need {steps * batch} of {size} rows;"
      " use a smaller batch or fewer steps"
    )
  order = jax.random.permutation(key, size)[: steps * batch]
  return order.reshape(steps, batch).astype(jnp.int32)
