"""Checks of arrays that users give, and their number of channels."""

from __future__ import annotations

import numpy as np

from nasjax.data.inputs import chunks
from nasjax.errors import InputError

# Red, green and blue in a gray level: the whole numbers of Pillow's "L".
_LUMA = np.array([19595, 38470, 7471], np.uint32)
_HALF, _SHIFT = np.uint32(0x8000), np.uint32(16)


def checked(
  images: np.ndarray, labels: np.ndarray, image_name: str, label_name: str
) -> tuple[np.ndarray, np.ndarray]:
  """Images and labels as the rest of the package takes them.

  Args:
    images: [N,H,W,C] or [N,H,W]: uint8 pixels, or floats or signed whole
      numbers of any width, which are values and stay as they are.
    labels: whole numbers [N] or [N,1].
    image_name: what a message calls the images.
    label_name: what a message calls the labels.

  Returns:
    uint8 or f32 [N,H,W,C], and int64[N].

  Raises:
    InputError: they have another dtype or shape, or hold a value that is not
      finite.
  """
  if not images.size:
    raise InputError(image_name, f"is empty: {images.shape}")
  if images.dtype != np.uint8 and images.dtype.kind not in "fi":
    raise InputError(
      image_name,
      f"holds {images.dtype}, uint8 is expected, or float values",
      "save pixels of 0 to 255, or sensor data as float32",
    )
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4:
    raise InputError(
      image_name, f"has shape {images.shape}, [N,H,W,C] is expected"
    )
  if _channels_first(images):
    raise InputError(
      image_name,
      f"has shape {images.shape}, which looks like [N,C,H,W]",
      "save x.transpose(0, 2, 3, 1)",
    )
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if labels.dtype.kind not in "iu" or labels.ndim != 1:
    raise InputError(
      label_name,
      f"holds {labels.dtype} {labels.shape}, whole labels [N] are expected",
    )
  if len(images) != len(labels):
    raise InputError(
      label_name,
      f"has {len(labels)} labels, {image_name} has {len(images)} images",
    )
  if labels.max() > np.iinfo(np.int64).max:
    raise InputError(label_name, f"label {labels.max()} is too high")
  if images.dtype != np.uint8:
    images = _values(images, image_name)
  return images, labels.astype(np.int64)


def _channels_first(images):
  _, first, second, third = images.shape
  # A sensor's windows, [N,1,time,channels], look like that but for the square.
  square = images.dtype == np.uint8 or second == third
  return first in (1, 3) and third > 4 and square


def _values(images, name):
  """Finite f32 of the same values; -0 becomes 0, so that equal rows are."""
  made = np.empty(images.shape, np.float32)
  for part in chunks(images):
    with np.errstate(over="ignore", invalid="ignore"):
      np.add(images[part].astype(np.float32), np.float32(0), out=made[part])
    finite = np.isfinite(made[part]).all(axis=(1, 2, 3))
    if not finite.all():
      row = part.start + int(np.argmin(finite))
      raise InputError(
        name,
        f"row {row} holds a value that is not finite as float32",
        "leave the row out, or fill in its values",
      )
  return made


def groups(values: np.ndarray, count: int, name: str) -> np.ndarray:
  """The groups of N rows, numbered in the order of their values.

  Args:
    values: whole numbers or strings [N].
    count: N.
    name: what a message calls them.

  Returns:
    int32[N].

  Raises:
    InputError: they are none of these, or not N.
  """
  if values.ndim == 2 and values.shape[1] == 1:
    values = values[:, 0]
  if values.dtype.kind not in "iuUS" or values.ndim != 1:
    raise InputError(
      name,
      f"holds {values.dtype} {values.shape}, whole numbers or strings [N] are"
      " expected",
    )
  if len(values) != count:
    raise InputError(
      name, f"has {len(values)} groups, there are {count} training images"
    )
  return np.unique(values, return_inverse=True)[1].astype(np.int32)


def in_channels(images: np.ndarray, channels: int, name: str) -> np.ndarray:
  """Images with 1 or 3 channels, as a folder's are with `--channels-in`.

  Args:
    images: uint8[N,H,W,1 or 3], or anything that has as many channels.
    channels: 1 or 3.
    name: what a message calls the images.

  Returns:
    uint8[N,H,W,channels]: gray repeated, or colours as Pillow's gray.

  Raises:
    InputError: they have other channels, or are no pixels.
  """
  found = images.shape[3]
  if found == channels:
    return images
  if images.dtype != np.uint8 or found not in (1, 3):
    raise InputError(
      f"--channels-in {channels}",
      f"{name} has {found} channels of {images.dtype}, 1 or 3 of uint8 can be"
      " changed",
      "leave it out",
    )
  if channels == 3:
    return np.repeat(images, 3, axis=3)
  made = np.empty((*images.shape[:3], 1), np.uint8)
  for part in chunks(images):
    sums = images[part].astype(np.uint32) @ _LUMA
    made[part, ..., 0] = (sums + _HALF) >> _SHIFT
  return made
