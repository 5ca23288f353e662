"""Inverted residuals of several choices: what they are, and as blocks.

MobileNetV2 (Sandler et al. 2018, section 3.3): a 1x1 convolution expands, a
depthwise one filters, a 1x1 one without activation projects. MobileNetV3
(Howard et al. 2019, sections 5.2 and 5.3) adds squeeze-and-excite before the
projection and h-swish.
"""

from __future__ import annotations

import functools
import itertools
from typing import NamedTuple

import numpy as np

from nasjax.layers.blocks import Block, Builder
from nasjax.spaces.chain import rounded
from nasjax.spaces.factorised import Link

__all__ = ["AXES", "Layer", "Options", "link"]

# The choices that shape a layer, in the order of its table's axes.
AXES = (
  "width_in",
  "width",
  "depth",
  "expansion",
  "kernel",
  "squeeze_excite",
  "activation",
)


class Options(NamedTuple):
  """What each layer chooses from; hashable."""

  expansions: tuple[int, ...]
  kernels: tuple[int, ...]
  squeeze_excite: tuple[str, ...]
  activations: tuple[str, ...]
  shared_kernels: bool


class Layer(NamedTuple):
  """One inverted residual with all that it may be; hashable."""

  height: int
  width: int
  inputs: tuple[int, ...]  # channels for each width of the stage before
  outputs: tuple[int, ...]  # channels for each width of its own stage
  stride: int
  repeated: bool  # reads its own stage: a residual, with inputs as outputs
  optional: bool  # may be skipped
  options: Options

  @property
  def hidden(self) -> np.ndarray:
    """i64[expansions, widths]: channels between expansion and projection."""
    return np.outer(self.options.expansions, self.inputs)

  @property
  def squeezed(self) -> np.ndarray:
    """i64[expansions, widths]: units of squeeze-and-excite."""
    return np.vectorize(squeezed)(self.hidden)

  @property
  def kernel(self) -> int:
    """The largest kernel."""
    return max(self.options.kernels)


def squeezed(hidden: int) -> int:
  """Units of squeeze-and-excite over channels: a quarter (MobileNetV3)."""
  return rounded(hidden // 4, 8)


@functools.cache
def block(
  shape: tuple[int, int, int],
  channels: int,
  expansion: int,
  kernel: int,
  stride: int,
  squeeze_excite: str,
  activation: str,
) -> Block:
  """One decided inverted residual, without its addition.

  Args:
    shape: height, width, channels of its input.
    channels: of its output.
    expansion: hidden over input channels; 1: no convolution expands.
    kernel: of the depthwise convolution.
    stride: of the depthwise convolution.
    squeeze_excite: yes or no.
    activation: after the expansion and the depthwise convolution.

  Returns:
    The block.
  """
  b, saved = Builder(*shape), 0
  if expansion != 1:
    b = b.conv(shape[2] * expansion).then(activation)
  b = b.depthwise(kernel, stride=stride).then(activation)
  if squeeze_excite == "yes":
    saved, wide = len(b.workloads), b.shape
    b = b.then("global_average_pool").then("linear", squeezed(wide[2]))
    b = b.then("relu").then("linear", wide[2]).then("hsigmoid")
    b = b.join("multiply", wide)
  return b.conv(channels).block(saved)


def link(name: str, layer: Layer, places: dict[str, tuple[str, int]]) -> Link:
  """A layer with a block for each combination of its choices.

  Args:
    name: of its variables.
    layer: the layer.
    places: axis -> group and row, for those of `AXES` that are chosen.

  Returns:
    The link; an axis that is chosen nowhere has its one value.
  """
  options = layer.options
  outputs = range(len(layer.outputs))
  values = {
    # A repeated layer's input has the width of its output.
    "width_in": range(1 if layer.repeated else len(layer.inputs)),
    "width": outputs,
    "depth": (False, True) if layer.optional else (True,),
    "expansion": options.expansions,
    "kernel": options.kernels,
    "squeeze_excite": options.squeeze_excite,
    "activation": options.activations,
  }
  blocks = np.empty([len(values[a]) for a in AXES], object)
  for index, found in zip(
    np.ndindex(blocks.shape),
    itertools.product(*(values[a] for a in AXES)),
    strict=True,
  ):
    before, own, kept, expansion, kernel, squeeze, activation = found
    blocks[index] = None
    if kept:
      channels = layer.inputs[own if layer.repeated else before]
      blocks[index] = block(
        (layer.height, layer.width, channels),
        layer.outputs[own],
        expansion,
        kernel,
        layer.stride,
        squeeze,
        activation,
      )
  shape = [len(values[a]) for a in AXES if a in places]
  chosen = tuple(places[a] for a in AXES if a in places)
  return Link(name, chosen, blocks.reshape(shape), layer.repeated)
