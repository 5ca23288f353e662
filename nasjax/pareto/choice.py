"""Reading a finished front: trade-offs, knee, bands, and the choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

BANDS = ("low latency", "balanced", "accurate")


def _front(points: np.ndarray) -> np.ndarray:
  points = np.asarray(points, np.float64)
  if points.ndim != 2 or not len(points):
    raise ValueError(f"points {points.shape} must be [N, M] with N >= 1")
  if not np.isfinite(points).all():
    raise ValueError("points must be finite")
  return points


def _along(points: np.ndarray, by: int) -> np.ndarray:
  order = np.argsort(points[:, by], kind="stable")
  return points[order]


def slopes(points: np.ndarray, value: int, cost: int) -> np.ndarray:
  """What one unit of a cost buys along a front.

  Args:
    points: f64[N, M], minimised objectives of a front.
    value: the objective that is bought (error: points per ms; energy: mJ per
      ms).
    cost: the objective that is paid with.

  Returns:
    f64[N - 1]: d value / d cost between neighbours by ascending cost; below 0
    where paying more improves the value; infinite or NaN where the cost does
    not change.

  Raises:
    ValueError: points that are not finite or no matrix.
  """
  step = np.diff(_along(_front(points), cost), axis=0)
  with np.errstate(divide="ignore", invalid="ignore"):
    return step[:, value] / step[:, cost]


def trade_offs(points: np.ndarray, first: int, second: int) -> np.ndarray:
  """The relative exchange rate (df1 / f1) / (df2 / f2) along a front.

  Args:
    points: f64[N, M] of a front.
    first: index of f1.
    second: index of f2, by which the front is ordered.

  Returns:
    f64[N - 1]: between neighbours, relative to the size of the mean of both
    ends, so that it is the same read backwards, and of an f1 below 0, such as
    -accuracy; -2 says that 1 % more of f2 saves 2 % of f1. Infinite or NaN
    where f2 does not change or a mean is 0.

  Raises:
    ValueError: points that are not finite or no matrix.
  """
  ordered = _along(_front(points), second)
  middle = np.abs(ordered[1:] + ordered[:-1]) / 2
  with np.errstate(divide="ignore", invalid="ignore"):
    relative = np.diff(ordered, axis=0) / middle
    return relative[:, first] / relative[:, second]


def unit_range(points: np.ndarray) -> np.ndarray:
  """The points with each objective's range on 0..1; a constant one is 0.

  Args:
    points: f64[N, M].

  Returns:
    f64[N, M].

  Raises:
    ValueError: points that are not finite or no matrix.
  """
  points = _front(points)
  low, high = points.min(0), points.max(0)
  return (points - low) / np.where(high > low, high - low, 1.0)


def knee(points: np.ndarray) -> int:
  """The point that bulges out most towards the ideal.

  With each objective's range on 0..1, the one farthest from the plane through
  the unit points, in 2-D the line through both ends (Das 1999, "On
  characterizing the knee of the Pareto curve", section 3).

  Args:
    points: f64[N, M] of a front.

  Returns:
    Its index; of equal ones the first.

  Raises:
    ValueError: points that are not finite or no matrix.
  """
  return int(np.argmin(unit_range(points).sum(-1)))


def bands(points: np.ndarray, cost: int) -> dict[str, np.ndarray]:
  """Cuts a front into low latency, balanced and accurate thirds.

  Args:
    points: f64[N, M] of a front.
    cost: the objective along which it is cut.

  Returns:
    For each of `BANDS` the indices by ascending cost, as equal in number as
    can be; the cheap end gets what is left over. Ties stay together as the
    front gives them.

  Raises:
    ValueError: points that are not finite or no matrix.
  """
  order = np.argsort(_front(points)[:, cost], kind="stable")
  return dict(zip(BANDS, np.array_split(order, len(BANDS)), strict=True))


def choose(
  points: np.ndarray,
  limits: Mapping[int, float] | None = None,
  preference: Sequence[float] | None = None,
) -> int:
  """The point within the limits that suits a preference best.

  Args:
    points: f64[N, M], minimised objectives.
    limits: objective -> upper bound.
    preference: f64[M], how much each objective weighs, all >= 0; None: equal.

  Returns:
    The index of the least augmented Chebyshev distance (Steuer and Choo 1983,
    rho = 1e-3) from the ideal of those within the limits, each objective's
    range among them on 0..1. It is dominated by none of them.

  Raises:
    ValueError: no point is within the limits (says how near one comes), a
      limit of an objective that there is not, or a preference of another
      length, below 0 or all 0.
  """
  points = _front(points)
  size = points.shape[1]
  limits = limits or {}
  for index in limits:
    if not 0 <= index < size:
      raise ValueError(f"choose: a limit on objective {index} of {size}")
  weight = np.ones(size) if preference is None else np.asarray(preference)
  if weight.shape != (size,) or not (weight >= 0).all() or not weight.any():
    raise ValueError(
      f"choose: preference {weight} must be {size} numbers >= 0, not all 0"
    )
  over = np.zeros(len(points))
  for index, bound in limits.items():
    over = np.maximum(over, points[:, index] - bound)
  within = np.flatnonzero(over <= 0)
  if not len(within):
    nearest = points[int(over.argmin())]
    raise ValueError(
      "choose: no point is within the limits; the nearest has "
      + ", ".join(f"objective {i} = {nearest[i]:g}" for i in limits)
    )
  scaled = unit_range(points[within]) * weight
  # The sum over all objectives, also those of weight 0, settles ties.
  rest = unit_range(points[within]).sum(-1)
  distance = scaled.max(-1) + 1e-3 * scaled.sum(-1)
  order = np.lexsort((rest, distance))
  return int(within[order[0]])
