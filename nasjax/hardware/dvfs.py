"""Energy-delay products of networks that each run at their best frequency."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.errors import InputError
from nasjax.hardware import energy as energies
from nasjax.hardware.profile import Profile
from nasjax.types import Metric

__all__ = ["best_product"]


def best_product(
  space: Any, own: Profile, name: str, deadline_ms: float
) -> tuple[Metric, Callable]:
  """See `Device.dvfs`.

  Args:
    space: the space.
    own: the device's profile.
    name: of the device.
    deadline_ms: the longest time of one image.

  Returns:
    (metric `edp_mj_ms` in mJ ms, function from weights to the optimum).

  Raises:
    InputError: several choices of the space shape one layer.
  """
  works = space.workloads()
  if works.products:
    raise InputError(
      f"space {space.name}",
      "has layers that several choices shape together",
      "frequencies are chosen for spaces of single choices only",
    )
  distinct = works.distinct()
  place = {w: i for i, w in enumerate(distinct)}

  def counted(items):
    row = np.zeros(len(distinct), np.float32)
    for work in items:
      row[place[work.key]] += 1
    return row

  fixed = counted(works.fixed)
  counts = {
    group: np.array([[counted(cell) for cell in row] for row in edges])
    for group, edges in works.groups.items()
  }
  demand = energies.demand(distinct, own)

  def best(weights):
    weights = kept_edges.probabilities(weights, works.kept)
    total = jnp.asarray(fixed)
    for group, table in counts.items():
      total += jnp.einsum("ek,ekn->n", jnp.asarray(weights[group]), table)
    return energies.best_frequency(demand, total, own, 1e-3 * deadline_ms)

  # A search asks for thousands of networks, and may be traced around it.
  compiled = jax.jit(lambda weights: 1e6 * best(weights).edp_js)

  def exact(found):
    with jax.ensure_compile_time_eval():
      return float(compiled(found.one_hot()))

  metric = Metric(
    "edp_mj_ms",
    "mJ ms",
    name,
    lambda weights: 1e6 * best(weights).edp_js,
    exact,
    True,
    f"roofline and energy model of {name} at the best frequency within"
    f" {deadline_ms:g} ms ({own.source})",
    "other",
  )
  return metric, best
