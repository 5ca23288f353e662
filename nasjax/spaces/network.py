"""The decided network of a plan, and how it inherits the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.layers.blocks import Block
from nasjax.spaces.plan import Plan
from nasjax.spaces.space import Architecture
from nasjax.spaces.supernet import pick
from nasjax.types import Array


class Network(nn.Module):
  """A decided network; call with (images f32[B, H, W, C], train).

  Attributes:
    space: the space it comes from.
    choices: the chosen candidate of each edge.
    drop_path: in training an edge that computes something is left out for an
      image with this probability, and scaled by 1 / (1 - drop_path) otherwise
      (needs an rng of that name); may be traced, 0.0 for none.
  """

  space: Any
  choices: tuple[int, ...]
  drop_path: Any = 0.0

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
          block = list(part.edges[e].values())[self.choices[row[e]]]
          y = run(block, f"{cell}_edge_{e}", x)
          if train and block is not None and block.workloads:
            y = self._drop(y)
          return y

        def link(name, x, part=part, cell=cell):
          return run(part.links[name], f"{cell}_{name}", x)

        x = plan.cell(x, edge, link)
      return x

    return plan.trunk(
      images, lambda name, x: run(plan.fixed[name], name, x), stage
    )

  def _drop(self, y: Array) -> Array:
    if isinstance(self.drop_path, float) and not self.drop_path:
      return y
    keep = 1.0 - self.drop_path
    shape = (y.shape[0], 1, 1, 1)
    kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
    return jnp.where(kept, y / keep, 0.0).astype(y.dtype)


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
    put(name, block, pick(variables, name))
  for s, stage in enumerate(plan.stages):
    rows = plan.rows(s)
    for r in range(stage.repeats):
      own = jax.tree.map(lambda v, r=r: v[r], pick(variables, f"stage_{s}"))
      cell = f"stage_{s}_cell_{r}"
      for e, edge in enumerate(stage.edges):
        name, block = list(edge.items())[choices[rows[r, e]]]
        put(
          f"{cell}_edge_{e}",
          block,
          {c: own[c][f"edge_{e}"][name] for c in found},
        )
      for name, block in stage.links.items():
        put(f"{cell}_{name}", block, pick(own, name))
  return found
