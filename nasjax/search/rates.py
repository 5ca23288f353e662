"""Schedules of the step whose numbers may be arguments of a compiled program.

Optax has the same, with checks that need the numbers themselves.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from nasjax.types import Array, Scalar, Step

Number = float | Array


def cosine(start: Number, steps: Number) -> Callable[[Step], Scalar]:
  """Half a cosine from `start` to 0 (Loshchilov and Hutter 2017, equation 5).

  Args:
    start: the value at step 0.
    steps: after so many it is 0.
  """

  def at(step: Step) -> Scalar:
    share = jnp.minimum(step / jnp.maximum(steps, 1.0), 1.0)
    return start * 0.5 * (1.0 + jnp.cos(jnp.pi * share))

  return at


def linear(
  start: Number, end: Number, steps: Number
) -> Callable[[Step], Scalar]:
  """A straight line from `start` at step 0 to `end` at step `steps`."""

  def at(step: Step) -> Scalar:
    share = jnp.minimum(step / jnp.maximum(steps, 1.0), 1.0)
    return start + (end - start) * share

  return at
