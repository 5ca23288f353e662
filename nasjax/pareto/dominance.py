"""Dominance, non-dominated sorting and crowding: compiled, static shapes."""

from __future__ import annotations

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.types import Array

_COUNTED = 512  # points up to which an order is counted


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


def lexical_order(keys: Sequence[Array]) -> Array:
  """i32[N]: `jnp.lexsort` of keys [N], the most significant first.

  XLA's sort of several keys on a CPU calls a comparator; up to some hundred
  points it is faster to count how many stand before each.
  """
  (size,) = keys[0].shape
  if size > _COUNTED:
    return jnp.lexsort(keys[::-1])
  index = jnp.arange(size, dtype=jnp.int32)
  before = index[:, None] < index[None]  # of equal ones the earlier comes first
  for key in reversed(keys):
    a, b = key[:, None], key[None]
    before = (a < b) | ((a == b) & before)
  place = before.sum(0, dtype=jnp.int32)
  return jnp.zeros(size, jnp.int32).at[place].set(index)


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
  finite = jnp.isfinite(points).all(-1)
  ranks = jnp.where(finite, ranks, size)
  points = jnp.where(finite[:, None], points, 0.0)

  def along(values):
    order = lexical_order([ranks, values])
    value, rank = values[order], ranks[order]
    same = rank[1:] == rank[:-1]
    gap = jnp.where(same, value[1:] - value[:-1], jnp.inf)
    end = jnp.full(1, jnp.inf, gap.dtype)
    low = jax.ops.segment_min(value, rank, size + 1, indices_are_sorted=True)
    high = jax.ops.segment_max(value, rank, size + 1, indices_are_sorted=True)
    span = (high - low)[rank]
    before = jnp.concatenate([end, gap]) / jnp.where(span > 0, span, 1.0)
    after = jnp.concatenate([gap, end]) / jnp.where(span > 0, span, 1.0)
    room = jnp.where(span > 0, before + after, 0.0)
    return jnp.zeros_like(room).at[order].set(room)

  room = jax.vmap(along, in_axes=1)(points).sum(0) / count
  ones = jnp.ones(size, jnp.int32)
  few = jax.ops.segment_sum(ones, ranks, size + 1)[ranks] <= 2
  return jnp.where(finite, jnp.where(few, jnp.inf, room), 0.0)


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
