"""From what `--data` names to the rows that stand there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nasjax.data import binary, folder, npz
from nasjax.data.augmentation import Augmentation
from nasjax.data.parts import Options, Part, Source, for_arrays
from nasjax.errors import InputError, nearest

NAMES = ("digits", "fashion-mnist")
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
FASHION_MNIST_VARIABLE = "NASJAX_FASHION_MNIST"

_FASHION_CLASSES = (
  "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot"
)
_FORMS = (
  "give digits, fashion-mnist, a .npz file, or a folder of IDX files, of"
  " CIFAR-10's .bin files or of one sub-folder of images a class"
)


def read(source: str, options: Options) -> Source:
  """Reads what `--data` names, see `datasets.load`; raises InputError."""
  where, path = f"--data {source}", Path(source)
  if path.suffix.lower() in (".pkl", ".pickle"):
    raise _pickled(where)
  if source not in NAMES and os.path.isdir(source):
    return _folder(path, options)
  for_arrays(options)
  if source == "digits":
    return _digits(options)
  if source == "fashion-mnist":
    return _fashion_mnist(options)
  if path.suffix.lower() == ".npz":
    train, test = npz.read_npz(path, options.max_bytes)
    return Source(str(path), path.stem, train, test, hold_out=test is None)
  if os.path.exists(source):
    raise InputError(where, "is not a file of a kind that is read", _FORMS)
  raise InputError(
    where,
    "is neither a known data set nor a file or folder",
    f"{_FORMS}; {nearest(source, NAMES)}",
  )


def _digits(options):
  import sklearn.datasets

  digits = sklearn.datasets.load_digits()
  pixels = np.round(digits.images * (255 / 16)).astype(np.uint8)
  train = Part(pixels[..., None], digits.target.astype(np.int64))
  size = train.images.nbytes + train.labels.nbytes
  binary.check_size("--data digits", size, options.max_bytes)
  names = tuple(str(number) for number in range(10))
  return Source("digits", "digits", train, class_names=names, hold_out=True)


def _fashion_mnist(options):
  path = Path(os.environ.get(FASHION_MNIST_VARIABLE) or FASHION_MNIST)
  if not any(binary.idx_path(path, name) for name in binary.IDX_FILES):
    raise InputError(
      "--data fashion-mnist",
      f"{path} holds no IDX files",
      "`apt install dataset-fashion-mnist`, or name a folder with the four IDX"
      f" files in {FASHION_MNIST_VARIABLE}",
    )
  made = _idx(path, options)
  if len(np.unique(made.train.labels)) != 10:
    raise InputError(path, "is not Fashion-MNIST: it has 10 classes")
  return made._replace(
    name="fashion-mnist",
    class_names=tuple(_FASHION_CLASSES.split(",")),
    augmentation=Augmentation(flip=True, crop=2),
  )


def _idx(path, options):
  train, test = (
    Part(
      images,
      labels.astype(np.int64),
      str(binary.idx_path(path, image_name)),
      str(binary.idx_path(path, label_name)),
    )
    for (images, labels), image_name, label_name in zip(
      binary.read_idx(path, options.max_bytes),
      binary.IDX_FILES[::2],
      binary.IDX_FILES[1::2],
      strict=True,
    )
  )
  return Source(str(path), path.resolve().name, train, test)


def _cifar(path, options):
  names = (str(path / "data_batch_*.bin"), str(path / "test_batch.bin"))
  train, test = (
    Part(images, labels.astype(np.int64), name, name)
    for (images, labels), name in zip(
      binary.read_cifar(path, options.max_bytes), names, strict=True
    )
  )
  return Source(
    str(path),
    "cifar-10",
    train,
    test,
    class_names=binary.CIFAR_CLASSES,
    augmentation=Augmentation(flip=True, crop=4, cutout=16),
  )


def _folder(path, options):
  """Reads a folder by what stands in it."""
  names = [entry.name for entry in folder.entries(path)]
  if any(n.startswith("data_batch_") and n.endswith(".bin") for n in names):
    for_arrays(options)
    return _cifar(path, options)
  if "data_batch_1" in names or "batches.meta" in names:
    raise _pickled(f"--data {path}")
  if any(n.removesuffix(".gz") in binary.IDX_FILES for n in names):
    for_arrays(options)
    return _idx(path, options)
  if not folder.folders(path):
    raise InputError(f"--data {path}", "holds no data that is read", _FORMS)
  return folder.read_images(path, options)


def _pickled(where):
  return InputError(
    where,
    "is pickled, and reading a pickled file can run code hidden in it",
    "get the binary version of CIFAR-10 (cifar-10-binary.tar.gz, unpacked), or"
    " save the arrays with numpy.savez",
  )
