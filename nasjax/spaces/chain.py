"""Chains: stem, layers one after the other, head; each layer is a choice.

The layer-wise spaces of the field are chains of inverted residuals
(MobileNetV2, Sandler et al. 2018), which differ in kernel, expansion and
groups, or are skipped. Layers in a row with equal candidates are one stage, so
that the supernet scans them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from nasjax.errors import nearest
from nasjax.layers import blocks
from nasjax.layers.blocks import Block, Builder
from nasjax.layers.mixed import Candidates
from nasjax.spaces.plan import Plan, Stage

__all__ = ["bottleneck", "chain", "check_activation", "head", "rounded", "skip"]

GROUP = "layers"
Shape = tuple[int, int, int]


def rounded(channels: float, multiple: int) -> int:
  """Channels as a multiple, at least nine tenths of what was asked for.

  MobileNetV2's rule: the nearest multiple, one more where that is over a tenth
  less. Vectors of `multiple` lanes are then full.
  """
  found = max(multiple, int(channels + multiple / 2) // multiple * multiple)
  return found + multiple if found < 0.9 * channels else found


def check_activation(name: str, activation: str) -> None:
  """Refuses activations that are not known; raises ValueError."""
  if activation not in blocks.ACTIVATIONS:
    close = nearest(activation, blocks.ACTIVATIONS)
    raise ValueError(f"{name}: activation={activation!r}; {close}")


def bottleneck(
  shape: Shape,
  channels_out: int,
  activation: str,
  *,
  kernel: int,
  expansion: int,
  stride: int = 1,
  groups: int = 1,
) -> Block:
  """An inverted residual: expand, depthwise, project, add where shapes agree.

  Args:
    shape: height, width, channels of its input.
    channels_out: of its output.
    activation: after the expansion and the depthwise convolution.
    kernel: of the depthwise convolution.
    expansion: hidden channels over input channels.
    stride: of the depthwise convolution.
    groups: of both 1x1 convolutions; over 1 the channels are shuffled between
      them (FBNet, Wu et al. 2019, figure 3).

  Returns:
    The block.
  """
  b = Builder(*shape).conv(shape[2] * expansion, groups=groups).then(activation)
  b = b.then("channel_shuffle", groups=groups) if groups > 1 else b
  b = b.depthwise(kernel, stride=stride).then(activation)
  b = b.conv(channels_out, groups=groups)
  return (b.join("add", shape) if b.shape == shape else b).block()


def skip(
  shape: Shape, channels_out: int, stride: int, activation: str | None
) -> Block:
  """Nothing, or a 1x1 convolution where the shape must change.

  Args:
    shape: height, width, channels of its input.
    channels_out: of its output.
    stride: of the convolution.
    activation: after the convolution; None: none.

  Returns:
    The block.
  """
  b = Builder(*shape)
  if stride == 1 and channels_out == shape[2]:
    return b.block()
  b = b.conv(channels_out, stride=stride)
  return (b.then(activation) if activation else b).block()


def head(shape: Shape, channels: int, activation: str, classes: int) -> Block:
  """A 1x1 convolution, the mean over the map, and a linear classifier."""
  b = Builder(*shape).conv(channels).then(activation)
  return b.then("global_average_pool").then("linear", classes).block()


def chain(
  stem: Block,
  layers: Sequence[tuple[int, int]],
  candidates: Callable[[Shape, int, int], Candidates],
  end: Callable[[Shape], Block],
) -> Plan:
  """The plan of a chain.

  Args:
    stem: from the images to the first layer.
    layers: (channels of the output, stride) of each layer.
    candidates: (shape of the input, channels of the output, stride) -> blocks
      by name.
    end: shape of the last layer's output -> the head.

  Returns:
    The plan; its group is `layers`, one choice a layer.
  """
  shape, made = stem.output, []
  for channels, stride in layers:
    own = candidates(shape, channels, stride)
    made.append(own)
    height, width = (-(-n // stride) for n in shape[:2])
    shape = height, width, channels
  stages, first = [], []
  for own, run in itertools.groupby(made):
    first.append(sum(s.repeats for s in stages))
    stages.append(Stage(len(list(run)), (own,), {}, ()))

  def trunk(images, fixed, stage) -> Any:
    x = fixed("stem", images)
    for number in range(len(stages)):
      x = stage(number, x)
    return fixed("head", x).reshape(images.shape[0], -1)

  return Plan(
    {"stem": stem, "head": end(shape)},
    (),
    tuple(stages),
    trunk,
    lambda x, edge, link: edge(0, x),
    GROUP,
    lambda stage, repeat, edge: first[stage] + repeat,
  )
