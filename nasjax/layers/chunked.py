"""Wide maps some images at a time, so that they stay in a processor's cache.

An inverted residual's hidden maps are 6 times as large as its input. Written to
memory between every two operations they took most of its time on CPU. Here what
lies between two normalisations runs over a few images after the other; only
what is normalised is stored. The statistics of a pointwise expansion come from
the covariance of its input, so that the expansion itself is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.hardware.workload import Workload
from nasjax.layers import blocks, convolution, normalization
from nasjax.layers.barrier import computed_once
from nasjax.layers.platform import by_platform
from nasjax.types import Array

__all__ = ["can_run", "in_chunks", "moments_after", "run"]

# Elements of the widest map of a chunk: 2.4 MB in float32.
_CHUNK = 620_000
Moments = tuple[Array, Array]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def in_chunks(function: Callable, chunks: int, shared: Any, images: Any):
  """`function` over parts of the images; on GPU and TPU over all at once.

  Args:
    function: (shared, images of a part) -> (arrays of those images, sums over
      them). Differentiable in reverse mode.
    chunks: how many parts; divides the number of images.
    shared: what all parts read; arrays.
    images: arrays with one leading axis of images.

  Returns:
    (arrays of all images, sums over all). Gradients compute `function` anew,
    again in parts; of every order.
  """
  leaves, structure = jax.tree.flatten((shared, images))

  def whole(*leaves):
    return function(*jax.tree.unflatten(structure, leaves))

  def parts(*leaves):
    shared, images = jax.tree.unflatten(structure, leaves)
    images = jax.tree.map(lambda v: v.reshape(chunks, -1, *v.shape[1:]), images)
    shapes = jax.eval_shape(
      function, shared, jax.tree.map(lambda v: v[0], images)
    )
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes[1])

    def step(sums, part):
      mapped, new = function(shared, part)
      return jax.tree.map(jnp.add, sums, new), mapped

    sums, mapped = lax.scan(step, zeros, images)
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), mapped), sums

  if chunks == 1:
    return whole(*leaves)
  return by_platform(*leaves, cpu=parts, default=whole)


def _forward(function, chunks, shared, images):
  return in_chunks(function, chunks, shared, images), (shared, images)


def _backward(function, chunks, operands, cotangents):
  of_mapped, of_sums = cotangents

  def pull(shared, images):
    (shared, of_sums), (images, of_mapped) = shared, images
    back = jax.vjp(function, shared, images)[1]
    of_shared, of_images = back((of_mapped, of_sums))
    return of_images, of_shared

  shared, images = operands
  of_images, of_shared = in_chunks(
    pull, chunks, (shared, of_sums), (images, of_mapped)
  )
  return of_shared, of_images


in_chunks.defvjp(_forward, _backward)


def moments_after(x: Array, w: Array) -> Moments:
  """Mean and variance of the channels of a pointwise convolution of x.

  Var(w . x) = w^T Cov(x) w: the convolution itself is not computed.

  Args:
    x: floating-point images, [N, H, W, C].
    w: [C, D].

  Returns:
    (mean, biased variance), f32[1, 1, 1, D].
  """
  flat = x.reshape(8 if x.shape[0] % 8 == 0 else 1, -1, x.shape[3])
  flat = flat.astype(jnp.promote_types(x.dtype, jnp.float32))
  w, count = w.astype(flat.dtype), x.size // x.shape[3]
  mean = flat.sum((0, 1)) / count
  exact = lax.Precision.HIGHEST
  second = jnp.einsum("sri,srj->sij", flat, flat, precision=exact).sum(0)
  covariance = second / count - mean[:, None] * mean[None]
  along = jnp.matmul(covariance, w, precision=exact)
  var = jnp.maximum((along * w).sum(0), 0.0)
  return tuple(
    v[None, None, None] for v in (jnp.matmul(mean, w, precision=exact), var)
  )


def _sums(x: Array) -> Moments:
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return tuple(v.sum((0, 1, 2), keepdims=True) for v in (wide, wide * wide))


def _moments(sums: Moments, count: int) -> Moments:
  mean = sums[0] / count
  return mean, jnp.maximum(sums[1] / count - mean * mean, 0.0)


def _convolve(x: Array, w: Array, work: Workload) -> Array:
  padding = work.dilation * (work.kernel // 2)
  return convolution.conv(
    x,
    w,
    (work.stride,) * 2,
    [(padding, padding)] * 2,
    rhs_dilation=(work.dilation,) * 2,
    feature_group_count=work.groups,
  )


def can_run(block: blocks.Block) -> bool:
  """Whether a block is an inverted residual without trained scales.

  Pointwise expansion, depthwise convolution, pointwise projection, each with
  its normalisation, with activations between; the input may be added last. The
  last normalisation may be missing.
  """
  kinds = [w.kind for w in block.workloads]
  layers = [w for w in block.workloads if w.kind not in blocks.POINTWISE]
  joined = kinds[-1:] == ["add"]
  if block.affine or (joined and block.saved):
    return False
  layers = layers[: len(layers) - joined]
  if [w.kind for w in layers] != ["convolution", "depthwise", "convolution"]:
    return False
  first, _, last = layers
  return (
    all(w.batch_norm for w in layers[:2])
    and (last.batch_norm or not joined)
    and kinds[0] == "convolution"
    and kinds[len(kinds) - 1 - joined] == "convolution"
    and all(w.kernel == w.stride == w.groups == 1 for w in (first, last))
    and first.channels_out >= 2 * first.channels_in
  )


def run(
  block: blocks.Block, params: Mapping, x: Array
) -> tuple[Array, dict[str, Moments]]:
  """A block that `can_run` knows, in training.

  Args:
    block: the block.
    params: of its layers.
    x: [B, H, W, C].

  Returns:
    ([B, H', W', D], by normalisation its mean and variance, f32[1, 1, 1, C]).
  """
  works = list(enumerate(block.workloads))
  layers = [i for i, w in works if w.kind in ("convolution", "depthwise")]
  kernels = [params[f"convolution_{i}"]["kernel"] for i in layers]
  places = list(zip(layers, layers[1:], strict=False))
  between = [[w.kind for _, w in works[a + 1 : b]] for a, b in places]
  first, middle, last = (block.workloads[i] for i in layers)

  def acted(x, moments, kinds):
    x = normalization.apply(x, *moments)
    for kind in kinds:
      x = blocks.POINTWISE[kind](x)
    return x

  def hidden(shared, x):
    expand, depthwise, moments = shared
    x = acted(_convolve(x, expand, first), moments, between[0])
    y = _convolve(x, depthwise, middle)
    return y, _sums(y)

  def projected(shared, x):
    project, moments = shared
    y = _convolve(acted(x, moments, between[1]), project, last)
    return y, _sums(y)

  chunks = _chunks(len(x), first)
  found = [moments_after(x, kernels[0][0, 0])]
  y, sums = in_chunks(hidden, chunks, (*kernels[:2], found[0]), x)
  found.append(_moments(sums, y.size // y.shape[3]))
  y, sums = in_chunks(projected, chunks, (kernels[2], found[1]), y)
  if last.batch_norm:
    found.append(_moments(sums, y.size // y.shape[3]))
    y = computed_once(normalization.apply(y, *found[2]))
  if block.workloads[-1].kind == "add":
    y = y + x
  return y, {
    f"norm_{i}": moments for i, moments in zip(layers, found, strict=False)
  }


def _chunks(images: int, expansion: Workload) -> int:
  """Into how many parts to split so many images."""
  size = expansion.height * expansion.width * expansion.channels_out
  wanted = max(1, _CHUNK // size)
  return next(
    n for n in range(1, images + 1) if images % n == 0 and images // n <= wanted
  )
