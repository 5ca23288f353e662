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

from nasjax.errors import InputError
from nasjax.layers.normalization import CONSTANT_VARIANCE, EPSILON
from nasjax.spaces import edge_variables
from nasjax.types import Array, Metric

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


def _each(function, path, leaf: Array) -> Array:
  """`function` of a kernel, of stacked cells' and edges' one by one."""
  own = 2 if len(path) > 1 and path[-2].key.startswith("linear") else 4
  for _ in range(leaf.ndim - own):
    function = jax.vmap(function)
  return function(leaf)


def fake_quantize_tree(
  params: Any, bits: int, *, per_channel: bool = True
) -> Any:
  """Every kernel of a tree of parameters, `fake_quantize`d."""

  def one(path, leaf):
    if path[-1].key != "kernel":
      return leaf
    return _each(
      lambda w: fake_quantize(w, bits, per_channel=per_channel), path, leaf
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
    jnp.mean(_each(asymmetry, path, w))
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


def candidate_errors(
  space: Any,
  params: Any,
  bits: int,
  *,
  per_channel: bool = True,
  batch_stats: Any = None,
) -> dict[str, Array]:
  """The mean squared relative error of each choice's kernels.

  Args:
    space: a space with a plan.
    params: of its supernet.
    bits: 2 to 16.
    per_channel: a step for each output channel.
    batch_stats: of its supernet: each kernel is taken with its normalisation
      folded in, as it is deployed; default: as it is. With one step a tensor
      that is where depthwise kernels lose (Nagel et al. 2019, section 3).

  Returns:
    f32[E, K] a group; 0 for candidates without kernels; differentiable in
    `params` where rounding is.

  Raises:
    InputError: the space has no plan.
  """
  return _candidate_means(
    space,
    params,
    lambda w: jnp.square(error(w, bits, per_channel=per_channel)),
    batch_stats,
  )


def _candidate_means(
  space, params, measure, batch_stats=None
) -> dict[str, Array]:
  """The mean of `measure(kernel)` over each choice's kernels, f32[E, K]."""
  if not hasattr(space, "plan"):
    raise InputError(
      f"space {space.name}", "has no plan: its candidates' weights are unknown"
    )
  plan = space.plan
  found: dict[str, list[list[list[Array]]]] = {
    name: [[[] for _ in group.candidates] for _ in range(group.edges)]
    for name, group in space.groups.items()
  }
  for s, stage in enumerate(plan.stages):
    cells, group_rows = found[plan.group_of(s)], plan.rows(s)
    # Statistics lie as parameters do, so that these stand in for them.
    stats = params if batch_stats is None else batch_stats
    own = {
      "params": params[f"stage_{s}"],
      "batch_stats": stats.get(f"stage_{s}", {}),
    }
    for r, e in np.ndindex(group_rows.shape):
      edge = edge_variables.of_edge(
        stage, jax.tree.map(lambda v, r=r: v[r], own), e
      )
      for k, name in enumerate(stage.edges[e]):
        folded = {} if batch_stats is None else edge["batch_stats"][name]
        cells[group_rows[r, e]][k] += [
          measure(w) for w in _kernels(edge["params"][name], folded)
        ]
  zero = jnp.float32(0)
  return {
    name: jnp.stack(
      [
        jnp.stack([jnp.mean(jnp.stack(c)) if c else zero for c in row])
        for row in cells
      ]
    )
    for name, cells in found.items()
  }


def _kernels(params: Mapping, stats: Mapping) -> list[Array]:
  """The kernels of a block; those with statistics have them folded in."""
  found = []
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    if path[-1].key != "kernel":
      continue
    found.append(leaf * _scale(path[-2].key, params, stats))
  return found


def _scale(layer: str, params: Mapping, stats: Mapping) -> Array | float:
  """What a kernel is multiplied by when deployed, on its last axis.

  That is what its normalisation, if it has one with statistics, does to each
  channel: 0 where the channel is constant, as those are deployed without a
  kernel, see onnx_nodes.py. All may be of stacked layers.
  """
  norm = f"norm_{layer.rpartition('_')[2]}"
  if norm not in stats:
    return 1.0
  var = stats[norm]["var"]
  rate = jnp.where(var < CONSTANT_VARIANCE, 0.0, jax.lax.rsqrt(var + EPSILON))
  rate = params.get(norm, {}).get("scale", 1.0) * rate
  return rate[..., None, None, None, :]


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
      path = tuple(map(jax.tree_util.DictKey, (name, "kernel")))
      scale = _scale(name, params, batch_stats)
      rounded = _each(
        lambda w: quantize(w, bits, per_channel=per_channel),
        path,
        part["kernel"] * scale,
      )
      kernel = jnp.where(scale == 0, part["kernel"], rounded / scale)
      found[name] = {**part, "kernel": kernel}
  return found


def asymmetry_metric(space: Any, params: Any) -> Metric:
  """`weight_asymmetry`: the sum of the choices' mean `asymmetry`.

  Args:
    space: a space with a plan.
    params: of its supernet, after it was trained for a while.

  Returns:
    An additive metric without unit, an objective or a limit.

  Raises:
    InputError: the space has no plan.
  """
  return _of_weights(
    "weight_asymmetry",
    _candidate_means(space, params, asymmetry),
    "computed from the supernet's weights",
  )


def error_metric(
  space: Any,
  params: Any,
  bits: int,
  *,
  per_channel: bool = True,
  batch_stats: Any = None,
) -> Metric:
  """`quantization_error`: the sum of the choices' errors, for these weights.

  Args:
    space: a space with a plan.
    params: of its supernet, after it was trained for a while.
    bits: 2 to 16.
    per_channel: a step for each output channel.
    batch_stats: as `candidate_errors` takes them.

  Returns:
    An additive metric without unit, an objective or a limit.

  Raises:
    InputError: the space has no plan.
  """
  return _of_weights(
    "quantization_error",
    candidate_errors(
      space, params, bits, per_channel=per_channel, batch_stats=batch_stats
    ),
    f"computed from the supernet's weights at {bits} bits, a step for each"
    f" {'channel' if per_channel else 'tensor'}",
  )


def _of_weights(name, found, source) -> Metric:
  tables = {n: np.asarray(t, np.float64) for n, t in found.items()}

  def expected(weights: Mapping[str, Array]) -> Array:
    return sum(
      jnp.sum(weights[n] * jnp.asarray(t, jnp.float32))
      for n, t in tables.items()
    )

  def exact(architecture) -> float:
    return sum(
      float(t[np.arange(len(t)), architecture.choices[n]].sum())
      for n, t in tables.items()
    )

  return Metric(name, "", None, expected, exact, True, source)
