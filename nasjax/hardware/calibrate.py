"""What whole networks say about a table: its constant and fusion rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls
from scipy.stats import spearmanr

from nasjax.errors import InputError
from nasjax.hardware.table import Rules, Table
from nasjax.hardware.workload import SpaceWorkloads, Workload
from nasjax.layers.blocks import ACTIVATIONS

FEWEST = 10  # networks
# How sure the usual factors are against the networks: the variance of a
# relative error of 5% over that of factors that differ by 40%.
_PULL = 0.05**2 / 0.4**2


class Calibration(NamedTuple):
  """Rules, and how well they predict networks that they were not fitted to."""

  rules: Rules
  within_10_percent: float  # of the networks, each left out of its fit
  rmse_ms: float
  spearman: float

  def __str__(self) -> str:
    """For a header."""
    return (
      f"{self.within_10_percent:.0%} within 10%, RMSE {self.rmse_ms:.4g} ms,"
      f" Spearman {self.spearman:.3f}, each network left out of its own fit"
    )


def features(
  workloads: SpaceWorkloads,
  choices: Mapping[str, np.ndarray],
  cost: Any,
) -> dict[str, float]:
  """The latency of a network's workloads by what a rule could name.

  Args:
    workloads: of the space.
    choices: of the network.
    cost: one workload's latency alone, in ms.

  Returns:
    "after>kind" -> ms. An addition that a candidate's output goes to counts
    under that candidate's last kind.
  """
  found: dict[str, float] = {}

  def put(work: Workload, sign: float = 1.0):
    name = f"{work.after}>{work.kind}"
    found[name] = found.get(name, 0.0) + sign * cost(work)

  for work in workloads.fixed:
    put(work)
  for group, edges in workloads.groups.items():
    joins, shares = workloads.joins.get(group), workloads.shares(group)
    for edge, k in enumerate(choices[group]):
      for work in edges[edge][int(k)]:
        put(work)
      for work in joins[edge][int(k)] if joins else ():
        put(work, shares[edge])
        put(work._replace(after=""), -shares[edge])
  for product in workloads.products:
    for work in product.cells[tuple(choices[g][r] for g, r in product.choices)]:
      put(work)
  return found


def _usual(name: str) -> float:
  """What a factor is where nothing is known of the device.

  Runtimes fuse an activation into the convolution that it reads, and leave out
  an addition of zeros.
  """
  after, _, kind = name.partition(">")
  fused = kind in ACTIVATIONS and after in ("convolution", "depthwise")
  return 0.0 if fused or (after, kind) == ("none", "add") else 1.0


def _fit(matrix, times, usual):
  """Non-negative constant and factors with the least relative error.

  min sum_i ((A x - t)_i / t_i)^2 + _PULL sum_j (x_j - usual_j)^2, the
  constant free; a factor that the networks say little of stays as usual.
  """
  scaled, root = matrix / times[:, None], np.sqrt(_PULL)
  pull = root * np.eye(matrix.shape[1])[1:]
  return nnls(
    np.vstack([scaled, pull]), np.append(np.ones(len(times)), root * usual)
  )[0]


def _left_out(matrix, times, usual):
  found = np.empty(len(times))
  for i in range(len(times)):
    keep = np.arange(len(times)) != i
    found[i] = matrix[i] @ _fit(matrix[keep], times[keep], usual)
  return found


def calibrate(
  table: Table,
  workloads: SpaceWorkloads,
  networks: Sequence[tuple[Mapping[str, np.ndarray], float]],
  *,
  bits: int = 32,
  batch: int = 1,
) -> Calibration:
  """Fits a table's constant and fusion rules to whole networks.

  Args:
    table: the workloads' latencies.
    workloads: of the networks' space.
    networks: (choices, measured latency in ms).
    bits: of both.
    batch: of both.

  Returns:
    The calibration.

  Raises:
    InputError: too few networks, one without latency, or a workload that the
      table lacks.
  """
  if len(networks) < FEWEST:
    raise InputError(
      table.source,
      f"{len(networks)} whole networks, a calibration needs {FEWEST}",
      "nasjax hw measure --calibrate 30",
    )
  times = np.array([time for _, time in networks], np.float64)
  if times.min() <= 0:
    raise InputError(table.source, "a network's latency is 0")

  def cost(work):
    own = work._replace(bits=bits)
    return table.cost(own, "latency_ms", batch)

  rows = [features(workloads, choices, cost) for choices, _ in networks]
  names = sorted({name for row in rows for name in row})
  matrix = np.array(
    [[1.0, *(row.get(name, 0.0) for name in names)] for row in rows]
  )
  usual = np.array([_usual(name) for name in names])
  values = _fit(matrix, times, usual)
  found = _left_out(matrix, times, usual)
  rules = Rules(
    float(values[0]),
    {n: float(v) for n, v in zip(names, values[1:], strict=True)},
  )
  return Calibration(
    rules,
    float(np.mean(np.abs(found / times - 1) <= 0.1)),
    float(np.sqrt(np.mean((found - times) ** 2))),
    float(spearmanr(found, times)[0]),
  )


__all__ = ["Calibration", "calibrate", "features"]
