"""How good a front is: hypervolume and IGD+."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import moocore
import numpy as np
from jax import lax

from nasjax.types import Array


def hypervolume(points: np.ndarray, reference: np.ndarray) -> float:
  """The volume that points dominate up to a reference, exactly (moocore).

  Args:
    points: f64[N, M]; those with a NaN do not count.
    reference: f64[M].

  Returns:
    The volume, in the product of the objectives' units.

  Raises:
    ValueError: shapes that do not fit, or a reference that is not finite.
  """
  points = np.asarray(points, np.float64)
  reference = np.asarray(reference, np.float64)
  if points.ndim != 2 or reference.shape != points.shape[1:]:
    raise ValueError(
      f"hypervolume: points {points.shape} and reference {reference.shape}"
      " must be [N, M] and [M]"
    )
  if not np.isfinite(reference).all():
    raise ValueError(f"hypervolume: reference {reference} must be finite")
  points = points[(points < reference).all(-1)]  # NaN is not
  if not len(points):
    return 0.0
  return float(moocore.hypervolume(points, ref=reference))


def _area(heights: Array, gaps: Array) -> Array:
  """Staircase area: boxes by ascending x, `gaps` to the reference in x."""
  best = lax.cummax(heights)
  return jnp.sum(best * gaps)


@jax.jit
def compiled_hypervolume(points: Array, reference: Array) -> Array:
  """Hypervolume of two or three objectives, inside compiled code.

  In 2-D a sweep along the first objective; in 3-D the sum over slices of the
  third of the 2-D area of what has begun there (N sweeps of N).

  Args:
    points: f32[N, 2] or f32[N, 3]; those with a NaN or beyond the reference in
      some objective add nothing.
    reference: f32[M].

  Returns:
    f32[].

  Raises:
    ValueError: another number of objectives.
  """
  points, reference = jnp.asarray(points), jnp.asarray(reference)
  chex.assert_rank([points, reference], [2, 1])
  if points.shape[1] not in (2, 3):
    raise ValueError(
      f"compiled_hypervolume: {points.shape[1]} objectives, 2 or 3 are taken;"
      " hypervolume takes more"
    )
  inside = (points < reference[None]).all(-1, keepdims=True)
  points = jnp.where(inside, points, reference[None])
  order = jnp.argsort(points[:, 0])
  x, y = points[order, 0], points[order, 1]
  gaps = jnp.append(x[1:], reference[0]) - x
  heights = reference[1] - y
  if points.shape[1] == 2:
    return _area(heights, gaps)
  z = points[order, 2]
  levels = jnp.sort(z)
  depth = jnp.append(levels[1:], reference[2]) - levels

  def slice_volume(total, level_depth):
    level, depth = level_depth
    begun = jnp.where(z <= level, heights, 0.0)
    return total + depth * _area(begun, gaps), None

  start = jnp.zeros((), points.dtype)
  return lax.scan(slice_volume, start, (levels, depth))[0]


@jax.jit
def igd_plus(points: Array, reference: Array) -> Array:
  """Inverted generational distance plus (Ishibuchi et al. 2015).

  Args:
    points: f32[N, M]; those with a NaN do not count.
    reference: f32[R, M], the front that should be reached.

  Returns:
    f32[]: the mean over the reference of how far, in the objectives where it
    is worse, the nearest point lies behind. Infinite without a point.
  """
  points, reference = jnp.asarray(points), jnp.asarray(reference)
  chex.assert_rank([points, reference], 2)
  behind = jnp.maximum(points[None] - reference[:, None], 0.0)
  distance = jnp.sqrt((behind**2).sum(-1))
  distance = jnp.where(jnp.isnan(distance), jnp.inf, distance)
  return distance.min(-1, initial=jnp.inf).mean()
