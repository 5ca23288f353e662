"""Images and labels, checked as a whole and put together so nothing leaks.

All of it is numpy on the host. Files are data, never code: pickled files are
refused, every declared size is checked against a limit and against what is
there before it is allocated. Whatever the source is, its rows come here in its
own order and leave in the order of `inputs.order`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nasjax.data import arrays, duplicates, labels, resizing, sources, splits
from nasjax.data.augmentation import (
  Augmentation,
  default_augmentation,
  scaled,
)
from nasjax.data.binary import check_size
from nasjax.data.inputs import Images, joined, order, shape, take
from nasjax.data.parts import MAX_BYTES, Options, Part, Source, listed, options
from nasjax.errors import InputError, one_line

_HELD_OUT = 0.2


class Dataset(NamedTuple):
  """A training set, perhaps others, and what suits them.

  Rows of every set are in the order of `inputs.order`.

  Attributes:
    name: of the data.
    train: the training set.
    test: the test set, or None.
    num_classes: K.
    class_names: K names, by label.
    augmentation: what suits the images.
    valid: the validation set of a source that has one, or None.
    groups: int32[N], the groups of the training rows, or None.
    notes: lines for the user; warnings start with "warning: ".
    background: the colour that transparent pixels of image files were laid on:
      white, grey, black or RRGGBB; None of arrays, which have none.
  """

  name: str
  train: Images
  test: Images | None
  num_classes: int
  class_names: tuple[str, ...]
  augmentation: Augmentation
  valid: Images | None = None
  groups: np.ndarray | None = None
  notes: tuple[str, ...] = ()
  background: str | None = None


def load(
  source: str,
  *,
  image_size: int | tuple[int, int] | None = None,
  resize_mode: str = "stretch",
  background: str | None = None,
  channels_in: int | None = None,
  group_by: str | None = None,
  skip_broken: bool = False,
  keep_duplicates: bool = False,
  max_bytes: int = MAX_BYTES,
) -> Dataset:
  """Loads what `--data` names.

  Args:
    source: `digits` (in scikit-learn, 8x8x1), `fashion-mnist` (in Debian's
      dataset-fashion-mnist, 28x28x1), or a path to
      - a .npz with x_train, y_train and perhaps x_test, y_test, group_train:
        [N,H,W,C] or [N,H,W], uint8 pixels, or floats or signed whole numbers
        that are taken as they are; whole labels; whole numbers or strings as
        groups [N]; other keys are not read;
      - a folder with the four IDX files, plain or .gz;
      - a folder with CIFAR-10's binary version;
      - a folder with a sub-folder of images for each class, or with train/ and
        test/ and val/ that hold these.
    image_size: side in pixels, or height and width, to which images are
      resized, bilinearly over all that a pixel covers.
    resize_mode: `stretch`, `pad` or `crop`, where proportions differ.
    background: white, grey, black or RRGGBB under transparent pixels of image
      files; None is white, or grey if white hides what the pictures show.
    channels_in: 1 or 3 to make all images gray or coloured; None takes the
      source's.
    group_by: a regular expression that is searched in the names of image
      files; equal matches (of its first group, if it has one) stay together
      in every split.
    skip_broken: leave out image files that cannot be read.
    keep_duplicates: keep training rows that stand in the test set too.
    max_bytes: most bytes that the decoded images and labels may have.

  Returns:
    The data. Where the source has no test set of its own a fifth of each class
    is held out, always the same rows.

  Raises:
    InputError: there is no such source, or something is wrong with it.
  """
  asked = options(
    image_size=image_size,
    resize_mode=resize_mode,
    background=background,
    channels_in=channels_in,
    group_by=group_by,
    skip_broken=skip_broken,
    keep_duplicates=keep_duplicates,
    max_bytes=max_bytes,
  )
  return _built(sources.read(source, asked), asked)


def dataset(
  train: Images,
  test: Images | None = None,
  *,
  valid: Images | None = None,
  groups: np.ndarray | None = None,
  class_names: Sequence[str] = (),
  name: str = "arrays",
  keep_duplicates: bool = False,
) -> Dataset:
  """A data set of arrays, checked and ordered as `load` does.

  Args:
    train: [N,H,W,C] or [N,H,W], uint8 pixels, or floats or signed whole
      numbers that are taken as they are; and whole labels [N].
    test: the same, or None.
    valid: the same, or None.
    groups: whole numbers or strings [N], or None.
    class_names: names which the labels count from 0; without any the labels
      are numbered in order of value and are the names.
    name: of the data.
    keep_duplicates: keep training rows that stand in another set too.

  Raises:
    InputError: something is wrong with them.
  """
  parts = {}
  for key, given in (("train", train), ("test", test), ("valid", valid)):
    if given is not None:
      images, of = (np.asarray(array) for array in given)
      names = (f"{name} {key} images", f"{name} {key} labels")
      parts[key] = Part(*arrays.checked(images, of, *names), *names)
  if groups is not None:
    numbers = arrays.groups(
      np.asarray(groups), len(parts["train"].labels), f"{name} groups"
    )
    parts["train"] = parts["train"]._replace(groups=numbers)
  source = Source(name, name, **parts, class_names=tuple(class_names))
  return _built(source, Options(keep_duplicates=keep_duplicates))


def resize(
  dataset: Dataset,
  image_size: int | tuple[int, int],
  max_bytes: int = MAX_BYTES,
  resize_mode: str = "stretch",
) -> Dataset:
  """The data at another resolution.

  Training rows that become equal to rows of the other sets are left out, and
  so are validation rows that become equal to test rows.

  Args:
    dataset: of images of any shape.
    image_size: side in pixels, or height and width, that they get.
    max_bytes: most bytes that the images may have.
    resize_mode: `stretch`, `pad` or `crop`.

  Raises:
    InputError: they would have more, or the mode is unknown.
  """
  asked = options(
    image_size=image_size, resize_mode=resize_mode, max_bytes=max_bytes
  )
  old = shape(dataset.train)
  if old[:2] == asked.image_size:
    return dataset
  before = {
    key: Part(*images, name=key)
    for key in ("train", "test", "valid")
    if (images := getattr(dataset, key)) is not None
  }
  after, notes = _resized(before, asked)
  kept = {key: np.ones(len(part.labels), bool) for key, part in after.items()}
  kept, more = _without_new_duplicates(before, after, kept)
  notes += more
  sets, groups = _arranged(after, kept, dataset.groups)
  new = shape(sets["train"])
  return dataset._replace(
    **sets,
    groups=groups,
    augmentation=scaled(dataset.augmentation, old, new),
    notes=dataset.notes + tuple(one_line(note) for note in notes),
  )


def _without_new_duplicates(before, after, kept):
  """Leaves out rows that stand in two sets since they were resized; notes.

  What a user chose to keep before is no matter of the size.
  """
  new = {key: np.zeros(len(part.labels), bool) for key, part in after.items()}
  for one, two in _pairs(after):
    stood, stands = (
      np.isin(*duplicates.numbers(parts[one], parts[two]))
      for parts in (before, after)
    )
    new[one] |= kept[one] & stands & ~stood
  notes = tuple(
    f"{rows.sum()} {key} images become equal to others that must stay unknown"
    " at this size, and are left out"
    for key, rows in new.items()
    if rows.any()
  )
  return {key: rows & ~new[key] for key, rows in kept.items()}, notes


def everything(dataset: Dataset) -> Images:
  """All that may be trained on in the end: train, and valid if there is one."""
  if dataset.valid is None:
    return dataset.train
  return joined(dataset.train, dataset.valid)


def _pairs(parts):
  """(set, set that must stay unknown to it), the most precious ones first."""
  every = (("train", "test"), ("valid", "test"), ("train", "valid"))
  return [pair for pair in every if all(key in parts for key in pair)]


def _built(source, asked):
  """The one way from a source's rows to a data set."""
  parts = {
    key: part
    for key in ("train", "test", "valid")
    if (part := getattr(source, key)) is not None
  }
  _check_alike(source.where, parts)
  if asked.channels_in is not None:
    parts = {
      key: part._replace(
        images=arrays.in_channels(part.images, asked.channels_in, part.name)
      )
      for key, part in parts.items()
    }
  old, notes = shape(parts["train"]), source.notes
  keys = list(parts)
  numbers, class_names, more = labels.numbered(
    parts["train"], [parts[key] for key in keys[1:]], source.class_names
  )
  notes += more
  parts = {
    key: parts[key]._replace(labels=number)
    for key, number in zip(keys, numbers, strict=True)
  }
  kept, more = _without_duplicates(parts, class_names, asked.keep_duplicates)
  notes += more
  if asked.image_size is not None:
    before = parts
    if asked.image_size != old[:2]:
      parts, more = _resized(parts, asked)
      notes += more
    parts = {key: part._replace(marks=None) for key, part in parts.items()}
    kept, more = _without_new_duplicates(before, parts, kept)
    notes += more
  if source.hold_out and "test" not in parts:
    parts, kept, more = _hold_out(parts, kept, class_names)
    notes += more
  sets, groups = _arranged(parts, kept, parts["train"].groups)
  new = shape(sets["train"])
  augmentation = default_augmentation(new)
  if source.augmentation is not None:
    augmentation = scaled(source.augmentation, old, new)
  return Dataset(
    source.name,
    sets["train"],
    sets.get("test"),
    len(class_names),
    class_names,
    augmentation,
    sets.get("valid"),
    groups,
    tuple(one_line(note) for note in notes),
    source.background,
  )


