"""Batch normalisation that keeps nothing but its input for the gradient.

Differentiating the usual formula keeps the centred images besides the input and
passes over them once more in the gradient (64x28x28x96 on CPU: 12 to 13 ms
against 10).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from nasjax.layers.platform import by_platform
from nasjax.layers.sums import sums

EPSILON = 1e-5  # added to a variance
# Running variance of a channel that nothing changes any more: a normalised
# channel's deviation is then under 0.01.
CONSTANT_VARIANCE = 1e-4 * EPSILON


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Mean and variance of each channel, f32[1, 1, 1, C] or wider."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  total, squares = sum_and_dot(wide, wide)
  count = x.size // total.size
  mean = total / count
  return mean, jnp.maximum(squares / count - mean * mean, 0.0)


@jax.custom_vjp
def sum_and_dot(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Sums of x and of x * y over images, rows and columns.

  Args:
    x: f32[..., B, H, W, C].
    y: the same.

  Returns:
    Two of f32[..., 1, 1, 1, C]. Reverse mode of every order.
  """
  total, dot = by_platform(
    x, y, cpu=_cpu_sum_and_dot, default=_plain_sum_and_dot
  )
  return total, dot


def _cpu_sum_and_dot(x, y):
  wide = (*x.shape[:-4], 1, 1, 1, x.shape[-1])
  found = sums(lambda x, y: [x, x * y], x, y)
  return found[0].reshape(wide), found[1].reshape(wide)


def _plain_sum_and_dot(x, y):
  return tuple(v.sum((-4, -3, -2), keepdims=True) for v in (x, x * y))


sum_and_dot.defvjp(
  lambda x, y: (sum_and_dot(x, y), (x, y)),
  lambda xy, ct: (ct[0] + ct[1] * xy[1], ct[1] * xy[0]),
)


def apply(x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
  """Shifts and scales by statistics of channels, f32[1, 1, 1, C] or wider."""
  return ((x - mean) * lax.rsqrt(var + EPSILON)).astype(x.dtype)


@jax.custom_vjp
def standardize(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Shifts and scales every channel to mean 0 and variance 1.

  Ioffe and Szegedy 2015, algorithm 1, without scale and shift; the gradient is
  the one of their section 3. Reverse mode of every order.

  Args:
    x: floating-point images, [N, H, W, C].

  Returns:
    (standardised images of the same shape and dtype, mean and biased variance
    f32[1, 1, 1, C]).
  """
  mean, var = moments(x)
  return apply(x, mean, var), mean, var


def _forward(x):
  y, mean, var = standardize(x)
  return (y, mean, var), (x, mean, var)


def _backward(residuals, cotangents):
  x, mean, var = residuals
  g, g_mean, g_var = cotangents
  count = x.size // x.shape[3]
  scale = lax.rsqrt(var + EPSILON)
  wide = g.astype(mean.dtype)
  hat = (x - mean) * scale
  total, dot = sum_and_dot(wide, hat)
  along = (2 * g_var / scale - scale * dot) / count
  shift = (g_mean - scale * total) / count
  return ((wide * scale + hat * along + shift).astype(x.dtype),)


standardize.defvjp(_forward, _backward)


MOMENTUM = 0.9  # of the running statistics


def moved(running: jax.Array, new: jax.Array) -> jax.Array:
  """Running statistics after a batch's own, of the same size."""
  return running + (1 - MOMENTUM) * (new.reshape(running.shape) - running)


class BatchNorm(nn.Module):
  """Batch normalisation with flax's variables: scale, bias; mean, var.

  Attributes:
    affine: whether there is a trained scale and shift.
  """

  affine: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, H, W, C] to the same shape and dtype.

    Args:
      x: the images.
      train: use and update batch statistics, not the running ones.

    Returns:
      The normalised images.
    """
    shape = x.shape[3:]
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    if train and not self.is_initializing():
      y, *found = standardize(x)
      for running, new in zip((mean, var), found, strict=True):
        running.value = moved(running.value, new)
    else:
      wide = (1, 1, 1, *shape)
      y = apply(x, mean.value.reshape(wide), var.value.reshape(wide))
    if self.affine:
      scale = self.param("scale", nn.initializers.ones, shape)
      bias = self.param("bias", nn.initializers.zeros, shape)
      y = y * scale[None, None, None] + bias[None, None, None]
    return y.astype(x.dtype)
