"""The DARTS space (Liu, Simonyan and Yang, ICLR 2019): two kinds of cells.

Normal cells share one group of choices, reduction cells another. A cell reads
the outputs of the two cells before it, ReLU-convolution-normalised to its own
channels; each of its nodes sums what edges from all earlier nodes bring, and
the nodes are concatenated. The supernet has every edge; of a decided network
each node keeps two (the paper's section 2.4). At one third and two thirds of
the depth a reduction cell halves height and width and doubles the channels.

With partial channels (PC-DARTS, Xu et al. 2020) the supernet's operations see
a part of the channels, in time and memory less by about that, and
`relaxations.edge_normalized` weighs the edges. Networks can be trained with the
paper's auxiliary head (`training.Recipe.auxiliary`), which reads what the
second reduction gives.

The supernet normalises after pools, as the paper's search does, and so does a
decided network, without trained parameters; `pools="plain"` leaves that out of
both, as in the paper's evaluation network.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax.numpy as jnp

from nasjax.errors import nearest
from nasjax.hardware.workload import Workload
from nasjax.layers import blocks
from nasjax.layers.blocks import Block, Builder
from nasjax.layers.mixed import Candidates
from nasjax.spaces import plan as plans
from nasjax.spaces import staged

__all__ = ["darts"]

OPERATIONS = (
  "none",
  "max_pool_3x3",
  "avg_pool_3x3",
  "skip_connect",
  "sep_conv_3x3",
  "sep_conv_5x5",
  "dil_conv_3x3",
  "dil_conv_5x5",
)
INPUTS = 2  # nodes of a cell before its own
KEPT = 2  # edges into each node of a decided network
STEM = 3  # channels of the stem over those of the first cells
POOLS = ("normalized", "plain")


def edges(nodes: int) -> tuple[tuple[int, int], ...]:
  """(from, to) of a cell's edges, in the order of the logits' rows."""
  return tuple((i, INPUTS + j) for j in range(nodes) for i in range(INPUTS + j))


def kept_edges(nodes: int) -> plans.Kept:
  """The edges into each node, two of which a decided network keeps."""
  ends = edges(nodes)
  return tuple(
    (tuple(e for e, (_, to) in enumerate(ends) if to == INPUTS + j), KEPT)
    for j in range(nodes)
  )


def _candidates(shape, stride: int, normalized: bool) -> Candidates:
  b, channels = Builder(*shape), shape[2]

  def pool(kind):
    pooled = b.then(kind, kernel=3, stride=stride)
    return (pooled.then("normalize") if normalized else pooled).block()

  def separable(start, kernel, stride=1, dilation=1):
    start = start.then("relu").depthwise(
      kernel, stride=stride, dilation=dilation, batch_norm=False
    )
    return start.conv(channels)

  def twice(kernel):
    return separable(separable(b, kernel, stride), kernel).block()

  reduced = blocks.factorized_reduce(shape, channels)
  return {
    "none": None,
    "max_pool_3x3": pool("max_pool"),
    "avg_pool_3x3": pool("average_pool"),
    "skip_connect": (b if stride == 1 else reduced).block(),
    "sep_conv_3x3": twice(3),
    "sep_conv_5x5": twice(5),
    "dil_conv_3x3": separable(b, 3, stride, 2).block(),
    "dil_conv_5x5": separable(b, 5, stride, 2).block(),
  }


def _preprocess(shapes, channels: int) -> dict[str, Block]:
  """What a cell does to its two inputs of `shapes` first."""
  before, last = shapes
  b = Builder(*before)
  if before[:2] == last[:2]:
    b = b.then("relu").conv(channels)
  else:  # a reduction lies between them
    b = blocks.factorized_reduce(before, channels)
  pre1 = Builder(*last).then("relu").conv(channels)
  return {"pre0": b.block(), "pre1": pre1.block()}


def _halves(block: Block) -> bool:
  """Whether a link halves its input: a `factorized_reduce`.

  That is a 1x1 convolution of what is subsampled, with a kernel that is 0
  between the halves of the channels.
  """
  return block.workloads[1].kind == "subsample"


def _padded(x, channels: int):
  """Zeros up to `channels` along the last axis."""
  axis = x.ndim - 1
  return jnp.pad(x, [(0, 0)] * axis + [(0, channels - x.shape[axis])])


def _enter(x, first: Mapping[str, Block], channels: int):
  """A stage's input as the even links of its cells read it."""
  before, last = x
  before = blocks.subsample(before) if _halves(first["pre0"]) else before
  return _padded(before, channels), _padded(last, channels)


def _even(block: Block, even: Block, variables: Mapping) -> dict:
  """A cell's own link as the even one: its kernel with zeros around it."""
  layer = len(block.workloads) - 1
  kernel = variables["params"][f"convolution_{layer}"]["kernel"]
  if _halves(block):
    left, right = jnp.split(kernel, 2, axis=-1)
    upper = jnp.concatenate([left, jnp.zeros_like(right)], axis=-1)
    lower = jnp.concatenate([jnp.zeros_like(left), right], axis=-1)
    kernel = jnp.concatenate([upper, lower], axis=2)
  kernel = _padded(kernel.swapaxes(2, 3), even.workloads[1].channels_in)
  return {
    "params": {"convolution_1": {"kernel": kernel.swapaxes(2, 3)}},
    "batch_stats": {"norm_1": variables["batch_stats"][f"norm_{layer}"]},
  }


def _own_statistics(block: Block, statistics: Mapping) -> dict:
  """The batch statistics of a cell's own link."""
  return {f"norm_{len(block.workloads) - 1}": statistics["norm_1"]}


