"""IDX files and CIFAR-10's binary version, as arrays."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nasjax.errors import InputError
from nasjax.reader import check_file, one_problem, read_bytes

IDX_FILES = (
  "train-images-idx3-ubyte",
  "train-labels-idx1-ubyte",
  "t10k-images-idx3-ubyte",
  "t10k-labels-idx1-ubyte",
)
CIFAR_CLASSES = tuple(
  "airplane automobile bird cat deer dog frog horse ship truck".split()
)
_CIFAR_ROW = 1 + 3 * 32 * 32

Pair = tuple[np.ndarray, np.ndarray]  # images uint8[N,H,W,C], labels [N]


def check_size(where: str | Path, total: int, max_bytes: int) -> None:
  """Raises InputError if the data would take more than `max_bytes`."""
  if total > max_bytes:
    raise InputError(
      where,
      f"brings the data to {total} bytes, at most {max_bytes} are read",
    )


def read_up_to(file: BinaryIO, size: int) -> bytearray:
  """Reads `size` bytes or all there are, allocating only what is there."""
  data = bytearray()
  while part := file.read(min(size - len(data), 2**20)):
    data += part
  return data


def idx_path(folder: Path, name: str) -> Path | None:
  """The file of that name, plain or .gz, if there is one."""
  paths = (folder / name, folder / f"{name}.gz")
  return next((path for path in paths if path.exists()), None)


def read_idx(folder: Path, max_bytes: int) -> tuple[Pair, Pair]:
  """Reads the four IDX files of a folder.

  Returns:
    Train and test, each images uint8[N,H,W,1] and labels uint8[N].

  Raises:
    InputError: a file is missing, damaged or too large.
  """
  arrays = []
  for name in IDX_FILES:
    path = idx_path(folder, name)
    if path is None:
      raise InputError(folder, f"has neither {name} nor {name}.gz")
    before = sum(array.nbytes for array in arrays)
    arrays.append(_idx(path, 3 if "images" in name else 1, before, max_bytes))
  for pixels, labels in (arrays[:2], arrays[2:]):
    if len(pixels) != len(labels):
      raise InputError(
        folder, f"has {len(pixels)} images with {len(labels)} labels"
      )
  return (arrays[0][..., None], arrays[1]), (arrays[2][..., None], arrays[3])


def _idx(path, dimensions, before, max_bytes):
  """Reads one file, after `before` bytes of other files."""
  check_file(path, max_bytes)
  start, magic = 4 + 4 * dimensions, bytes((0, 0, 8, dimensions))
  try:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
      head = read_up_to(file, start)
      if len(head) < start or head[:4] != magic:
        raise InputError(
          path,
          f"starts with {head[:4].hex()}, not as an IDX file of bytes in"
          f" {dimensions} dimensions, {magic.hex()}",
        )
      sizes = struct.unpack(f">{dimensions}I", head[4:])
      size = math.prod(sizes)
      check_size(path, before + size, max_bytes)
      data = read_up_to(file, size + 1)
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(
      path, f"is damaged: {one_problem(error)}", "get it again"
    ) from None
  if len(data) != size:
    held = "more" if len(data) > size else len(data)
    raise InputError(path, f"declares {sizes}, {size} bytes, and holds {held}")
  if not size:
    raise InputError(path, f"is empty: {sizes}")
  return np.frombuffer(data, np.uint8).reshape(sizes)


def read_cifar(folder: Path, max_bytes: int) -> tuple[Pair, Pair]:
  """Reads data_batch_*.bin and test_batch.bin of a folder.

  Returns:
    Train and test, each images uint8[N,32,32,3] and labels uint8[N].

  Raises:
    InputError: a file is missing, damaged or too large.
  """
  test = folder / "test_batch.bin"
  if not test.exists():
    raise InputError(folder, "has no test_batch.bin beside data_batch_*")
  files = [*sorted(folder.glob("data_batch_*.bin")), test]
  total = sum(check_file(file, max_bytes).stat().st_size for file in files)
  check_size(folder, total, max_bytes)
  *parts, test = [_cifar_batch(file, max_bytes) for file in files]
  images, labels = zip(*parts, strict=True)
  return (np.concatenate(images), np.concatenate(labels)), test


def _cifar_batch(path, max_bytes):
  data = read_bytes(path, max_bytes)
  if not data or len(data) % _CIFAR_ROW:
    raise InputError(
      path, f"has {len(data)} bytes, no multiple of {_CIFAR_ROW}"
    )
  rows = np.frombuffer(data, np.uint8).reshape(-1, _CIFAR_ROW)
  labels = rows[:, 0]
  bad = np.flatnonzero(labels >= len(CIFAR_CLASSES))
  if bad.size:
    raise InputError(
      path, f"row {bad[0]} has label {labels[bad[0]]}, at most 9 is taken"
    )
  planes = rows[:, 1:].reshape(-1, 3, 32, 32)
  return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
