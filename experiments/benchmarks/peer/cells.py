"""Supernets in eager PyTorch, as the field's reference codes write them.

The same networks as nasjax's spaces of these names. Each takes images
[B, C, H, W], the weights of its groups ({group: [E, K]}) and, for gdas, the
sampled candidates ({group: E ints}); it returns class logits.
"""

from operations import (
  FactorizedReduce,
  Ghost,
  GlobalPool,
  Mixed,
  SqueezeExcite,
  Zero,
  act,
  avg_pool,
  block,
  conv,
  depthwise_separable,
  load,
  max_pool,
  norm,
  relu_conv_norm,
)
from torch import cat, nn

__all__ = ["NETWORKS", "Darts", "Edge", "NasBench201", "load"]


def _pick(indices, group, edge):
  return None if indices is None else indices[group][edge]


_SOURCES = [i for j in range(1, 4) for i in range(j)]


class _NasBench201Cell(nn.Module):
  """Four nodes, an edge between any two."""

  def __init__(self, channels):
    super().__init__()
    self.edges = nn.ModuleList(
      Mixed(
        {
          "none": Zero(),
          "skip_connect": nn.Identity(),
          "nor_conv_1x1": block(relu_conv_norm(channels, channels, 1)),
          "nor_conv_3x3": block(relu_conv_norm(channels, channels, 3)),
          "avg_pool_3x3": avg_pool(),
        }
      )
      for _ in range(6)
    )

  def forward(self, x, weights, indices):
    nodes, e = [x], 0
    for j in range(1, 4):
      inputs = []
      for i in range(j):
        index = _pick(indices, "cell", e)
        inputs.append(self.edges[e](nodes[i], weights["cell"][e], index))
        e += 1
      nodes.append(sum(inputs))
    return nodes[-1]


class _Residual(nn.Module):
  """NAS-Bench-201's reduction: two convolutions beside a pooled shortcut."""

  def __init__(self, c_in, c_out):
    super().__init__()
    self.body = block(
      relu_conv_norm(c_in, c_out, 3, 2, affine=True),
      relu_conv_norm(c_out, c_out, 3, affine=True, start=2),
    )
    pool = [("pool", nn.AvgPool2d(2, 2, ceil_mode=True))]
    self.shortcut = block(pool, conv(1, c_in, c_out))

  def forward(self, x):
    return self.body(x) + self.shortcut(x)


class NasBench201(nn.Module):
  """The NAS-Bench-201 supernet; all cells share one group of choices."""

  groups = {"cell": (6, 5)}

  def __init__(
    self, channels=16, cells=5, image_shape=(32, 32, 3), num_classes=10
  ):
    """Takes the arguments of nasjax's space."""
    super().__init__()
    self.stem = block(
      conv(0, image_shape[2], channels, 3), norm(0, channels, True)
    )
    widths = [channels, 2 * channels, 4 * channels]
    self.reductions = nn.ModuleList(
      _Residual(a, b) for a, b in zip(widths, widths[1:], strict=False)
    )
    self.stages = nn.ModuleList(
      nn.ModuleList(_NasBench201Cell(c) for _ in range(cells)) for c in widths
    )
    self.head = block(
      norm(0, widths[-1], True),
      act(1),
      [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())],
      [("linear_3", nn.Linear(widths[-1], num_classes))],
    )

  def forward(self, images, weights, indices=None):
    x = self.stem(images)
    for number, stage in enumerate(self.stages):
      if number:
        x = self.reductions[number - 1](x)
      for cell in stage:
        x = cell(x, weights, indices)
    return self.head(x)

  def blocks(self):
    """(name, repeat, module) of each block, see `load`."""
    yield "stem", None, self.stem
    yield "head", None, self.head
    for number, reduction in enumerate(self.reductions, start=1):
      yield f"reduce_{number}", None, reduction.body
      yield f"shortcut_{number}", None, reduction.shortcut
    for number, stage in enumerate(self.stages):
      for repeat, cell in enumerate(stage):
        for e, edge in enumerate(cell.edges):
          # nasjax stacks the edges that read one node.
          place = sorted(range(6), key=lambda e: _SOURCES[e]).index(e)
          own = edge.blocks(f"stage_{number}/edges", (repeat, place))
          yield from own


