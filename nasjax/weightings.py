"""Weightings: how several objectives share one step.

Each works from the Gramian G = J J^T of the gradients J with respect to the
logits, never from J, and returns the coefficients c of the direction c J (the
negative of which is followed). XLA drops the Gramian where it is not read.

| weighting          | what the preference f32[M] is                         |
|--------------------|-------------------------------------------------------|
| constant           | the coefficients                                      |
| chebyshev          | weights of max_i p_i (f_i - ideal)                    |
| mgda               | divides the gradients: what has twice the preference  |
|                    | gets twice the coefficient, where none conflict       |
| epsilon_constraint | upper bounds of all but the first objective           |
| exact_pareto       | the ray: p_i f_i are all equal in the end             |
| pcgrad, upgrad     | multiplies the objectives                             |

All but `constant`'s and `chebyshev`'s must be above 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from nasjax import small_qp
from nasjax.types import Array, Key, Weighting

__all__ = [
  "chebyshev",
  "constant",
  "epsilon_constraint",
  "exact_pareto",
  "mgda",
  "pcgrad",
  "upgrad",
]

NORMALIZATIONS = ("none", "l2", "loss", "loss+")


class PCGradState(NamedTuple):
  """What `pcgrad` carries."""

  key: Key
  preference: Array  # f32[M]


def _keep_preference(key: Key, preference: Array) -> Array:
  del key
  return preference


def constant() -> Weighting:
  """The preference itself as coefficients, whatever the gradients are.

  Returns:
    A weighting whose state is the preference f32[M].
  """

  def update(values, gramian, state):
    del values, gramian
    return state, state

  return Weighting(_keep_preference, update)


def chebyshev(*, ideal: float = 0.0, rho: float = 0.01) -> Weighting:
  """Augmented Chebyshev (Steuer and Choo 1983).

  A subgradient of max_i p_i (f_i - ideal) + rho sum_i p_i (f_i - ideal): the
  objective that is farthest behind is followed. Every Pareto-optimal point is
  the minimum for some preference, also where the front is not convex.

  Args:
    ideal: a value that every objective lies above; cross entropies and costs
      lie above 0.
    rho: of the sum, which keeps weakly optimal points away.

  Returns:
    A weighting whose state is the preference f32[M]. Objectives that tie for
    the maximum share it.

  Raises:
    ValueError: `rho` is below 0.
  """
  if not rho >= 0:
    raise ValueError(f"chebyshev: rho={rho} must be 0 or more")

  def update(values, gramian, state):
    del gramian
    behind = state * (values - ideal)
    most = (behind >= behind.max()).astype(state.dtype)
    return state * (most / most.sum() + rho), state

  return Weighting(_keep_preference, update, ideal)


def _check_normalization(name: str, normalization: str) -> None:
  if normalization not in NORMALIZATIONS:
    raise ValueError(
      f"{name}: normalization={normalization!r}; known:"
      f" {', '.join(NORMALIZATIONS)}"
    )


def _low(normalization: str) -> float:
  """What objectives must lie above: 0 where they divide."""
  return 0.0 if normalization in ("loss", "loss+") else -math.inf


def _scales(normalization: str, values: Array, gramian: Array) -> Array:
  """f32[M]: what multiplies each gradient; 1 where it would be infinite."""

  def inverse(x):
    return jnp.where(x > 0, 1.0 / jnp.where(x > 0, x, 1.0), 1.0)

  norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gramian), 0.0))
  scales = jnp.ones_like(values)
  if normalization in ("l2", "loss+"):
    scales = scales * inverse(norms)
  if normalization in ("loss", "loss+"):
    scales = scales * inverse(values)
  return scales


def _satisfied(values: Array, gramian: Array) -> Array:
  """bool[M]: hinges below their limit, which ask for nothing."""
  return (values <= 0) & (jnp.diagonal(gramian) == 0)


def _min_norm(gramian: Array, scales: Array, open: Array) -> Array:
  scaled = gramian * scales[:, None] * scales[None]
  open = jnp.where(open.any(), open, True)
  return small_qp.min_norm(scaled, open) * scales


def mgda(*, normalization: str = "none") -> Weighting:
  """Multiple-gradient descent (Desideri 2012): the hull's point of least norm.

  To first order the direction raises no objective, and it is 0 exactly where
  the point is Pareto-stationary. An objective whose value is 0 or less with a
  zero gradient (a limit that is kept, see `constraints.as_objective`) is left
  out; any other zero gradient is stationary.

  Args:
    normalization: of the gradients before their hull is taken, as in Sener and
      Koltun's code (2018): none; l2, by their norm; loss, by the objective's
      value; loss+, by both. Without it a short gradient outweighs a long one.

  Returns:
    A weighting whose state is the preference f32[M].

  Raises:
    ValueError: an unknown normalization.
  """
  _check_normalization("mgda", normalization)

  def update(values, gramian, state):
    scales = _scales(normalization, values, gramian) / state
    open = ~_satisfied(values, gramian)
    return _min_norm(gramian, scales, open), state

  return Weighting(_keep_preference, update, _low(normalization))


def epsilon_constraint(
  *, margin: float = 0.05, normalization: str = "none"
) -> Weighting:
  """MGDA towards f_i <= preference_i for i >= 1, then along it for f_0.

  While a bound is broken, the objectives over theirs alone are descended; then
  the first one, with those that are near theirs in the hull, so that none of
  them rises (Lin et al. 2019, "Pareto multi-task learning", section 4, with
  the epsilon-constraint method's bounds in place of its preference vectors).

  Args:
    margin: a bound is near from (1 - margin) of it on.
    normalization: see `mgda`.

  Returns:
    A weighting whose state is the preference f32[M]; its first entry weighs
    the first objective as in `mgda`.

  Raises:
    ValueError: an unknown normalization, or a margin outside of 0..1.
  """
  _check_normalization("epsilon_constraint", normalization)
  if not 0 <= margin <= 1:
    raise ValueError(f"epsilon_constraint: margin={margin} must be in 0..1")

  def update(values, gramian, state):
    first = jnp.arange(len(values)) == 0
    broken = (values > state) & ~first
    near = (values > (1.0 - margin) * state) & ~first
    open = jnp.where(broken.any(), broken, near | first)
    scales = _scales(normalization, values, gramian)
    scales = scales / jnp.where(first, state, 1.0)
    return _min_norm(gramian, scales, open), state

  return Weighting(_keep_preference, update, _low(normalization))


def exact_pareto(*, horizon: float = 1.0) -> Weighting:
  """Towards the Pareto-optimal point where all preference_i f_i are equal.

  That point is what EPO search looks for (Mahapatra and Rajan 2020); it
  minimises max_i p_i f_i where the ray meets the front. The direction is the
  prox-linear step of that maximum: with h = p f and its gradients H, the
  multipliers minimise horizon |a H|^2 / 2 - a h over the simplex. Far from the
  ray it follows the largest h, on it the point of least norm.

  Args:
    horizon: how long a step the linear model is trusted for, in units of the
      direction; small: all on the largest, large: MGDA.

  Returns:
    A weighting whose state is the preference f32[M]; at most 6 objectives,
    with values above 0.

  Raises:
    ValueError: `horizon` is not above 0.
  """
  if not horizon > 0:
    raise ValueError(f"exact_pareto: horizon={horizon} must be above 0")

  def update(values, gramian, state):
    scaled = gramian * state[:, None] * state[None]
    found = small_qp.simplex_minimum(horizon * scaled, state * values)
    return found * state, state

  return Weighting(_keep_preference, update, 0.0)


def pcgrad() -> Weighting:
  """Projecting conflicting gradients (Yu et al. 2020, algorithm 1).

  Each gradient is projected on the plane of every other one that it conflicts
  with, in random order, and the results are summed.

  Returns:
    A weighting whose state is a key and the preference f32[M].
  """

  def update(values, gramian, state):
    count = len(values)
    key, draw = jax.random.split(state.key)
    squares = jnp.diagonal(gramian)

    def surgery(row, key):
      def project(own, other):
        inner = own @ gramian[:, other]
        square = squares[other]
        cut = jnp.minimum(inner, 0.0) / jnp.where(square > 0, square, jnp.inf)
        return own.at[other].add(jnp.where(other == row, 0.0, -cut)), None

      own = jnp.zeros_like(squares).at[row].set(1.0)
      order = jax.random.permutation(key, count)
      return jax.lax.scan(project, own, order)[0]

    rows = jax.vmap(surgery)(jnp.arange(count), jax.random.split(draw, count))
    return state.preference @ rows, PCGradState(key, state.preference)

  return Weighting(PCGradState, update)


def upgrad() -> Weighting:
  """The sum of the gradients, each projected on what raises no objective.

  Jacobian descent's UPGrad (Quinton and Rey 2024): non-conflicting, linear
  under scaling of the gradients, and the plain sum where nothing conflicts.

  Returns:
    A weighting whose state is the preference f32[M]; at most 6 objectives.
  """

  def update(values, gramian, state):
    del values
    return state @ small_qp.cone_projections(gramian), state

  return Weighting(_keep_preference, update)
