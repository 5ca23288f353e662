"""Mixed operations: all candidates weighted, or only the sampled ones.

`none` is a candidate without a block: it is never executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.hardware.workload import output_shape
from nasjax.layers import normalization, stacked
from nasjax.types import Array

if TYPE_CHECKING:  # blocks import the hardware, which imports this
  from nasjax.layers.blocks import Block

Candidates = Mapping[str, "Block | None"]


# Equal blocks on equal shapes are traced once, with their derivatives; tracing
# the supernet's update took longer than a short search.
@partial(jax.jit, static_argnums=(0, 3))
def run_block(
  block: Block, variables: Mapping, x: Array, train: bool
) -> tuple[Array, Mapping]:
  """Runs one block.

  Args:
    block: the block.
    variables: its {"params", "batch_stats"}.
    x: f32[B, H, W, C].
    train: use and return new batch statistics.

  Returns:
    (output, batch statistics).
  """
  stats = variables["batch_stats"]
  if not train or not stats:
    return block.apply(variables, x, train), stats
  y, new = block.apply(variables, x, train, mutable=["batch_stats"])
  return y, lax.stop_gradient(new["batch_stats"])


def _statistics(running: Mapping, moments: Mapping) -> dict:
  """Running statistics after a batch's mean and variance, by layer."""
  found = {
    name: {
      part: normalization.moved(running[name][part], new)
      for part, new in zip(("mean", "var"), own, strict=True)
    }
    for name, own in lax.stop_gradient(moments).items()
  }
  return {**running, **found}


def mixed(
  candidates: Candidates,
  variables: Mapping,
  x: Array,
  weights: Array,
  paths: Array | None,
  train: bool,
  in_loop: bool = False,
) -> tuple[Array, Mapping]:
  """One edge: its candidates applied to `x` and summed by weight.

  Args:
    candidates: name -> block, all of one output shape.
    variables: {"params", "batch_stats"}, each by candidate name.
    x: f32[B, H, W, C].
    weights: f32[K].
    paths: i32[P], the candidates executed; None: all.
    train: use and return new batch statistics.
    in_loop: several paths take turns in a loop, which compiles them once.

  Returns:
    (f32[B, H', W', C], new batch statistics).
  """
  if paths is None:
    return _all_paths(candidates, variables, x, weights, train)
  if in_loop and len(paths) > 1:
    return _paths_in_turn(candidates, variables, x, weights, paths, train)
  total, stats = 0.0, variables["batch_stats"]
  for column in range(paths.shape[0]):
    y, stats = _single_path(
      candidates, variables["params"], stats, x, weights, paths[column], train
    )
    total += y
  return total, stats


def scaled(weight, y):
  """`weight * y` in the type of `y`; the weight's gradient in its own."""
  return (weight * y.astype(weight.dtype)).astype(y.dtype)


def _paths_in_turn(candidates, variables, x, weights, paths, train):
  def turn(carry, path):
    total, stats = carry
    y, stats = _single_path(
      candidates, variables["params"], stats, x, weights, path, train
    )
    return (total + y, stats), None

  total = jnp.zeros(output_shape(candidates, x.shape), x.dtype)
  found, _ = lax.scan(turn, (total, variables["batch_stats"]), paths)
  return found


def _all_paths(candidates, variables, x, weights, train):
  total, stats = jnp.zeros(output_shape(candidates, x.shape), x.dtype), {}
  heads, last = _heads(candidates, train)
  for k, (name, block) in enumerate(heads.items()):
    own = {c: variables[c][name] for c in ("params", "batch_stats")}
    stats[name] = own["batch_stats"]
    if block is not None:
      y, stats[name] = run_block(block, own, x, train)
      if last[name]:
        y, found = _scaled_norm(y, weights[k])
        stats[name] = _statistics(stats[name], {last[name]: found})
      else:
        y = scaled(weights[k], y)
      total += y
  return total, stats


def _scaled_norm(y, weight):
  """Weight times y, normalised; (mean, variance) of y."""
  y, *found = stacked.scaled_norm(y, weight[None, None, None, None])
  return y, found


