"""Arrays from .npz files, without unpickling anything."""

from __future__ import annotations

import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from nasjax.data.binary import Pair, check_size, read_up_to
from nasjax.errors import InputError, nearest
from nasjax.reader import check_file, one_problem

_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, max_bytes: int) -> tuple[Pair, Pair | None]:
  """Reads x_train, y_train and, if there, x_test, y_test.

  Returns:
    Train and test, each images uint8[N,H,W,C] and whole labels [N].

  Raises:
    InputError: the file is damaged or too large, or an array is not as said.
  """
  check_file(path, max_bytes)
  try:
    with zipfile.ZipFile(path) as archive:
      arrays = _arrays(path, archive, max_bytes)
  except InputError:
    raise
  except (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
  ) as error:
    raise InputError(
      path,
      f"is damaged or not a .npz file: {one_problem(error)}",
      "save the arrays with numpy.savez",
    ) from None
  train = _pair(path, arrays, "train")
  return train, _pair(path, arrays, "test") if "x_test" in arrays else None


def _arrays(path, archive, max_bytes):
  members = {}
  for info in archive.infolist():
    key = info.filename.removesuffix(".npy")
    if key in members:
      raise InputError(path, f"key {key[:40]!r} stands there twice")
    members[key] = info
  wanted = ["x_train", "y_train"]
  if "x_test" in members or "y_test" in members:
    wanted += ["x_test", "y_test"]
  for key in wanted:
    if key not in members:
      known = [k for k in members if k not in wanted] or list(members)
      raise InputError(path, f"key {key!r} is missing", nearest(key, known))
  check_size(path, sum(members[k].file_size for k in wanted), max_bytes)
  return {k: _array(f"{path}:{k}", archive, members[k]) for k in wanted}


def _array(where, archive, info):
  """Reads one array whose header agrees with the member's stated size."""
  with archive.open(info) as file:
    try:
      version = np.lib.format.read_magic(file)
      if version not in _HEADERS:
        raise InputError(where, f"has the unknown .npy version {version}")
      with warnings.catch_warnings():
        warnings.simplefilter("error")  # of files that Python 2 wrote
        sizes, fortran, dtype = _HEADERS[version](file)
    except (
      SyntaxError,
      TypeError,
      RecursionError,
      UserWarning,
      tokenize.TokenError,
    ):
      raise InputError(where, "has a damaged .npy header") from None
    if dtype.hasobject:
      raise InputError(
        where,
        "holds Python objects, and reading these can run code hidden in them",
        "save uint8 images and whole labels",
      )
    size = math.prod(sizes) * dtype.itemsize
    held = info.file_size - file.tell()
    if min(sizes, default=0) < 0 or size != held:
      raise InputError(
        where, f"declares {sizes} of {dtype}, {size} bytes, and holds {held}"
      )
    if not size:
      raise InputError(where, f"is empty: {sizes}")
    data = read_up_to(file, size)
  if len(data) != size:
    raise InputError(where, f"ends after {len(data)} of {size} bytes")
  array = np.frombuffer(data, dtype)
  array = array.reshape(sizes, order="F" if fortran else "C")
  return np.ascontiguousarray(array)


def _pair(path, arrays, part):
  images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
  x, y = f"{path}:x_{part}", f"{path}:y_{part}"
  if images.dtype != np.uint8:
    raise InputError(
      x, f"holds {images.dtype}, uint8 is expected", "save pixels of 0 to 255"
    )
  if images.ndim == 3:
    images = images[..., np.newaxis]
  if images.ndim != 4:
    raise InputError(x, f"has shape {images.shape}, [N,H,W,C] is expected")
  if images.shape[1] in (1, 3) and images.shape[3] > 4:
    raise InputError(
      x,
      f"has shape {images.shape}, which looks like [N,C,H,W]",
      "save x.transpose(0, 2, 3, 1)",
    )
  if labels.ndim == 2 and labels.shape[1] == 1:
    labels = labels[:, 0]
  if labels.dtype.kind not in "iu" or labels.ndim != 1:
    raise InputError(
      y, f"holds {labels.dtype} {labels.shape}, whole labels [N] are expected"
    )
  if len(images) != len(labels):
    raise InputError(
      y, f"has {len(labels)} labels, x_{part} has {len(images)} images"
    )
  return images, labels
