"""Folders of images, one sub-folder for each class."""

from __future__ import annotations

import contextlib
import math
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from nasjax.data.binary import Pair, check_size
from nasjax.errors import InputError, nearest
from nasjax.reader import check_file, one_problem

MAX_CLASSES = 1000

# Pillow reads more, but some of its readers start other programs (EPS).
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = ".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp"


def entries(folder: Path) -> list[os.DirEntry]:
  """What stands in a folder by name, not hidden; raises InputError."""
  try:
    with os.scandir(folder) as found:
      shown = [e for e in found if not e.name.startswith(".")]
  except OSError as error:
    raise InputError(folder, f"cannot be read: {error.strerror}") from None
  return sorted(shown, key=lambda entry: entry.name)


def folders(folder: Path) -> list[str]:
  """The names of the folders in a folder; raises InputError."""
  return [entry.name for entry in entries(folder) if entry.is_dir()]


def read_images(
  path: Path, image_size: int | None, max_bytes: int
) -> tuple[list[str], Pair, Pair | None]:
  """Reads a folder of class folders, or of train/ and test/ that hold these.

  Returns:
    The names of the classes, train, and test if there is a test/: each images
    uint8[N,H,W,C], C 1 if all are gray and else 3, and labels int32[N].

  Raises:
    InputError: a folder or an image is not as said, or they are too large.
  """
  parts = folders(path)
  nested = "train" in parts and bool(folders(path / "train"))
  for name in parts if nested else ():
    if name not in ("train", "test"):
      raise InputError(
        path / name,
        "stands beside train/, where only test/ is read",
        "rename it to test, or move it away",
      )
  top = path / "train" if nested else path
  classes = folders(top)
  if not 2 <= len(classes) <= MAX_CLASSES:
    raise InputError(
      top,
      f"has {len(classes)} class folders, 2 to {MAX_CLASSES} are taken",
    )
  files = _files(top, classes, classes)
  count = len(files)
  if nested and "test" in parts:
    files += _files(path / "test", folders(path / "test"), classes)
    if len(files) == count:
      raise InputError(path / "test", "has no class folders")
  pixels = _pixels([file for file, _ in files], image_size, max_bytes)
  labels = np.array([label for _, label in files], np.int32)
  test = (pixels[count:], labels[count:]) if len(files) > count else None
  return classes, (pixels[:count], labels[:count]), test


def _files(top, names, classes):
  """(path, label) of every image; each folder of `names` has one."""
  files = []
  for name in names:
    if name not in classes:
      raise InputError(
        top / name, "is no class of train/", nearest(name, classes)
      )
    paths = [Path(entry.path) for entry in entries(top / name)]
    if not paths:
      raise InputError(top / name, "is a class folder without images")
    for path in paths:
      if path.suffix.lower() not in _SUFFIXES.split():
        raise InputError(path, "is not an image", f"known: {_SUFFIXES}")
    files += [(path, classes.index(name)) for path in paths]
  return files


def _pixels(paths, image_size, max_bytes):
  """uint8[N,H,W,C]; the heads are read first, to know the size of it all."""
  modes, size = set(), None
  for path in paths:
    with _opened(path, max_bytes) as image:
      mode, found = image.mode, image.size
      if mode[0] in "IF":
        raise ValueError(f"has {mode} pixels, 8 bits a channel are expected")
    modes.add(mode)
    size = size or found
    if image_size is None and found != size:
      raise InputError(
        path,
        f"is {found[0]}x{found[1]} and {paths[0]} is {size[0]}x{size[1]}",
        "give --image-size to resize them all",
      )
  width, height = size if image_size is None else (image_size, image_size)
  mode, channels = ("L", 1) if modes == {"L"} else ("RGB", 3)
  total = (len(paths), height, width, channels)
  check_size(paths[0].parent.parent, math.prod(total), max_bytes)
  pixels = np.empty(total, np.uint8)
  for row, path in enumerate(paths):
    with _opened(path, max_bytes) as image:
      image = image.convert(mode)
      if image_size is not None:
        image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
      pixels[row] = np.asarray(image).reshape(total[1:])
  return pixels


def resized(images: np.ndarray, side: int) -> np.ndarray:
  """uint8[N,H,W,C] as uint8[N,side,side,C], as images of a folder are."""
  size, how = (side, side), PIL.Image.Resampling.BILINEAR
  made = np.empty((len(images), side, side, images.shape[3]), np.uint8)
  for row, image in enumerate(images):
    # Channel by channel: there may be any number of them.
    for channel in range(images.shape[3]):
      one = PIL.Image.fromarray(np.ascontiguousarray(image[..., channel]))
      made[row, ..., channel] = np.asarray(one.resize(size, how))
  return made


@contextlib.contextmanager
def _opened(path, max_bytes):
  """The opened image; what goes wrong in the block names the file."""
  check_file(path, max_bytes)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # odd metadata does not matter here
      warnings.simplefilter("error", PIL.Image.DecompressionBombWarning)
      with PIL.Image.open(path, formats=_FORMATS) as image:
        yield image
  except (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    struct.error,
    zlib.error,
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise InputError(
      path, f"is an image that cannot be read: {one_problem(error)}"
    ) from None
