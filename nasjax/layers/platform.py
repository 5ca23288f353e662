"""One implementation for CPU, another for GPU and TPU."""

from collections.abc import Callable
from functools import partial

import jax
from jax import lax


def by_platform(*operands: jax.Array, cpu: Callable, default: Callable):
  """Returns `cpu(*operands)` on CPU, `default(*operands)` on GPU and TPU.

  `jax.lax.platform_dependent` that can be differentiated twice inside a scan:
  there JAX 0.10.2 takes the operands of its branches one place off, unless it
  is differentiated as a whole. The checkpoint keeps it whole; it costs nothing,
  since all callers bring their own derivatives.

  Args:
    *operands: arrays, taken by both.
    cpu: the function on CPU.
    default: the function elsewhere, of the same result types.

  Returns:
    The result of the one for the platform compiled for.
  """
  choose = partial(lax.platform_dependent, cpu=cpu, default=default)
  return jax.checkpoint(choose, prevent_cse=False)(*operands)
