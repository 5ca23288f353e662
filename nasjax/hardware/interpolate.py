"""Costs of shapes between those measured, and which rows a space needs.

Costs are near to power laws of the sizes, so the logarithm of a cost is
interpolated linearly over the logarithms of height, width and channels: on the
Delaunay triangulation of the rows of the same kind, kernel, stride, dilation,
bits and batch. Nothing is extrapolated.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog

from nasjax.errors import InputError
from nasjax.hardware.table import Table
from nasjax.hardware.workload import Workload

EXACT, INTERPOLATED, MISSING = "exact", "interpolated", "missing"


class Coverage(NamedTuple):
  """Which of some workloads a table knows, each under one of three words."""

  exact: tuple[Workload, ...]
  interpolated: tuple[Workload, ...]
  missing: tuple[Workload, ...]

  def __str__(self) -> str:
    """Counts, for a message."""
    return (
      f"{len(self.exact)} exact, {len(self.interpolated)} interpolated,"
      f" {len(self.missing)} missing"
    )


def _family(work: Workload):
  # Every depthwise convolution has as many groups as channels.
  groups = 0 if work.kind == "depthwise" else work.groups
  return (
    work.kind,
    work.kernel,
    work.stride,
    work.dilation,
    groups,
    work.bits,
  )


def _point(work: Workload) -> np.ndarray:
  return np.log2([work.height, work.width, work.channels_in, work.channels_out])


def _weights(points: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
  """Barycentric weights of `wanted` in the Delaunay triangulation.

  Among all convex combinations of the points that give `wanted`, the one with
  the least sum of squared distances lies on the Delaunay simplex around it
  (the triangulation is the lower hull of the lifted points); as a linear
  programme it needs no points in general position.

  Args:
    points: f64[N, D].
    wanted: f64[D].

  Returns:
    f64[N], or None where `wanted` lies outside their hull.
  """
  away = points - wanted
  solved = linprog(
    (away**2).sum(1),
    A_eq=np.vstack([away.T, np.ones(len(points))]),
    b_eq=np.append(np.zeros(points.shape[1]), 1.0),
    bounds=(0, None),
  )
  return solved.x if solved.status == 0 else None


def cost(table: Table, work: Workload, column: str, batch: int = 1) -> float:
  """A workload's cost, interpolated where it was not measured.

  Args:
    table: the table.
    work: the workload.
    column: the cost.
    batch: images at once; not interpolated.

  Returns:
    The cost.

  Raises:
    InputError: it lies outside what was measured; names the workload.
  """
  work = work.key
  if (work, batch) in table.rows:
    return table.rows[work, batch][column]
  rows = [
    (_point(other), values[column])
    for (other, size), values in table.rows.items()
    if size == batch and _family(other) == _family(work)
    if values[column] > 0
  ]
  if rows:
    points = np.array([point for point, _ in rows])
    weights = _weights(points, _point(work))
    if weights is not None:
      return float(np.exp(weights @ np.log([value for _, value in rows])))
  raise InputError(
    table.source,
    f"has no row for {work} at batch {batch}, nor rows around it",
    "measure it: nasjax hw measure",
  )


def coverage(
  table: Table, workloads: Iterable[Workload], column: str, batch: int = 1
) -> Coverage:
  """Which workloads a table knows exactly, by interpolation, or not at all."""
  found: dict[str, list[Workload]] = {EXACT: [], INTERPOLATED: [], MISSING: []}
  for work in workloads:
    if (work.key, batch) in table.rows:
      found[EXACT].append(work.key)
      continue
    try:
      cost(table, work, column, batch)
      found[INTERPOLATED].append(work.key)
    except InputError:
      found[MISSING].append(work.key)
  return Coverage(*(tuple(found[k]) for k in (EXACT, INTERPOLATED, MISSING)))