def _check_alike(where, parts):
  first = parts["train"]
  for key, part in parts.items():
    if shape(part) != shape(first):
      raise InputError(
        where, f"train has {shape(first)} images, {key} {shape(part)}"
      )
    if part.images.dtype != first.images.dtype:
      raise InputError(
        where,
        f"train has {first.images.dtype} images, {key} {part.images.dtype}",
        "save both as pixels of 0 to 255, or both as float values",
      )


def _resized(parts, asked):
  height, width, channels = shape(parts["train"])
  count = sum(len(part.labels) for part in parts.values())
  row = channels * parts["train"].images.itemsize
  row *= asked.image_size[0] * asked.image_size[1]
  check_size("--image-size", count * row, asked.max_bytes)
  made = {
    key: part._replace(
      images=resizing.resized(part.images, asked.image_size, asked.resize_mode)
    )
    for key, part in parts.items()
  }
  sizes = {(height, width): count}
  return made, resizing.notes(sizes, asked.image_size, asked.resize_mode)


def _without_duplicates(parts, class_names, keep):
  """Which rows of each set are kept, bool[N] each, and notes."""
  same = dict(zip(parts, duplicates.numbers(*parts.values()), strict=True))
  kept = {key: np.ones(len(part.labels), bool) for key, part in parts.items()}
  notes = ()
  for one, two in _pairs(parts):
    # Rows that are left out already are no reason to leave out others.
    there = np.where(kept[two], same[two], -1)
    found, more = duplicates.kept(
      parts[one], parts[two], same[one], there, keep=keep
    )
    kept[one] &= found
    notes += more
  train, rows = parts["train"], np.flatnonzero(kept["train"])
  bare = np.setdiff1d(train.labels, train.labels[rows])
  if bare.size:
    raise InputError(
      train.name,
      f"every image of class {class_names[bare[0]]} stands in another set too",
    )
  warned = duplicates.warnings(train, rows, same["train"][rows], class_names)
  return kept, notes + warned


