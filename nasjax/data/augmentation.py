"""What is done to images inside the compiled step: gather, scale, augment.

Everything here is pure and of static shape. Images are scaled before they are
augmented, so that the zeros of a crop's border and of a cutout are the mean.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.data.inputs import Images, chunks
from nasjax.defaults import AUTO
from nasjax.errors import InputError, nearest
from nasjax.reader import whole
from nasjax.types import Batch

_LEVELS = 255.0
_LEAST_DEVIATION = 1e-7  # of a float channel, relative to its mean


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


def default_augmentation(image_shape: tuple[int, int, int]) -> Augmentation:
  """What harms no images of a shape [H, W, C]: a crop of an eighth.

  Mirroring is left out, as it makes another image of a digit, a letter or a
  sign.
  """
  return Augmentation(crop=min(image_shape[:2]) // 8)


def resolve_augmentation(
  asked: str | Augmentation,
  image_shape: tuple[int, int, int],
  auto: Augmentation | None = None,
) -> Augmentation:
  """The augmentation that `--augment` asks for.

  Args:
    asked: `auto`; `none`; or some of `flip`, `crop`, `crop=PIXELS`, `cutout`
      and `cutout=PIXELS` with commas or spaces between them. A crop is of an
      eighth of the shorter side and at least of one pixel, and a cutout has
      half of the height for a side, if no pixels are said.
    image_shape: [H, W, C] of the images.
    auto: what `auto` means; `default_augmentation` if it is None.

  Raises:
    InputError: a name is unknown or stands there twice, or pixels are no
      whole number from 0 to the longer side.
  """
  if isinstance(asked, Augmentation):
    asked = augmentation_text(asked)
  if asked.strip() == AUTO:
    return default_augmentation(image_shape) if auto is None else auto
  height, width, _ = image_shape
  sizes = {"flip": True, "crop": max(1, min(height, width) // 8)}
  sizes["cutout"] = height // 2
  chosen: dict[str, int] = {}
  for word in asked.replace(",", " ").split():
    name, equals, pixels = word.partition("=")
    if word == "none":
      continue
    if name not in sizes or (equals and name == "flip"):
      fix = nearest(name, [*sizes, "none", AUTO])
      raise InputError("--augment", f"unknown name {word[:40]!r}", fix)
    if name in chosen:
      raise InputError("--augment", f"{name!r} stands there twice")
    chosen[name] = sizes[name]
    if equals:
      chosen[name] = whole(
        pixels, f"--augment {name}", low=0, high=max(height, width)
      )
  return Augmentation(**chosen)


def augmentation_text(augmentation: Augmentation) -> str:
  """A text from which `resolve_augmentation` makes the same again."""
  words = ["flip"] if augmentation.flip else []
  for name in ("crop", "cutout"):
    pixels = getattr(augmentation, name)
    words += [f"{name}={pixels}"] if pixels else []
  return " ".join(words) or "none"


def scaled(
  augmentation: Augmentation,
  old: tuple[int, int, int],
  new: tuple[int, int, int],
) -> Augmentation:
  """What suited images of one shape, for the same ones at another size."""
  if augmentation == default_augmentation(old):
    return default_augmentation(new)
  before, after = min(old[:2]), min(new[:2])
  flip, *sizes = augmentation
  return Augmentation(flip, *(pixels * after // before for pixels in sizes))


def statistics(images: Images) -> tuple[np.ndarray, np.ndarray]:
  """Mean and deviation of every channel; pixels are counted from 0 to 1.

  Give the part that trains the weights, so that nothing of the others leaks.

  Args:
    images: uint8 or f32 [N,H,W,C] and labels, at least one row.

  Returns:
    mean f32[C] and std f32[C]; std is at least one gray level, 1/255, of
    pixels, and 1 instead of 0 of other values.

  Raises:
    ValueError: there is no image.
  """
  pixels = images.images
  if not len(pixels):
    raise ValueError("statistics need at least one image")
  of = _of_pixels if pixels.dtype == np.uint8 else _of_values
  mean, std = of(np.asarray(pixels))
  return mean.astype(np.float32), std.astype(np.float32)


def _of_pixels(pixels):
  counts = np.zeros((pixels.shape[-1], 256), np.int64)
  # Counting levels is exact, whatever the order, and needs no float copy.
  for rows in chunks(pixels):
    for channel, count in enumerate(counts):
      part = pixels[rows, ..., channel]
      count += np.bincount(part.ravel(), minlength=256)
  weights = counts / counts.sum(axis=1, keepdims=True)
  levels = np.arange(256) / _LEVELS
  mean = weights @ levels
  variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
  return mean, np.maximum(np.sqrt(variance), 1 / _LEVELS)


def _of_values(values):
  """The mean first: a difference of sums of squares would lose its digits."""
  channels = values.shape[-1]
  count = values.size // channels
  parts = [values[rows].reshape(-1, channels) for rows in chunks(values)]
  mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / count
  squares = sum(((part - mean) ** 2).sum(axis=0) for part in parts)
  std = np.sqrt(squares / count)
  # A channel of one value has a deviation of rounding alone: dividing by that
  # would blow up the least difference in another image.
  least = _LEAST_DEVIATION * np.maximum(np.abs(mean), np.finfo("f4").tiny)
  return mean, np.where(std > least, std, 1.0)


def normalize(
  images: jax.Array | np.ndarray,
  mean: jax.Array | np.ndarray,
  std: jax.Array | np.ndarray,
) -> jax.Array:
  """Scales images to f32[...,C]: mean 0 and deviation 1 a channel.

  Args:
    images: uint8[...,C], which are counted from 0 to 1, or f32[...,C], which
      are values as they are.
    mean: f32[C], as `statistics` gives it.
    std: f32[C], not 0.
  """
  images = jnp.asarray(images)
  shape = (1,) * (images.ndim - 1) + (-1,)
  mean = jnp.asarray(mean, jnp.float32).reshape(shape)
  std = jnp.asarray(std, jnp.float32).reshape(shape)
  values = images.astype(jnp.float32)
  # The dtype is static, so that a compiled program has one of the two.
  values = values / _LEVELS if images.dtype == jnp.uint8 else values
  return (values - mean) / std


def gather(
  images: Images,
  indices: jax.Array,
  mean: jax.Array | np.ndarray,
  std: jax.Array | np.ndarray,
) -> Batch:
  """Takes rows of a set that lies on the device, and scales them.

  Args:
    images: uint8 or f32 [N,H,W,C] and labels int32[N].
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