def _heads(candidates, train):
  """Candidates without the normalisation that ends them in training.

  After it stands the architecture weight; both together have one gradient, and
  where paths are sampled nothing of it need be computed anew.

  Returns:
    (blocks by name, the name of that normalisation or "").
  """
  last = {
    name: _last_norm(block) if train else ""
    for name, block in candidates.items()
  }
  heads = {
    name: _without_last_norm(block) if last[name] else block
    for name, block in candidates.items()
  }
  return heads, last


def shared(
  candidates: Candidates,
  variables: Mapping,
  x: Array,
  weights: Array,
) -> tuple[list[Array], dict]:
  """All paths of several edges that read one node, in training.

  What has no parameters gives all edges the same and runs once; what has runs
  for all of them together.

  Args:
    candidates: name -> block, of every edge.
    variables: {"params", "batch_stats"} by candidate name, leaves [E, ...].
    x: f32[B, H, W, C].
    weights: f32[E, K].

  Returns:
    (f32[B, H', W', C] of each edge, new batch statistics, leaves [E, ...]).
  """
  # Wide kernels give the edges' channels side by side. They stay so where
  # nothing needs an axis of edges: turning them around takes as long as adding.
  if all(
    stacked.is_wide(block)
    for name, block in candidates.items()
    if block is not None and variables["params"][name]
  ):
    return _side_by_side(candidates, variables, x, weights)
  parts, stats = [], {}
  for k, (name, block) in enumerate(candidates.items()):
    own = {c: variables[c][name] for c in ("params", "batch_stats")}
    stats[name] = own["batch_stats"]
    if block is not None:
      y, stats[name] = _shared(block, own, x, weights[:, k])
      parts.append(y)
  return list(stacked.split(sum(parts))), stats


def _side_by_side(candidates, variables, x, weights):
  """`shared` where all candidates with parameters are wide."""
  stats, wide, rest = dict(variables["batch_stats"]), [], []
  for k, (name, block) in enumerate(candidates.items()):
    own = {c: variables[c][name] for c in ("params", "batch_stats")}
    if block is not None and own["params"]:
      y, stats[name] = _wide(block, own, x, weights[:, k])
      wide.append(y)
    elif block is not None:
      y, stats[name] = _alike(block, own, x, weights)
      rest.append(stacked.scaled_each(y, weights[:, k]))
  if wide:
    rest.append(stacked.split_channels(sum(wide), len(weights)))
  return [sum(parts) for parts in zip(*rest, strict=True)], stats


