"""Where the variables of a stage's edges stand among the supernet's.

A stage that says which node each edge reads (`Stage.sources`) has them stacked,
those of one node side by side: `edges/CANDIDATE/LAYER`, [repeats, N, ...] for
the N edges whose candidate has any. So the edges of one node run together, and
neither they nor an optimiser have an array an edge to go through. Otherwise
they are `edge_E/CANDIDATE/LAYER`, [repeats, ...].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.layers.blocks import Block
from nasjax.spaces.plan import Stage

__all__ = ["of_edge", "of_nodes", "shapes"]

PARTS = ("params", "batch_stats")
_WITHOUT = {"params": {}, "batch_stats": {}}
_TRAINED = ("convolution", "depthwise", "linear", "batch_norm", "normalize")


def has_variables(block: Block | None) -> bool:
  """Whether a block has parameters or batch statistics."""
  return block is not None and any(
    w.batch_norm or w.kind in _TRAINED for w in block.workloads
  )


def edges_with(part: Stage, name: str) -> list[int]:
  """The edges whose candidate `name` has variables, as they are stacked."""
  found = [e for e, edge in enumerate(part.edges) if has_variables(edge[name])]
  return sorted(found, key=lambda e: (part.sources[e], e))


def shapes(part: Stage, of_block: Callable[[Block | None], Mapping]) -> dict:
  """The shapes of all edges' variables.

  Args:
    part: the stage.
    of_block: a block -> its {"params", "batch_stats"}, shapes.

  Returns:
    Entries of the stage's variables, each with {"params", "batch_stats"}.
  """

  def stacked(block, *axes):
    return jax.tree.map(
      lambda s: jax.ShapeDtypeStruct((*axes, *s.shape), s.dtype),
      of_block(block),
    )

  if not part.sources:
    return {
      f"edge_{e}": {n: stacked(b, part.repeats) for n, b in edge.items()}
      for e, edge in enumerate(part.edges)
    }
  found = {}
  for name in part.edges[0]:
    rows = edges_with(part, name)
    found[name] = _WITHOUT
    if rows:
      block = part.edges[rows[0]][name]
      found[name] = stacked(block, part.repeats, len(rows))
  return {"edges": found}


def of_edge(part: Stage, variables: Mapping, e: int) -> dict:
  """One edge's variables by candidate.

  Args:
    part: the stage.
    variables: {"params", "batch_stats"} of one of its cells.
    e: the edge.

  Returns:
    {"params", "batch_stats"}, each by candidate and layer.
  """
  if not part.sources:
    return {c: variables[c][f"edge_{e}"] for c in PARTS}
  found: dict[str, dict] = {c: {} for c in PARTS}
  for name, block in part.edges[e].items():
    for c in PARTS:
      found[c][name] = {}
      if has_variables(block):
        i = edges_with(part, name).index(e)
        own = variables[c]["edges"][name]
        found[c][name] = jax.tree.map(lambda v, i=i: v[i], own)
  return found


def of_nodes(part: Stage, variables: Mapping) -> dict[int, dict]:
  """The variables of the edges that read each node, stacked as they are.

  Args:
    part: a stage with `sources`.
    variables: {"params", "batch_stats"} of one of its cells.

  Returns:
    By node {"params", "batch_stats"}, each by candidate: leaves [n, ...].
  """
  nodes = sorted(set(part.sources))
  found: dict[int, dict] = {s: {c: {} for c in PARTS} for s in nodes}
  for name in part.edges[0]:
    counts = _counts(part, name)
    for c in PARTS:
      leaves, structure = jax.tree.flatten(variables[c]["edges"][name])
      pieces = [
        jnp.split(leaf, np.cumsum(list(counts.values()))[:-1])
        for leaf in leaves
      ]
      for s in nodes:
        found[s][c][name] = {}
      for i, s in enumerate(counts):
        own = [p[i] for p in pieces]
        found[s][c][name] = jax.tree.unflatten(structure, own)
  return found


def _counts(part: Stage, name: str) -> dict[int, int]:
  """How many edges of each node have variables of a candidate."""
  rows = [part.sources[e] for e in edges_with(part, name)]
  return {s: rows.count(s) for s in dict.fromkeys(rows)}


def join_nodes(
  part: Stage, statistics: Mapping[int, Mapping]
) -> dict[str, Any]:
  """Batch statistics by node, as `of_nodes` gives them, back in one piece."""
  found: dict[str, Any] = {}
  for name in part.edges[0]:
    own = [statistics[s][name] for s in _counts(part, name)]
    found[name] = (
      jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *own) if own else {}
    )
  return {"edges": found}
