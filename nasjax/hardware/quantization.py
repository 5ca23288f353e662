"""Quantisation: what a layer loses at few bits, and training that knows it.

Uniform symmetric quantisation, Q(w) = s round(w / s), s = max |w| / (2^(b-1)
- 1) over the tensor or over each output channel (Krishnamoorthi 2018, sections
2 and 3). `fake_quantize` runs it in the forward pass and lets gradients through
where nothing was clipped (the straight-through estimator, Bengio et al. 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.layers.normalization import CONSTANT_VARIANCE, EPSILON
from nasjax.types import Array

_TINY = 1e-12  # a tensor of zeros has no error and no scale


class LowBits(NamedTuple):
  """How weights are trained that will be stored in few bits."""

  # 2 to 16: the forward pass sees kernels rounded to these; None: as they are.
  bits: int | None = None
  per_channel: bool = True  # a step for each output channel, not one for all
  # Coefficient of `asymmetry_penalty` in the weights' loss, 0 or more.
  asymmetry: float = 0.0


FLOAT = LowBits()  # nothing of the kind


class Range(NamedTuple):
  """Running statistics of a layer's activations; f32[] each."""

  low: Array
  high: Array
  count: Array  # i32[]: batches seen


def start_range() -> Range:
  """The range before anything was seen."""
  return Range(jnp.float32(0), jnp.float32(0), jnp.int32(0))


def update_range(seen: Range, values: Array, momentum: float = 0.9) -> Range:
  """A range after one more batch: moving averages of minimum and maximum.

  Args:
    seen: before; its first batch counts whole.
    values: of a layer, any shape.
    momentum: of the averages, 0..1.

  Returns:
    The range.
  """
  keep = jnp.where(seen.count == 0, 0.0, momentum)
  return Range(
    keep * seen.low + (1 - keep) * values.min(),
    keep * seen.high + (1 - keep) * values.max(),
    seen.count + 1,
  )


def _check(bits: int) -> None:
  if not 2 <= bits <= 16:
    raise ValueError(f"bits={bits} must be 2 to 16")


def scales(weights: Array, bits: int, per_channel: bool) -> Array:
  """Steps of the quantiser: f32 of ones but, per channel, the last axis."""
  axes = tuple(range(weights.ndim - 1)) if per_channel else None
  largest = jnp.max(jnp.abs(weights), axis=axes, keepdims=True)
  return jnp.maximum(largest, _TINY) / (2 ** (bits - 1) - 1)


def quantize(weights: Array, bits: int, *, per_channel: bool = True) -> Array:
  """Q(W): the nearest values that `bits` can say.

  Args:
    weights: f32[..., C_out].
    bits: 2 to 16.
    per_channel: a step for each output channel, not one for all.

  Returns:
    The same shape and type.

  Raises:
    ValueError: `bits` out of range.
  """
  _check(bits)
  step = scales(weights, bits, per_channel)
  return jnp.round(weights / step) * step


def error(weights: Array, bits: int, *, per_channel: bool = True) -> Array:
  """||W - Q(W)|| / ||W||, f32[]; 0 of a tensor of zeros."""
  weights = jnp.asarray(weights)
  lost = weights - quantize(weights, bits, per_channel=per_channel)
  return jnp.linalg.norm(lost) / jnp.maximum(jnp.linalg.norm(weights), _TINY)


def fake_quantize(
  values: Array, bits: int, *, per_channel: bool = True
) -> Array:
  """Quantised forward, straight through backward; same shape and type."""
  quantized = quantize(values, bits, per_channel=per_channel)
  return values + jax.lax.stop_gradient(quantized - values)


def fake_quantize_activations(values: Array, seen: Range, bits: int) -> Array:
  """Activations at `bits` over a range; clipped outside, without gradient.

  Args:
    values: any shape.
    seen: their range; 0 is made part of it, so that padding is exact.
    bits: 2 to 16.

  Returns:
    The same shape; the gradient is 1 within the range and 0 outside.

  Raises:
    ValueError: `bits` out of range.
  """
  _check(bits)
  low, high = jnp.minimum(seen.low, 0.0), jnp.maximum(seen.high, 0.0)
  step = jnp.maximum(high - low, _TINY) / (2**bits - 1)
  zero = jnp.round(low / step)
  inside = jnp.clip(values, zero * step, (zero + 2**bits - 1) * step)
  return inside + jax.lax.stop_gradient(
    jnp.round(inside / step) * step - inside
  )


def _own_axes(layer: str) -> int:
  """How many axes a layer's kernel has; those before are stacked layers."""
  return 2 if layer.startswith("linear") else 4


def _each(function, layer: str, leaf: Array) -> Array:
  """`function` of a kernel, of stacked cells' and edges' one by one."""
  for _ in range(leaf.ndim - _own_axes(layer)):
    function = jax.vmap(function)
  return function(leaf)