def _darts_edge(channels, stride):
  """The eight candidates of DARTS."""

  def pooled(pool):
    return block([("pool", pool)], norm(0, channels, False))

  def separable(kernel):
    return block(
      depthwise_separable(channels, kernel, stride),
      depthwise_separable(channels, kernel, start=3),
    )

  def dilated(kernel):
    return block(depthwise_separable(channels, kernel, stride, 2))

  skip = nn.Identity() if stride == 1 else FactorizedReduce(channels, channels)
  return Mixed(
    {
      "none": Zero(stride),
      "max_pool_3x3": pooled(max_pool(stride)),
      "avg_pool_3x3": pooled(avg_pool(stride)),
      "skip_connect": skip,
      "sep_conv_3x3": separable(3),
      "sep_conv_5x5": separable(5),
      "dil_conv_3x3": dilated(3),
      "dil_conv_5x5": dilated(5),
    }
  )


class _DartsCell(nn.Module):
  """Two inputs, `nodes` nodes that read all before them, concatenated."""

  def __init__(self, before, last, channels, nodes, reduction, reduced):
    super().__init__()
    self.group = "reduce" if reduction else "normal"
    self.nodes = nodes
    self.pre0 = (
      FactorizedReduce(before, channels)
      if reduced
      else block(relu_conv_norm(before, channels, 1))
    )
    self.pre1 = block(relu_conv_norm(last, channels, 1))
    self.edges = nn.ModuleList(
      _darts_edge(channels, 2 if reduction and i < 2 else 1)
      for j in range(nodes)
      for i in range(2 + j)
    )

  def place(self, edge, kind):
    """Where nasjax has an edge's parameters: those of one node together.

    Only the skips from the cell's inputs have any, in reduction cells.
    """
    sources = [i for j in range(self.nodes) for i in range(2 + j)]
    edges = sorted(range(len(sources)), key=lambda e: (sources[e], e))
    if kind is FactorizedReduce:
      edges = [e for e in edges if sources[e] < 2]
    return edges.index(edge)

  def forward(self, before, last, weights, indices):
    states, e = [self.pre0(before), self.pre1(last)], 0
    weights = weights[self.group]
    for _ in range(self.nodes):
      inputs = []
      for state in states:
        index = _pick(indices, self.group, e)
        inputs.append(self.edges[e](state, weights[e], index))
        e += 1
      states.append(sum(inputs))
    return cat(states[2:], dim=1)


class Darts(nn.Module):
  """The DARTS supernet, with the choices of normal and reduction cells."""

  groups = {"normal": (14, 8), "reduce": (14, 8)}

  def __init__(
    self, channels=16, cells=8, image_shape=(32, 32, 3), num_classes=10
  ):
    """Takes C of the first cells, and how many cells there are."""
    super().__init__()
    nodes, width = 4, 3 * channels
    self.stem = block(conv(0, image_shape[2], width, 3), norm(0, width, True))
    before, last, reduced = width, width, False
    self.cells = nn.ModuleList()
    for number in range(cells):
      reduction = number in (cells // 3, 2 * cells // 3)
      channels *= 2 if reduction else 1
      self.cells.append(
        _DartsCell(before, last, channels, nodes, reduction, reduced)
      )
      before, last, reduced = last, nodes * channels, reduction
    self.head = block(
      [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())],
      [("linear_1", nn.Linear(last, num_classes))],
    )

  def forward(self, images, weights, indices=None):
    before = last = self.stem(images)
    for cell in self.cells:
      before, last = last, cell(before, last, weights, indices)
    return self.head(last)

  def blocks(self):
    """(name, repeat, module) of each block, see `load`."""
    yield "stem", None, self.stem
    yield "head", None, self.head
    stage, repeat = 0, 0  # nasjax stacks the cells between reductions
    for number, cell in enumerate(self.cells):
      pair = {cell.group, self.cells[number - 1].group}
      if number and "reduce" in pair:
        stage, repeat = stage + 1, 0
      yield f"pre0_{number}", None, cell.pre0
      yield f"pre1_{number}", None, cell.pre1
      for e, edge in enumerate(cell.edges):
        for name, of, module in edge.blocks(f"stage_{stage}/edges", repeat):
          if any(True for _ in module.parameters()):
            yield name, (of, cell.place(e, type(module))), module
      repeat += 1


