"""What the kernels of each choice lose at few bits, as additive metrics.

They have gradients, and know nothing of activations: how the output of a whole
network changes is in `search.network_quantization`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.errors import InputError
from nasjax.hardware import quantization
from nasjax.spaces import edge_variables
from nasjax.types import Array, Metric


def candidate_errors(
  space: Any,
  params: Any,
  bits: int,
  *,
  per_channel: bool = True,
  batch_stats: Any = None,
) -> dict[str, Array]:
  """The mean squared relative error of each choice's kernels.

  Args:
    space: a space with a plan.
    params: of its supernet.
    bits: 2 to 16.
    per_channel: a step for each output channel.
    batch_stats: of its supernet: each kernel is taken with its normalisation
      folded in, as it is deployed; default: as it is. With one step a tensor
      that is where depthwise kernels lose (Nagel et al. 2019, section 3).

  Returns:
    f32[E, K] a group; 0 for candidates without kernels; differentiable in
    `params` where rounding is.

  Raises:
    InputError: the space has no plan.
  """
  return _candidate_means(
    space,
    params,
    lambda w: jnp.square(quantization.error(w, bits, per_channel=per_channel)),
    batch_stats,
  )


def error_metric(
  space: Any,
  params: Any,
  bits: int,
  *,
  per_channel: bool = True,
  batch_stats: Any = None,
) -> Metric:
  """`quantization_error`: the sum of the choices' errors, for these weights.

  Args:
    space: a space with a plan.
    params: of its supernet, after it was trained for a while.
    bits: 2 to 16.
    per_channel: a step for each output channel.
    batch_stats: as `candidate_errors` takes them.

  Returns:
    An additive metric without unit, an objective or a limit.

  Raises:
    InputError: the space has no plan.
  """
  return _of_weights(
    space,
    "quantization_error",
    candidate_errors(
      space, params, bits, per_channel=per_channel, batch_stats=batch_stats
    ),
    f"computed from the supernet's weights at {bits} bits, a step for each"
    f" {'channel' if per_channel else 'tensor'}",
  )


def asymmetry_metric(space: Any, params: Any) -> Metric:
  """`weight_asymmetry`: the sum of the choices' mean `asymmetry`.

  Args:
    space: a space with a plan.
    params: of its supernet, after it was trained for a while.

  Returns:
    An additive metric without unit, an objective or a limit.

  Raises:
    InputError: the space has no plan.
  """
  return _of_weights(
    space,
    "weight_asymmetry",
    _candidate_means(space, params, quantization.asymmetry),
    "computed from the supernet's weights",
  )


def _candidate_means(
  space, params, measure, batch_stats=None
) -> dict[str, Array]:
  """The mean of `measure(kernel)` over each choice's kernels, f32[E, K]."""
  if not hasattr(space, "plan"):
    raise InputError(
      f"space {space.name}", "has no plan: its candidates' weights are unknown"
    )
  plan = space.plan
  found: dict[str, list[list[list[Array]]]] = {
    name: [[[] for _ in group.candidates] for _ in range(group.edges)]
    for name, group in space.groups.items()
  }
  for s, stage in enumerate(plan.stages):
    cells, group_rows = found[plan.group_of(s)], plan.rows(s)
    # Statistics lie as parameters do, so that these stand in for them.
    stats = params if batch_stats is None else batch_stats
    own = {
      "params": params[f"stage_{s}"],
      "batch_stats": stats.get(f"stage_{s}", {}),
    }
    for r, e in np.ndindex(group_rows.shape):
      edge = edge_variables.of_edge(
        stage, jax.tree.map(lambda v, r=r: v[r], own), e
      )
      for k, name in enumerate(stage.edges[e]):
        folded = {} if batch_stats is None else edge["batch_stats"][name]
        cells[group_rows[r, e]][k] += [
          measure(w) for w in _kernels(edge["params"][name], folded)
        ]
  zero = jnp.float32(0)
  return {
    name: jnp.stack(
      [
        jnp.stack([jnp.mean(jnp.stack(c)) if c else zero for c in row])
        for row in cells
      ]
    )
    for name, cells in found.items()
  }


def _kernels(params: Mapping, stats: Mapping) -> list[Array]:
  """The kernels of a block; those with statistics have them folded in."""
  return [
    leaf * quantization.deployed_scale(path[-2].key, params, stats)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == "kernel"
  ]


def _of_weights(space, name, found, source) -> Metric:
  tables = {n: np.asarray(t, np.float64) for n, t in found.items()}
  kept = kept_edges.kept_sets(space)

  def expected(weights: Mapping[str, Array]) -> Array:
    weights = kept_edges.probabilities(weights, kept)
    return sum(
      jnp.sum(weights[n] * jnp.asarray(t, jnp.float32))
      for n, t in tables.items()
    )

  def exact(architecture) -> float:
    return sum(
      float(t[np.arange(len(t)), architecture.choices[n]].sum())
      for n, t in tables.items()
    )

  return Metric(name, "", None, expected, exact, True, source)
