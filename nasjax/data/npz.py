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

from nasjax.data.arrays import checked, groups
from nasjax.data.binary import check_size, read_up_to
from nasjax.data.parts import Part
from nasjax.errors import InputError, nearest
from nasjax.reader import check_file, one_problem

_GROUPS = "group_train"
_HEADERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}


def read_npz(path: Path, max_bytes: int) -> tuple[Part, Part | None]:
  """Reads x_train, y_train and, if there, x_test, y_test and group_train.

  Returns:
    Train and test, each images uint8 or f32 [N,H,W,C] and labels int64[N].

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
  train, test = _part(path, arrays, "train"), None
  if "x_test" in arrays:
    test = _part(path, arrays, "test")
  if _GROUPS in arrays:
    name, count = f"{path}:{_GROUPS}", len(train.labels)
    train = train._replace(groups=groups(arrays[_GROUPS], count, name))
  return train, test


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
  wanted += [_GROUPS] if _GROUPS in members else []
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


def _part(path, arrays, part):
  x, y = f"{path}:x_{part}", f"{path}:y_{part}"
  images, labels = checked(arrays[f"x_{part}"], arrays[f"y_{part}"], x, y)
  return Part(images, labels, x, y)
