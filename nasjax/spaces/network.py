"""The decided network of a plan, and how it inherits the supernet's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.hardware.workload import output_shape
from nasjax.layers.auxiliary import AuxiliaryHead
from nasjax.layers.blocks import Block
from nasjax.spaces import edge_variables
from nasjax.spaces.plan import Plan
from nasjax.spaces.space import Architecture
from nasjax.spaces.supernet import pick
from nasjax.types import Array


class Network(nn.Module):
  """A decided network; call with (images f32[B, H, W, C], train).

  Attributes:
    space: the space it comes from.
    choices: by group, the chosen candidate of each edge.
    drop_path: in training an edge that computes something is left out for an
      image with this probability, and scaled by 1 / (1 - drop_path) otherwise
      (needs an rng of that name); may be traced, 0.0 for none. What leaves its
      input as it is is kept, and so is the only way from a cell's input to its
      output: of a residual block that is a cell's one edge only what it adds
      is dropped.
    auxiliary: whether there is a second classifier, where the plan has a place
      for one; then its logits are returned too.
  """

  space: Any
  choices: Mapping[str, tuple[int, ...]]
  drop_path: Any = 0.0
  auxiliary: bool = False

  @nn.compact
  def __call__(self, images: Array, train: bool = False) -> Any:
    """Returns logits f32[B, classes], two of them with `auxiliary`."""
    plan, second = self.space.plan, []
    rate = self.drop_path
    dropping = not isinstance(rate, float) or rate > 0.0

    def run(block, name, x):
      if not block.workloads:
        return x
      return Block(block.workloads, block.saved, block.affine, name=name)(
        x, train
      )

    def stage(number, x):
      part, rows = plan.stages[number], plan.rows(number)
      chosen = self.choices[plan.group_of(number)]
      for r in range(part.repeats):
        cell = f"stage_{number}_cell_{r}"

        def edge(e, x, part=part, cell=cell, row=rows[r]):
          block = list(part.edges[e].values())[chosen[row[e]]]
          if block is None:
            return jnp.zeros(output_shape(part.edges[e], x.shape), x.dtype)
          y = run(block, f"{cell}_edge_{e}", x)
          if not (train and dropping and block.workloads):
            return y
          if len(part.edges) > 1:
            return self._drop(y)
          if block.workloads[-1].kind == "add" and not block.saved:
            return x + self._drop(y - x)
          return y

        def link(name, x, part=part, cell=cell, r=r):
          return run(part.link(r, name), part.link_name(cell, r, name), x)

        x = plan.cell(x, edge, link)
      if self.auxiliary and number == plan.auxiliary.stage:
        head = AuxiliaryHead(
          self.space.arguments["num_classes"], name="auxiliary"
        )
        second.append(head(plan.auxiliary.read(x), train))
      return x

    logits = plan.trunk(
      images, lambda name, x: run(plan.fixed[name], name, x), stage
    )
    return (logits, *second) if self.auxiliary else logits

  def _drop(self, y: Array) -> Array:
    keep = 1.0 - self.drop_path
    shape = (y.shape[0], 1, 1, 1)
    kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
    return jnp.where(kept, y / keep, 0.0).astype(y.dtype)


def extract(plan: Plan, variables: Mapping, architecture: Architecture) -> dict:
  """The supernet's weights as variables of the decided network.

  The supernet's cells normalise without scale and shift; the decided network
  starts with scale 1 and shift 0, so that both give the same outputs.
  """
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
    rows, choices = plan.rows(s), architecture.choices[plan.group_of(s)]
    for r in range(stage.repeats):
      own = jax.tree.map(lambda v, r=r: v[r], pick(variables, f"stage_{s}"))
      cell = f"stage_{s}_cell_{r}"
      for e, edge in enumerate(stage.edges):
        name, block = list(edge.items())[choices[rows[r, e]]]
        edges = edge_variables.of_edge(stage, own, e)
        put(
          f"{cell}_edge_{e}",
          block,
          {c: edges[c][name] for c in found},
        )
      for name in stage.links:
        called = stage.link_name(cell, r, name)
        inherited = pick(variables, called) if stage.uneven else pick(own, name)
        put(called, stage.link(r, name), inherited)
  return found
