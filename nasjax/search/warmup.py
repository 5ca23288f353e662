"""Architecture steps that wait until the weights are warm."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from nasjax.tracing import is_traced
from nasjax.types import Array


def or_wait(
  arch_step: Callable, costs: Callable, arch_start: int | Array
) -> Callable:
  """Skips an architecture step's work while the weights warm up.

  Args:
    arch_step: as `Steps` has it, for one member or many.
    costs: (member, step) -> costs of the same.
    arch_start: the first step that moves the logits; may be traced.

  Returns:
    A function with the arguments of `arch_step`.
  """
  if not is_traced(arch_start) and arch_start <= 0:
    return arch_step

  # Traced once, for the shapes of what it reports as for itself.
  arch_step = jax.jit(arch_step)

  def step_or_wait(shared, member, step, train, valid, key):
    operands = (shared, member, step, train, valid, key)

    def wait(shared, member, step, train, valid, key):
      _, info = jax.eval_shape(arch_step, *operands)
      info = jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), info)
      info["costs"] = costs(member, step)
      info["sound"] = {
        n: jnp.ones_like(v, bool) for n, v in info["sound"].items()
      }
      return member, info

    return jax.lax.cond(step >= arch_start, arch_step, wait, *operands)

  return step_or_wait
