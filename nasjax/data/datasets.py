"""Images and labels from files, checked, and split so that nothing leaks.

All of it is numpy on the host. Files are data, never code: pickled files are
refused, every declared size is checked against a limit and against what is
there before it is allocated.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasjax.data import binary, folder, npz
from nasjax.data.augmentation import Augmentation
from nasjax.errors import InputError, nearest

MAX_BYTES = 4 * 2**30
NAMES = ("digits", "fashion-mnist")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
FASHION_MNIST_VARIABLE = "NASJAX_FASHION_MNIST"

_HELD_OUT = 0.2
_MAX_SIDE = 4096
_FASHION_CLASSES = (
  "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
)
_FORMS = (
  "give digits, fashion-mnist, a .npz file, or a folder of IDX files, of"
  " CIFAR-10's .bin files or of one sub-folder of images a class"
)


class Images(NamedTuple):
  """Images uint8[N,H,W,C] and their labels int32[N]."""

  images: np.ndarray
  labels: np.ndarray


class Dataset(NamedTuple):
  """A training set, perhaps a test set, and what suits them."""

  name: str
  train: Images
  test: Images | None
  num_classes: int
  class_names: tuple[str, ...]
  augmentation: Augmentation


def shape(images: Images) -> tuple[int, int, int]:
  """Height, width and channels of one image."""
  height, width, channels = images.images.shape[1:]
  return height, width, channels


def load(
  source: str, *, image_size: int | None = None, max_bytes: int = MAX_BYTES
) -> Dataset:
  """Loads what `--data` names.

  Args:
    source: `digits` (in scikit-learn, 8x8x1), `fashion-mnist` (in Debian's
      dataset-fashion-mnist, 28x28x1), or a path to
      - a .npz with x_train, y_train and perhaps x_test, y_test: uint8
        [N,H,W,C] or [N,H,W] and whole labels from 0; other keys are not read;
      - a folder with the four IDX files, plain or .gz;
      - a folder with CIFAR-10's binary version;
      - a folder with a sub-folder of images for each class, or with train/ and
        test/ that hold these.
    image_size: side in pixels to which images are resized, bilinearly over
      all that a pixel covers.
    max_bytes: most bytes that the decoded images and labels may have.

  Returns:
    The data. Where the source has no test set of its own (digits, image
    folders) a fifth of each class is held out, always the same rows; a .npz
    without one gives None.

  Raises:
    InputError: there is no such source, or something is wrong with it.
  """
  if image_size is not None and not 1 <= image_size <= _MAX_SIDE:
    raise InputError(
      "--image-size", f"{image_size} is not between 1 and {_MAX_SIDE}"
    )
  where, path = f"--data {source}", Path(source)
  if source == "digits":
    dataset = _digits()
    binary.check_size(where, _bytes(dataset), max_bytes)
  elif source == "fashion-mnist":
    dataset = _fashion_mnist(max_bytes)
  elif path.suffix.lower() in (".pkl", ".pickle"):
    raise _pickled(where)
  elif os.path.isdir(source):
    dataset = _folder(path, image_size, max_bytes)
  elif path.suffix.lower() == ".npz":
    train, test = npz.read_npz(path, max_bytes)
    dataset = _dataset(path, path.stem, train, test)
    if test is not None:
      names = (f"{path}:x_train", f"{path}:x_test")
      check_disjoint(dataset.train, dataset.test, names)
  elif os.path.exists(source):
    raise InputError(where, "is not a file of a kind that is read", _FORMS)
  else:
    raise InputError(
      where,
      "is neither a known data set nor a file or folder",
      f"{_FORMS}; {nearest(source, NAMES)}",
    )
  if image_size is None:
    return dataset
  return resize(dataset, image_size, max_bytes)


def resize(
  dataset: Dataset, image_size: int, max_bytes: int = MAX_BYTES
) -> Dataset:
  """The data at another resolution.

  Training rows that become equal to test rows are left out.

  Args:
    dataset: of images of any shape.
    image_size: side in pixels of the square that they become.
    max_bytes: most bytes that the images may have.

  Raises:
    InputError: they would have more.
  """
  height, width, channels = shape(dataset.train)
  if (height, width) == (image_size, image_size):
    return dataset
  sets = [s for s in (dataset.train, dataset.test) if s is not None]
  count = sum(len(s.labels) for s in sets)
  binary.check_size(
    f"--image-size {image_size}", count * image_size**2 * channels, max_bytes
  )
  found = [
    s._replace(images=folder.resized(s.images, image_size)) for s in sets
  ]
  if dataset.test is None:
    return dataset._replace(train=found[0])
  made = dataset._replace(train=found[0], test=found[1])
  return _without_test_rows(made)


def check_disjoint(
  a: Images, b: Images, names: tuple[str, str] = ("train", "test")
) -> None:
  """Refuses two sets that share a row: the same image with the same label.

  Args:
    a: uint8[N,H,W,C], int32[N].
    b: uint8[M,H,W,C], int32[M].
    names: what the message calls them.

  Raises:
    InputError: says how many rows of `b` stand in `a`, and the first pair.
  """
  if shape(a) != shape(b):
    return
  in_a, in_b = _numbers(a, b)
  shared = np.flatnonzero(np.isin(in_b, in_a))
  if shared.size:
    raise InputError(
      f"{names[0]} and {names[1]}",
      f"{shared.size} of {len(in_b)} rows of {names[1]} stand in {names[0]} too"
      f" (same image, same label), first row {shared[0]}, which is row"
      f" {np.flatnonzero(in_a == in_b[shared[0]])[0]} of {names[0]}",
      "remove them from one of the two",
    )


def split(
  images: Images, *, seed: int, fraction: float = 0.5
) -> tuple[Images, Images]:
  """Splits a set in two by a seeded permutation.

  Rows of the same image and label always go to the same part, so the parts
  are disjoint by content too, and their sizes may then be off by a few rows.
  Each part keeps the order of the rows.

  Args:
    images: uint8[N,H,W,C], int32[N].
    seed: of the permutation, 0 or more.
    fraction: of the rows that go to the first part, between 0 and 1.

  Raises:
    ValueError: `fraction` or `seed` is out of range.
    InputError: there are no two different rows.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"fraction {fraction} must lie between 0 and 1")
  if seed < 0:
    raise ValueError(f"seed {seed} must be 0 or more")
  (numbers,) = _numbers(images)
  first = _first_part(numbers, np.random.default_rng(seed), fraction)
  if not first.any():
    raise InputError(
      "--data", "has no two different images, so it cannot be split"
    )
  return _rows(images, first), _rows(images, ~first)


