"""Images and their labels as arrays, in an order that no file decides.

Rows are ordered by a digest of what is trained on before anything is drawn of
them: a folder, a sorted file and a shuffled one of the same images are the
same set, row by row, so that splits, batches and samples are too.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

ROW_ORDER = 1  # the version of the order, which runs keep

_CHUNK = 2**22  # values


class Images(NamedTuple):
  """Images and their labels.

  Attributes:
    images: uint8[N, H, W, C] pixels, or f32[N, H, W, C] values as they are.
    labels: int32[N].
  """

  images: np.ndarray
  labels: np.ndarray


def shape(images: Images) -> tuple[int, int, int]:
  """Height, width and channels of one image."""
  height, width, channels = images.images.shape[1:]
  return height, width, channels


def chunks(values: np.ndarray) -> list[slice]:
  """Slices of the rows, of a few million values each.

  What is computed of a slice at a time needs little memory next to the set.
  """
  step = max(1, _CHUNK * len(values) // max(1, values.size))
  return [slice(i, i + step) for i in range(0, len(values), step)]


def take(images: Images, rows: np.ndarray) -> Images:
  """The rows of a set that an index or mask [N] names."""
  return Images(images.images[rows], images.labels[rows])


def joined(first: Images, second: Images) -> Images:
  """Two sets as one, in the order of `ordered`."""
  both = zip(first, second, strict=True)
  return ordered(Images(*(np.concatenate(pair) for pair in both)))


def digests(images: Images, *, with_labels: bool) -> np.ndarray:
  """A digest of each row, uint64[N, 2]: equal for equal rows alone.

  Args:
    images: N rows.
    with_labels: of pixels and int32 label, not of pixels alone.
  """
  pixels = np.ascontiguousarray(images.images)
  labels = np.ascontiguousarray(images.labels, "<i4")
  marks = bytearray()
  for image, label in zip(pixels.reshape(len(pixels), -1), labels, strict=True):
    mark = hashlib.blake2b(image, digest_size=16)
    if with_labels:
      mark.update(label.tobytes())
    marks += mark.digest()
  return np.frombuffer(marks, ">u8").reshape(-1, 2).astype(np.uint64)


def order(images: Images, groups: np.ndarray | None = None) -> np.ndarray:
  """The rows of a set in an order of their own.

  Args:
    images: N rows.
    groups: int[N] or None.

  Returns:
    i64[N]: rows sorted by a digest of pixels and int32 label, equal rows by
    group.
  """
  first, second = digests(images, with_labels=True).T
  last = np.zeros(len(first)) if groups is None else groups
  return np.lexsort((last, second, first))


def ordered(images: Images) -> Images:
  """The set with its rows in the order of `order`."""
  return take(images, order(images))


def stratified(labels: np.ndarray, count: int) -> np.ndarray:
  """Rows of a part of a set in which each class has its share.

  Args:
    labels: int[N].
    count: rows of the part; all where there are no more.

  Returns:
    i64[min(count, N)], rising: the first rows of each class, in number its
    share of `count` to within one.
  """
  if count >= len(labels):
    return np.arange(len(labels))
  _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
  # Rounded as a running sum, so that all together are `count`.
  ends = np.cumsum(sizes) * count // len(labels)
  shares = np.diff(ends, prepend=0)
  by_class = np.argsort(classes, kind="stable")
  starts = np.cumsum(sizes) - sizes
  rank = np.empty(len(labels), np.int64)
  rank[by_class] = np.arange(len(labels)) - np.repeat(starts, sizes)
  return np.flatnonzero(rank < shares[classes])
