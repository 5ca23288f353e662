"""What a reader hands over, and how it was asked to read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasjax.data import resizing
from nasjax.data.augmentation import Augmentation
from nasjax.errors import InputError, nearest

MAX_BYTES = 4 * 2**30
WHITE = (255, 255, 255)
GREY = (128, 128, 128)

_BACKGROUNDS = {"white": WHITE, "grey": GREY, "black": (0, 0, 0)}


class Options(NamedTuple):
  """How to read; the arguments of `load`, checked by `options`.

  Attributes:
    image_size: height and width to resize to, or None.
    resize_mode: `stretch`, `pad` or `crop`.
    background: name of the colour under transparent pixels, or None.
    channels_in: 1, 3 or None.
    group_by: regular expression that finds a file name's group, or None.
    skip_broken: leave out image files that cannot be read.
    keep_duplicates: keep training rows that stand in the test set.
    max_bytes: most bytes that the images and labels may have.
  """

  image_size: tuple[int, int] | None = None
  resize_mode: str = "stretch"
  background: str | None = None
  channels_in: int | None = None
  group_by: str | None = None
  skip_broken: bool = False
  keep_duplicates: bool = False
  max_bytes: int = MAX_BYTES


class Part(NamedTuple):
  """One set as its source has it, row by row.

  Attributes:
    images: uint8 or f32 [N, H, W, C].
    labels: whole numbers [N].
    name: what a message calls the set.
    label_name: what a message calls its labels.
    files: the name of each row, or None where rows have numbers alone.
    groups: int32[N] or None.
    marks: uint64[N, 2], digests of the images before they were resized; None:
      they were not.
  """

  images: np.ndarray
  labels: np.ndarray
  name: str = "train"
  label_name: str = "train"
  files: Sequence[str] | None = None
  groups: np.ndarray | None = None
  marks: np.ndarray | None = None

  @property
  def short(self) -> str:
    """The set's name without the folders that it lies in."""
    return Path(self.name).name

  def row(self, index: int) -> str:
    """What a message calls a row of the source."""
    return f"row {index}" if self.files is None else self.files[index]


class Source(NamedTuple):
  """All that a reader found, not checked as a whole yet.

  Attributes:
    where: what a message calls the source.
    name: of the data set.
    train: the training rows.
    test: the test rows, or None.
    valid: the rows of a val/ folder, or None.
    class_names: names which the labels count, or empty.
    augmentation: what suits images of the source's own size, or None.
    hold_out: whether a fifth becomes the test set where there is none.
    background: the colour under transparent pixels; None: no image files.
    notes: lines for the user.
  """

  where: str
  name: str
  train: Part
  test: Part | None = None
  valid: Part | None = None
  class_names: tuple[str, ...] = ()
  augmentation: Augmentation | None = None
  hold_out: bool = False
  background: str | None = None
  notes: tuple[str, ...] = ()


def options(
  *,
  image_size: int | tuple[int, int] | None = None,
  background: str | None = None,
  **others: object,
) -> Options:
  """Checks the arguments of `load`; raises InputError naming the flag."""
  size = None if image_size is None else resizing.checked_size(image_size)
  name = None if background is None else background_name(background)
  made = Options(image_size=size, background=name, **others)
  resizing.check_mode(made.resize_mode)
  if made.channels_in not in (None, 1, 3):
    raise InputError("--channels-in", f"{made.channels_in} is neither 1 nor 3")
  return made


def for_arrays(made: Options) -> None:
  """Refuses what only a folder of images can follow; raises InputError."""
  if made.background is not None:
    raise InputError(
      "--background", "is for folders of images with alpha", "leave it out"
    )
  if made.group_by is not None:
    raise InputError(
      "--group-by",
      "finds groups in the file names of a folder of images",
      "a .npz file has the array group_train [N] instead",
    )


def background_name(text: str) -> str:
  """The colour's name, `white`, `grey` or `black`, or its RRGGBB.

  Raises:
    InputError: it is no colour.
  """
  name = text.strip().lower().removeprefix("#")
  name = "grey" if name == "gray" else name
  if name not in _BACKGROUNDS and not _is_hex(name):
    raise InputError(
      "--background",
      f"{text[:40]!r} is no colour",
      f"{nearest(name, _BACKGROUNDS)} or RRGGBB in hexadecimal digits",
    )
  return name


def colour(name: str) -> tuple[int, int, int]:
  """Red, green and blue of a `background_name`, each 0 to 255."""
  if name in _BACKGROUNDS:
    return _BACKGROUNDS[name]
  red, green, blue = bytes.fromhex(name)
  return red, green, blue


def _is_hex(name):
  return len(name) == 6 and all(c in "0123456789abcdef" for c in name)


def listed(names: Sequence[str], most: int = 10) -> str:
  """The first names, and how many more there are."""
  more = f" and {len(names) - most} more" if len(names) > most else ""
  return ", ".join(names[:most]) + more
