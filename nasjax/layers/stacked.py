"""Blocks of several edges at once: kernels and maps have an axis for the edges.

Where edges read one node their blocks begin with the same map and differ in
their parameters alone. Depthwise and pointwise convolutions, and what stands
between them, run here for all of those edges in one operation each: [E, B, H,
W, C], with kernels [E, ...]. A `vmap` of the blocks gives the same numbers from
four times as many operations, of which XLA's CPU back end compiles each.

The derivatives of the depthwise convolution are again those of a trilinear
form, see `convolution.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.hardware.workload import Workload
from nasjax.layers import blocks, convolution, depthwise, normalization
from nasjax.layers.barrier import computed_once
from nasjax.layers.trilinear import trilinear
from nasjax.layers.windows import Windows, convolution_windows
from nasjax.types import Array

__all__ = [
  "can_run",
  "is_wide",
  "run",
  "scaled",
  "scaled_each",
  "scaled_norm",
  "split",
  "split_channels",
  "wide",
]

_BEFORE = ("subsample",)  # only on the map that all edges read


class _Plan(NamedTuple):
  """All that is static about one depthwise convolution; hashable."""

  windows: Windows
  shared: bool  # all edges read one map


def _cpu_forward(x, w, plan: _Plan) -> Array:
  x = x[None] if plan.shared else x
  return depthwise.weighted(x, w, plan.windows)


def _cpu_input(g, w, plan: _Plan) -> Array:
  flipped, windows = jnp.flip(w, (1, 2)), plan.windows
  x = depthwise.weighted(g, flipped, windows.transposed, windows.strides)
  if not plan.shared:
    return x
  x = computed_once(x)
  # `sum` takes 8 times as long.
  return reduce(lax.add, [x[e] for e in range(len(x))])


def _cpu_kernel(x, g, plan: _Plan) -> Array:
  x = x[None] if plan.shared else x
  return depthwise.kernel(x, computed_once(g), plan.windows)


def _each_native(function, shared: bool):
  """A native function of one edge for all, summed where the map is shared."""

  def run(a, b, plan: _Plan):
    one = convolution.Plan(plan.windows, a.shape[-1], 1, None)
    axes = (None if plan.shared and shared else 0, 0)
    return jax.vmap(lambda a, b: function(a, b, one), axes)(a, b)

  return run


def _native_input(g, w, plan: _Plan):
  x = _each_native(convolution.native_input, False)(g, w, plan)
  return x.sum(0) if plan.shared else x


def _in_float32(cpu):
  """Sums in half precision would be inexact."""

  def run(a, b, plan):
    if a.dtype.itemsize >= 4:
      return cpu(a, b, plan)
    wide = cpu(a.astype(jnp.float32), b.astype(jnp.float32), plan)
    return wide.astype(a.dtype)

  return run


_forward = trilinear(
  (
    _in_float32(_cpu_forward),
    _each_native(convolution.native_forward, True),
  ),
  (_in_float32(_cpu_input), _native_input),
  (
    _in_float32(_cpu_kernel),
    _each_native(convolution.native_kernel, True),
  ),
  # The taps of DARTS's supernet are most of its program.
  apart=True,
)


def _depthwise(x, w, work: Workload, shared: bool) -> Array:
  """[(E,) B, H, W, C] and kernels [E, K, K, 1, C] -> [E, B, H', W', C]."""
  windows = convolution_windows(
    x[0] if not shared else x,
    w[0],
    (work.stride,) * 2,
    [(work.padding, work.padding)] * 2,
    (work.dilation,) * 2,
  )
  return _forward(x, w, _Plan(windows, shared))


def _wide(x: Array, w: Array, work: Workload) -> Array:
  """One map [B, H, W, C] and kernels [E, K, K, C, D]: [B, H, W, E D]."""
  return convolution.conv(
    x,
    jnp.moveaxis(w, 0, 3).reshape(*w.shape[1:4], -1),
    (work.stride,) * 2,
    [(work.padding, work.padding)] * 2,
    rhs_dilation=(work.dilation,) * 2,
  )


def _edges_first(x: Array, edges: int) -> Array:
  """[B, H, W, E C] -> [E, B, H, W, C]."""
  return jnp.moveaxis(x.reshape(*x.shape[:3], edges, -1), 3, 0)


def _pointwise(x, w, groups: int, shared: bool) -> Array:
  """[(E,) B, H, W, C] and kernels [E, 1, 1, C / groups, D]."""
  # One axis of pixels, or the kernel's gradient would copy what it sums.
  flat = x.reshape(*x.shape[:-4], -1, x.shape[-1])
  form = "rc,ecd->erd" if shared else "erc,ecd->erd"
  parts = zip(
    jnp.split(flat, groups, -1), jnp.split(w[:, 0, 0], groups, -1), strict=True
  )
  y = jnp.concatenate([jnp.einsum(form, *part) for part in parts], -1)
  return y.reshape(len(w), *x.shape[-4:-1], -1)


@jax.custom_vjp
def scaled_norm(x: Array, weights: Array) -> tuple[Array, Array, Array]:
  """Weights times channels at mean 0 and variance 1 over (B, H, W).

  The gradients of both come from the same sums.

  Args:
    x: [(E,) B, H, W, C].
    weights: of as many axes, each as long as in `x` or 1, those of B, H and W
      1.

  Returns:
    (the same shape as `x`, mean and variance f32[(E,) 1, 1, 1, C]).
  """
  mean, var = normalization.moments(x)
  y = weights * normalization.apply(x, mean, var)
  return y.astype(x.dtype), mean, var


def _scaled_norm_forward(x, weights):
  y, mean, var = scaled_norm(x, weights)
  return (y, mean, var), (x, weights, mean, var)


def _scaled_norm_backward(residuals, cotangents):
  x, weights, mean, var = residuals
  g, g_mean, g_var = cotangents
  count = x.size // mean.size
  wide, rate = g.astype(mean.dtype), lax.rsqrt(var + normalization.EPSILON)
  hat = (x - mean) * rate
  total, along = normalization.sum_and_dot(wide, hat)
  scale = weights * rate
  slope = (2 * g_var / rate - scale * along) / count
  shift = (g_mean - scale * total) / count
  x_gradient = (wide * scale + hat * slope + shift).astype(x.dtype)
  summed = tuple(a for a, n in enumerate(weights.shape) if n == 1)
  of_weights = along.sum(summed, keepdims=True).astype(weights.dtype)
  return x_gradient, of_weights


scaled_norm.defvjp(_scaled_norm_forward, _scaled_norm_backward)


@jax.custom_vjp
def scaled(x: Array, weights: Array) -> Array:
  """A map [B, H, W, C] times the weights [E] of edges: [E, B, H, W, C]."""
  return (weights[:, None, None, None, None] * x[None]).astype(x.dtype)


def _scaled_backward(residuals, g):
  x, weights = residuals
  parts = [weights[e] * g[e].astype(weights.dtype) for e in range(len(g))]
  # XLA's reduction over the leading axis takes 8 times as long on CPU.
  along = jnp.sum(g.astype(weights.dtype) * x[None], (1, 2, 3, 4))
  return reduce(lax.add, parts).astype(x.dtype), along


scaled.defvjp(
  lambda x, weights: (scaled(x, weights), (x, weights)), _scaled_backward
)


@jax.custom_vjp
def scaled_each(x: Array, weights: Array) -> tuple[Array, ...]:
  """As `scaled`, each edge's map apart."""
  return tuple((w * x).astype(x.dtype) for w in weights)