def _edge_node(c, expansion, conv_groups):
  """The twelve candidates of the edge space, without their own residual."""
  relu6, wide = nn.ReLU6, c * expansion

  def conv_norm(i, c_in, c_out, kernel=1, groups=1):
    return [
      *conv(i, c_in, c_out, kernel, groups=groups),
      *norm(i, c_out, False),
    ]

  def depthwise(i, c):
    return [*conv_norm(i, c, c, 3, c), *act(i + 1, relu6)]

  return Mixed(
    {
      "none": Zero(),
      "skip_connect": nn.Identity(),
      "avg_pool_3x3": avg_pool(),
      "max_pool_3x3": max_pool(),
      "adaptive_avg_pool": GlobalPool(),
      "conv_1x1": block(conv_norm(0, c, c)),
      "group_conv_3x3": block(conv_norm(0, c, c, 3, conv_groups)),
      "sep_conv_3x3": block(depthwise(0, c), conv_norm(2, c, c)),
      "sep_conv_5x5": block(
        depthwise(0, c), depthwise(2, c), conv_norm(4, c, c)
      ),
      "squeeze_excite": SqueezeExcite(c, relu6),
      "ghost": Ghost(c, relu6),
      "inverted_residual": block(
        conv_norm(0, c, wide),
        act(1, relu6),
        depthwise(2, wide),
        conv_norm(4, wide, c),
      ),
    }
  )


class Edge(nn.Module):
  """nasjax's edge supernet with residual links; each node has its choice."""

  def __init__(
    self,
    channels=16,
    cells=1,
    nodes=3,
    stages=3,
    image_shape=(28, 28, 1),
    num_classes=10,
    expansion=6,
    conv_groups=4,
  ):
    """Takes the arguments of nasjax's space; the activation is relu6."""
    super().__init__()
    relu6, c, self.per_stage = nn.ReLU6, channels, cells * nodes
    self.groups = {"nodes": (stages * self.per_stage, 12)}
    self.stem = block(
      conv(0, image_shape[2], c, 3), norm(0, c, True), act(1, relu6)
    )
    self.activation = relu6()
    self.reductions, self.stages = nn.ModuleList(), nn.ModuleList()
    for number in range(stages):
      if number:
        parts = [*conv(0, c, c, 3, stride=2, groups=c), *norm(0, c, True)]
        parts += [*act(1, relu6), *conv(2, c, 2 * c), *norm(2, 2 * c, True)]
        self.reductions.append(block(parts, act(3, relu6)))
        c *= 2
      self.stages.append(
        nn.ModuleList(
          _edge_node(c, expansion, conv_groups) for _ in range(self.per_stage)
        )
      )
    self.head = block(
      [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten())],
      [("linear_1", nn.Linear(c, num_classes))],
    )

  def forward(self, images, weights, indices=None):
    x, e = self.stem(images), 0
    for number, stage in enumerate(self.stages):
      if number:
        x = self.reductions[number - 1](x)
      for node in stage:
        index = _pick(indices, "nodes", e)
        x = self.activation(x + node(x, weights["nodes"][e], index))
        e += 1
    return self.head(x)

  def blocks(self):
    """(name, repeat, module) of each block, see `load`."""
    yield "stem", None, self.stem
    yield "head", None, self.head
    for number, reduction in enumerate(self.reductions, start=1):
      yield f"reduce_{number}", None, reduction
    for number, stage in enumerate(self.stages):
      for repeat, node in enumerate(stage):
        yield from node.blocks(f"stage_{number}/edge_0", repeat)


NETWORKS = {"nasbench201": NasBench201, "darts": Darts, "edge": Edge}
