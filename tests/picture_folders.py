"""Folders of pictures whose classes are known, and what makes them hard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

ORIENTATION = 0x0112  # the EXIF tag; 6: turn a quarter to the right to show


def _class_folders(folder: Path, names, count: int):
  """Yields (path without suffix, class, number) of `count` files in all."""
  for number in range(count):
    label = number % len(names)
    (folder / names[label]).mkdir(parents=True, exist_ok=True)
    yield folder / names[label] / f"{number:04}", label, number


def digits(folder: Path, images, labels) -> None:
  """Gray digits as PNGs, a folder a class."""
  for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
    path = folder / str(label) / f"{number:05}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels[..., 0]).save(path)


def turned_jpegs(folder: Path, count: int = 400, side: int = 16) -> None:
  """Four classes, the bright side of a photo; every second is stored turned."""
  rng = np.random.default_rng(0)
  names = ("above", "below", "left", "right")
  for path, label, number in _class_folders(folder, names, count):
    pixels = rng.integers(0, 90, (side, side, 3))
    half = side // 2
    bright = (
      np.s_[:half],
      np.s_[half:],
      np.s_[:, :half],
      np.s_[:, half:],
    )[label]
    pixels[bright] += 130
    image = PIL.Image.fromarray(pixels.astype(np.uint8))
    exif = PIL.Image.Exif()
    if number // len(names) % 2:
      image = image.transpose(PIL.Image.Transpose.ROTATE_90)
      exif[ORIENTATION] = 6
    image.save(path.with_suffix(".jpg"), quality=95, exif=exif)


def alpha_icons(
  folder: Path, count: int = 400, side: int = 16, white: bool = False
) -> None:
  """A cross or a ring that only transparency shows, black or white."""
  rng = np.random.default_rng(0)
  rows, columns = np.indices((side, side))
  for path, label, _ in _class_folders(folder, ("cross", "ring"), count):
    y, x = rng.uniform(side * 0.35, side * 0.65, 2)
    size = rng.uniform(side * 0.2, side * 0.3)
    near = np.maximum(abs(rows - y), abs(columns - x)) <= size
    if label == 0:
      shape = near & ((abs(rows - y) < 1.3) | (abs(columns - x) < 1.3))
    else:
      shape = near & (np.maximum(abs(rows - y), abs(columns - x)) > size - 1.7)
    pixels = np.zeros((side, side, 4), np.uint8)
    pixels[..., :3] = 255 if white else 0
    pixels[..., 3] = np.where(shape, rng.integers(160, 256, shape.shape), 0)
    PIL.Image.fromarray(pixels).save(path.with_suffix(".png"))


def arrows(folder: Path, count: int = 400, side: int = 16) -> None:
  """Arrows to the left and to the right, in colours."""
  rng = np.random.default_rng(0)
  for path, label, _ in _class_folders(folder, ("left", "right"), count):
    pixels = rng.integers(0, 60, (side, side, 3))
    colour = rng.integers(140, 256, 3)
    y, x = rng.integers(5, side - 5), rng.integers(3, side - 8)
    pixels[y, x : x + 6] = colour
    for step in (1, 2):  # the head, seen as one to the right
      pixels[y - step, x + 5 - step] = pixels[y + step, x + 5 - step] = colour
    if label == 0:
      pixels = pixels[:, ::-1]
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels.astype(np.uint8)))
    image.save(path.with_suffix(".png"))
