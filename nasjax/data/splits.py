"""Sets in two parts: by class, with nothing on both sides.

What may not be torn apart is a unit: rows of the same pixels, whatever their
labels, and rows of one group. Units of several classes are dealt first, where
they disturb the classes' shares least; units of one class then fill up each
class to its share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from nasjax.data.duplicates import numbers
from nasjax.data.inputs import Images, order, take
from nasjax.data.parts import listed
from nasjax.errors import InputError

_FEW = 10


def split(
  images: Images,
  *,
  seed: int,
  fraction: float = 0.5,
  groups: np.ndarray | None = None,
) -> tuple[Images, Images]:
  """Splits a set in two, each class by its share.

  Rows of the same pixels, whatever their labels, always go to the same part,
  and so do rows of one group: the parts are disjoint by content. Apart from
  that each class is within a row of its share, and a class of two such units
  or more has rows in both parts; where groups forbid it, groups win. The parts
  depend on the rows and the seed, not on the order the rows come in.

  Args:
    images: uint8 or f32 [N,H,W,C], int32[N].
    seed: of what is drawn, 0 or more.
    fraction: of the rows that go to the first part, between 0 and 1.
    groups: int[N] or None.

  Returns:
    Two sets, each in the order of `inputs.order`.

  Raises:
    ValueError: `fraction` or `seed` is out of range.
    InputError: there are no two images that may be torn apart.
  """
  rows = order(images, groups)
  first = first_part(
    images, seed=seed, fraction=fraction, groups=groups, rows=rows
  )
  chosen = first[rows]
  return take(images, rows[chosen]), take(images, rows[~chosen])


def first_part(
  images: Images,
  *,
  seed: int,
  fraction: float,
  groups: np.ndarray | None = None,
  rows: np.ndarray | None = None,
  both: bool = True,
) -> np.ndarray:
  """Which rows `split` puts into the first part.

  Args:
    images: see `split`.
    seed: see `split`.
    fraction: see `split`.
    groups: see `split`.
    rows: i64[N], the `inputs.order` of the rows if it is known.
    both: see to it that there is a row in each part, even if a class has all
      its rows in the smaller one then.

  Returns:
    bool[N], in the order that the rows have here.

  Raises:
    ValueError: see `split`.
    InputError: see `split`.
  """
  if not 0 < fraction < 1:
    raise ValueError(f"fraction {fraction} must lie between 0 and 1")
  if seed < 0:
    raise ValueError(f"seed {seed} must be 0 or more")
  rows = order(images, groups) if rows is None else rows
  (same,) = numbers(images)
  units = _units(same[rows], None if groups is None else groups[rows])
  if not len(units) or not units.any():
    what = "images" if groups is None else "images of two groups"
    raise InputError(
      "--data", f"has no two different {what}, so it cannot be split"
    )
  labels = np.asarray(images.labels)[rows]
  chosen = np.zeros(len(rows), bool)
  state = _Deal.of(labels, units, fraction, np.random.default_rng(seed))
  chosen[rows] = state.deal(both)[units]
  return chosen


def split_notes(
  train: Images, valid: Images, class_names: Sequence[str]
) -> tuple[str, ...]:
  """Warnings of the classes that a split or the data leaves poor.

  Args:
    train: the first part.
    valid: the second part.
    class_names: a name for each class.
  """
  found, count = [], len(class_names)
  sizes = [np.bincount(s.labels, minlength=count) for s in (train, valid)]
  for number, part in enumerate(("first", "second")):
    here, there = sizes[number], sizes[1 - number]
    bare = [class_names[c] for c in np.flatnonzero((here == 0) & (there > 0))]
    if bare:
      found.append(
        f"warning: {len(bare)} classes have no image in the {part} part of the"
        f" training images, as groups win over classes: {listed(bare)}"
      )
  few = [class_names[c] for c in np.flatnonzero(sum(sizes) < _FEW)]
  if few:
    found.append(
      f"warning: {len(few)} of {count} classes have under {_FEW} training"
      f" images: {listed(few)}"
    )
  return tuple(found)


def _units(same, groups):
  """int64[N]: rows that stay together, numbered by their first row."""
  units = same
  if groups is not None:
    group = np.unique(groups, return_inverse=True)[1]
    pixels = int(same.max(initial=-1)) + 1
    size = pixels + int(group.max(initial=-1)) + 1
    links = scipy.sparse.coo_matrix(
      (np.ones(len(same), bool), (same, pixels + group)), (size, size)
    )
    parts = scipy.sparse.csgraph.connected_components(links, directed=False)[1]
    units = parts[same]
  _, first, units = np.unique(units, return_index=True, return_inverse=True)
  return np.argsort(np.argsort(first))[units]


def _targets(sizes, units, fraction):
  """Rows of each class in the first part: whole, and right in all.

  Args:
    sizes: int[K], rows of each class.
    units: int[K], in how many units they lie.
    fraction: of the first part.
  """
  exact = sizes * fraction
  low, high = np.floor(exact), np.ceil(exact)
  several = units > 1
  low = np.where(several, np.clip(low, 1, sizes - 1), low)
  high = np.where(several, np.clip(high, 1, sizes - 1), high)
  if fraction != 0.5:
    # What cannot be in both parts belongs to the larger one.
    whole = np.where(fraction > 0.5, sizes, 0)
    low, high = (np.where(several, x, whole) for x in (low, high))
  spare = int(np.rint(sizes.sum() * fraction) - low.sum())
  room = np.flatnonzero(high > low)
  by_rest = room[np.argsort(low[room] - exact[room], kind="stable")]
  low[by_rest[: max(spare, 0)]] += 1
  return low.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class _Deal:
  """The state while units are dealt to the two parts.

  Attributes:
    first: bool[U], whether a unit is in the first part.
    sizes: int64[U], its rows.
    owner: int64[U], its class, or -1 for several.
    mixed: classes and how many rows of each, of every unit of several.
    totals: int64[K], rows of each class.
    units: int64[K], units that hold rows of each class.
    targets: int64[K], rows of each class that the first part should have.
    dealt: int64[2, K], rows of each class in the second and the first part.
    fraction: of the first part.
    generator: what is drawn from.
  """

  first: np.ndarray
  sizes: np.ndarray
  owner: np.ndarray
  mixed: dict[int, tuple[np.ndarray, np.ndarray]]
  totals: np.ndarray
  units: np.ndarray
  targets: np.ndarray
  dealt: np.ndarray
  fraction: float
  generator: np.random.Generator

  @classmethod
  def of(cls, labels, units, fraction, generator):
    """Counts the units of N rows; none is dealt yet."""
    classes = np.unique(labels, return_inverse=True)[1]
    count = int(classes.max()) + 1
    # One pair of unit and class, and its rows, at a time: a whole table of
    # them would be too large.
    pairs, rows = np.unique(units * count + classes, return_counts=True)
    unit, held = np.divmod(pairs, count)
    sizes = np.bincount(units)
    starts = np.searchsorted(unit, np.arange(len(sizes) + 1))
    owner = np.where(np.diff(starts) == 1, held[starts[:-1]], -1)
    mixed = {
      int(u): (
        held[starts[u] : starts[u + 1]],
        rows[starts[u] : starts[u + 1]],
      )
      for u in np.flatnonzero(owner < 0)
    }
    totals, number = np.bincount(classes), np.bincount(held, minlength=count)
    return cls(
      np.zeros(len(sizes), bool),
      sizes,
      owner,
      mixed,
      totals,
      number,
      _targets(totals, number, fraction),
      np.zeros((2, count), np.int64),
      fraction,
      generator,
    )

  def deal(self, both):
    """Deals every unit; bool[U], true in the first part."""
    shuffled = self.generator.permutation(len(self.sizes))
    # Large ones first, by powers of two: among about equals the seed decides.
    scale = np.frexp(self.sizes[shuffled])[1]
    shuffled = shuffled[np.argsort(-scale, kind="stable")]
    for unit in shuffled[self.owner[shuffled] < 0]:
      self._mixed(int(unit))
    single = shuffled[self.owner[shuffled] >= 0]
    owner = self.owner[single]
    by_class = single[np.argsort(owner, kind="stable")]
    ends = np.cumsum(np.bincount(owner, minlength=len(self.totals)))
    for label, units in enumerate(np.split(by_class, ends[:-1])):
      self._fill(label, units)
    self._mend(both)
    return self.first

  def _put(self, unit, side, classes, rows):
    self.first[unit] = side
    self.dealt[side, classes] += rows

  def _off(self, unit, side):
    """By how many rows its classes are off their shares if it goes there."""
    classes, rows = self.mixed[unit]
    second, first = self.dealt[:, classes]
    share = self.fraction * (second + first + rows)
    return float(np.abs(first + side * rows - share).sum())

  def _mixed(self, unit):
    classes, rows = self.mixed[unit]
    if self.fraction != 0.5 and (self.units[classes] == 1).any():
      # As in `_targets`: a class that cannot be in both parts.
      self._put(unit, int(self.fraction > 0.5), classes, rows)
      return
    second, first = self._off(unit, 0), self._off(unit, 1)
    drawn = int(self.generator.random() < self.fraction)
    side = drawn if second == first else int(first < second)
    self._put(unit, side, classes, rows)

  def _fill(self, label, units):
    """Deals the units of one class, the larger ones first."""
    large = units[self.sizes[units] > 1]
    small = units[self.sizes[units] == 1]
    draws = self.generator.random(len(large))
    for number, unit in enumerate(large):
      size = int(self.sizes[unit])
      last = not len(small) and number == len(large) - 1
      side = self._side(label, size, draws[number], last)
      self._put(unit, side, label, size)
    need = int(self.targets[label] - self.dealt[1, label])
    count = min(max(need, 0), len(small))
    self.first[small[:count]] = True
    self.dealt[1, label] += count
    self.dealt[0, label] += len(small) - count

  def _side(self, label, size, draw, last):
    second, first = self.dealt[:, label]
    if last and bool(first) != bool(second):
      return int(not first)
    need = int(self.targets[label] - first)
    room = int(self.totals[label] - self.targets[label] - second)
    if min(need, room) >= size:
      return int(draw * (need + room) < need)
    if max(need, room) >= size or need != room:
      return int(need > room)
    return int(draw < 0.5)

  def _mend(self, both):
    """Moves units of several classes to where a class has no row at all."""
    for side in (0, 1):
      for label in np.flatnonzero((self.dealt[side] == 0) & (self.units > 1)):
        if not self.dealt[side, label]:
          self._move(int(label), side)
    if both and (self.first.all() or not self.first.any()):
      smallest = int(np.argmin(self.sizes))
      self.first[smallest] = not self.first[smallest]

  def _move(self, label, side):
    """Moves the unit to a side that disturbs least and strips no class."""
    best = None
    for unit, (classes, rows) in self.mixed.items():
      if self.first[unit] == side or label not in classes:
        continue
      if (self.dealt[1 - side, classes] == rows).any():
        continue
      there = self.dealt[side, classes] + rows
      score = float(np.abs(there - self._share(classes, side)).sum())
      if best is None or score < best[0]:
        best = score, unit
    if best is None:
      return
    classes, rows = self.mixed[best[1]]
    self.dealt[1 - side, classes] -= rows
    self._put(best[1], side, classes, rows)

  def _share(self, classes, side):
    targets = self.targets[classes]
    return targets if side else self.totals[classes] - targets
