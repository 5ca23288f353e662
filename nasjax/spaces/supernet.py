"""The machinery of staged spaces: equal cells in stages between fixed blocks.

A space describes its networks once, as a `Plan`; from it come the supernet
(cells of a stage scanned with stacked parameters), the decided network as a
flax module, and the workloads of both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.hardware.workload import SpaceWorkloads, Workload
from nasjax.layers.blocks import Block
from nasjax.layers.mixed import Candidates, mixed, run_block
from nasjax.spaces.space import Architecture, Limit, decide
from nasjax.types import Array, Group, Key, Masks, Sampled, Weights


class Stage(NamedTuple):
  """`repeats` equal cells on one shape."""

  repeats: int
  edges: tuple[Candidates, ...]  # the candidates of each edge of a cell
  links: Mapping[str, Block]  # fixed blocks of each cell
  joins: tuple[Workload, ...]  # additions, concatenations of each cell


class Plan(NamedTuple):
  """How a space's networks are put together.

  Attributes:
    fixed: blocks that every network has once.
    joins: workloads between them.
    stages: the stages.
    trunk: (images, fixed, stage) -> logits, with fixed(name, x) and
      stage(number, x) running the parts.
    cell: (x, edge, link) -> x, with edge(number, x) and link(name, x).
    group: the choice group's name.
    place: (stage, repeat, edge) -> the edge's row in the group; may be the
      same for several where cells share their choices.
  """

  fixed: Mapping[str, Block]
  joins: tuple[Workload, ...]
  stages: tuple[Stage, ...]
  trunk: Callable[..., Array]
  cell: Callable[..., Array]
  group: str
  place: Callable[[int, int, int], int]

  def rows(self, stage: int) -> np.ndarray:
    """i32[repeats, edges]: where a stage's choices stand in the group."""
    s = self.stages[stage]
    return np.array(
      [
        [self.place(stage, r, e) for e in range(len(s.edges))]
        for r in range(s.repeats)
      ],
      np.int32,
    )


def _without_affine(block: Block | None) -> Block | None:
  return None if block is None else block.clone(affine=False)


def _shapes(block: Block | None) -> dict:
  """Shapes of one block's variables."""
  if block is None or not block.workloads:
    return {"params": {}, "batch_stats": {}}
  work = block.workloads[0]
  x = jax.ShapeDtypeStruct(
    (1, work.height, work.width, work.channels_in), jnp.float32
  )
  found = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False), x)
  return {part: found.get(part, {}) for part in ("params", "batch_stats")}


def init(plan: Plan, key: Key) -> dict:
  """Variables of the supernet; those of a stage's cells are stacked.

  Kernels are He-normal (He et al. 2015). One draw for all of them: compiling
  each block's own initialisation took longer than a short search.
  """
  trees: dict[str, Any] = {
    name: _shapes(block) for name, block in plan.fixed.items()
  }

  def stacked(block, repeats):
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct((repeats, *s.shape), s.dtype),
      _shapes(block),
    )

  for s, stage in enumerate(plan.stages):
    parts: dict[str, Any] = {
      f"edge_{e}": {
        name: stacked(_without_affine(block), stage.repeats)
        for name, block in edge.items()
      }
      for e, edge in enumerate(stage.edges)
    }
    for name, block in stage.links.items():
      parts[name] = stacked(block, stage.repeats)
    trees[f"stage_{s}"] = parts
  shapes = _transpose(trees)
  leaves, structure = jax.tree_util.tree_flatten_with_path(shapes)
  sizes = [s.size if _name(p) == "kernel" else 0 for p, s in leaves]
  noise = jnp.split(
    jax.random.normal(key, (sum(sizes),)), np.cumsum(sizes)[:-1]
  )

  def value(path, shape, draw):
    name = _name(path)
    if name == "kernel":
      stack = 1 if path[1].key.startswith("stage_") else 0
      fan_in = int(np.prod(shape.shape[stack:-1]))
      return draw.reshape(shape.shape) * (2.0 / fan_in) ** 0.5
    fill = 1.0 if name in ("scale", "var") else 0.0
    return jnp.full(shape.shape, fill, shape.dtype)

  values = [value(p, s, n) for (p, s), n in zip(leaves, noise, strict=True)]
  return jax.tree.unflatten(structure, values)


def _name(path) -> str:
  return path[-1].key


