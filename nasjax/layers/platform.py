"""One implementation for CPU, another for GPU and TPU.

A primitive rather than `jax.lax.platform_dependent`: it is one operation until
it is lowered, and then only the implementation that is wanted gets traced. The
default search's update is traced in two thirds of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from nasjax.layers.barrier import not_inlined

__all__ = ["Mapped", "Planned", "by_platform", "lowered_by", "shapes"]


class Planned(NamedTuple):
  """A function of arrays and a plan; hashable, unlike a `partial`."""

  function: Callable
  plan: Any

  def __call__(self, *operands: jax.Array):
    """The function of the operands and the plan."""
    return self.function(*operands, self.plan)


class Mapped(NamedTuple):
  """A hashable function under `jax.vmap`; hashable as well.

  Attributes:
    function: of arrays.
    axes: of each operand that is mapped, None where it is not.
    summed: the results are added up instead of stacked.
  """

  function: Callable
  axes: tuple[int | None, ...]
  summed: bool = False

  def __call__(self, *operands: jax.Array):
    """The results, stacked along axis 0 or their sum."""
    many = jax.vmap(self.function, self.axes)(*operands)
    return many.sum(0) if self.summed else many


@lru_cache(maxsize=4096)
def _shapes(function: Callable, operands: tuple[ShapedArray, ...]):
  found = jax.eval_shape(
    lambda *x: function(*x),  # JAX keeps weak references, tuples have none
    *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands),
  )
  return [ShapedArray(x.shape, x.dtype) for x in jax.tree.leaves(found)]


def shapes(function: Callable, *operands: ShapedArray) -> list[ShapedArray]:
  """Shapes and types of what a hashable function makes of such arrays."""
  plain = tuple(ShapedArray(x.shape, x.dtype) for x in operands)
  return _shapes(function, plain)


def lowered_by(
  primitive: Primitive,
  cpu: Callable,
  default: Callable,
  apart: Callable[..., bool] = lambda **params: False,
) -> None:
  """Lowers a primitive to a function of the platform, outside of jit too.

  Args:
    primitive: with any number of results.
    cpu: (*operands, **params) -> results, on CPU.
    default: the same on GPU and TPU.
    apart: (**params) -> whether XLA's passes shall see what `cpu` does as a
      function of its own, of which nothing is fused with what stands around
      it. A program of many operations compiles faster in parts: DARTS's
      supernet in 139 instead of 163 s, and takes a quarter less memory.
  """
  lower = partial(mlir.lower_fun, multiple_results=primitive.multiple_results)

  @lru_cache(maxsize=1024)
  def own(params):  # lowered once for all of the same shapes
    return lower(jax.jit(partial(cpu, **dict(params))))

  def on_cpu(context, *operands, **params):
    if not apart(**params):
      return lower(cpu)(context, *operands, **params)
    found = own(tuple(params.items()))(context, *operands)
    not_inlined(found[0].owner)
    return found

  mlir.register_lowering(primitive, lower(default))
  mlir.register_lowering(primitive, on_cpu, "cpu")

  @lru_cache(maxsize=256)
  def compiled(params):
    return jax.jit(partial(primitive.bind, **dict(params)))

  primitive.def_impl(
    lambda *operands, **params: compiled(tuple(params.items()))(*operands)
  )


_choice = Primitive("by_platform")
_choice.multiple_results = True
_choice.def_abstract_eval(
  lambda *operands, cpu, default: shapes(default, *operands)
)
lowered_by(
  _choice,
  lambda *operands, cpu, default: jax.tree.leaves(cpu(*operands)),
  lambda *operands, cpu, default: jax.tree.leaves(default(*operands)),
)


def _batched(operands: Sequence, axes: Sequence, *, cpu, default):
  axes = tuple(axes)
  found = _choice.bind(
    *operands, cpu=Mapped(cpu, axes), default=Mapped(default, axes)
  )
  return found, [0] * len(found)


batching.primitive_batchers[_choice] = _batched


def by_platform(*operands: jax.Array, cpu: Callable, default: Callable):
  """Returns `cpu(*operands)` on CPU, `default(*operands)` on GPU and TPU.

  It has no derivative: callers bring their own.

  Args:
    *operands: arrays, taken by both.
    cpu: the function on CPU; hashable, the same one for the same work, so that
      nothing is traced twice.
    default: the function elsewhere, of the same result types.

  Returns:
    The results, a list of arrays.
  """
  return _choice.bind(*operands, cpu=cpu, default=default)
