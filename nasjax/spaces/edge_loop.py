"""Sampled paths of a cell's edges in one loop, so that they compile once.

Where paths are sampled each edge switches between its candidates. With a switch
an edge, forwards and backwards, a cell of DARTS has 14 times 8 candidates to
compile; but its edges have equal candidates, so one loop over them needs one
switch. Edges run in the order of the nodes that they read, in which their
variables are stacked: all that a node is the sum of comes before it is read.

The nodes are one array that the loop carries. Differentiated as they stand,
reading and adding would pass over all of it in each turn; `_read` and `_add`
say that their derivatives touch one node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.hardware.workload import output_shape
from nasjax.layers.mixed import Candidates
from nasjax.spaces import edge_variables
from nasjax.spaces.plan import Dag, Stage
from nasjax.types import Array

__all__ = ["can_run", "run"]

# (candidates, variables, x, weights f32[K], paths i32[P]) -> (y, statistics)
Edge = Callable[..., tuple[Array, Mapping]]


def _node(nodes: Array, number: Array) -> Array:
  return lax.dynamic_index_in_dim(nodes, number, keepdims=False)


def _added(nodes: Array, value: Array, number: Array) -> Array:
  own = _node(nodes, number) + value
  return lax.dynamic_update_index_in_dim(nodes, own, number, 0)


@jax.custom_vjp
def _read(nodes: Array, number: Array) -> tuple[Array, Array]:
  """The nodes as they are, and one of them."""
  return nodes, _node(nodes, number)


_read.defvjp(
  lambda nodes, number: (_read(nodes, number), number),
  lambda number, g: (_added(g[0], g[1], number), None),
)


@jax.custom_vjp
def _add(nodes: Array, value: Array, number: Array) -> Array:
  """The nodes with a value added to one of them."""
  return _added(nodes, value, number)


_add.defvjp(
  lambda nodes, value, number: (_added(nodes, value, number), number),
  lambda number, g: (g, _node(g, number), None),
)


def _runs(part: Stage, dag: Dag, alike: bool) -> list[list[int]]:
  """Edges that one loop can run: all, or those from the inputs and the rest."""
  # As their variables are stacked.
  order = sorted(range(len(part.edges)), key=lambda e: (part.sources[e], e))
  if alike:
    return [order]
  outer = [e for e in order if part.sources[e] < dag.inputs]
  return [found for found in (outer, order[len(outer) :]) if found]


def can_run(part: Stage, cell: Any) -> bool:
  """Whether `run` knows a stage: edges between nodes, with equal candidates.

  Edges from the inputs may have others than those from its own nodes.
  """
  return (
    isinstance(cell, Dag)
    and bool(part.sources)
    and all(
      part.edges[e] == part.edges[rows[0]]
      for rows in _runs(part, cell, False)
      for e in rows
    )
  )


def _stacked(part: Stage, own: Mapping, edges: Sequence[int]) -> dict:
  """Variables of some edges, leaves [n, ...], by candidate."""
  found: dict[str, dict] = {"params": {}, "batch_stats": {}}
  for name in part.edges[0]:
    rows = edge_variables.edges_with(part, name)
    places = [rows.index(e) for e in edges if e in rows]
    for kind in found:
      found[kind][name] = (
        jax.tree.map(
          lambda v, p=places: v[p[0] : p[-1] + 1], own[kind]["edges"][name]
        )
        if places
        else {}
      )
  return found


def run(
  part: Stage,
  dag: Dag,
  candidates: Sequence[Candidates],
  own: Mapping,
  weights: Array,
  paths: Array,
  inputs: Sequence[Array],
  edge: Edge,
) -> tuple[list[Array], dict[str, Any]]:
  """All edges of one cell.

  Args:
    part: the cell's stage; `can_run` knows it.
    dag: how its nodes are connected.
    candidates: of each edge, as the supernet runs them.
    own: variables of the cell.
    weights: f32[E, K].
    paths: i32[E, P].
    inputs: the nodes before its own, f32[B, H, W, C] each.
    edge: runs one edge.

  Returns:
    (its own nodes, new batch statistics of its edges).
  """
  count, first = dag.nodes, jnp.stack(inputs)
  shape = output_shape(candidates[0], first.shape[1:])
  if part.partial:  # what passes by is there too
    shape = (*shape[:3], first.shape[-1])
  alike = shape == first.shape[1:] and all(
    c == candidates[0] for c in candidates
  )
  nodes = jnp.zeros((count, *shape), first.dtype)
  if alike:
    first, nodes = first[:0], jnp.concatenate([first, nodes])
  shift = 0 if alike else dag.inputs
  pieces: list[Mapping] = []
  for rows in _runs(part, dag, alike):
    outer = not alike and part.sources[rows[0]] < dag.inputs

    def turn(carry, xs, outer=outer, e=rows[0]):
      variables, weights, paths, source, target = xs
      first, nodes = carry
      if outer:
        first, x = _read(first, source)
      else:
        nodes, x = _read(nodes, source)
      y, new = edge(candidates[e], variables, x, weights, paths)
      return (first, _add(nodes, y, target)), new

    place = np.array(rows)
    sources, targets = np.array([dag.ends[e] for e in rows]).T
    xs = (
      _stacked(part, own, rows),
      weights[place],
      paths[place],
      jnp.asarray(sources - (0 if outer else shift)),
      jnp.asarray(targets - shift),
    )
    (first, nodes), new = lax.scan(turn, (first, nodes), xs)
    pieces.append(new)
  statistics = {
    name: _joined([p[name] for p in pieces if p[name]])
    for name in part.edges[0]
  }
  return list(nodes[dag.inputs - shift :]), {"edges": statistics}


def _joined(pieces: Sequence[Mapping]) -> Mapping:
  if not pieces:
    return {}
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *pieces)
