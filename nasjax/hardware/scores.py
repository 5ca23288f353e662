"""How far predictions are from what was measured, on rows held out."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import spearmanr

__all__ = ["Errors", "folds", "prediction_errors"]


class Errors(NamedTuple):
  """The errors of predictions; shares are 0 to 1."""

  rows: int
  within_5_percent: float
  within_10_percent: float
  rmse: float  # in the unit of the values
  spearman: float  # nan where either side is constant

  def __str__(self) -> str:
    """One line for a message."""
    return (
      f"within 5% {self.within_5_percent:.1%}, within 10%"
      f" {self.within_10_percent:.1%}, RMSE {self.rmse:.4g}, Spearman"
      f" {self.spearman:.4f} ({self.rows} rows not seen)"
    )


def prediction_errors(predicted, measured) -> Errors:
  """Compares predictions with measured values.

  Args:
    predicted: f[N].
    measured: f[N], in the same unit; "within 5%" is relative to these.

  Returns:
    The errors.

  Raises:
    ValueError: the shapes differ or there is no row.
  """
  predicted = np.asarray(predicted, np.float64)
  measured = np.asarray(measured, np.float64)
  if predicted.shape != measured.shape or predicted.ndim != 1:
    raise ValueError(f"shapes {predicted.shape} and {measured.shape} differ")
  if not len(measured):
    raise ValueError("no row was held out")
  off = np.abs(predicted - measured)
  constant = np.ptp(predicted) == 0 or np.ptp(measured) == 0
  return Errors(
    len(measured),
    float(np.mean(off <= 0.05 * np.abs(measured))),
    float(np.mean(off <= 0.10 * np.abs(measured))),
    float(np.sqrt(np.mean(off**2))),
    float("nan") if constant else float(spearmanr(predicted, measured)[0]),
  )


def folds(
  rows: int,
  count: int,
  seed: int = 0,
  alike: Sequence[Hashable] | None = None,
) -> Iterator[tuple]:
  """Cuts rows into `count` random parts of nearly equal size.

  Args:
    rows: N.
    count: parts, at most N.
    seed: of the permutation.
    alike: N values; rows with equal ones stay in one part. None: all differ.

  Yields:
    (the rows to learn from, the rows to test on), i64 each.
  """
  known: dict[Hashable, list[int]] = {}
  for row in range(rows):
    known.setdefault(row if alike is None else alike[row], []).append(row)
  groups = list(known.values())
  order = np.random.default_rng(seed).permutation(len(groups))
  parts = [
    np.array([row for i in part for row in groups[i]], np.int64)
    for part in np.array_split(order, min(count, len(groups)))
  ]
  for number, held in enumerate(parts):
    rest = [p for other, p in enumerate(parts) if other != number]
    yield np.concatenate(rest), held
