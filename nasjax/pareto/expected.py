"""Expected hypervolume improvement: where to measure next, on a guess.

Exact for independent normal objectives: the volume that nothing dominates yet
is cut into boxes, and in each the expectation is a product over the objectives
(Yang et al., "Efficient computation of expected hypervolume improvement using
box decomposition algorithms", J. Global Optimization 2019, section 3).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

__all__ = ["expected_improvement", "free_boxes"]


def free_boxes(
  points: np.ndarray, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What no point dominates, below a reference, as disjoint boxes.

  Cut along the last objective, slice by slice: at most N + 1 boxes for two
  objectives, N^2 / 2 for three and so on.

  Args:
    points: f64[N, M], N >= 0.
    reference: f64[M].

  Returns:
    (lower corners f64[B, M], -inf where open, upper corners f64[B, M]).
  """
  points = np.asarray(points, np.float64).reshape(-1, len(reference))
  points = points[(points < reference).all(-1)]
  if points.shape[1] == 1:
    high = points[:, 0].min(initial=reference[0])
    return np.array([[-np.inf]]), np.array([[high]])
  last = points[:, -1]
  levels = np.concatenate([[-np.inf], np.unique(last), [reference[-1]]])
  lows, highs = [], []
  for low, high in zip(levels[:-1], levels[1:], strict=True):
    below = points[last <= low][:, :-1]
    found = free_boxes(below, reference[:-1])
    side = np.ones((len(found[0]), 1))
    lows.append(np.concatenate([found[0], low * side], -1))
    highs.append(np.concatenate([found[1], high * side], -1))
  return np.concatenate(lows), np.concatenate(highs)


def _room_below(bound, mean, deviation):
  """E[max(0, bound - z)] of z normal; bound f[1, B], the others f[N, 1]."""
  gap = np.where(np.isneginf(bound), 0.0, bound) - mean
  scaled = gap / deviation
  density = np.exp(-0.5 * scaled**2) / np.sqrt(2 * np.pi)
  found = gap * ndtr(scaled) + deviation * density
  return np.where(np.isneginf(bound), 0.0, found)


def expected_improvement(
  mean: np.ndarray,
  deviation: np.ndarray,
  points: np.ndarray,
  reference: np.ndarray,
) -> np.ndarray:
  """How much hypervolume each candidate is expected to add to a front.

  Args:
    mean: f64[N, M], what each candidate is predicted to have.
    deviation: f64[N, M], standard deviations, >= 0.
    points: f64[P, M], what is known.
    reference: f64[M], up to which volume counts.

  Returns:
    f64[N], in the product of the objectives' units.

  Raises:
    ValueError: shapes that do not fit, a negative deviation or a number that
      is not finite.
  """
  mean, deviation = np.asarray(mean, float), np.asarray(deviation, float)
  reference = np.asarray(reference, float)
  if mean.shape != deviation.shape or mean.shape[1:] != reference.shape:
    raise ValueError(
      f"expected_improvement: means {mean.shape}, deviations"
      f" {deviation.shape} and reference {reference.shape} must be [N, M],"
      " [N, M] and [M]"
    )
  for name, value in (("means", mean), ("reference", reference)):
    if not np.isfinite(value).all():
      raise ValueError(f"expected_improvement: {name} must be finite")
  if not (deviation >= 0).all():
    raise ValueError("expected_improvement: deviations must be 0 or more")
  lows, highs = free_boxes(points, reference)
  volume = np.ones((len(mean), len(lows)))
  for m in range(mean.shape[1]):
    # Corners repeat: each distinct one is worked out once.
    bounds, where = np.unique(
      np.stack([lows[:, m], highs[:, m]]), return_inverse=True
    )
    spread = np.maximum(deviation[:, m : m + 1], 1e-12)
    room = _room_below(bounds[None], mean[:, m : m + 1], spread)
    low, high = where.reshape(2, -1)
    volume *= room[:, high] - room[:, low]
  return volume.sum(-1)