def _scaled_each_backward(residuals, parts):
  x, weights = residuals
  parts = [g.astype(weights.dtype) for g in parts]
  along = jnp.stack([jnp.sum(g * x) for g in parts])
  sums = [w * g for w, g in zip(weights, parts, strict=True)]
  return reduce(lax.add, sums).astype(x.dtype), along


scaled_each.defvjp(
  lambda x, weights: (scaled_each(x, weights), (x, weights)),
  _scaled_each_backward,
)


@jax.custom_vjp
def split(x: Array) -> tuple[Array, ...]:
  """The maps of each edge, [B, H, W, C] each; their cotangents are stored."""
  return tuple(x[e] for e in range(len(x)))


split.defvjp(
  lambda x: (split(x), None),
  lambda _, parts: (computed_once(jnp.stack(parts)),),
)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def split_channels(x: Array, edges: int) -> tuple[Array, ...]:
  """As `split`, of maps that lie side by side, [B, H, W, E C]."""
  return tuple(jnp.split(x, edges, -1))


split_channels.defvjp(
  lambda x, edges: (split_channels(x, edges), None),
  lambda edges, _, parts: (computed_once(jnp.concatenate(parts, -1)),),
)


def can_run(block: blocks.Block) -> bool:
  """Whether `run` knows all of a block that has parameters."""
  shared = True
  for work in block.workloads:
    if work.kind == "depthwise" or work.kind == "convolution":
      pointwise = work.kernel == 1 and work.stride == 1
      wide = shared and work.groups == 1
      if work.kind == "convolution" and not (pointwise or wide):
        return False
      shared = False
    elif work.kind in _BEFORE:
      if not shared:
        return False
    elif work.kind not in blocks.POINTWISE:
      return False
  return not block.affine and not shared


