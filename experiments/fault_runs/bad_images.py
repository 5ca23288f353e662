"""Malformed images: other files, IDX and CIFAR-10 files, image folders."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
from fault_runs.bad_data import search_over as _search
from fault_runs.cases import Case, write

_IDX = (
  "train-images-idx3-ubyte",
  "train-labels-idx1-ubyte",
  "t10k-images-idx3-ubyte",
  "t10k-labels-idx1-ubyte",
)


def _file(name: str, content: bytes | str):
  return lambda folder: _search(write(folder / name, content))


def _png(shape=(8, 8, 3), dtype=np.uint8, seed=0) -> bytes:
  file, rng = io.BytesIO(), np.random.default_rng(seed)
  pixels = rng.integers(256, size=shape, dtype=dtype)
  PIL.Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def _folders(change: Callable[[Path], object], *more: str):
  """Two class folders of eight images, changed."""

  def make(folder):
    top = folder / "data"
    for number, name in enumerate(("cat", "dog")):
      (top / name).mkdir(parents=True)
      for i in range(8):
        write(top / name / f"{i}.png", _png(seed=8 * number + i))
    change(top)
    return _search(top, *more)

  return make


def _big(top):
  PIL.Image.new("1", (20_000, 20_000)).save(top / "cat" / "0.png")


def _lying_png(top):
  raw = bytearray(_png())
  raw[16:24] = struct.pack(">II", 60_000, 60_000)
  raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
  write(top / "cat" / "0.png", bytes(raw))


def _one_class(top):
  for path in (top / "dog").iterdir():
    path.unlink()
  (top / "dog").rmdir()


def _empty_class(top):
  for path in (top / "dog").iterdir():
    path.unlink()


def _image(content: bytes | str, name="0.png"):
  return lambda top: write(top / "cat" / name, content)


def _floats() -> bytes:
  """A TIFF of 32-bit floats, which are no pixels."""
  out = io.BytesIO()
  PIL.Image.fromarray(np.zeros((8, 8), np.float32)).save(out, "TIFF")
  return out.getvalue()


_SVG = "<svg xmlns='http://www.w3.org/2000/svg'/>"
_EPS = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) run\n"
_TREES: list[tuple[str, Callable, str]] = [
  (
    "a corrupt image",
    _folders(_image(b"\x89PNG\r\n\x1a\n" + b"x" * 50)),
    "0.png",
  ),
  ("a truncated image", _folders(_image(_png()[:-40])), "0.png"),
  ("an empty image", _folders(_image(b"")), "0.png"),
  ("a text as an image", _folders(_image("hello")), "0.png"),
  ("an SVG as an image", _folders(_image(_SVG)), "0.png"),
  ("PostScript as an image", _folders(_image(_EPS)), "0.png"),
  ("a pickle as an image", _folders(_image(pickle.dumps([1]))), "0.png"),
  ("images of two sizes", _folders(_image(_png((9, 9, 3)))), "--image-size"),
  ("a text beside images", _folders(_image("x", "a.txt")), "a.txt"),
  ("an image bomb", _folders(_big), "0.png"),
  ("a lying image header", _folders(_lying_png), "0.png"),
  ("an image of floats", _folders(_image(_floats(), "0.tif")), "0.tif"),
  ("one class folder", _folders(_one_class), "1 class folders"),
  ("an empty class folder", _folders(_empty_class), "without images"),
  (
    "a FIFO as an image",
    _folders(lambda top: os.mkfifo(top / "cat" / "a.png")),
    "not a regular file",
  ),
  (
    "a device as an image",
    _folders(lambda top: (top / "cat" / "a.png").symlink_to("/dev/zero")),
    "not a regular file",
  ),
  (
    "a broken link",
    _folders(lambda top: (top / "cat" / "a.png").symlink_to("nowhere")),
    "cannot be read",
  ),
  (
    "a folder in a class",
    _folders(lambda top: (top / "cat" / "more").mkdir()),
    "not an image",
  ),
  (
    "over --max-dataset-bytes",
    _folders(lambda top: None, "--max-dataset-bytes", "2000"),
    "at most 2000",
  ),
  (
    "resized over --max-dataset-bytes",
    _folders(
      lambda t: None, "--image-size", "4096", "--max-dataset-bytes", "9999"
    ),
    "at most 9999",
  ),
  (
    "--image-size 0",
    _folders(lambda t: None, "--image-size", "0"),
    "image-size",
  ),
]


def _empty_folder(folder):
  (folder / "data").mkdir()
  return _search(folder / "data")


def _idx(number: int, content: bytes, name: str = ""):
  """The four IDX files, one of them replaced."""

  def make(folder):
    top = folder / "data"
    top.mkdir()
    rng = np.random.default_rng(0)
    for i, file in enumerate(_IDX):
      size = (12, 8, 8) if i % 2 == 0 else (12,)
      values = rng.integers(3 if i % 2 else 256, size=size, dtype=np.uint8)
      head = struct.pack(f">4B{len(size)}I", 0, 0, 8, len(size), *size)
      write(top / file, head + values.tobytes())
    (top / _IDX[number]).unlink()
    if content:
      write(top / (_IDX[number] + name), content)
    return _search(top)

  return make


def _head(*sizes: int) -> bytes:
  return struct.pack(f">4B{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)


_ZIPPED = gzip.compress(_head(12, 8, 8) + bytes(768))
_IDX_CASES: list[tuple[str, Callable, str]] = [
  ("IDX: a file missing", _idx(3, b""), "has neither"),
  ("IDX: a header that lies", _idx(0, _head(*[2**32 - 1] * 3)), "at most"),
  ("IDX: short", _idx(0, _head(12, 8, 8) + bytes(700)), "holds 700"),
  ("IDX: long", _idx(0, _head(12, 8, 8) + bytes(800)), "holds more"),
  ("IDX: no images", _idx(0, _head(0, 8, 8)), "is empty"),
  ("IDX: labels as images", _idx(0, _head(12) + bytes(12)), "IDX"),
  ("IDX: mismatch", _idx(1, _head(11) + bytes(11)), "11 labels"),
  ("IDX: truncated gzip", _idx(0, _ZIPPED[:-9], ".gz"), "damaged"),
  ("IDX: no gzip", _idx(0, b"plain", ".gz"), "damaged"),
  (
    "IDX: a gzip bomb",
    _idx(0, gzip.compress(_head(12, 8, 8) + bytes(10**8), 1), ".gz"),
    "holds more",
  ),
]


def _cifar(change: Callable[[Path], object]):
  def make(folder):
    top = folder / "data"
    top.mkdir()
    rows = np.random.default_rng(0).integers(9, size=(8, 3073), dtype=np.uint8)
    for name in ("data_batch_1.bin", "test_batch.bin"):
      write(top / name, rows.tobytes())
    change(top)
    return _search(top)

  return make


_PATHS: list[tuple[str, Callable, str]] = [
  ("no such file", lambda f: _search("nowhere.npz"), "nowhere.npz"),
  ("a data set misspelt", lambda f: _search("digit"), "did you mean digits?"),
  ("an empty name", lambda f: _search(""), "--data"),
  ("a name with escapes", lambda f: _search("\x1b[2J.npz"), "--data"),
  ("a name of 5000 characters", lambda f: _search("x" * 5000), "--data"),
  ("a device file", lambda f: _search("/dev/zero"), "is not a file of a kind"),
  ("a text", _file("a.txt", "hello"), "is not a file of a kind"),
  ("a pickle", _file("a.pkl", pickle.dumps([1])), "can run code"),
  ("a pickle as .npz", _file("a.npz", pickle.dumps([1])), "not a .npz file"),
  ("an empty .npz", _file("a.npz", b""), "not a .npz file"),
  ("an empty folder", _empty_folder, "holds no data"),
  (
    "pickled CIFAR-10",
    _cifar(
      lambda t: [
        write(t / "batches.meta", b"x"),
        *map(os.remove, [t / "data_batch_1.bin"]),
      ]
    ),
    "can run code",
  ),
  (
    "CIFAR-10: label 10",
    _cifar(lambda t: write(t / "data_batch_1.bin", b"\x0a" + bytes(3072))),
    "label 10",
  ),
  (
    "CIFAR-10: short",
    _cifar(lambda t: write(t / "data_batch_1.bin", bytes(3072))),
    "no multiple",
  ),
  (
    "CIFAR-10: no test batch",
    _cifar(lambda t: os.remove(t / "test_batch.bin")),
    "no test_batch.bin",
  ),
]

CASES = [Case("data", *c) for c in (*_PATHS, *_IDX_CASES, *_TREES)]
