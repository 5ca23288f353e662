"""Images that stand in a set twice, or in two sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasjax.data.inputs import Images, digests, shape
from nasjax.data.parts import Part
from nasjax.errors import InputError

_MOST_LEFT_OUT = 0.02  # of the other set's rows, without the user's word
_MOST_OF_ONE_CLASS = 0.9
_LEAST_DISTINCT = 0.5
_FIX = "remove them from one of the two"


def numbers(*sets: Images | Part) -> list[np.ndarray]:
  """int64[N] a set: the same number where the pixels are the same.

  Args:
    sets: of images of one shape and dtype; what has marks is compared by them,
      as it was before it was resized.
  """
  marks = [
    digests(Images(s.images, s.labels), with_labels=False)
    if getattr(s, "marks", None) is None
    else s.marks
    for s in sets
  ]
  both = np.ascontiguousarray(np.concatenate(marks)).view("V16").ravel()
  found = np.unique(both, return_inverse=True)[1]
  return np.split(found, np.cumsum([len(m) for m in marks])[:-1])


def check_disjoint(
  a: Images, b: Images, names: tuple[str, str] = ("train", "test")
) -> None:
  """Refuses two sets that share an image, whatever its labels are.

  Args:
    a: uint8 or f32 [N,H,W,C], int32[N].
    b: uint8 or f32 [M,H,W,C], int32[M].
    names: what the message calls them.

  Raises:
    InputError: says how many rows of `b` stand in `a`, and the first pair.
  """
  if shape(a) != shape(b) or a.images.dtype != b.images.dtype:
    return
  first, second = Part(*a, names[0]), Part(*b, names[1])
  in_a, in_b = numbers(a, b)
  if np.isin(in_b, in_a).any():
    raise _shared(first, second, in_a, in_b, _FIX)


def _shared(a, b, in_a, in_b, fix):
  shared, count = np.flatnonzero(np.isin(in_b, in_a)), int((in_b >= 0).sum())
  pair = np.flatnonzero(in_a == in_b[shared[0]])[0]
  return InputError(
    f"{a.name} and {b.name}",
    f"{shared.size} of {count} rows of {b.short} stand in {a.short} too (same"
    f" image), first {b.row(shared[0])}, which is {a.row(pair)} of {a.short}",
    fix,
  )


def kept(
  part: Part,
  other: Part,
  in_part: np.ndarray,
  in_other: np.ndarray,
  *,
  keep: bool,
) -> tuple[np.ndarray, tuple[str, ...]]:
  """Which rows of a part stay where another set must not be known.

  A few are left out with a word, so that the test set of a published source
  stays as it is; more of them are a mistake that the user has to know.

  Args:
    part: the rows.
    other: the set that must stay unknown.
    in_part: their `numbers`.
    in_other: those of the other set; a negative one is no row of it any more.
    keep: to keep all, `--keep-duplicates`.

  Returns:
    bool[N] and notes.

  Raises:
    InputError: more rows stand in both than 2 % of the other set's rows.
  """
  shared = np.isin(in_part, in_other)
  count = int(shared.sum())
  if not count:
    return ~shared, ()
  text = f"{count} rows of {part.short} stand in {other.short} too (same image)"
  if keep:
    return np.ones_like(shared), (
      f"warning: {text} and are kept: results on {other.short} are too good",
    )
  if count > _MOST_LEFT_OUT * (in_other >= 0).sum():
    fix = f"{_FIX}, or keep them all by --keep-duplicates"
    raise _shared(part, other, in_part, in_other, fix)
  return ~shared, (f"{text} and are left out",)


def warnings(
  part: Part, rows: np.ndarray, same: np.ndarray, class_names: Sequence[str]
) -> tuple[str, ...]:
  """Warnings of a training set that hardly can be meant as it is.

  Args:
    part: whose rows they are; its labels are int32.
    rows: i64[M], those that count.
    same: their `numbers`, int64[M].
    class_names: a name for each class.
  """
  found, labels, count = [], part.labels[rows], len(rows)
  _, first, place = np.unique(same, return_index=True, return_inverse=True)
  if len(first) < _LEAST_DISTINCT * count:
    found.append(
      f"warning: only {len(first)} of the {count} images of {part.short} are"
      " distinct"
    )
  other = np.flatnonzero(labels != labels[first][place])
  if other.size:
    pair = int(first[place[other[0]]]), int(other[0])
    shown = " and ".join(
      f"{part.row(rows[i])} ({class_names[labels[i]]})" for i in pair
    )
    found.append(
      f"warning: {len(np.unique(place[other]))} images of {part.short} stand"
      f" there with more than one label, first {shown}"
    )
  sizes = np.bincount(labels)
  if sizes.max() > _MOST_OF_ONE_CLASS * count:
    found.append(
      f"warning: {sizes.max()} of the {count} images of {part.short} are of one"
      f" class, {class_names[sizes.argmax()]}"
    )
  return tuple(found)