def _transpose(trees):
  """{name: {"params", "batch_stats"}} -> {"params": {name: ..}, ..}."""

  def leaf(tree):
    return isinstance(tree, dict) and set(tree) == {"params", "batch_stats"}

  return {
    part: jax.tree.map(lambda t, p=part: t[p], trees, is_leaf=leaf)
    for part in ("params", "batch_stats")
  }


def _pick(variables, name):
  return {c: variables[c][name] for c in ("params", "batch_stats")}


def apply(
  plan: Plan, variables: Mapping, sampled: Sampled, images: Array, train: bool
) -> tuple[Array, dict]:
  """Runs the supernet.

  Args:
    plan: the space's plan.
    variables: as `init` makes them.
    sampled: weights f32[E, K] and paths of the plan's group.
    images: f32[B, H, W, C].
    train: use and update batch statistics.

  Returns:
    (logits f32[B, classes], new batch statistics).
  """
  weights = sampled.weights[plan.group]
  paths = None if sampled.paths is None else sampled.paths[plan.group]
  stats = dict(variables["batch_stats"])

  def fixed(name, x):
    y, stats[name] = run_block(
      plan.fixed[name], _pick(variables, name), x, train
    )
    return y

  def stage(number, x):
    name, part = f"stage_{number}", plan.stages[number]
    rows = plan.rows(number)
    edges = [
      {c: _without_affine(b) for c, b in edge.items()} for edge in part.edges
    ]

    def body(x, cell):
      own, cell_weights, cell_paths = cell
      new = dict(own["batch_stats"])

      def edge(e, x):
        y, new[f"edge_{e}"] = mixed(
          edges[e],
          _pick(own, f"edge_{e}"),
          x,
          cell_weights[e],
          None if cell_paths is None else cell_paths[e],
          train,
        )
        return y

      def link(name, x):
        y, new[name] = run_block(part.links[name], _pick(own, name), x, train)
        return y

      return plan.cell(x, edge, link), new

    cells = (
      _pick(variables, name),
      weights[rows],
      None if paths is None else paths[rows],
    )
    x, stats[name] = lax.scan(body, x, cells)
    return x

  logits = plan.trunk(images, fixed, stage)
  return logits, stats


class Network(nn.Module):
  """A decided network; call with (images f32[B, H, W, C], train).

  Attributes:
    space: the space it comes from.
    choices: the chosen candidate of each edge.
  """

  space: Any
  choices: tuple[int, ...]

  @nn.compact
  def __call__(self, images: Array, train: bool = False) -> Array:
    """Returns logits f32[B, classes]."""
    plan = self.space.plan

    def run(block, name, x):
      if block is None:
        return jnp.zeros_like(x)
      if not block.workloads:
        return x
      return Block(block.workloads, block.saved, block.affine, name=name)(
        x, train
      )

    def stage(number, x):
      part, rows = plan.stages[number], plan.rows(number)
      for r in range(part.repeats):
        cell = f"stage_{number}_cell_{r}"

        def edge(e, x, part=part, cell=cell, row=rows[r]):
          blocks = list(part.edges[e].values())
          return run(blocks[self.choices[row[e]]], f"{cell}_edge_{e}", x)

        def link(name, x, part=part, cell=cell):
          return run(part.links[name], f"{cell}_{name}", x)

        x = plan.cell(x, edge, link)
      return x

    return plan.trunk(
      images, lambda name, x: run(plan.fixed[name], name, x), stage
    )


def extract(plan: Plan, variables: Mapping, architecture: Architecture) -> dict:
  """The supernet's weights as variables of the decided network.

  The supernet's cells normalise without scale and shift; the decided network
  starts with scale 1 and shift 0, so that both give the same outputs.
  """
  choices = architecture.choices[plan.group]
  found: dict[str, dict] = {"params": {}, "batch_stats": {}}

  def put(name, block, own):
    if block is None:
      return
    for part in found:
      if own[part]:
        found[part][name] = dict(own[part])
    for i, work in enumerate(block.workloads):
      if work.batch_norm and f"norm_{i}" not in own["params"]:
        channels = work.channels_out
        found["params"].setdefault(name, {})[f"norm_{i}"] = {
          "scale": jnp.ones(channels),
          "bias": jnp.zeros(channels),
        }

  for name, block in plan.fixed.items():
    put(name, block, _pick(variables, name))
  for s, stage in enumerate(plan.stages):
    rows = plan.rows(s)
    for r in range(stage.repeats):
      own = jax.tree.map(lambda v, r=r: v[r], _pick(variables, f"stage_{s}"))
      cell = f"stage_{s}_cell_{r}"
      for e, edge in enumerate(stage.edges):
        name, block = list(edge.items())[choices[rows[r, e]]]
        put(
          f"{cell}_edge_{e}",
          block,
          {c: own[c][f"edge_{e}"][name] for c in found},
        )
      for name, block in stage.links.items():
        put(f"{cell}_{name}", block, _pick(own, name))
  return found