def _bytes(dataset):
  sets = [s for s in (dataset.train, dataset.test) if s is not None]
  return sum(s.images.nbytes + s.labels.nbytes for s in sets)


def _rows(images, chosen):
  return Images(images.images[chosen], images.labels[chosen])


def _numbers(*sets):
  """int64[N] a set: the same number where image and label are the same."""
  known: dict[tuple[bytes, int], int] = {}
  numbers = []
  for images, labels in sets:
    rows = []
    for image, label in zip(np.asarray(images), labels, strict=True):
      mark = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
      rows.append(known.setdefault((mark, int(label)), len(known)))
    numbers.append(np.array(rows, np.int64))
  return numbers


def _first_part(numbers, generator, fraction):
  """bool[N]: all rows of some numbers, `fraction` of N; none if all are one."""
  _, inverse, counts = np.unique(
    numbers, return_inverse=True, return_counts=True
  )
  order = generator.permutation(len(counts))
  sizes = np.cumsum(counts[order])
  taken = int(np.argmin(np.abs(sizes - fraction * len(numbers)))) + 1
  return np.isin(inverse, order[: min(taken, len(counts) - 1)])


def _hold_out(images):
  """A fixed fifth of each class as the test set, disjoint by content."""
  (numbers,), generator = _numbers(images), np.random.default_rng(0)
  held = np.zeros(len(numbers), bool)
  for label in np.unique(images.labels):
    rows = np.flatnonzero(images.labels == label)
    held[rows] = _first_part(numbers[rows], generator, _HELD_OUT)
  return _rows(images, ~held), _rows(images, held) if held.any() else None


