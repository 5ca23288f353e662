"""All paths of several edges that leave one node, in training."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from nasjax.layers import stacked
from nasjax.layers.mixed import Candidates, run_block, scaled, statistics
from nasjax.types import Array

__all__ = ["run"]


def run(
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
  """`run` where all candidates with parameters are wide."""
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
  return y, statistics(variables["batch_stats"], {f"norm_{norm}": found})


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
  return y, statistics(variables["batch_stats"], moments)