def _wide(block, variables, x, weights):
  """One candidate, f32[B, H, W, E C], times its weights; new statistics."""
  y = stacked.wide(block, variables["params"], x)
  columns = jnp.repeat(weights, y.shape[-1] // len(weights))[None, None, None]
  norm = len(block.workloads) - 1
  if not block.workloads[norm].batch_norm:
    return scaled(columns, y), variables["batch_stats"]
  y, *found = stacked.scaled_norm(y, columns)
  return y, _statistics(variables["batch_stats"], {f"norm_{norm}": found})


def _alike(block, variables, x, weights):
  """A block without parameters, run once for all edges; new statistics."""
  return jax.vmap(
    lambda own: run_block(block, own, x, True),
    out_axes=(None, 0),
    axis_size=len(weights),
  )(variables)


def _shared(block, variables, x, weights):
  """One candidate of all edges, times its weights f32[E]; new statistics."""
  if not variables["params"]:
    y, stats = _alike(block, variables, x, weights)
    return stacked.scaled(y, weights), stats
  if not stacked.can_run(block):
    y, stats = jax.vmap(lambda own: run_block(block, own, x, True))(variables)
    return scaled(weights[:, None, None, None, None], y), stats
  y, moments = stacked.run(block, variables["params"], x)
  if block.workloads[-1].batch_norm:
    y, *found = stacked.scaled_norm(y, weights[:, None, None, None, None])
    moments[f"norm_{len(block.workloads) - 1}"] = found
  else:
    y = scaled(weights[:, None, None, None, None], y)
  return y, _statistics(variables["batch_stats"], moments)


def _single_path(candidates, params, stats, x, weights, index, train):
  """Executes candidate `index` alone, forwards and backwards."""
  heads, last = _heads(candidates, train)
  y, stats = _switch(heads, params, stats, x, index, train)
  if not any(last.values()):
    return scaled(weights[index], y), stats
  normed = jnp.array([bool(norm) for norm in last.values()])[index]
  normal, found = _scaled_norm(y, weights[index])
  y = jnp.where(normed, normal, scaled(weights[index], y))
  for k, (name, norm) in enumerate(last.items()):
    if norm:
      stats = {
        **stats,
        name: jax.tree.map(
          lambda new, old, k=k: jnp.where(index == k, new, old),
          _statistics(stats[name], {norm: found}),
          stats[name],
        ),
      }
  return y, stats


def _last_norm(block: Block | None) -> str:
  """The name of the normalisation that ends a block, if one without scale."""
  if block is None or block.affine or not block.workloads:
    return ""
  end = len(block.workloads) - 1
  return f"norm_{end}" if block.workloads[end].batch_norm else ""


def _without_last_norm(block: Block) -> Block:
  *first, last = block.workloads
  return block.clone(workloads=(*first, last._replace(batch_norm=False)))


def _switch(candidates, params, stats, x, index, train):
  """The output of candidate `index` and all batch statistics.

  `lax.switch` would keep the residuals of every branch for its gradient; here
  the backward pass switches again and recomputes within the one branch. What a
  branch has to say of its own parameters and statistics it says in one row:
  with each array of every candidate as a result of every branch a step takes a
  tenth longer (edge on 8x8 images), and its compilation as well.
  """
  names = tuple(candidates)
  stats_row, params_row = _Rows(stats, x.dtype), _Rows(params, x.dtype)

  def branch(k):
    name, block = names[k], candidates[names[k]]

    def forward(params, stats, x):
      if block is None:
        y = jnp.zeros(output_shape(candidates, x.shape), x.dtype)
        return y, stats_row.of({})
      own = {"params": params[name], "batch_stats": stats[name]}
      y, new = run_block(block, own, x, train)
      return y, stats_row.of(new)

    def backward(params, stats, x, g):
      if block is None:
        return params_row.of({}), jnp.zeros_like(x)

      def own(p, x):
        return forward({**params, name: p}, stats, x)[0]

      dp, dx = jax.vjp(own, params[name], x)[1](g)
      return params_row.of(dp), dx

    return forward, backward

  branches = [branch(k) for k in range(len(names))]

  @jax.custom_vjp
  def run(index, params, stats, x):
    y, row = lax.switch(index, [b[0] for b in branches], params, stats, x)
    return y, stats_row.read(row, names, index, stats)

  def run_backward(operands, cotangents):
    index, params, stats, x = operands
    row, of_x = lax.switch(
      index, [b[1] for b in branches], params, stats, x, cotangents[0]
    )
    zeros = jax.tree.map(jnp.zeros_like, params)
    return None, params_row.read(row, names, index, zeros), None, of_x

  run.defvjp(lambda *operands: (run(*operands), operands), run_backward)
  return run(index, params, stats, x)


class _Rows:
  """The arrays of any one candidate as a row of numbers, f32[R]."""

  def __init__(self, trees: Mapping, dtype):
    """For trees of arrays by candidate name; rows of the arrays' type."""
    leaves = jax.tree.leaves(trees)
    self._dtype = jnp.result_type(*leaves) if leaves else dtype
    self._length = max(_size(tree) for tree in trees.values())

  def of(self, tree) -> Array:
    """The row of one candidate's tree, 0 where it is longer."""
    leaves = [v.reshape(-1) for v in jax.tree.leaves(tree)]
    rest = jnp.zeros(self._length - _size(tree), self._dtype)
    return jnp.concatenate([*leaves, rest])

  def read(self, row: Array, names, index: Array, others: Mapping) -> dict:
    """All trees: candidate `index`'s from its row, the rest from `others`."""
    found = {}
    for k, name in enumerate(names):
      leaves, structure = jax.tree.flatten(others[name])
      ends, its = np.cumsum([0, *(v.size for v in leaves)]), index == k
      own = [
        lax.slice(row, [i], [j]).reshape(v.shape).astype(v.dtype)
        for i, j, v in zip(ends[:-1], ends[1:], leaves, strict=True)
      ]
      found[name] = structure.unflatten(
        lax.select(its, new, v) for new, v in zip(own, leaves, strict=True)
      )
    return found


def _size(tree) -> int:
  return sum(v.size for v in jax.tree.leaves(tree))
