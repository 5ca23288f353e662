"""Dominance, non-dominated sorting and crowding: compiled, static shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.types import Array

_COUNTED = 512  # points up to which an order is counted
_LAST = np.int32(2**31 - 1)  # a rank after all others


def _comparable(objectives: Array) -> Array:
  """The points, those with a NaN moved to infinity in every objective."""
  unknown = jnp.isnan(objectives).any(-1, keepdims=True)
  return jnp.where(unknown, jnp.inf, objectives)


@jax.jit
def dominates(a: Array, b: Array) -> Array:
  """Whether points `a` dominate points `b`.

  Args:
    a: f32[..., M].
    b: f32[..., M], of the same shape.

  Returns:
    bool[...]: nowhere worse and somewhere better. A point with a NaN dominates
    none and is dominated by every one that is finite somewhere.
  """
  a, b = _comparable(jnp.asarray(a)), _comparable(jnp.asarray(b))
  return (a <= b).all(-1) & (a < b).any(-1)


def _counted_places(keys: Sequence[Array]) -> Array:
  """i32[..., N]: how many stand before each, of equal ones the earlier first.

  Keys [..., N], the most significant first. All pairs, in steps of vector work.
  """
  shape = jnp.broadcast_shapes(*(k.shape for k in keys))
  size = shape[-1]
  places = jnp.zeros(shape, jnp.int32)
  if not size:
    return places
  index = jnp.arange(size, dtype=jnp.int32)
  index = index.reshape((1,) * (len(shape) - 1) + (size,))
  unrolled = next(u for u in (8, 4, 2, 1) if size % u == 0)

  def count(step, places):
    start = step * unrolled
    rows = [lax.dynamic_slice_in_dim(k, start, unrolled, axis=-1) for k in keys]
    for turn in range(unrolled):
      before = start + turn < index
      for row, key in zip(reversed(rows), reversed(keys), strict=True):
        own = row[..., turn : turn + 1]
        before = (own < key) | ((own == key) & before)
      places = places + before
    return places

  return lax.fori_loop(0, size // unrolled, count, places)


def _inverse(places: Array) -> Array:
  """Who stands at each place: i32[..., N] of permutations i32[..., N]."""
  size = places.shape[-1]
  flat = places.reshape(math.prod(places.shape[:-1]), size)
  index = jnp.broadcast_to(jnp.arange(size, dtype=jnp.int32), flat.shape)
  row = jnp.arange(len(flat), dtype=jnp.int32)[:, None]
  found = jnp.zeros_like(flat).at[row, flat].set(index, unique_indices=True)
  return found.reshape(places.shape)


def _places(keys: Sequence[Array]) -> tuple[Array, Array]:
  """(place of each, who stands at each) i32[..., N] in the order of keys."""
  shape = jnp.broadcast_shapes(*(k.shape for k in keys))
  if shape[-1] <= _COUNTED:
    places = _counted_places(keys)
    return places, _inverse(places)
  keys = [jnp.broadcast_to(k, shape) for k in keys]
  order = jnp.lexsort(keys[::-1], axis=-1).astype(jnp.int32)
  return _inverse(order), order


def lexical_order(keys: Sequence[Array]) -> Array:
  """i32[N]: `jnp.lexsort` of keys [N], the most significant first.

  XLA's sort of several keys on a CPU calls a comparator; up to some hundred
  points it is faster to count how many stand before each.
  """
  return _places(keys)[1]


def _lexical(points: Array) -> Array:
  """i32[N]: the order of points f32[N, M], by the first objective first."""
  return lexical_order(list(points.T))


@jax.jit
def non_dominated_sort(
  objectives: Array, violations: Array | None = None
) -> Array:
  """The rank of each point: 0 for the front, 1 for what is left then, ...

  In lexical order every point stands behind those that dominate it, so one
  pass gives each the rank 1 + the highest of its dominators. This is N steps
  of vector work, however many fronts there are, where peeling them off (Deb et
  al. 2002, section III A) takes a pass of N^2 each.

  Args:
    objectives: f32[N, M]. Points with a NaN count as infinite.
    violations: f32[N], 0 or less where all constraints hold; those that break
      one come after all that do not, by violation (Deb's constrained
      dominance, section VI A). NaN counts as infinite.

  Returns:
    i32[N].
  """
  points = _comparable(jnp.asarray(objectives))
  chex.assert_rank(points, 2)
  if violations is None:
    return _ranks(points)
  violations = jnp.asarray(violations)
  chex.assert_shape(violations, points.shape[:1])
  violations = jnp.where(jnp.isnan(violations), jnp.inf, violations)
  feasible = violations <= 0
  rank = _ranks(jnp.where(feasible[:, None], points, jnp.inf))
  # All at infinity share one rank, behind every feasible point but those at
  # infinity themselves.
  after = jnp.where(feasible, rank, -1).max() + 1
  order = jnp.argsort(jnp.where(feasible, -jnp.inf, violations))
  ordered = jnp.where(feasible, -jnp.inf, violations)[order]
  new = jnp.concatenate([jnp.zeros(1, bool), ordered[1:] > ordered[:-1]])
  dense = jnp.cumsum(new.astype(jnp.int32))
  # Feasible ones, where there are any, take the first place.
  dense = dense - feasible.any().astype(jnp.int32)
  behind = jnp.zeros_like(rank).at[order].set(after + dense)
  return jnp.where(feasible, rank, behind)


def dominators(objectives: Array) -> Array:
  """Who dominates whom, a bit each.

  Args:
    objectives: f32[N, M] without NaN.

  Returns:
    u32[W, N], W = N / 32 rounded up: bit b of word [w, i] says whether point
    32 w + b dominates point i.
  """
  size, count = objectives.shape
  words = -(-size // 32)
  columns = objectives.T[:, None]
  # Points that fill the last word dominate none.
  more = ((0, 0), (0, 32 * words - size))
  padded = jnp.pad(objectives.T, more, constant_values=jnp.inf)
  padded = padded.reshape(count, words, 32)

  def look(bit, found):
    other = lax.dynamic_slice_in_dim(padded, bit, 1, axis=2)
    worse, better = False, False
    for one, own in zip(other, columns, strict=True):
      worse, better = worse | (one > own), better | (one < own)
    better = better & ~worse
    return found | (better.astype(jnp.uint32) << bit.astype(jnp.uint32))

  found = jnp.zeros((words, size), jnp.uint32)
  return lax.fori_loop(0, 32, look, found)


def packed(mask: Array) -> Array:
  """u32[W] of a mask bool[N], as the words of `dominators`."""
  words = -(-mask.shape[0] // 32)
  mask = jnp.pad(mask, (0, 32 * words - mask.shape[0])).reshape(words, 32)
  bit = jnp.arange(32, dtype=jnp.uint32)
  return (mask.astype(jnp.uint32) << bit[None]).sum(-1, dtype=jnp.uint32)


def first_fronts(objectives: Array, taking: Array, enough: int) -> Array:
  """Ranks of the best points, until enough have one.

  One front after the other is peeled off: a few operations on one bit for each
  pair, of which a search that keeps half of its points needs few.

  Args:
    objectives: f32[N, M] without NaN.
    taking: bool[N]: the others dominate none and get no rank.
    enough: how many ranks are wanted.

  Returns:
    i32[N]: ranks of all fronts up to the one that makes it enough; N past it.
  """
  size = objectives.shape[0]
  above = dominators(objectives)

  def peel(carry):
    ranks, open_, turn = carry
    behind = open_ & ((above & packed(open_)[:, None]) != 0).any(0)
    return jnp.where(open_ & ~behind, turn, ranks), behind, turn + 1

  def wanting(carry):
    ranks, open_, _ = carry
    return open_.any() & ((ranks < size).sum() < enough)

  ranks = jnp.full(size, size, jnp.int32)
  return lax.while_loop(wanting, peel, (ranks, taking, jnp.int32(0)))[0]


def _ranks(points: Array) -> Array:
  order = _lexical(points)
  columns = points[order].T
  size = points.shape[0]
  index = jnp.arange(size, dtype=jnp.int32)
  # Equal points stand together and do not dominate each other: each looks only
  # at what stands before the first of its equals.
  new = (columns[:, 1:] != columns[:, :-1]).any(0)
  new = jnp.concatenate([jnp.ones(1, bool)[: min(size, 1)], new])
  first = lax.cummax(jnp.where(new, index, 0))

  def place(i, ranks):
    point = lax.dynamic_slice_in_dim(columns, i, 1, axis=1)
    # The first objective cannot be larger before it.
    below = (columns[1:] <= point[1:]).all(0) & (index < first[i])
    return ranks.at[i].set(jnp.where(below, ranks, -1).max() + 1)

  ranks = jnp.full(size, -1, jnp.int32)
  if size:
    ranks = lax.fori_loop(0, size, place, ranks)
  return jnp.zeros(size, jnp.int32).at[order].set(ranks)


@jax.jit
def crowding_distance(objectives: Array, ranks: Array | None = None) -> Array:
  """How much room each point has among those of its rank.

  Deb et al. 2002, section III B, the mean over the objectives: the gap between
  a point's neighbours over the range of its front, infinite at both ends. An
  objective that is constant on a front adds nothing; a front of at most two is
  infinite.

  Args:
    objectives: f32[N, M].
    ranks: i32[N] of `non_dominated_sort`; None: all are one front.

  Returns:
    f32[N]; 0 for points that are not finite, which take no part.
  """
  points = jnp.asarray(objectives)
  chex.assert_rank(points, 2)
  size, count = points.shape
  ranks = jnp.zeros(size, jnp.int32) if ranks is None else jnp.asarray(ranks)
  chex.assert_shape(ranks, (size,))
  if not size:
    return jnp.zeros(0, points.dtype)
  finite = jnp.isfinite(points).all(-1)
  ranks = jnp.where(finite, ranks, _LAST)
  values = jnp.where(finite[:, None], points, 0.0).T
  places, order = _places([ranks[None], values])
  # Each front stands together: where it begins and ends.
  rank = ranks[order[0]]
  index = jnp.arange(size, dtype=jnp.int32)
  new = jnp.concatenate([jnp.ones(1, bool), rank[1:] != rank[:-1]])
  first = lax.cummax(jnp.where(new, index, 0))[places[0]]
  new = jnp.concatenate([new[1:], jnp.ones(1, bool)])
  last = lax.cummin(jnp.where(new, index, size), reverse=True)[places[0]]
  row = jnp.arange(count)[:, None]
  ordered = values[row, order]

  def at(place):
    return ordered[row, place]

  span = at(last[None]) - at(first[None])
  width = jnp.where(span > 0, span, 1.0)
  before = jnp.where(
    places > first[None], (values - at(places - 1)) / width, jnp.inf
  )
  after = jnp.where(
    places < last[None], (at(places + 1) - values) / width, jnp.inf
  )
  room = jnp.where(span > 0, before + after, 0.0).sum(0) / count
  room = jnp.where(last - first < 2, jnp.inf, room)
  return jnp.where(finite, room, 0.0)


@jax.jit
def front_mask(objectives: Array) -> Array:
  """The front without its duplicates.

  Args:
    objectives: f32[N, M].

  Returns:
    bool[N]: points that none dominates, of equal ones the first. None with a
    NaN.
  """
  values = jnp.asarray(objectives)
  chex.assert_rank(values, 2)
  points = _comparable(values)
  order = _lexical(points)  # stable: of equal points the first comes first
  ordered = points[order]
  new = (ordered[1:] != ordered[:-1]).any(-1)
  new = jnp.concatenate([jnp.ones(1, bool)[: min(len(points), 1)], new])
  first = jnp.zeros(points.shape[0], bool).at[order].set(new)
  return first & (_ranks(points) == 0) & ~jnp.isnan(values).any(-1)


def front(objectives: np.ndarray) -> np.ndarray:
  """The front of a finished set.

  Args:
    objectives: f32[N, M].

  Returns:
    i64[F]: indices of `front_mask`, in lexical order of the objectives.
  """
  points = np.asarray(objectives)
  if not len(points):
    return np.zeros(0, np.int64)
  found = np.flatnonzero(np.asarray(front_mask(points)))
  return found[np.lexsort(points[found].T[::-1])]
