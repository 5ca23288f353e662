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


def statistics(running: Mapping, moments: Mapping) -> dict:
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
  keep: bool = False,
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
    keep: a sampled path's gradient does not compute its last convolution anew.
      In a loop over cells writing its result and reading it back takes longer.

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
      candidates,
      variables["params"],
      stats,
      x,
      weights,
      paths[column],
      train,
      keep,
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
  for k, (name, block) in enumerate(candidates.items()):
    own = {c: variables[c][name] for c in ("params", "batch_stats")}
    stats[name] = own["batch_stats"]
    if block is not None:
      head = _head(block, train)
      y, stats[name], _ = _weighted(head, own, x, weights[k], train)
      total += y
  return total, stats


def _weighted(head, variables, x, weight, train, known=None):
  """One candidate times its weight.

  Args:
    head: of the candidate, see `_head`.
    variables: its own.
    x: f32[B, H, W, C].
    weight: f32[].
    train: use and return new batch statistics.
    known: what comes before that normalisation, if it need not be computed.

  Returns:
    (f32[B, H', W', C], new batch statistics, what comes before the
    normalisation or None).
  """
  block, norm = head
  y, stats = run_block(block, variables, x, train)
  if not norm:
    return scaled(weight, y), stats, None
  y = y if known is None else _known(y, known)
  z, found = _scaled_norm(y, weight)
  return z, statistics(stats, {norm: found}), y


@jax.custom_vjp
def _known(y, value):
  """`value`, which `y` is equal to; the gradient is that of `y`."""
  del y
  return value


_known.defvjp(
  lambda y, value: (value, None), lambda _, g: (g, jnp.zeros_like(g))
)


def _scaled_norm(y, weight):
  """Weight times y, normalised; (mean, variance) of y."""
  y, *found = stacked.scaled_norm(y, weight[None, None, None, None])
  return y, found


def _head(block: Block | None, train: bool) -> tuple[Block | None, str]:
  """A block without the normalisation that ends it in training.

  After it stands the architecture weight; both together have one gradient.

  Returns:
    (the block, the name of that normalisation or "": there is none, or it has a
    scale of its own).
  """
  if not train or block is None or block.affine or not block.workloads:
    return block, ""
  *first, last = block.workloads
  if not last.batch_norm:
    return block, ""
  without = (*first, last._replace(batch_norm=False))
  return block.clone(workloads=without), f"norm_{len(first)}"


def _single_path(
  candidates, params, stats, x, weights, index, train, keep=False
):
  """Candidate `index` alone, times its weight, and all batch statistics.

  `lax.switch` would keep the residuals of every branch for its gradient; here
  the backward pass switches again and recomputes within the one branch. What a
  branch has to say of its own parameters and statistics it says in one row:
  with each array of every candidate as a result of every branch a step takes a
  tenth longer (edge on 8x8 images), and its compilation as well. To `keep` is
  what a branch normalises last, alone.
  """
  keep = keep and train
  names = tuple(candidates)
  stats_row, params_row = _Rows(stats, x.dtype), _Rows(params, x.dtype)

  def zeros(x):
    return jnp.zeros(output_shape(candidates, x.shape), x.dtype)

  def branch(name):
    head = _head(candidates[name], train)

    def whole(own, stats, x, weight, known=None):
      variables = {"params": own, "batch_stats": stats[name]}
      return _weighted(head, variables, x, weight, train, known)

    def forward(params, stats, x, weight):
      y, new, known = zeros(x), {}, None
      if candidates[name] is not None:
        y, new, known = whole(params[name], stats, x, weight)
      known = zeros(x) if known is None else known
      return y, stats_row.of(new), known if keep else None

    def backward(params, stats, x, weight, known, g):
      if candidates[name] is None:
        return params_row.of({}), jnp.zeros_like(x), jnp.zeros_like(weight)

      def output(own, x, weight):
        return whole(own, stats, x, weight, known)[0]

      of_own, *rest = jax.vjp(output, params[name], x, weight)[1](g)
      return params_row.of(of_own), *rest

    return forward, backward

  forwards, backwards = zip(*map(branch, names), strict=True)

  def ahead(index, params, stats, x, weight):
    operands = (params, stats, x, weight)
    y, row, known = lax.switch(index, forwards, *operands)
    found = y, stats_row.read(row, names, index, stats)
    return found, (index, operands, known)

  @jax.custom_vjp
  def run(*operands):
    return ahead(*operands)[0]

  def back(residuals, cotangents):
    index, operands, known = residuals
    row, of_x, of_weight = lax.switch(
      index, backwards, *operands, known, cotangents[0]
    )
    others = jax.tree.map(jnp.zeros_like, operands[0])
    of_params = params_row.read(row, names, index, others)
    return None, of_params, None, of_x, of_weight

  run.defvjp(ahead, back)
  return run(index, params, stats, x, weights[index])


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
