"""Quadratic programmes in a few coefficients, exact, inside compiled code.

All that weightings ask for is a convex quadratic in the M coefficients of the
gradients, known by their Gramian. Its minimum lies in the inside of some face;
by Caratheodory's theorem of one whose gradients are affinely (linearly)
independent, where the equations of the face have one solution. So with 2^M
faces all are solved at once and the best point is taken: no iteration, static
shapes, and what comes of singular faces cannot win, as each solution is made
feasible before it is judged.
"""

from __future__ import annotations

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.types import Array

MOST_ENUMERATED = 6  # objectives; 63 faces
_MOST_HULL = 12  # of `min_norm`; 4095 faces
_MOST_STEPS = 20_000


def _faces(count: int, least: int) -> np.ndarray:
  """bool[F, M]: the subsets of `count` with at least `least` members."""
  rows = itertools.product([False, True], repeat=count)
  return np.array([row for row in rows if sum(row) >= least])


def check_count(count: int, what: str) -> None:
  """Refuses more objectives than are enumerated.

  Raises:
    ValueError: names `what` and the most there may be.
  """
  if count > MOST_ENUMERATED:
    raise ValueError(
      f"{what}: {count} objectives, at most {MOST_ENUMERATED} are taken"
    )


def _best(candidates: Array, values: Array) -> Array:
  values = jnp.where(jnp.isnan(values), jnp.inf, values)
  return candidates[jnp.argmin(values)]


def _face_minimum(quadratic, normal, linear, open):
  """The b that minimises b Q b / 2 - linear b, b >= 0, normal b = 1; f[M]."""
  count = quadratic.shape[0]
  faces = _faces(count, 1)
  on = jnp.asarray(faces, quadratic.dtype)
  # Outside the face b is 0 by an equation of its own.
  top = quadratic[None] * on[:, :, None] * on[:, None, :]
  top += jax.vmap(jnp.diag)(1.0 - on)
  edge = normal[None] * on
  corner = jnp.zeros((len(faces), 1, 1), quadratic.dtype)
  system = jnp.concatenate(
    [
      jnp.concatenate([top, edge[:, :, None]], axis=2),
      jnp.concatenate([edge[:, None, :], corner], axis=2),
    ],
    axis=1,
  )
  right = jnp.concatenate([linear[None] * on, jnp.ones_like(on[:, :1])], axis=1)
  found = jnp.linalg.solve(system, right[..., None])[:, :count, 0]
  found = jnp.maximum(found * on, 0.0)
  total = (found * normal[None]).sum(-1, keepdims=True)
  found = found / jnp.where(total > 0, total, jnp.nan)
  value = 0.5 * jnp.einsum("fi,ij,fj->f", found, quadratic, found)
  value -= (found * linear[None]).sum(-1)
  closed = (jnp.asarray(faces) & ~open[None]).any(-1)
  return _best(found, jnp.where(closed, jnp.inf, value))


def min_norm(gramian: Array, open: Array | None = None) -> Array:
  """The point of least norm in the hull of gradients.

  Args:
    gramian: f[M, M], J J^T of gradients f[M, D].
    open: bool[M], the gradients that span the hull, at least one; None: all.

  Returns:
    f[M] >= 0 with sum 1, 0 where not open: the coefficients of
    argmin |a J|^2. Closed form for M = 2 (Sener and Koltun 2018, algorithm 1),
    exact up to M = 12; above, the MDM algorithm (Mitchell, Dem'yanov,
    Malozemov 1974) until rounding stops it.
  """
  chex.assert_rank(gramian, 2)
  count = gramian.shape[0]
  open = jnp.ones(count, bool) if open is None else open
  if count == 1:
    return jnp.ones_like(gramian[0])
  if count == 2:
    spread = gramian[0, 0] + gramian[1, 1] - 2.0 * gramian[0, 1]
    first = (gramian[1, 1] - gramian[0, 1]) / jnp.where(spread > 0, spread, 1.0)
    # Equal gradients: every point is the least.
    first = jnp.where(spread > 0, jnp.clip(first, 0.0, 1.0), 0.5)
    first = jnp.where(open.all(), first, open[0].astype(first.dtype))
    return jnp.stack([first, 1.0 - first])
  if count > _MOST_HULL:
    return _mdm(gramian, open)
  # In units of the gradients' own norms: then a small gradient keeps its
  # digits beside a large one.
  squares = jnp.diagonal(gramian)
  norms = jnp.sqrt(jnp.maximum(squares, 0.0))
  some = norms > 0
  norms = jnp.where(some, norms, jnp.where(some, norms, 0.0).max())
  norms = jnp.where(norms > 0, norms, 1.0)
  scaled = gramian / norms[:, None] / norms[None]
  normal = jnp.where(open, norms, jnp.inf).min() / norms
  found = _face_minimum(scaled, normal, jnp.zeros_like(norms), open)
  found = found * normal
  return found / found.sum()


