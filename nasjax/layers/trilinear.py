"""Bilinear operations whose derivatives of every order are three functions.

The trilinear form that holds them all stands in `convolution.py`.
"""

from functools import partial
from typing import Any

import jax

from nasjax.layers.platform import by_platform


def _choose(cpu, native):
  """Makes a differentiable function that picks by platform when lowered."""

  @partial(jax.custom_vjp, nondiff_argnums=(2,))
  def function(a: jax.Array, b: jax.Array, plan: Any) -> jax.Array:
    return by_platform(
      a,
      b,
      cpu=lambda a, b: cpu(a, b, plan),
      default=lambda a, b: native(a, b, plan),
    )

  return function


def _define_derivative(function, left, right):
  """Gives function(a, b) the pull-backs left(ct, a, b) and right(ct, a, b)."""
  function.defvjp(
    lambda a, b, plan: (function(a, b, plan), (a, b)),
    lambda plan, ab, ct: (left(ct, *ab, plan), right(ct, *ab, plan)),
  )


def trilinear(forward, input_gradient, kernel_gradient):
  """Makes the three functions of a bilinear operation.

  Args:
    forward: (on CPU, elsewhere) of x, w and a plan -> y.
    input_gradient: the same of g, w and a plan -> dx.
    kernel_gradient: the same of x, g and a plan -> dw.

  Returns:
    The three; each has the other two for its derivatives.
  """
  parts = forward, input_gradient, kernel_gradient
  forward, of_input, of_kernel = (_choose(*part) for part in parts)
  _define_derivative(
    forward,
    lambda ct, x, w, plan: of_input(ct, w, plan),
    lambda ct, x, w, plan: of_kernel(x, ct, plan),
  )
  _define_derivative(
    of_input,
    lambda ct, g, w, plan: forward(ct, w, plan),
    lambda ct, g, w, plan: of_kernel(ct, g, plan),
  )
  _define_derivative(
    of_kernel,
    lambda ct, x, g, plan: of_input(g, ct, plan),
    lambda ct, x, g, plan: forward(x, ct, plan),
  )
  return forward, of_input, of_kernel
