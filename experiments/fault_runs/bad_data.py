"""Malformed data sets: .npz files."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fault_runs.cases import Case, images, write

_LABELS = np.arange(48) % 3


def search_over(path: Path | str, *more: str) -> list[str]:
  """Words of a tiny search over some data."""
  words = ["search", "--space", "nasbench201", "--cells", "1", "--channels"]
  return [*words, "4", "--epochs", "1", "--data", str(path), *more]


def _floats(value):
  found = np.zeros((48, 8, 8, 3), np.float32)
  found[3, 2, 1] = value
  return found


_ARRAYS: list[tuple[str, dict, str]] = [
  ("object images", {"x_train": np.array([{}] * 48, object)}, "Python objects"),
  (
    "object labels",
    {"y_train": np.array(["a"] * 48, object)},
    "Python objects",
  ),
  ("NaN images", {"x_train": _floats(np.nan)}, "row 3 holds a value"),
  ("infinite images", {"x_train": _floats(np.inf)}, "not finite"),
  (
    "float images and pixels to test",
    {
      "x_train": _floats(0.5),
      "x_test": np.zeros((2, 8, 8, 3), np.uint8),
      "y_test": [0, 1],
    },
    "test uint8",
  ),
  ("complex images", {"x_train": _floats(0) * 1j}, "uint8 is expected"),
  ("image of bits", {"x_train": _floats(0) > 0}, "uint8 is expected"),
  ("image of words", {"x_train": np.full((48, 8, 8, 3), "a")}, "uint8"),
  ("uint16 images", {"x_train": np.zeros((48, 8, 8, 3), "u2")}, "uint8"),
  ("no images", {"x_train": np.zeros((0, 8, 8, 3), np.uint8)}, "is empty"),
  ("flat images", {"x_train": np.zeros((48, 192), np.uint8)}, "[N,H,W,C]"),
  ("5 axes", {"x_train": np.zeros((48, 1, 8, 8, 3), np.uint8)}, "[N,H,W,C]"),
  (
    "channels first",
    {"x_train": np.zeros((48, 3, 8, 8), np.uint8)},
    "[N,C,H,W]",
  ),
  ("no channels", {"x_train": np.zeros((48, 8, 8, 0), np.uint8)}, "is empty"),
  ("one pixel", {"x_train": np.arange(144).reshape(48, 1, 1, 3)}, "too small"),
  ("fewer labels", {"y_train": _LABELS[1:]}, "47 labels"),
  ("labels of one class", {"y_train": _LABELS * 0}, "only one class"),
  ("one class, 7", {"y_train": _LABELS * 0 + 7}, "only one class"),
  (
    "a test label that no training row has",
    {
      "x_test": np.ones((2, 8, 8, 3), np.uint8),
      "y_test": [0, 2**32],
    },
    "row 1 has label 4294967296",
  ),
  (
    "a label of 2^64 - 1",
    {"y_train": _LABELS.astype(np.uint64) - np.uint64(1)},
    "too high",
  ),
  ("float labels", {"y_train": _LABELS / 2}, "whole labels"),
  ("NaN labels", {"y_train": _LABELS * np.nan}, "whole labels"),
  (
    "one-hot labels",
    {"y_train": np.eye(3, dtype=int)[_LABELS]},
    "whole labels",
  ),
  ("labels of words", {"y_train": _LABELS.astype(str)}, "whole labels"),
  ("one label", {"y_train": np.int64(3)}, "1 labels"),
  ("x_train missing", {"x_train": None, "x_trian": 0}, "mean x_trian?"),
  ("y_train missing", {"y_train": None}, "'y_train' is missing"),
  ("y_test missing", {"x_test": np.zeros((2, 8, 8, 3), np.uint8)}, "'y_test'"),
  (
    "test images of another size",
    {"x_test": np.zeros((2, 9, 9, 3), np.uint8), "y_test": [0, 1]},
    "(9, 9, 3)",
  ),
  (
    "test labels out of range",
    {"x_test": np.zeros((2, 8, 8, 3), np.uint8), "y_test": [0, -1]},
    "has label -1, which no row",
  ),
]


def _npy(shape, held: bytes, dtype="|u1", version=b"\x01\x00") -> bytes:
  file = io.BytesIO()
  header = {"descr": dtype, "fortran_order": False, "shape": shape}
  np.lib.format.write_array_header_1_0(file, header)
  found = file.getvalue()
  return found[:6] + version + found[8:] + held


def _header(text: str) -> bytes:
  line = text.encode() + b"\n"
  return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(24)


_GOOD = _npy((2, 2, 2, 3), bytes(24))
_MEMBERS: list[tuple[str, bytes, str]] = [
  ("a shape that lies", _npy((2**40, 2, 2, 3), bytes(24)), "declares"),
  ("a shape beyond 64 bits", _npy((2**70, 2, 2, 3), bytes(24)), "declares"),
  ("a negative shape", _npy((-2, -12), bytes(24)), "declares"),
  ("too many bytes", _npy((2, 2, 2, 3), bytes(25)), "holds 25"),
  ("too few bytes", _npy((2, 2, 2, 3), bytes(23)), "holds 23"),
  ("a dtype that lies", _npy((2, 2, 2, 3), bytes(24), "<f8"), "declares"),
  ("a dtype of objects", _npy((3,), bytes(24), "|O"), "Python objects"),
  (
    "a dtype of fields",
    _header(
      "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (24,)}"
    ),
    "uint8",
  ),
  ("an unknown version", b"\x93NUMPY\x07\x00" + bytes(24), "version"),
  (
    "another version's bytes",
    _npy((2,), b"\0\1", version=b"\x09\x09"),
    "version",
  ),
  ("no array", b"", "damaged"),
  ("a pickle in it", pickle.dumps([1, 2]), "damaged"),
  ("an open header", _header("{'descr': [("), "damaged"),
  (
    "code in the header",
    _header("{'descr': __import__('os').system('touch broken'), 'shape': ()}"),
    "damaged",
  ),
  (
    "a header of Python 2",
    _header(
      "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 2L, 2L, 3L)}"
    ),
    "damaged",
  ),
  ("a header without a shape", _header("{'descr': '|u1'}"), "damaged"),
  ("a header of 60 kB", _header("{" + " " * 60_000 + "}"), "damaged"),
  ("a deep header", _header("(" * 9_000), "damaged"),
  ("a truncated header", _GOOD[:30], "damaged"),
]


def _zip(folder, x_train: bytes, *more) -> Path:
  path = folder / "a.npz"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("x_train.npy", x_train)
    archive.writestr("y_train.npy", _npy((2,), b"\0\1"))
    for name, content in more:
      archive.writestr(name, content)
  return path


def _bomb(folder):
  np.savez_compressed(
    folder / "a.npz",
    x_train=np.zeros((4, 4000, 4000, 3), np.uint8),
    y_train=np.arange(4) % 2,
  )
  return search_over(folder / "a.npz", "--max-dataset-bytes", "1000000")


def _quine(folder):
  """A member whose stated size is a lie: the directory says 24 bytes more."""
  path = _zip(folder, _GOOD)
  raw = bytearray(path.read_bytes())
  at = raw.index(b"PK\x01\x02")
  raw[at + 24 : at + 28] = struct.pack("<I", 2**31)
  return search_over(write(path, bytes(raw)))


def _encrypted(folder):
  path = _zip(folder, _GOOD)
  raw = bytearray(path.read_bytes())
  raw[raw.index(b"PK\x03\x04") + 6] |= 1
  raw[raw.index(b"PK\x01\x02") + 8] |= 1
  return search_over(write(path, bytes(raw)))


def _damaged(change: Callable[[bytes], bytes]):
  def make(folder):
    path = Path(images(folder / "a.npz"))
    return search_over(write(path, change(path.read_bytes())))

  return make


_FILES: list[tuple[str, Callable, str]] = [
  ("a truncated .npz", _damaged(lambda b: b[:-40]), "not a .npz file"),
  ("a half .npz", _damaged(lambda b: b[: len(b) // 2]), "not a .npz file"),
  ("a byte changed", _damaged(lambda b: b[:300] + b"\xff" + b[301:]), "a.npz"),
  ("an encrypted .npz", _encrypted, "a.npz"),
  ("a size in the directory that lies", _quine, "a.npz"),
  ("a bomb", _bomb, "at most 1000000"),
]

CASES = [
  *(
    Case("data", n, lambda f, a=a: search_over(images(f / "a.npz", **a)), said)
    for n, a, said in _ARRAYS
  ),
  *(
    Case("data", f"array: {n}", lambda f, c=c: search_over(_zip(f, c)), said)
    for n, c, said in _MEMBERS
  ),
  *(Case("data", *c) for c in _FILES),
]
