"""NAS-Bench-201 (Dong and Yang, ICLR 2020): the benchmark's exact networks."""

from __future__ import annotations

import re

from nasjax.errors import InputError, nearest
from nasjax.hardware.workload import Workload
from nasjax.layers.barrier import computed_once
from nasjax.layers.blocks import Block, Builder
from nasjax.spaces import plan as plans
from nasjax.spaces import space as spaces
from nasjax.spaces import staged

__all__ = ["nasbench201"]

OPERATIONS = (
  "none",
  "skip_connect",
  "nor_conv_1x1",
  "nor_conv_3x3",
  "avg_pool_3x3",
)
_NODES = 4
# Edges in the order of the benchmark's string: into node 1, 2, 3.
EDGES = tuple((i, j) for j in range(1, _NODES) for i in range(j))
_STAGES = 3
# All edges that leave a set of nodes with the input and without the output.
_CUTS = tuple(
  tuple(e for e, (i, j) in enumerate(EDGES) if i in side and j not in side)
  for side in ({0}, {0, 1}, {0, 2}, {0, 1, 2})
)


def nasbench201(
  *,
  channels: int = 16,
  cells: int = 5,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
) -> staged.StagedSpace:
  """The NAS-Bench-201 space.

  Args:
    channels: C, of the stem; doubled at each of two reductions.
    cells: N, cells a stage.
    image_shape: height, width, channels.
    num_classes: classes.

  Returns:
    The space.

  Raises:
    ValueError: an argument below 1, or an image too small for two strides.
  """
  staged.check_positive(
    "nasbench201", channels=channels, cells=cells, num_classes=num_classes
  )
  staged.check_image_shape(image_shape, 2 ** (_STAGES - 1), "nasbench201")
  arguments = dict(
    channels=channels,
    cells=cells,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
  )
  return staged.StagedSpace(
    "nasbench201",
    arguments,
    _plan(**arguments),
    cut_edges=_CUTS,
    node_pairs=EDGES,
  )


def _plan(channels, cells, image_shape, num_classes):
  """Stem, three stages with residual blocks between them, head."""
  b = Builder(*image_shape).conv(channels, 3)
  fixed: dict[str, Block] = {"stem": b.block()}
  shape, joins, stages = b.shape, [], []
  for number in range(_STAGES):
    if number:
      channels *= 2
      b = Builder(*shape).then("relu").conv(channels, 3, stride=2)
      fixed[f"reduce_{number}"] = b.then("relu").conv(channels, 3).block()
      down = Builder(*shape).then("average_pool", kernel=2, stride=2)
      # The benchmark has no normalisation after this convolution.
      down = down.then("convolution", channels)
      fixed[f"shortcut_{number}"] = down.block()
      shape = down.shape
      joins.append(_addition(shape))
    stages.append(_stage(shape, cells))
  b = Builder(*shape).then("batch_norm").then("relu")
  b = b.then("global_average_pool").then("linear", num_classes)
  fixed["head"] = b.block()
  return plans.Plan(
    fixed,
    tuple(joins),
    tuple(stages),
    _trunk,
    _cell,
    "cell",
    lambda stage, repeat, edge: edge,
  )


def _addition(shape):
  return Workload("add", shape[0], shape[1], shape[2], shape[2])


def _stage(shape, repeats):
  b = Builder(*shape)
  candidates = {
    "none": None,
    "skip_connect": b.block(),
    "nor_conv_1x1": b.then("relu").conv(shape[2], 1).block(),
    "nor_conv_3x3": b.then("relu").conv(shape[2], 3).block(),
    "avg_pool_3x3": b.then("average_pool", kernel=3).block(),
  }
  additions = len(EDGES) - (_NODES - 1)
  return plans.Stage(
    repeats,
    (candidates,) * len(EDGES),
    {},
    (_addition(shape),) * additions,
    sources=tuple(i for i, _ in EDGES),
    targets=tuple(j for _, j in EDGES),
  )


def _trunk(images, fixed, stage):
  x = fixed("stem", images)
  for number in range(_STAGES):
    if number:
      x = fixed(f"reduce_{number}", x) + fixed(f"shortcut_{number}", x)
    x = stage(number, x)
  return fixed("head", x).reshape(images.shape[0], -1)


def _cell(x, edge, link):
  del link
  nodes = [x]
  for j in range(1, _NODES):
    node = sum(edge(e, nodes[i]) for e, (i, to) in enumerate(EDGES) if to == j)
    nodes.append(computed_once(node))
  return nodes[-1]


def parse(text: str) -> list[str]:
  """The six operations of the benchmark's string, in its order.

  Raises:
    InputError: names what is wrong and where.
  """
  where = "architecture string"
  nodes = text.strip().split("+")
  if len(nodes) != _NODES - 1:
    raise InputError(
      where,
      f"has {len(nodes)} nodes, {_NODES - 1} are needed",
      "write |op~0|+|op~0|op~1|+|op~0|op~1|op~2|",
    )
  operations = []
  for j, node in enumerate(nodes, start=1):
    found = re.fullmatch(r"\|(.+)\|", node)
    edges = found.group(1).split("|") if found else []
    if len(edges) != j:
      raise InputError(
        where, f"node {j} is {node[:60]!r}, {j} edges |op~input| are needed"
      )
    for i, edge in enumerate(edges):
      name, _, source = edge.partition("~")
      if name not in OPERATIONS:
        raise InputError(
          where,
          f"node {j}: unknown operation {name[:40]!r}",
          nearest(name, OPERATIONS),
        )
      if source != str(i):
        raise InputError(
          where, f"node {j}: edge {i} comes from {source[:20]!r}, not {i}"
        )
      operations.append(name)
  return operations


def from_string(space: staged.StagedSpace, text: str) -> spaces.Architecture:
  """The architecture of `space` that the benchmark's string names.

  Raises:
    InputError: names what is wrong and where.
  """
  return spaces.architecture(space, {"cell": parse(text)})


def to_string(architecture: spaces.Architecture) -> str:
  """The benchmark's string of an architecture of this space."""
  names = architecture.names()["cell"]
  nodes = []
  for j in range(1, _NODES):
    edges = [f"{names[e]}~{i}" for e, (i, to) in enumerate(EDGES) if to == j]
    nodes.append("|" + "|".join(edges) + "|")
  return "+".join(nodes)