def _layer(path) -> str:
  """The layer that a leaf is of."""
  return path[-2].key if len(path) > 1 else ""


def fake_quantize_tree(
  params: Any, bits: int, *, per_channel: bool = True
) -> Any:
  """Every kernel of a tree of parameters, `fake_quantize`d."""

  def one(path, leaf):
    if path[-1].key != "kernel":
      return leaf
    return _each(
      lambda w: fake_quantize(w, bits, per_channel=per_channel),
      _layer(path),
      leaf,
    )

  return jax.tree_util.tree_map_with_path(one, params)


def asymmetry(weights: Array) -> Array:
  """How far a tensor's channels are from symmetric ranges, f32[], 0..1.

  The mean over output channels of ((max + min) / (max - min))^2: symmetric
  quantisers waste that much of their range. Add it to a loss as a penalty.
  """
  axes = tuple(range(weights.ndim - 1))
  high, low = weights.max(axes), weights.min(axes)
  width = jnp.maximum(high - low, _TINY)
  return jnp.mean(jnp.minimum(jnp.square((high + low) / width), 1.0))


def asymmetry_penalty(params: Any) -> Array:
  """The mean `asymmetry` of all kernels of a tree of parameters, f32[]."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  found = [
    jnp.mean(_each(asymmetry, _layer(path), w))
    for path, w in leaves
    if path[-1].key == "kernel"
  ]
  return jnp.mean(jnp.stack(found)) if found else jnp.float32(0)


def check_low_bits(low_bits: LowBits, name: str) -> None:
  """Raises ValueError where `low_bits` cannot be; `name` begins its message."""
  bits = low_bits.bits
  if bits is not None and not 2 <= bits <= 16:
    raise ValueError(f"{name}: bits={bits} must be 2 to 16")
  if not 0.0 <= low_bits.asymmetry < np.inf:
    raise ValueError(
      f"{name}: asymmetry={low_bits.asymmetry} must be 0 or more"
    )


def seen_weights(params: Any, low_bits: LowBits) -> Any:
  """What a forward pass computes with, of a network's parameters."""
  if low_bits.bits is None:
    return params
  return fake_quantize_tree(
    params, low_bits.bits, per_channel=low_bits.per_channel
  )


def weight_penalty(params: Any, low_bits: LowBits) -> Array | float:
  """What the weights' loss has besides; f32[]."""
  if not low_bits.asymmetry:
    return 0.0
  return low_bits.asymmetry * asymmetry_penalty(params)


def layer_errors(
  params: Any, bits: int, *, per_channel: bool = True
) -> dict[str, float]:
  """The error of each kernel of a network's parameters, by its path."""
  return {
    jax.tree_util.keystr(path[:-1], simple=True, separator="/"): float(
      error(leaf, bits, per_channel=per_channel)
    )
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == "kernel"
  }


def deployed_scale(
  layer: str, params: Mapping, stats: Mapping
) -> Array | float:
  """What a kernel is multiplied by, channel by channel, when it is deployed.

  That is what its normalisation does to each channel; 0 where the channel is
  constant, as those are deployed without a kernel, see onnx_nodes.py.

  Args:
    layer: the kernel's layer, as `convolution_0`.
    params: of its block, or of stacked ones.
    stats: their batch statistics.

  Returns:
    f32[..., 1, .., 1, C_out], of as many axes as the kernel; 1.0 where no
    normalisation with statistics follows.
  """
  norm = f"norm_{layer.rpartition('_')[2]}"
  if norm not in stats:
    return 1.0
  var = stats[norm]["var"]
  rate = jnp.where(var < CONSTANT_VARIANCE, 0.0, jax.lax.rsqrt(var + EPSILON))
  rate = params.get(norm, {}).get("scale", 1.0) * rate
  return jnp.expand_dims(rate, tuple(range(-_own_axes(layer), -1)))


def deployed_params(
  params: Mapping, batch_stats: Mapping, bits: int, *, per_channel: bool = True
) -> dict:
  """Parameters whose kernels are what few bits leave of them when deployed.

  Args:
    params: of a network or of a supernet.
    batch_stats: of the same: kernels are rounded with their normalisation
      folded in, and divided by it again.
    bits: 2 to 16.
    per_channel: a step for each output channel, not one for all.

  Returns:
    The same tree.
  """
  found = {}
  for name, part in params.items():
    stats = batch_stats.get(name, {})
    if not isinstance(part, Mapping):
      found[name] = part
    elif "kernel" not in part:
      found[name] = deployed_params(part, stats, bits, per_channel=per_channel)
    else:
      scale = deployed_scale(name, params, batch_stats)
      rounded = _each(
        lambda w: quantize(w, bits, per_channel=per_channel),
        name,
        part["kernel"] * scale,
      )
      kernel = jnp.where(scale == 0, part["kernel"], rounded / scale)
      found[name] = {**part, "kernel": kernel}
  return found
