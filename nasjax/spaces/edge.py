"""Stacked cells over the operations that edge devices run well.

Every cell chooses for itself. Between the nodes of a cell stand links:

* `residual`: x -> activation(x + operation(x)); `none` leaves a node out.
* `linear_bottleneck`: thin maps without activation between the nodes, a 1x1
  convolution out of and into them around each operation (MobileNetV2).
* `dense`: each node reads the concatenation of all before it through a 1x1
  convolution (DenseNet); the concatenations are workloads.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from nasjax.errors import nearest
from nasjax.hardware.workload import Workload
from nasjax.layers import blocks
from nasjax.layers.blocks import Block, Builder
from nasjax.layers.mixed import Candidates
from nasjax.spaces import plan as plans
from nasjax.spaces import staged

__all__ = ["edge"]

LINKS = ("residual", "dense", "linear_bottleneck")


@dataclasses.dataclass(frozen=True)
class _Edge:
  """The arguments of `edge`, and the plan they make."""

  channels: int
  cells: int
  nodes: int
  stages: int
  image_shape: tuple[int, int, int]
  num_classes: int
  links: str
  activation: str
  expansion: int
  conv_groups: int
  block: str

  def plan(self) -> plans.Plan:
    """Stem, stages with separable reductions between them, head."""
    channels, act = self.channels, self.activation
    thin = self.links == "linear_bottleneck"

    def carried(builder, channels):
      """Ends a fixed block in what the nodes carry."""
      return builder.conv(channels // 2) if thin else builder

    b = Builder(*self.image_shape).conv(channels, 3).then(act)
    b = carried(b, channels)
    fixed: dict[str, Block] = {"stem": b.block()}
    stages = []
    for number in range(self.stages):
      if number:
        b = Builder(*b.shape)
        b = b.conv(channels).then(act) if thin else b
        channels *= 2
        b = blocks.separable(b, channels // (2 if thin else 1), act, stride=2)
        fixed[f"reduce_{number}"] = (b if thin else b.then(act)).block()
        b = Builder(*fixed[f"reduce_{number}"].output)
      stages.append(self._stage(*b.shape[:2], channels))
    b = Builder(*b.shape)
    b = b.conv(channels).then(act) if thin else b
    b = b.then("global_average_pool").then("linear", self.num_classes)
    fixed["head"] = b.block()
    edges, repeats = len(stages[0].edges), stages[0].repeats
    return plans.Plan(
      fixed,
      (),
      tuple(stages),
      self._trunk,
      self._cell,
      "nodes",
      lambda stage, repeat, node: (stage * repeats + repeat) * edges + node,
    )

  def _trunk(self, images, fixed, stage):
    x = fixed("stem", images)
    for number in range(self.stages):
      if number:
        x = fixed(f"reduce_{number}", x)
      x = stage(number, x)
    return fixed("head", x).reshape(images.shape[0], -1)

  def _stage(self, height, width, channels):
    """Where all nodes of a stage are equal, all are scanned as its cells."""
    shape, act = (height, width, channels), self.activation
    candidates = self._candidates(shape)

    def join(kind, channels):
      return Workload(kind, height, width, channels, channels)

    if self.links == "dense":
      numbers = range(1, self.nodes + 1)
      links = {
        f"transition_{n}": Builder(height, width, channels * (n + 1))
        .conv(channels)
        .then(act)
        .block()
        for n in numbers
      }
      joins = tuple(join("concat", channels * (n + 1)) for n in numbers)
      return plans.Stage(self.cells, (candidates,) * self.nodes, links, joins)
    if self.links == "residual":
      links = {"activate": Builder(*shape).then(act).block()}
      joins = (join("add", channels),)
    else:
      thin = channels // 2
      links = {
        "expand": Builder(height, width, thin).conv(channels).then(act).block(),
        "project": Builder(*shape).conv(thin).block(),
      }
      joins = (join("add", thin),)
    return plans.Stage(self.cells * self.nodes, (candidates,), links, joins)

  def _cell(self, x, edge, link):
    if self.links == "residual":
      return link("activate", x + edge(0, x))
    if self.links == "linear_bottleneck":
      return x + link("project", edge(0, link("expand", x)))
    nodes = [x, edge(0, x)]
    for n in range(1, self.nodes + 1):
      x = link(f"transition_{n}", jnp.concatenate(nodes, axis=-1))
      if n < self.nodes:
        nodes.append(edge(n, x))
    return x

  def _candidates(self, shape) -> Candidates:
    act, b, channels = self.activation, Builder(*shape), shape[2]
    pooled = b.then("global_average_pool").broadcast(*shape[:2])
    # The links add the input already, except dense ones.
    residual = self.links == "dense"
    if self.block == "inverted_residual":
      block = blocks.inverted_residual(shape, act, self.expansion, residual)
    else:
      block = blocks.platform_block(self.block, shape, act, residual)
    return {
      "none": None,
      "skip_connect": b.block(),
      "avg_pool_3x3": b.then("average_pool", kernel=3).block(),
      "max_pool_3x3": b.then("max_pool", kernel=3).block(),
      "adaptive_avg_pool": pooled.block(),
      "conv_1x1": b.conv(channels).block(),
      "group_conv_3x3": b.conv(channels, 3, groups=self.conv_groups).block(),
      "sep_conv_3x3": blocks.separable(b, channels, act).block(),
      "sep_conv_5x5": blocks.separable(
        b, channels, act, kernels=(3, 3)
      ).block(),
      "squeeze_excite": blocks.squeeze_excite(shape, act),
      "ghost": blocks.ghost(shape, act),
      self.block: block,
    }


def edge(
  *,
  channels: int = 16,
  cells: int = 1,
  nodes: int = 3,
  stages: int = 3,
  image_shape: tuple[int, int, int] = (28, 28, 1),
  num_classes: int = 10,
  links: str = "residual",
  activation: str = "relu6",
  expansion: int = 6,
  conv_groups: int = 4,
  block: str = "inverted_residual",
) -> staged.StagedSpace:
  """The space of edge operations.

  Args:
    channels: of the first stage; doubled at each reduction.
    cells: cells a stage.
    nodes: nodes a cell, each with a choice of its own.
    stages: stages, with a reduction by 2 between them.
    image_shape: height, width, channels.
    num_classes: classes.
    links: between nodes: residual, dense or linear_bottleneck.
    activation: relu6 (bounded, so it quantises well), hswish or relu.
    expansion: hidden over input channels of the inverted residual.
    conv_groups: groups of the group convolution.
    block: the last candidate: inverted_residual, or what a platform has in its
      place, see `blocks.platform_block`.

  Returns:
    The space.

  Raises:
    ValueError: an unknown name, an argument below 1, channels that do not
      divide into groups, or an image too small for the reductions.
  """
  staged.check_positive(
    "edge",
    channels=channels,
    cells=cells,
    nodes=nodes,
    stages=stages,
    num_classes=num_classes,
    expansion=expansion,
    conv_groups=conv_groups,
  )
  for field, value, known in (
    ("links", links, LINKS),
    ("activation", activation, blocks.ACTIVATIONS),
    ("block", block, ("inverted_residual", *blocks.PLATFORM_BLOCKS)),
  ):
    if value not in known:
      raise ValueError(f"edge: {field}={value!r}; {nearest(value, known)}")
  if conv_groups < 2 or channels % conv_groups or channels % 2:
    raise ValueError(
      f"edge: channels={channels} must be even and divide into"
      f" conv_groups={conv_groups} > 1 groups"
    )
  if block == "group_conv_3x3_groups_4" and channels % 4:
    raise ValueError(f"edge: channels={channels} do not divide into 4 groups")
  staged.check_image_shape(image_shape, 2 ** (stages - 1), "edge")
  arguments = _Edge(
    channels,
    cells,
    nodes,
    stages,
    tuple(image_shape),
    num_classes,
    links,
    activation,
    expansion,
    conv_groups,
    block,
  )
  return staged.StagedSpace(
    "edge", dataclasses.asdict(arguments), arguments.plan()
  )
