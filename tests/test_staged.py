"""Staged search on a space whose objectives are known: sums of genes."""

import functools

import jax
import numpy as np
import pytest

from nasjax import pareto
from nasjax.search import staged
from nasjax.search.surrogate import Prediction

COUNTS = np.array([4] * 6, np.int32)
GAINS = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 1.0])


def objectives(genes):
  """Each gene lowers the first and raises the second, not at equal rates."""
  return np.stack([60.0 - genes @ GAINS, genes @ GAINS[::-1]], -1)


def fit(genes, values, violations):
  """Predictors that know the truth, as far as they are told of anything."""
  assert np.allclose(values, objectives(genes)) and not violations.any()

  def predict(genes):
    mean = objectives(genes)
    return Prediction(mean, np.full_like(mean, 0.1), np.ones(len(mean)))

  return predict


@functools.lru_cache
def made(samples, capacity, batch):
  return staged.staged(
    COUNTS,
    fit,
    objectives=2,
    samples=samples,
    capacity=capacity,
    batch=batch,
    screened=500,
    kept=40,
    generations=3,
  )


def search(*sizes, seed=0):
  evolution = made(*sizes)
  state, asked = evolution.init(jax.random.key(seed)), []
  for _ in range(20):
    points, state = evolution.ask(state)
    if not len(points):
      return asked
    asked.append(np.asarray(points))
    state = evolution.tell(state, points, objectives(asked[-1]))
  raise AssertionError("it does not end")


# 160 points are looked up at once: also where few are evaluated.
@pytest.mark.parametrize(
  ("samples", "capacity", "batch"), [(4, 10, 3), (20, 50, 15)]
)
def test_it_asks_unique_points_up_to_its_capacity(samples, capacity, batch):
  asked = search(samples, capacity, batch)
  assert [len(a) for a in asked] == [samples] + [batch] * (
    (capacity - samples) // batch
  )
  assert len(np.unique(np.concatenate(asked), axis=0)) == capacity


def test_true_predictors_lead_to_the_whole_front():
  every = np.stack(np.meshgrid(*[np.arange(4)] * 6), -1).reshape(-1, 6)
  truth = objectives(every)
  reference = truth.max(0)
  volume = pareto.hypervolume(truth, reference)
  found, chance = [], []
  # One seed in six misses it with predictors as true.
  for seed in range(8):
    asked = objectives(np.concatenate(search(20, 50, 15, seed=seed)))
    drawn = np.random.default_rng(seed).choice(truth, 50, replace=False)
    found.append(pareto.hypervolume(asked, reference))
    chance.append(pareto.hypervolume(drawn, reference))
  assert np.mean(found) >= 0.98 * volume
  assert np.mean(chance) < 0.9 * volume


def test_arguments_out_of_range_are_refused():
  for arguments, message in (
    ({"samples": 0}, "samples 0 must be at least 1"),
    ({"batch": 0}, "batch 0"),
    ({"samples": 20, "capacity": 10}, "samples 20 are more than capacity 10"),
  ):
    with pytest.raises(ValueError, match=message):
      staged.staged(COUNTS, fit, objectives=2, **arguments)
