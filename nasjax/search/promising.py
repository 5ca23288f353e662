"""Which of many candidates to evaluate next, by what is predicted of them."""

from __future__ import annotations

import jax
import moocore
import numpy as np

from nasjax import pareto
from nasjax.search import nsga2
from nasjax.search.surrogate import Prediction
from nasjax.types import Key

__all__ = ["best", "choose", "violations"]

_CANDIDATES = 500  # whose expected improvement is worked out
_MARGIN = 0.1  # of the objectives' ranges: what is worst in one counts as well

_survivors = jax.jit(nsga2.survivors, static_argnames="keep")


def violations(guess: Prediction) -> np.ndarray:
  """f64[N], above 0 where limits are rather broken than kept."""
  return 0.5 - guess.feasible


def best(
  key: Key, values: np.ndarray, over: np.ndarray, size: int, keep: int
) -> np.ndarray:
  """The first of N points in the order of survival, see `nsga2.survivors`.

  Args:
    key: decides between equals; consumed.
    values: f64[N, M].
    over: f64[N], violations.
    size: to which the points are padded, so that it compiles once however many
      there are.
    keep: the most points that are given.

  Returns:
    i32[keep or N].
  """
  more = size - len(values)
  order = _survivors(
    key,
    np.pad(values, ((0, more), (0, 0))).astype(np.float32),
    np.pad(over, (0, more)).astype(np.float32),
    np.arange(size) < len(values),
    keep=keep,
  )
  return np.asarray(order)[: min(keep, len(values))]


def choose(
  key: Key,
  guess: Prediction,
  known: np.ndarray,
  over: np.ndarray,
  count: int,
  size: int,
) -> np.ndarray:
  """One after the other the point that is expected to add most hypervolume.

  Each is taken as if it turned out as predicted (the kriging believer of
  Ginsbourger et al. 2010, with `pareto.expected_improvement`).

  Args:
    key: decides between equals; consumed.
    guess: of N candidates.
    known: f64[E, M], objectives of the points evaluated.
    over: f64[E], their violations.
    count: the most points to choose.
    size: see `best`.

  Returns:
    i64[count or N], indices of candidates.
  """
  # Who would survive if it turned out better than expected.
  hoped = guess.mean - guess.deviation
  left = best(key, hoped, violations(guess), size, _CANDIDATES)
  kept = known[over <= 0] if (over <= 0).any() else known
  # What is best in one objective may be worse in others than all known, and
  # counts for nothing beyond the reference.
  likely = guess.mean[guess.feasible >= 0.5]
  worst = np.maximum(kept.max(0), likely.max(0, initial=-np.inf))
  reference = worst + _MARGIN * (worst - kept.min(0))
  front = kept[moocore.is_nondominated(kept, keep_weakly=False)]

  def gains(which):
    return guess.feasible[which] * pareto.expected_improvement(
      guess.mean[which], guess.deviation[which], front, reference
    )

  chosen, gain = [], gains(left)
  for _ in range(min(count, len(left))):
    most = int(gain.argmax())
    chosen.append(int(left[most]))
    believed = guess.mean[left[most]]
    left, gain = np.delete(left, most), np.delete(gain, most)
    # A point that the front covers changes no gain.
    if len(left) and not (front <= believed).all(-1).any():
      front = np.concatenate([front, believed[None]])
      gain = gains(left)
  return np.array(chosen, np.int64)