def workloads(plan: Plan) -> SpaceWorkloads:
  """The workloads of a plan's networks, see `SpaceWorkloads`."""
  fixed = [*plan.joins]
  for block in plan.fixed.values():
    fixed += block.workloads
  size = 1 + max(int(plan.rows(s).max()) for s in range(len(plan.stages)))
  cells: list[list[list[Workload]]] = [[] for _ in range(size)]
  for s, stage in enumerate(plan.stages):
    for row in plan.rows(s):
      fixed += stage.joins
      for block in stage.links.values():
        fixed += block.workloads
      for e, edge in zip(row, stage.edges, strict=True):
        if not cells[e]:
          cells[e] = [[] for _ in edge]
        for k, block in enumerate(edge.values()):
          cells[e][k] += () if block is None else block.workloads
  return SpaceWorkloads(
    tuple(fixed),
    {plan.group: tuple(tuple(tuple(c) for c in row) for row in cells)},
  )


@dataclasses.dataclass(frozen=True, eq=False)
class StagedSpace:
  """A search space made of a plan; has all that `spaces.Space` asks for.

  Attributes:
    name: as the command line spells it.
    arguments: of its constructor, to make it again.
    plan: how its networks are put together.
    skip_names: candidates that compute nothing, `none` and skips.
  """

  name: str
  arguments: Mapping[str, Any]
  plan: Plan
  skip_names: tuple[str, ...] = ("none", "skip_connect")

  @property
  def groups(self) -> dict[str, Group]:
    """The plan's one choice group."""
    rows = [self.plan.rows(s).max() for s in range(len(self.plan.stages))]
    candidates = tuple(self.plan.stages[0].edges[0])
    return {self.plan.group: Group(1 + int(max(rows)), candidates)}

  @property
  def masks(self) -> Masks:
    """bool[E, K]: all candidates exist on all edges."""
    return {
      n: np.ones((g.edges, len(g.candidates)), bool)
      for n, g in self.groups.items()
    }

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K]: which candidates compute nothing."""
    return {
      n: np.tile([c in self.skip_names for c in g.candidates], (g.edges, 1))
      for n, g in self.groups.items()
    }

  def init(self, key: Key) -> dict:
    """Variables of the supernet; those of a stage's cells are stacked."""
    return init(self.plan, key)

  def apply(
    self, variables: Mapping, sampled: Sampled, images: Array, train: bool
  ) -> tuple[Array, dict]:
    """Runs the supernet: (logits f32[B, classes], new batch statistics)."""
    return apply(self.plan, variables, sampled, images, train)

  def build(self, architecture: Architecture) -> Network:
    """The decided network as a flax module, called with (images, train)."""
    choices = architecture.choices[self.plan.group]
    return Network(self, tuple(int(k) for k in choices))

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`."""
    return extract(self.plan, variables, architecture)

  def workloads(self) -> SpaceWorkloads:
    """Which workloads each choice stands for, and the fixed ones."""
    return workloads(self.plan)

  def decide(
    self, weights: Weights, limits: Sequence[Limit] = ()
  ) -> Architecture:
    """The most probable architecture within the limits, exactly."""
    return decide(self, weights, limits)


def check_image_shape(
  image_shape: tuple[int, int, int], stride: int, name: str
) -> None:
  """Refuses images that the strides would shrink to less than one pixel.

  Raises:
    ValueError: names the smallest size.
  """
  if len(image_shape) != 3 or any(int(n) < 1 for n in image_shape):
    raise ValueError(
      f"{name}: image_shape {image_shape} must be (height, width, channels)"
    )
  height, width, _ = image_shape
  if min(height, width) < stride:
    raise ValueError(
      f"{name}: image {height}x{width} is too small for strides of {stride};"
      f" at least {stride}x{stride} is needed"
    )


def check_positive(name: str, **numbers: int) -> None:
  """Refuses arguments below 1; raises ValueError naming the first."""
  for argument, value in numbers.items():
    if not isinstance(value, (int, np.integer)) or value < 1:
      raise ValueError(f"{name}: {argument}={value} must be an integer >= 1")
