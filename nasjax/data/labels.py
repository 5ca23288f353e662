"""Labels as they are given, to the numbers of classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasjax.data.parts import Part
from nasjax.errors import InputError

MAX_CLASSES = 1000

_SHOWN = 10


def numbered(
  train: Part, others: Sequence[Part], class_names: Sequence[str] = ()
) -> tuple[list[np.ndarray], tuple[str, ...], tuple[str, ...]]:
  """Numbers the classes from 0, in the order of the training labels' values.

  Args:
    train: whose labels say which classes there are.
    others: test and validation sets.
    class_names: names which the labels count already, or empty.

  Returns:
    int32[N] labels of train and each of the others, the names of the classes
    and notes.

  Raises:
    InputError: there is one class or too many, or a label of another set that
      no training row has.
  """
  known = np.unique(train.labels)
  if len(known) < 2:
    raise InputError(
      train.label_name, "has only one class, two or more are needed"
    )
  if class_names:
    _check_named(train, known, len(class_names))
  elif len(known) > MAX_CLASSES:
    raise InputError(
      train.label_name,
      f"has {len(known)} different labels, at most {MAX_CLASSES} are taken",
    )
  for part in others:
    strange = np.flatnonzero(~np.isin(part.labels, known))
    if strange.size:
      label = int(part.labels[strange[0]])
      named = class_names and 0 <= label < len(class_names)
      shown = f"{label} ({class_names[label]})" if named else str(label)
      raise InputError(
        part.label_name,
        f"{part.row(strange[0])} has label {shown}, which no row of"
        f" {train.label_name} has",
      )
  sets = [train, *others]
  if class_names:
    labels = [part.labels.astype(np.int32) for part in sets]
    return labels, tuple(class_names), ()
  labels = [
    np.searchsorted(known, part.labels).astype(np.int32) for part in sets
  ]
  values = [str(int(value)) for value in known]
  return labels, tuple(values), _notes(known, values)


def _check_named(train, known, count):
  for label in (int(known[0]), int(known[-1])):
    if not 0 <= label < count:
      row = np.flatnonzero(train.labels == label)[0]
      raise InputError(
        train.label_name,
        f"{train.row(row)} has label {label}, and {count} classes are named",
      )


def _notes(known, values):
  last = len(values) - 1
  if int(known[0]) == 0 and int(known[-1]) == last:
    return ()
  if int(known[-1]) - int(known[0]) == last:
    shown = f"{values[0]}..{values[-1]}"
  else:
    shown = ", ".join(values[:_SHOWN])
    shown += ", ..." if len(values) > _SHOWN else ""
  return (f"labels {shown} are numbered 0..{last}",)
