"""MobileNetV2 / V3 backbones with factorised choices.

A stem, one inverted residual with expansion 1, stages of searched inverted
residuals, a head. Each searched layer chooses its expansion, its depthwise
kernel, squeeze-and-excite and its activation apart from each other: 3 x 3 x 2 x
2 = 36 combinations, 72 with the skip that layers after a stage's first offer,
at the price of one in the supernet (`mobilenet_supernet.py`). What a layer
costs depends on all of them at once, so metrics are multilinear forms over
tables with an axis a choice (`hardware/products.py`).

Kernels have weights of their own (the default, as the candidates of
ProxylessNAS have) or, with `shared_kernels`, are the centres of one
super-kernel (single-path NAS, Stamoulis et al. 2019): fewer parameters, and
training one kernel size trains all. Both cost the same time, are the decided
network at one-hot weights, and are inherited alike. Expansions, widths and
squeeze-and-excite share the first channels in either case. `widths=(50, 75,
100, 125)` lets each stage choose its width; the resolution is `image_shape`, 32
to 224 pixels and any other, with as many strides as suit it.

MobileNetV2 1.0 (expansion 6, kernel 3, ReLU6, no squeeze-and-excite) is a
member of

    mobilenet(expansions=(3, 4, 6), activations=("relu6", "hswish"),
              image_shape=(224, 224, 3), num_classes=1000)

and MnasNet-B1 one of the same with `stage_channels=(16, 24, 40, 80, 96, 192,
320), stage_depths=(1, 3, 3, 3, 2, 4, 1), stage_strides=(2, 1, 2, 2, 2, 1, 2,
1), activation="relu", activations=("relu",)`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.hardware.workload import SpaceWorkloads
from nasjax.layers.blocks import Block, Builder
from nasjax.spaces import factorised, mobilenet_supernet, staged, supernet
from nasjax.spaces.chain import rounded
from nasjax.spaces.decision import decide
from nasjax.spaces.mobilenet_arguments import check
from nasjax.spaces.mobilenet_layers import (
  Layer,
  Options,
  block,
  link,
)
from nasjax.spaces.space import Architecture, Limit
from nasjax.types import Array, Group, Key, Masks, Sampled, Weights

__all__ = [
  "STEM",
  "STRIDES",
  "MobileNetSpace",
  "assembled",
  "mobilenet",
  "strides_of",
]

STEM = 32  # channels of MobileNetV2 1.0's first convolution
_SMALLEST = 4  # pixels that strides left to the space leave of a side
STRIDES = (2, 1, 2, 2, 2, 1, 2, 1)  # of the stem and of MobileNetV2's stages


@dataclasses.dataclass(frozen=True, eq=False)
class MobileNetSpace:
  """Factorised inverted residuals; has all that `spaces.Space` asks for.

  Attributes:
    arguments: of its constructor, to make it again.
    groups: its choices: one row a searched layer, of `depth` one a layer that
      may be skipped, of `width` one a searched stage. A choice of one
      candidate is no group.
    parts: the layers by name: a `Block` where nothing is searched.
    places: of each searched layer, axis -> group and row.
    chain: the layers as networks have them.
    remat: gradients compute each layer anew instead of keeping its values.
    allowed: bool[E, K] a group: what a device lets be chosen; None: all.
  """

  arguments: Mapping[str, Any]
  groups: Mapping[str, Group]
  parts: Mapping[str, Layer | Block]
  places: Mapping[str, Mapping[str, tuple[str, int]]]
  chain: tuple[factorised.Link, ...]
  remat: bool | None = None
  allowed: Mapping[str, np.ndarray] | None = None
  name: str = "mobilenet"

  @property
  def masks(self) -> Masks:
    """bool[E, K]: all candidates exist in all rows, but what is closed."""
    if self.allowed is not None:
      return dict(self.allowed)
    return {
      n: np.ones((g.edges, len(g.candidates)), bool)
      for n, g in self.groups.items()
    }

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K]: the skips of `depth`."""
    return {
      n: np.tile(
        [n == "depth" and c == "skip" for c in g.candidates], (g.edges, 1)
      )
      for n, g in self.groups.items()
    }

  @property
  def cuts(self) -> dict[str, tuple[tuple[int, ...], ...]]:
    """None: skipped layers hand on what they read."""
    return {}

  def init(self, key: Key) -> dict:
    """Variables of the supernet by layer; kernels are He-normal."""
    found: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for name, part in self.parts.items():
      own = (
        mobilenet_supernet.shapes(part)
        if isinstance(part, Layer)
        else supernet.block_shapes(part)
      )
      for kind in found:
        found[kind][name] = own[kind]
    return supernet.drawn(found, key)

  def apply(
    self, variables: Mapping, sampled: Sampled, images: Array, train: bool
  ) -> tuple[Array, dict]:
    """Runs the supernet: (logits f32[B, classes], new batch statistics)."""
    return mobilenet_supernet.apply(self, variables, sampled, images, train)

  def build(self, architecture: Architecture) -> factorised.Network:
    """The decided network as a flax module, called with (images, train)."""
    choices = {
      n: tuple(int(k) for k in row) for n, row in architecture.choices.items()
    }
    return factorised.Network(self, choices)

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`."""
    found: dict[str, dict] = {"params": {}, "batch_stats": {}}
    for one in self.chain:
      chosen = one.chosen(architecture.choices)
      if chosen is None:
        continue
      own, part = supernet.pick(variables, one.name), self.parts[one.name]
      if isinstance(part, Layer):
        own = mobilenet_supernet.extract_layer(part, chosen, own)
      elif chosen != part:  # the head of a narrower stage
        channels = chosen.workloads[0].channels_in
        kernel = own["params"]["convolution_0"]["kernel"][:, :, :channels]
        params = {**own["params"], "convolution_0": {"kernel": kernel}}
        own = {**own, "params": params}
      for kind in found:
        found[kind][one.name] = own[kind]
    return found

  def workloads(self) -> SpaceWorkloads:
    """Which workloads the choices stand for together, and the fixed ones."""
    return factorised.workloads(self.chain)

  def decide(
    self, weights: Weights, limits: Sequence[Limit] = ()
  ) -> Architecture:
    """The most probable architecture within the limits, exactly."""
    return decide(self, weights, limits)


def strides_of(image_shape: tuple[int, int, int]) -> tuple[int, ...]:
  """Strides of the stem and of MobileNetV2's stages that suit an image.

  Of the five strides of 2 the last ones are kept, as many as leave at least 4
  pixels of the shorter side: all at 128 and more, three at 32.
  """
  count = 0
  while -(-min(image_shape[:2]) // 2 ** (count + 1)) >= _SMALLEST:
    count += 1
  halving = [i for i, stride in enumerate(STRIDES) if stride == 2]
  kept = halving[max(0, len(halving) - count) :]
  return tuple(2 if i in kept else 1 for i in range(len(STRIDES)))


def _candidates(options: Options, depth_choice: bool, widths) -> dict:
  """Candidate names of each group that there could be."""
  return {
    "width": tuple(f"{w / 100:g}" for w in widths),
    "depth": ("skip", "keep") if depth_choice else ("keep",),
    "expansion": tuple(map(str, options.expansions)),
    "kernel": tuple(map(str, options.kernels)),
    "squeeze_excite": options.squeeze_excite,
    "activation": options.activations,
  }


def assembled(arguments: Mapping[str, Any]) -> MobileNetSpace:
  """Puts the layers together from checked arguments of `mobilenet`.

  Args:
    arguments: all of them; `channels` may be a fraction here.

  Returns:
    The space.

  Raises:
    ValueError: there is nothing to choose.
  """
  options = Options(
    arguments["expansions"],
    arguments["kernels"],
    arguments["squeeze_excite"],
    arguments["activations"],
    arguments["shared_kernels"],
  )
  widths, strides = arguments["widths"], arguments["stage_strides"]
  scale, activation = arguments["channels"] / STEM, arguments["activation"]

  def divisible(channels, percent=100):
    asked = channels * scale * percent / 100
    return rounded(asked, arguments["channel_multiple"])

  first, *later = arguments["stage_channels"]
  names = _candidates(options, arguments["depth_choice"], widths)
  b = Builder(*arguments["image_shape"])
  b = b.conv(divisible(STEM), 3, stride=strides[0]).then(activation)
  parts: dict[str, Layer | Block] = {"stem": b.block()}
  own = block(b.shape, divisible(first), 1, 3, strides[1], "no", activation)
  # MobileNetV2's rule: what keeps its shape has a residual.
  links = [
    factorised.fixed("stem", parts["stem"]),
    factorised.fixed("first", own, own.output == b.shape),
  ]
  parts["first"] = own
  height, width, channels = own.output
  before, inputs = None, (channels,)
  rows = dict.fromkeys(names, 0)
  places: dict[str, dict] = {}

  def place(axis, found):
    if len(names[axis]) > 1:
      found[axis] = (axis, rows[axis])
    rows[axis] += 1

  for s, (channels, depth, stride) in enumerate(
    zip(later, arguments["stage_depths"][1:], strides[2:], strict=True)
  ):
    outputs = tuple(divisible(channels, w) for w in widths)
    for r in range(min(depth, arguments["cells"])):
      name, repeated = f"stage_{s + 1}_layer_{r}", r > 0
      optional = repeated and arguments["depth_choice"]
      parts[name] = Layer(
        height,
        width,
        outputs if repeated else inputs,
        outputs,
        1 if repeated else stride,
        repeated,
        optional,
        options,
      )
      found: dict[str, tuple[str, int]] = {}
      if len(widths) > 1:
        found["width"] = ("width", s)
        if not repeated and before is not None:
          found["width_in"] = ("width", before)
      if optional:
        place("depth", found)
      for axis in ("expansion", "kernel", "squeeze_excite", "activation"):
        place(axis, found)
      places[name] = found
      links.append(link(name, parts[name], found))
      if not repeated:
        height, width = -(-height // stride), -(-width // stride)
    before, inputs = s, outputs
  rows["width"] = len(later)
  last = rounded(arguments["head_channels"], arguments["channel_multiple"])
  heads = np.empty(len(inputs), object)
  for i, channels in enumerate(inputs):
    b = Builder(height, width, channels).conv(last)
    b = b.then(activation).then("global_average_pool")
    heads[i] = b.then("linear", arguments["num_classes"]).block()
  parts["head"] = heads[int(np.argmax(inputs))]
  several = len(inputs) > 1
  links.append(
    factorised.Link("head", (("width", before),), heads)
    if several
    else factorised.fixed("head", heads[0])
  )
  groups = {
    axis: Group(rows[axis], candidates)
    for axis, candidates in names.items()
    if len(candidates) > 1 and rows[axis]
  }
  if not groups:
    raise ValueError("mobilenet: there is nothing to choose")
  return MobileNetSpace(arguments, groups, parts, places, tuple(links))


def mobilenet(
  *,
  channels: int = STEM,
  cells: int = 4,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  expansions: tuple[int, ...] = (3, 4, 6),
  kernels: tuple[int, ...] = (3, 5, 7),
  squeeze_excite: tuple[str, ...] = ("no", "yes"),
  activations: tuple[str, ...] = ("relu", "hswish"),
  depth_choice: bool = True,
  widths: tuple[int, ...] = (100,),
  stage_channels: tuple[int, ...] = (16, 24, 32, 64, 96, 160, 320),
  stage_depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1),
  stage_strides: tuple[int, ...] = (),
  head_channels: int = 1280,
  activation: str = "relu6",
  shared_kernels: bool = False,
  channel_multiple: int = 8,
) -> MobileNetSpace:
  """The space of factorised inverted residuals.

  Args:
    channels: of the stem before rounding to `channel_multiple`; the stages
      scale with it, 32 is MobileNetV2 1.0.
    cells: most layers a stage.
    image_shape: height, width, channels.
    num_classes: classes.
    expansions: candidates, hidden over input channels.
    kernels: candidates, of the depthwise convolution.
    squeeze_excite: candidates, of "no" and "yes".
    activations: candidates, of "relu", "relu6" and "hswish".
    depth_choice: layers after a stage's first may be skipped.
    widths: candidates of each searched stage, in percent of its channels.
    stage_channels: of each stage; the first is one fixed layer.
    stage_depths: most layers of each stage, 1 of the first.
    stage_strides: of the stem and each stage; (): MobileNetV2's, the first of
      them left out where the image is small, see `strides_of`.
    head_channels: of the last convolution.
    activation: of what is not searched: relu6, relu or hswish.
    shared_kernels: smaller kernels are the centres of the largest instead of
      having weights of their own.
    channel_multiple: all channels are multiples of it, as a device's vectors
      want it; 8 is MobileNetV2's.

  Returns:
    The space; its groups are `width`, `depth`, `expansion`, `kernel`,
    `squeeze_excite` and `activation`, those of one candidate left out.

  Raises:
    ValueError: an argument out of range, an unknown name, lists that do not
      fit together, nothing to choose, or an image too small for the strides.
  """
  staged.check_image_shape(image_shape, 1, "mobilenet")
  if not stage_strides and len(stage_channels) + 1 == len(STRIDES):
    stage_strides = strides_of(image_shape)
  arguments = dict(
    channels=channels,
    cells=cells,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
    expansions=tuple(expansions),
    kernels=tuple(kernels),
    squeeze_excite=tuple(squeeze_excite),
    activations=tuple(activations),
    depth_choice=bool(depth_choice),
    widths=tuple(widths),
    stage_channels=tuple(stage_channels),
    stage_depths=tuple(stage_depths),
    stage_strides=tuple(stage_strides),
    head_channels=head_channels,
    activation=activation,
    shared_kernels=bool(shared_kernels),
    channel_multiple=channel_multiple,
  )
  check(arguments)
  staged.check_image_shape(
    image_shape, int(np.prod(arguments["stage_strides"])), "mobilenet"
  )
  return assembled(arguments)
