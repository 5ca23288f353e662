"""The supernet of factorised inverted residuals: one layer for all choices.

No combination of choices is executed on its own. Every factor mixes where that
is one operation's price:

* kernels in weight space: a depthwise convolution is linear in its kernel, so
  the mean of the outputs is the output of the mean kernel, smaller kernels
  padded with zeros (or centre crops of the largest, `shared_kernels`);
* expansions and widths as the mean of their channel masks, before the
  projection and behind it: channels 0 to n are those of every candidate with
  n or more (single-path NAS, Stamoulis et al. 2019; FBNetV2, Wan et al. 2020,
  section 3.1);
* activations, squeeze-and-excite and skips as weighted sums of pointwise maps.

So a layer costs what its largest candidate does. At one-hot weights it is the
decided layer exactly. Sampled paths are executed as one-hot weights of the same
form: they save no time, and as every factor is there, the gradient reaches the
weights of the candidates that were not sampled too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.layers import normalization
from nasjax.layers.blocks import POINTWISE
from nasjax.layers.convolution import conv
from nasjax.layers.mixed import run_block
from nasjax.spaces.mobilenet_layers import Layer
from nasjax.spaces.supernet import pick
from nasjax.types import Array, Sampled

__all__ = ["apply", "expected_kernel", "extract_layer", "run", "shapes"]

NORMS = ("expand", "depthwise", "project")


def shapes(layer: Layer) -> dict:
  """The shapes of a layer's variables, {"params", "batch_stats"}."""

  def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)

  inputs, outputs = max(layer.inputs), max(layer.outputs)
  hidden, size = int(layer.hidden.max()), layer.kernel
  options = layer.options
  params: dict[str, Any] = {
    "expand": {"kernel": array(1, 1, inputs, hidden)},
    "project": {"kernel": array(1, 1, hidden, outputs)},
  }
  sizes = (size,) if options.shared_kernels else options.kernels
  for k in sizes:
    params[f"depthwise_{k}"] = {"kernel": array(k, k, 1, hidden)}
  if "yes" in options.squeeze_excite:
    units = int(layer.squeezed.max())
    params["linear_squeeze"] = {
      "kernel": array(hidden, units),
      "bias": array(units),
    }
    params["linear_excite"] = {
      "kernel": array(units, hidden),
      "bias": array(hidden),
    }
  channels = dict(expand=hidden, depthwise=hidden, project=outputs)
  stats = {
    name: {"mean": array(channels[name]), "var": array(channels[name])}
    for name in NORMS
  }
  return {"params": params, "batch_stats": stats}


def _mask(sizes: np.ndarray) -> np.ndarray:
  """f32[..., N]: the first of N channels are used, N the largest size."""
  return (np.arange(sizes.max()) < sizes[..., None]).astype(np.float32)


def _expected_mask(sizes: np.ndarray, weights, axes) -> Array | None:
  """f32[N]: how far each channel is used; None where all always are.

  Args:
    sizes: i64[expansions, widths].
    weights: by axis; those that are not chosen are missing.
    axes: names of the two axes.
  """
  if sizes.min() == sizes.max():
    return None
  mask = jnp.asarray(_mask(sizes))
  factors = [
    weights.get(axis, jnp.ones(size))
    for axis, size in zip(axes, sizes.shape, strict=True)
  ]
  return jnp.einsum("ewn,e,w->n", mask, *factors)


