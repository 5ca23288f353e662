"""The supernet of a plan: cells of a stage scanned with stacked parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.layers.blocks import Block
from nasjax.layers.mixed import mixed, run_block
from nasjax.spaces.plan import Plan
from nasjax.types import Array, Key, Sampled


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


def pick(variables: Mapping, name: str) -> dict:
  """One part's own {"params", "batch_stats"}."""
  return {c: variables[c][name] for c in ("params", "batch_stats")}


def apply(
  plan: Plan,
  variables: Mapping,
  sampled: Sampled,
  images: Array,
  train: bool,
  remat: bool | None = None,
) -> tuple[Array, dict]:
  """Runs the supernet.

  Args:
    plan: the space's plan.
    variables: as `init` makes them.
    sampled: weights f32[E, K] and paths of the plan's group.
    images: f32[B, H, W, C].
    train: use and update batch statistics.
    remat: gradients compute each cell anew instead of keeping its values;
      None: where that is faster.

  Returns:
    (logits f32[B, classes], new batch statistics).
  """
  weights = sampled.weights[plan.group]
  paths = None if sampled.paths is None else sampled.paths[plan.group]
  stats = dict(variables["batch_stats"])

  def fixed(name, x):
    y, stats[name] = run_block(
      plan.fixed[name], pick(variables, name), x, train
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
          pick(own, f"edge_{e}"),
          x,
          cell_weights[e],
          None if cell_paths is None else cell_paths[e],
          train,
        )
        return y

      def link(name, x):
        y, new[name] = run_block(part.links[name], pick(own, name), x, train)
        return y

      return plan.cell(x, edge, link), new

    cells = (
      pick(variables, name),
      weights[rows],
      None if paths is None else paths[rows],
    )
    # Cells in a loop would write what their gradients need to memory and read
    # it back; computing it anew is faster (edge, softmax: 0.93 against 1.22 s)
    # and takes a quarter of the memory. Sampled paths recompute already.
    if remat or (remat is None and part.repeats > 1 and paths is None):
      body = jax.checkpoint(body, prevent_cse=False)
    x, stats[name] = lax.scan(body, x, cells)
    return x

  logits = plan.trunk(images, fixed, stage)
  return logits, stats