def _hold_out(parts, kept, class_names):
  """A fixed fifth of each class as the test set, disjoint by content."""
  train, rows = parts["train"], np.flatnonzero(kept["train"])
  whole = len(rows) == len(train.labels)
  images = Images(
    train.images if whole else train.images[rows], train.labels[rows]
  )
  held = splits.first_part(
    images,
    seed=0,
    fraction=_HELD_OUT,
    groups=None if train.groups is None else train.groups[rows],
    both=False,
  )
  if not held.any():
    return parts, kept, ("warning: no image could be held out as a test set",)
  chosen = np.zeros(len(train.labels), bool)
  chosen[rows[held]] = True
  notes = ()
  counts = np.bincount(train.labels[chosen], minlength=len(class_names))
  present = np.bincount(train.labels, minlength=len(class_names))
  bare = [class_names[c] for c in np.flatnonzero((counts == 0) & (present > 0))]
  if bare:
    notes = (
      f"warning: {len(bare)} classes have no image in the held-out test set:"
      f" {listed(bare)}",
    )
  parts = parts | {"test": train}
  kept = kept | {"test": chosen, "train": kept["train"] & ~chosen}
  return parts, kept, notes


def _arranged(parts, kept, groups):
  """The sets that are kept in their order, and the training rows' groups."""
  sets = {}
  for key, part in parts.items():
    of = groups if key == "train" else None
    images = Images(part.images, part.labels)
    rows = order(images, of)
    rows = rows[kept[key][rows]]
    sets[key] = take(images, rows)
    if of is not None:
      groups_kept = of[rows]
  return sets, None if groups is None else groups_kept
