"""A value that is computed once.

XLA's CPU back end fuses elementwise work into every consumer and computes it
anew there. In the gradient of a cell, whose nodes have many consumers, each
one recomputed the normalisations, sums and pools before it: a softmax step of
the NAS-Bench-201 supernet (C=16, N=1, batch 64) took 1.43 s, and 0.64 s now.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def _stored(x: jax.Array) -> jax.Array:
  # `optimization_barrier` is gone before XLA fuses, and a conditional whose
  # branches are equal is removed; this one stays, and copies nothing. A NaN in
  # the first place makes all of them NaN.
  first = lax.slice(x, (0,) * x.ndim, (1,) * x.ndim).reshape(())
  first = lax.stop_gradient(first)  # linear in x, so are its derivatives
  return lax.cond(first <= jnp.inf, lambda x: x, lambda x: x * first, x)


def computed_once(x: jax.Array) -> jax.Array:
  """Returns `x`; on CPU it and its cotangent are computed once and stored.

  Args:
    x: floating-point array of any shape, not empty.

  Returns:
    The same values; all NaN where the first is.
  """
  return lax.platform_dependent(x, cpu=_stored, default=lambda x: x)
