"""Folders of images, one sub-folder for each class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasjax.data import pixels
from nasjax.data.labels import MAX_CLASSES
from nasjax.data.parts import Options, Part, Source, listed
from nasjax.errors import InputError, nearest

_SUFFIXES = ".bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp"
# What systems put into folders by themselves.
_SYSTEM = ("thumbs.db", "desktop.ini", ".ds_store")
_ROLES = {
  "train": "train",
  "test": "test",
  "val": "valid",
  "valid": "valid",
  "validation": "valid",
}


class _File(NamedTuple):
  name: str  # relative to the data's folder
  role: str  # train, test or valid
  label: int


def entries(folder: Path) -> list[os.DirEntry]:
  """What stands in a folder by name, not hidden; raises InputError."""
  return _listing(folder)[0]


def folders(folder: Path) -> list[str]:
  """The names of the folders in a folder; raises InputError."""
  return [entry.name for entry in entries(folder) if entry.is_dir()]


def _listing(folder):
  """Entries that count, by name, and how many are a system's own files."""
  try:
    with os.scandir(folder) as found:
      every = list(found)
  except OSError as error:
    raise InputError(folder, f"cannot be read: {error.strerror}") from None
  own = [e for e in every if e.name.lower() in _SYSTEM]
  shown = [e for e in every if not e.name.startswith(".") and e not in own]
  return sorted(shown, key=lambda entry: entry.name), len(own)


def class_order(names: Sequence[str]) -> list[str]:
  """Class folders in order: by value if all are whole numbers, else by name."""
  if all(name.isascii() and name.isdigit() for name in names):
    return sorted(names, key=lambda name: (int(name), name))
  return sorted(names)


def read_images(path: Path, options: Options) -> Source:
  """Reads a folder of class folders, or of train/ and others that hold these.

  The others are test/ and val/ (valid/, validation/), in any case.

  Returns:
    The source; images uint8[N,H,W,C], C 1 if all are gray and else 3.

  Raises:
    InputError: a folder or an image is not as said, or they are too large.
  """
  tops = _tops(path)
  classes = class_order(folders(tops["train"]))
  if not 2 <= len(classes) <= MAX_CLASSES:
    raise InputError(
      tops["train"],
      f"has {len(classes)} class folders, 2 to {MAX_CLASSES} are taken",
    )
  files, system = [], 0 if path in tops.values() else _listing(path)[1]
  for role, top in tops.items():
    found, count = _files(path, role, top, classes)
    system, files = system + count, files + found
  made = pixels.read(path, [file.name for file in files], options)
  kept = [files[row] for row in made.rows]
  _check_classes(tops, files, kept, classes)
  groups, notes = _groups(kept, options.group_by)
  notes = (*made.notes, *notes)
  if system:
    names = "Thumbs.db, desktop.ini, .DS_Store"
    notes = (f"{system} system files are skipped ({names})", *notes)
  sets = {}
  start = 0
  for role, top in tops.items():
    chosen = [file for file in kept if file.role == role]
    rows = slice(start, start + len(chosen))
    start = rows.stop
    sets[role] = Part(
      made.pixels[rows],
      np.array([file.label for file in chosen], np.int64),
      str(top),
      str(top),
      [file.name for file in chosen],
      groups if role == "train" else None,
      made.marks[rows],
    )
  return Source(
    str(path),
    path.resolve().name,
    **sets,
    class_names=tuple(classes),
    hold_out="test" not in tops,
    background=made.background,
    notes=notes,
  )


def _tops(path):
  """The folder of each role; of train alone where it is the folder itself."""
  names = folders(path)
  nested = any(n.lower() == "train" and folders(path / n) for n in names)
  if not nested:
    return {"train": path}
  tops = {}
  for name in names:
    role = _ROLES.get(name.lower())
    if role is None:
      raise InputError(
        path / name,
        "stands beside train/, where only test/ and val/ are read",
        "rename it to test or val, or move it away",
      )
    if role in tops:
      raise InputError(
        path / name, f"stands beside {tops[role].name}/, which is the same"
      )
    tops[role] = path / name
  return {r: tops[r] for r in ("train", "test", "valid") if r in tops}


def _files(root, role, top, classes):
  """Every image of a role, and how many system files stand beside them."""
  files, (shown, system) = [], _listing(top)
  names = [entry.name for entry in shown if entry.is_dir()]
  if not names:
    raise InputError(top, "has no class folders")
  for name in names:
    if name not in classes:
      raise InputError(
        top / name, "is no class of train/", nearest(name, classes)
      )
    found, count = _listing(top / name)
    system += count
    if not found:
      raise InputError(top / name, "is a class folder without images")
    for entry in found:
      path = Path(entry.path)
      if path.suffix.lower() not in _SUFFIXES.split():
        raise InputError(path, "is not an image", f"known: {_SUFFIXES}")
      name_in = str(path.relative_to(root))
      files.append(_File(name_in, role, classes.index(name)))
  return files, system


def _check_classes(tops, files, kept, classes):
  """Refuses a class folder of which no file can be read."""
  left = {(file.role, file.label) for file in kept}
  for file in files:
    if (file.role, file.label) not in left:
      raise InputError(
        tops[file.role] / classes[file.label],
        "is a class folder of which no image can be read",
        "mend the files, or remove the class",
      )


def _groups(files, expression):
  """The groups of the training files, int32[N] or None, and notes."""
  if expression is None:
    return None, ()
  try:
    pattern = re.compile(expression)
  except (re.error, OverflowError, RecursionError) as error:
    raise InputError(
      "--group-by", f"{expression[:60]!r} is no regular expression: {error}"
    ) from None
  found = {role: [] for role in ("train", "test", "valid")}
  for file in files:
    match = pattern.search(Path(file.name).name)
    found[file.role].append(match and match.group(1 if pattern.groups else 0))
  texts = found["train"]
  values = sorted({text for text in texts if text is not None})
  if not values:
    raise InputError(
      "--group-by", f"{expression[:60]!r} is found in no file name of train"
    )
  numbers = {text: number for number, text in enumerate(values)}
  notes = [
    f"--group-by finds {len(values)} groups in {len(texts)} training images"
  ]
  groups, alone = np.empty(len(texts), np.int32), []
  for row, text in enumerate(texts):
    if text is None:
      alone.append(row)
      groups[row] = len(values) + len(alone) - 1
    else:
      groups[row] = numbers[text]
  if alone:
    names = [f.name for f in files if f.role == "train"]
    notes.append(
      f"--group-by is not found in {len(alone)} files, each is a group of its"
      f" own: {listed([names[row] for row in alone])}"
    )
  for role in ("test", "valid"):
    both = sorted(set(values) & set(found[role]) - {None})
    if both:
      notes.append(
        f"warning: {len(both)} groups have images in train and {role} both:"
        f" {listed(both)}"
      )
  return groups, tuple(notes)