def _mdm(gramian, open):
  """Moves weight from the worst gradient to the best until nothing gains."""
  scale = jnp.diagonal(gramian).max()
  gramian = gramian / jnp.where(scale > 0, scale, 1.0)
  tolerance = 4 * jnp.finfo(gramian.dtype).eps

  def gap(a):
    slope = gramian @ a
    best = jnp.argmin(jnp.where(open, slope, jnp.inf))
    worst = jnp.argmax(jnp.where(a > 0, slope, -jnp.inf))
    return best, worst, slope[worst] - slope[best]

  def more(carry):
    step, a = carry
    return (step < _MOST_STEPS) & (gap(a)[2] > tolerance)

  def move(carry):
    step, a = carry
    best, worst, difference = gap(a)
    bend = gramian[best, best] + gramian[worst, worst]
    bend -= 2.0 * gramian[best, worst]
    length = difference / jnp.where(bend > 0, bend, jnp.inf)
    length = jnp.where(bend > 0, jnp.minimum(length, a[worst]), a[worst])
    left = jnp.where(length >= a[worst], 0.0, a[worst] - length)
    a = a.at[best].add(a[worst] - left).at[worst].set(left)
    return step + 1, a

  start = open.astype(gramian.dtype)
  start = start / start.sum()
  return lax.while_loop(more, move, (jnp.int32(0), start))[1]


def simplex_minimum(quadratic: Array, linear: Array) -> Array:
  """Minimises a Q a / 2 - linear a over the simplex.

  Args:
    quadratic: f[M, M], positive semidefinite, M at most 6.
    linear: f[M].

  Returns:
    f[M] >= 0 with sum 1.

  Raises:
    ValueError: at the first trace, with more than 6.
  """
  chex.assert_rank([quadratic, linear], [2, 1])
  check_count(len(linear), "simplex_minimum")
  scale = jnp.diagonal(quadratic).max()
  scale = jnp.where(scale > 0, scale, 1.0)
  ones = jnp.ones_like(linear)
  return _face_minimum(
    quadratic / scale, ones, linear / scale, jnp.ones(len(linear), bool)
  )


def cone_projections(gramian: Array) -> Array:
  """Projects each gradient on the cone of directions that raise no objective.

  Args:
    gramian: f[M, M] of gradients f[M, D], M at most 6.

  Returns:
    f[M, M]: row i holds the coefficients e_i + w, w >= 0, of the projection of
    gradient i on {d : J d >= 0} (UPGrad: Quinton and Rey 2024, proposition 1).

  Raises:
    ValueError: at the first trace, with more than 6.
  """
  chex.assert_rank(gramian, 2)
  count = gramian.shape[0]
  check_count(count, "cone_projections")
  squares = jnp.maximum(jnp.diagonal(gramian), 0.0)
  norms = jnp.where(squares > 0, jnp.sqrt(squares), 1.0)
  scaled = gramian / norms[:, None] / norms[None]
  faces = _faces(count, 0)
  on = jnp.asarray(faces, gramian.dtype)
  system = scaled[None] * on[:, :, None] * on[:, None, :]
  system += jax.vmap(jnp.diag)(1.0 - on)

  # One column for each gradient that is projected.
  right = -scaled[None] * on[:, :, None]
  found = jnp.linalg.solve(system, right)
  found = jnp.maximum(found * on[:, :, None], 0.0)
  found = found + jnp.eye(count, dtype=found.dtype)[None]
  values = jnp.einsum("fir,ij,fjr->fr", found, scaled, found)
  # What rounding may hide of a value is added to it: singular faces make huge
  # coefficients, whose value is all rounding.
  values += 16 * jnp.finfo(values.dtype).eps * found.sum(1) ** 2
  rows = jax.vmap(_best, in_axes=(2, 1))(found, values)
  # Coefficients of unit gradients -> of the gradients themselves.
  return rows * norms[:, None] / norms[None]