def _dataset(where, name, train, test, class_names=()):
  """Checks what a reader returned and puts it together."""
  sets = [Images(*pair) for pair in (train, test) if pair is not None]
  if shape(sets[0]) != shape(sets[-1]):
    raise InputError(
      where, f"train has {shape(sets[0])} images, test {shape(sets[1])}"
    )
  low = min(int(s.labels.min()) for s in sets)
  high = max(int(s.labels.max()) for s in sets)
  if low < 0:
    raise InputError(where, f"label {low} is negative", "number them from 0")
  if high >= folder.MAX_CLASSES:
    raise InputError(
      where,
      f"label {high} is too high, at most {folder.MAX_CLASSES - 1} is taken",
    )
  if low == high:
    raise InputError(where, "has only one class, two or more are needed")
  sets = [Images(s.images, s.labels.astype(np.int32)) for s in sets]
  names = tuple(class_names) or tuple(str(i) for i in range(high + 1))
  height, width, channels = shape(sets[0])
  augmentation = Augmentation(channels == 3, crop=min(height, width) // 8)
  held = sets[1] if test is not None else None
  return Dataset(name, sets[0], held, len(names), names, augmentation)


def _without_test_rows(dataset):
  """Drops from a published training set the rows that stand in the test set.

  A user can not be asked to mend them, and the test set must stay as published
  for results to compare.
  """
  train, test = _numbers(dataset.train, dataset.test)
  kept = ~np.isin(train, test)
  return dataset._replace(train=_rows(dataset.train, kept))


def _digits():
  import sklearn.datasets

  digits = sklearn.datasets.load_digits()
  pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
  dataset = _dataset(
    "digits", "digits", (pixels[..., None], digits.target), None
  )
  train, test = _hold_out(dataset.train)
  return dataset._replace(train=train, test=test)


def _fashion_mnist(max_bytes):
  path = Path(os.environ.get(FASHION_MNIST_VARIABLE) or FASHION_MNIST)
  if not any(binary.idx_path(path, name) for name in binary.IDX_FILES):
    raise InputError(
      "--data fashion-mnist",
      f"{path} holds no IDX files",
      "`apt install dataset-fashion-mnist`, or name a folder with the four IDX"
      f" files in {FASHION_MNIST_VARIABLE}",
    )
  train, test = binary.read_idx(path, max_bytes)
  dataset = _without_test_rows(_dataset(path, "", train, test))
  if dataset.num_classes != 10:
    raise InputError(path, "is not Fashion-MNIST: it has 10 classes")
  return dataset._replace(
    name="fashion-mnist",
    class_names=tuple(_FASHION_CLASSES.split(",")),
    augmentation=Augmentation(flip=True, crop=2),
  )


def _folder(path, image_size, max_bytes):
  """Loads a folder by what stands in it."""
  names, title = [e.name for e in folder.entries(path)], path.resolve().name
  if any(n.startswith("data_batch_") and n.endswith(".bin") for n in names):
    train, test = binary.read_cifar(path, max_bytes)
    dataset = _dataset(path, "cifar-10", train, test, binary.CIFAR_CLASSES)
    augmentation = Augmentation(flip=True, crop=4, cutout=8)
    return _without_test_rows(dataset._replace(augmentation=augmentation))
  if "data_batch_1" in names or "batches.meta" in names:
    raise _pickled(f"--data {path}")
  if any(n.removesuffix(".gz") in binary.IDX_FILES for n in names):
    train, test = binary.read_idx(path, max_bytes)
    return _without_test_rows(_dataset(path, title, train, test))
  if not folder.folders(path):
    raise InputError(f"--data {path}", "holds no data that is read", _FORMS)
  classes, train, test = folder.read_images(path, image_size, max_bytes)
  dataset = _dataset(path, title, train, test, classes)
  if test is None:
    train, test = _hold_out(dataset.train)
    return dataset._replace(train=train, test=test)
  parts = (str(path / "train"), str(path / "test"))
  check_disjoint(dataset.train, dataset.test, parts)
  return dataset


def _pickled(where):
  return InputError(
    where,
    "is pickled, and reading a pickled file can run code hidden in it",
    "get the binary version of CIFAR-10 (cifar-10-binary.tar.gz, unpacked), or"
    " save the arrays with numpy.savez",
  )
