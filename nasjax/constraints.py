"""Constraints: how a limit on a metric pushes back."""

from __future__ import annotations

import math

import jax.numpy as jnp

from nasjax.types import Constraint, Metric, Penalty

__all__ = ["at_most", "quadratic"]


def quadratic(*, strength: float = 30.0) -> Penalty:
  """The gradient of `strength * max(0, violation)^2`.

  Below the limit it is exactly 0: nothing rewards more than was asked.

  Args:
    strength: of the penalty, in units of the loss.

  Returns:
    A penalty without state.

  Raises:
    ValueError: `strength` is not above 0.
  """
  if not strength > 0:
    raise ValueError(f"quadratic: strength={strength} must be above 0")

  def init(limit):
    del limit
    return ()

  def update(violation, state, step):
    del step
    return 2.0 * strength * jnp.maximum(violation, 0.0), state

  return Penalty(init, update)


def at_most(
  metric: Metric, limit: float, *, penalty: Penalty | None = None
) -> Constraint:
  """An upper bound on a metric.

  Args:
    metric: of the space.
    limit: the bound, in the metric's unit.
    penalty: how it pushes back; default `quadratic()`.

  Returns:
    The constraint; its violation is metric / limit - 1.

  Raises:
    ValueError: `limit` is not a finite number above 0.
  """
  if not (math.isfinite(limit) and limit > 0):
    raise ValueError(f"limit {metric.name}={limit} must be finite and above 0")
  penalty = quadratic() if penalty is None else penalty
  return Constraint(metric, float(limit), penalty.init, penalty.update)