def expected_kernel(layer: Layer, params: Mapping, weights: Mapping) -> Array:
  """The mean kernel f32[K, K, 1, C] of a layer's depthwise convolution.

  Args:
    layer: the layer.
    params: its parameters.
    weights: by axis; `kernel` f32[kernels], missing where one is offered.

  Returns:
    Each candidate's kernel in the middle of the largest, times its weight.
  """
  size, kernels = layer.kernel, layer.options.kernels
  own = weights.get("kernel", jnp.ones(1))
  if layer.options.shared_kernels:
    whole = params[f"depthwise_{size}"]["kernel"]
    margins = [(size - k) // 2 for k in kernels]
    crops = np.zeros((len(kernels), size, size), np.float32)
    for crop, margin in zip(crops, margins, strict=True):
      crop[margin : size - margin, margin : size - margin] = 1.0
    inside = jnp.einsum("k,kxy->xy", own, jnp.asarray(crops))
    return whole * inside[:, :, None, None].astype(whole.dtype)
  total = 0.0
  for i, k in enumerate(kernels):
    kernel, margin = params[f"depthwise_{k}"]["kernel"], (size - k) // 2
    pads = [(margin, margin)] * 2 + [(0, 0)] * 2
    total += own[i].astype(kernel.dtype) * jnp.pad(kernel, pads)
  return total


def _activated(layer: Layer, weights: Mapping, x: Array) -> Array:
  """The layer's activations of x, weighted."""
  names = layer.options.activations
  if len(names) == 1:
    return POINTWISE[names[0]](x)
  own = weights["activation"].astype(x.dtype)
  return sum(own[i] * POINTWISE[name](x) for i, name in enumerate(names))


def _gate(layer: Layer, params, weights, x: Array, mask) -> Array | None:
  """Factors f32[B, 1, 1, C] or [1, 1, 1, C] before the projection, or None."""
  names = layer.options.squeeze_excite
  if names == ("no",):
    return None if mask is None else mask[None, None, None].astype(x.dtype)
  pooled = jnp.mean(x, axis=(1, 2))
  mask = jnp.ones(x.shape[3]) if mask is None else mask
  mask = mask[None].astype(x.dtype)
  squeeze, excite = params["linear_squeeze"], params["linear_excite"]
  units = jax.nn.relu(
    (pooled * mask) @ squeeze["kernel"] + squeeze["bias"][None]
  )
  sizes = layer.squeezed
  used = _expected_mask(sizes, weights, ("expansion", "width_in"))
  units = units if used is None else units * used[None].astype(x.dtype)
  gate = POINTWISE["hsigmoid"](units @ excite["kernel"] + excite["bias"][None])
  if "no" in names:
    own = weights["squeeze_excite"].astype(x.dtype)
    gate = own[names.index("no")] + own[names.index("yes")] * gate
  return (mask * gate)[:, None, None]


# Layers of one shape are traced once, with their derivatives.
@partial(jax.jit, static_argnums=(0, 4))
def run(
  layer: Layer, variables: Mapping, x: Array, weights: Mapping, train: bool
) -> tuple[Array, dict]:
  """One layer.

  Args:
    layer: the layer.
    variables: its {"params", "batch_stats"}.
    x: f32[B, H, W, C], channels masked by the width of its stage.
    weights: by axis of `AXES`, f32[K]; those that are not chosen are missing.
      A repeated layer has its stage's as `width_in` and `width`.
    train: use and return new batch statistics.

  Returns:
    (f32[B, H', W', C'], batch statistics).
  """
  params, stats, new = variables["params"], variables["batch_stats"], {}

  def normal(name, y):
    running = stats[name]
    new[name] = running
    if not train:
      wide = (1, 1, 1, -1)
      mean, var = (running[n].reshape(wide) for n in ("mean", "var"))
      return normalization.apply(y, mean, var)
    y, mean, var = normalization.standardize(y)
    new[name] = {
      "mean": normalization.moved(running["mean"], lax.stop_gradient(mean)),
      "var": normalization.moved(running["var"], lax.stop_gradient(var)),
    }
    return y

  kept = x
  x = conv(x, params["expand"]["kernel"], (1, 1), "VALID")
  x = _activated(layer, weights, normal("expand", x))
  kernel = expected_kernel(layer, params, weights)
  margin = layer.kernel // 2
  x = conv(
    x,
    kernel,
    (layer.stride,) * 2,
    [(margin, margin)] * 2,
    feature_group_count=kernel.shape[3],
  )
  x = _activated(layer, weights, normal("depthwise", x))
  mask = _expected_mask(layer.hidden, weights, ("expansion", "width_in"))
  gate = _gate(layer, params, weights, x, mask)
  x = x if gate is None else x * gate
  x = normal("project", conv(x, params["project"]["kernel"], (1, 1), "VALID"))
  sizes = np.array([layer.outputs])
  mask = _expected_mask(sizes, weights, ("", "width"))
  x = x if mask is None else x * mask[None, None, None].astype(x.dtype)
  if layer.optional:
    skip, keep = weights["depth"].astype(x.dtype)
    return (skip + keep) * kept + keep * x, new
  return (kept + x if layer.repeated else x), new


def _executed(sampled: Sampled) -> Mapping[str, Array]:
  """The weights, those of paths that are not executed 0 in value."""
  if sampled.paths is None:
    return sampled.weights
  found = {}
  for name, weights in sampled.weights.items():
    paths = sampled.paths[name]
    inside = jax.nn.one_hot(paths, weights.shape[-1]).sum(-2) > 0
    executed = jnp.where(inside, weights, 0.0)
    found[name] = weights + lax.stop_gradient(executed - weights)
  return found


def apply(
  space: Any,
  variables: Mapping,
  sampled: Sampled,
  images: Array,
  train: bool,
) -> tuple[Array, dict]:
  """Runs the supernet.

  Args:
    space: the space.
    variables: {"params", "batch_stats"} by layer.
    sampled: weights f32[E, K] and paths of the space's groups.
    images: f32[B, H, W, C].
    train: use and update batch statistics.

  Returns:
    (logits f32[B, classes], new batch statistics).
  """
  stats = dict(variables["batch_stats"])
  weights, x = _executed(sampled), images
  execute = run
  if space.remat:
    execute = jax.checkpoint(run, static_argnums=(0, 4), prevent_cse=False)
  for link in space.chain:
    name, part = link.name, space.parts[link.name]
    own = pick(variables, name)
    if not isinstance(part, Layer):
      y, stats[name] = run_block(part, own, x, train)
      x = x + y if link.residual else y
      continue
    rows = {
      axis: jnp.asarray(weights[group], jnp.float32)[row]
      for axis, (group, row) in space.places[name].items()
    }
    if part.repeated and "width" in rows:
      rows["width_in"] = rows["width"]
    x, stats[name] = execute(part, own, x, rows, train)
  return x.reshape(len(images), -1), stats


def extract_layer(layer: Layer, block: Any, variables: Mapping) -> dict:
  """A layer's weights as variables of one of its blocks.

  Args:
    layer: the layer.
    block: of its link.
    variables: its {"params", "batch_stats"}.

  Returns:
    {"params", "batch_stats"}; normalisations have scale 1 and shift 0.
  """
  params, stats = variables["params"], variables["batch_stats"]
  found: dict[str, dict] = {"params": {}, "batch_stats": {}}
  linear = iter(("linear_squeeze", "linear_excite"))
  names = iter(NORMS)
  for i, work in enumerate(block.workloads):
    inputs, outputs = work.channels_in, work.channels_out
    if work.kind == "linear":
      own = params[next(linear)]
      found["params"][f"linear_{i}"] = {
        "kernel": own["kernel"][:inputs, :outputs],
        "bias": own["bias"][:outputs],
      }
    if work.kind not in ("convolution", "depthwise"):
      continue
    name = next(names)
    if name == "depthwise":
      size = layer.kernel if layer.options.shared_kernels else work.kernel
      margin = (size - work.kernel) // 2
      inner = slice(margin, size - margin)
      kernel = params[f"depthwise_{size}"]["kernel"]
      kernel = kernel[inner, inner, :, :outputs]
    else:
      kernel = params[name]["kernel"][:, :, :inputs, :outputs]
    found["params"][f"convolution_{i}"] = {"kernel": kernel}
    found["params"][f"norm_{i}"] = {
      "scale": jnp.ones(outputs),
      "bias": jnp.zeros(outputs),
    }
    found["batch_stats"][f"norm_{i}"] = {
      n: stats[name][n][:outputs] for n in ("mean", "var")
    }
  return found