def is_wide(block: blocks.Block) -> bool:
  """Whether `wide` knows all of a block that has parameters."""
  *first, last = block.workloads
  return (
    last.kind == "convolution" and last.groups == 1 and not block.affine
  ) and all(w.kind in (*_BEFORE, *blocks.POINTWISE) for w in first)


def wide(block: blocks.Block, params: Mapping, x: Array) -> Array:
  """A block that `is_wide`, but for its last normalisation.

  Args:
    block: one dense convolution and what stands before it.
    params: of its layers, leaves [E, ...].
    x: f32[B, H, W, C], which all edges read.

  Returns:
    f32[B, H', W', E C'], the edges' channels side by side.
  """

  def unit(params, x):
    *first, (last, work) = enumerate(block.workloads)
    for _, before in first:
      x = _before(before, x)
    return _wide(x, params[f"convolution_{last}"]["kernel"], work)

  return jax.checkpoint(unit, prevent_cse=False)(params, x)


def _before(work: Workload, x: Array) -> Array:
  """What stands between convolutions."""
  if work.kind == "subsample":
    return blocks.subsample(x)
  return blocks.POINTWISE[work.kind](x)


def run(
  block: blocks.Block, params: Mapping, x: Array
) -> tuple[Array, dict[str, tuple[Array, Array]]]:
  """A block in training, but for its last normalisation.

  Args:
    block: that `can_run` knows.
    params: of its layers, leaves [E, ...].
    x: f32[B, H, W, C], which all edges read.

  Returns:
    (f32[E, B, H', W', C'], by normalisation mean and variance [E, 1, 1, 1,
    C]).
  """
  moments: dict[str, tuple[Array, Array]] = {}
  start, norm = 0, ""
  for i, work in enumerate(block.workloads):
    if work.batch_norm or i + 1 == len(block.workloads):
      unit = partial(_unit, block.workloads, start, i + 1)
      # Gradients keep what is normalised and compute anew what lies between.
      x, found = jax.checkpoint(unit, prevent_cse=False)(params, x)
      moments |= {norm: found} if norm else {}
      start, norm = i + 1, f"norm_{i}"
  return x, moments


def _unit(workloads, start: int, end: int, params: Mapping, x: Array):
  """Workloads `start` to `end` and the normalisation before them, if any.

  Returns:
    (their output, mean and variance of what came in).
  """
  shared, found = start == 0, ()
  if not shared:
    x, *found = jax.vmap(normalization.standardize)(x)
  for i, work in list(enumerate(workloads))[start:end]:
    if work.kind in (*_BEFORE, *blocks.POINTWISE):
      x = _before(work, x)
    else:
      w = params[f"convolution_{i}"]["kernel"]
      if work.kind == "depthwise":
        x = _depthwise(x, w, work, shared)
      elif shared and work.groups == 1:
        x = _edges_first(_wide(x, w, work), len(w))
      else:
        x = _pointwise(x, w, work.groups, shared)
      shared = False
  return x, tuple(found)
