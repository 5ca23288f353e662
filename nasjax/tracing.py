"""What is a number now, and what will be one when a program runs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def is_traced(value: Any) -> bool:
  """Whether a value is an argument of a program that is being traced.

  Its number is not known then, so its range cannot be checked.
  """
  return isinstance(value, jax.core.Tracer)


def in_trace() -> bool:
  """Whether a program is being traced, so that nothing made now is a number."""
  return is_traced(jnp.zeros(()))
