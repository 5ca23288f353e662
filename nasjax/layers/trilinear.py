"""Bilinear operations whose derivatives of every order are three functions.

The trilinear form that holds them all stands in `convolution.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from nasjax.layers import platform

__all__ = ["trilinear"]


class _Part(NamedTuple):
  """One of the three functions, on CPU and elsewhere."""

  cpu: Callable
  default: Callable


class _Form(NamedTuple):
  """The three functions, each of two arrays; hashable."""

  forward: _Part  # x, w -> y
  of_input: _Part  # g, w -> dx
  of_kernel: _Part  # x, g -> dw
  apart: bool  # see `platform.lowered_by`


# Of each function: the one that is the gradient of its left operand, the order
# of its operands (c for the cotangent, l and r for the two), and the same of
# the right one.
_GRADIENTS = {
  "forward": (("of_input", "cr"), ("of_kernel", "lc")),
  "of_input": (("forward", "cr"), ("of_kernel", "cl")),
  "of_kernel": (("of_input", "rc"), ("forward", "lc")),
}

# A primitive is quick to trace, unlike a `custom_vjp`, and has both modes.
_bilinear = Primitive("bilinear")


@_bilinear.def_abstract_eval
def _shape(a, b, *, form: _Form, name: str):
  return platform.shapes(getattr(form, name).default, a, b)[0]


platform.lowered_by(
  _bilinear,
  lambda a, b, form, name: getattr(form, name).cpu(a, b),
  lambda a, b, form, name: getattr(form, name).default(a, b),
  lambda form, name: form.apart,
)


def _pulled_back(side: int, ct, a, b, *, form: _Form, name: str):
  gradient, order = _GRADIENTS[name][side]
  given = dict(c=ct, l=a, r=b)
  operands = (given[letter] for letter in order)
  return _bilinear.bind(*operands, form=form, name=gradient)


ad.defbilinear(_bilinear, partial(_pulled_back, 0), partial(_pulled_back, 1))


def _batched(operands: Sequence, axes: Sequence, *, form: _Form, name: str):
  operands = [
    x if axis is None else jnp.moveaxis(x, axis, 0)
    for x, axis in zip(operands, axes, strict=True)
  ]
  left, right = (None if axis is None else 0 for axis in axes)
  # Each function's operands and result have the axis or not, as the others say.
  names = dict(forward="xwy", of_input="ywx", of_kernel="xyw")
  known = dict(zip(names[name], (left, right, 0), strict=True))

  def mapped(name: str, part: _Part) -> _Part:
    a, b, result = (known[letter] for letter in names[name])
    return _Part(*(platform.Mapped(f, (a, b), result is None) for f in part))

  form = form._replace(**{n: mapped(n, getattr(form, n)) for n in names})
  return _bilinear.bind(*operands, form=form, name=name), 0


batching.primitive_batchers[_bilinear] = _batched


def trilinear(
  forward: tuple[Callable, Callable],
  input_gradient: tuple[Callable, Callable],
  kernel_gradient: tuple[Callable, Callable],
  apart: bool = False,
) -> Callable:
  """Makes a bilinear operation of three functions of arrays and a plan.

  Args:
    forward: (on CPU, elsewhere) of x, w and a plan -> y.
    input_gradient: the same of g, w and a plan -> dx.
    kernel_gradient: the same of x, g and a plan -> dw.
    apart: each is a function of its own on CPU, see `platform.lowered_by`.

  Returns:
    `forward` as a function of x, w and a hashable plan. Both modes of every
    order: the derivatives are the three functions.
  """
  parts = forward, input_gradient, kernel_gradient

  def run(x: jax.Array, w: jax.Array, plan: Any) -> jax.Array:
    planned = (_Part(*(platform.Planned(f, plan) for f in p)) for p in parts)
    return _bilinear.bind(x, w, form=_Form(*planned, apart), name="forward")

  return run