def _stage(
  first, repeats, shapes, channels, nodes, reduction, normalized, share
):
  """(`repeats` cells from number `first` on, shapes that the next cell reads).

  Args:
    first: number of the first cell.
    repeats: how many; 1 if it is a reduction.
    shapes: of the outputs of the two cells before it.
    channels: of its nodes.
    nodes: how many it has.
    reduction: whether it halves height and width.
    normalized: whether pools are normalised.
    share: channels over those that the supernet's operations see.
  """
  stride, entered, links = 2 if reduction else 1, shapes[1], []
  height, width = (-(-n // stride) for n in entered[:2])
  concat = nodes * channels
  for _ in range(repeats):
    links.append(_preprocess(shapes, channels))
    shapes = shapes[1], (height, width, concat)
  inner, ends = (height, width, channels), edges(nodes)

  def of_edges(channels):
    from_inputs = _candidates((*entered[:2], channels), stride, normalized)
    from_nodes = _candidates((height, width, channels), 1, normalized)
    return tuple(from_inputs if i < INPUTS else from_nodes for i, _ in ends)

  even = Builder(*entered[:2], concat).then("relu").conv(channels).block()
  stage = plans.Stage(
    repeats,
    of_edges(channels),
    {"pre0": even, "pre1": even},
    (
      *[Workload("add", *inner, channels)] * nodes,
      Workload("concat", height, width, concat, concat),
    ),
    "reduce" if reduction else "normal",
    tuple(i for i, _ in ends),
    plans.Uneven(
      first,
      tuple(links),
      partial(_enter, first=links[0], channels=concat),
      _even,
      _own_statistics,
    ),
    plans.Partial(share, of_edges(channels // share)) if share > 1 else None,
  )
  return stage, shapes


def _cell(nodes: int) -> plans.Dag:
  """What cells compute: (two before, one before) -> (one before, this one)."""
  return plans.Dag(
    INPUTS,
    edges(nodes),
    lambda x, link: [link("pre0", x[0]), link("pre1", x[1])],
    lambda x, own: (x[1], jnp.concatenate(own, axis=-1)),
  )


def _plan(
  channels, cells, nodes, image_shape, num_classes, pools, partial_channels
):
  """Stem, runs of normal cells with reductions between them, head."""
  b = Builder(*image_shape).conv(STEM * channels, 3)
  fixed: dict[str, Block] = {"stem": b.block()}
  reductions = (cells // 3, 2 * cells // 3)
  shapes, stages, first, last_reduction = (b.shape, b.shape), [], 0, 0
  while first < cells:
    reduction = first in reductions
    channels *= 2 if reduction else 1
    until = min(r for r in (*reductions, cells) if r > first)
    alone = reduction or (nodes < STEM and first < INPUTS)
    repeats = 1 if alone else until - first
    stage, shapes = _stage(
      first,
      repeats,
      shapes,
      channels,
      nodes,
      reduction,
      pools == POOLS[0],
      partial_channels,
    )
    stages.append(stage)
    last_reduction = len(stages) - 1 if reduction else last_reduction
    first += repeats
  b = Builder(*shapes[1]).then("global_average_pool")
  fixed["head"] = b.then("linear", num_classes).block()

  def trunk(images, fixed, stage):
    x = fixed("stem", images)
    x = (x, x)
    for number in range(len(stages)):
      x = stage(number, x)
    return fixed("head", x[1]).reshape(images.shape[0], -1)

  return plans.Plan(
    fixed,
    (),
    tuple(stages),
    trunk,
    _cell(nodes),
    "normal",
    lambda stage, repeat, edge: edge,
    kept={"normal": kept_edges(nodes), "reduce": kept_edges(nodes)},
    auxiliary=plans.Auxiliary(last_reduction, lambda x: x[1]),
  )


def darts(
  *,
  channels: int = 16,
  cells: int = 8,
  nodes: int = 4,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  pools: str = "normalized",
  partial_channels: int = 1,
) -> staged.StagedSpace:
  """The DARTS space.

  The paper searches with 16 channels and 8 cells, and trains what it finds
  with 36 channels and 20 cells.

  Args:
    channels: C, of the first cells' nodes; doubled at each reduction.
    cells: how many in all, at least 3; two of them are reductions.
    nodes: of a cell, besides its two inputs.
    image_shape: height, width, channels.
    num_classes: classes.
    pools: "normalized" or "plain", see the module.
    partial_channels: K, of which the supernet's operations see one part in K
      (PC-DARTS, Xu et al. 2020, has 4); 1: all. Decided networks have all, and
      do not inherit the supernet's weights where K is over 1.

  Returns:
    The space; its groups are `normal` and `reduce`.

  Raises:
    ValueError: an argument out of range, or an image too small for two strides.
  """
  staged.check_positive(
    "darts",
    channels=channels,
    cells=cells,
    nodes=nodes,
    num_classes=num_classes,
    partial_channels=partial_channels,
  )
  if channels % partial_channels:
    raise ValueError(
      f"darts: channels={channels} are no multiple of"
      f" partial_channels={partial_channels}"
    )
  if cells < 3:
    raise ValueError(
      f"darts: cells={cells} must be at least 3: two are reductions"
    )
  if pools not in POOLS:
    raise ValueError(f"darts: pools={pools!r}; {nearest(pools, POOLS)}")
  staged.check_image_shape(image_shape, 4, "darts")
  arguments = dict(
    channels=channels,
    cells=cells,
    nodes=nodes,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
    pools=pools,
    partial_channels=partial_channels,
  )
  return staged.StagedSpace("darts", arguments, _plan(**arguments))
