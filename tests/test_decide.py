"""The decision against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasjax import constraints, spaces
from nasjax.errors import InputError
from nasjax.spaces.costs import additive_costs
from nasjax.spaces.decision import SMALLEST_WEIGHT
from nasjax.types import Group, Metric


class Toy:
  """A space of two groups with a closed candidate; decide needs no more."""

  name = "toy"
  groups = {"a": Group(2, ("x", "y", "z")), "b": Group(2, ("p", "q"))}
  masks = {
    "a": np.array([[True, True, True], [True, False, True]]),
    "b": np.ones((2, 2), bool),
  }
  cuts = {}


SPACE = Toy()


def every():
  a = [[0, 1, 2], [0, 2]]
  for first in itertools.product(*a):
    for second in itertools.product([0, 1], [0, 1]):
      yield {"a": np.array(first), "b": np.array(second)}


def metric_of(tables, constant, name="latency_ms"):
  def exact(architecture):
    return constant + sum(
      tables[n][np.arange(2), architecture.choices[n]].sum() for n in tables
    )

  return Metric(name, "ms", None, lambda w: None, exact)


def tables_of(rng, integers):
  draw = (
    (lambda shape: rng.integers(0, 5, shape).astype(float))
    if integers
    else (lambda shape: rng.random(shape))
  )
  return {"a": draw((2, 3)), "b": draw((2, 2))}


@given(
  seed=st.integers(0, 2**31),
  share=st.floats(0.0, 1.0),
  integers=st.booleans(),
  count=st.integers(0, 2),
)
@settings(max_examples=60)
def test_decide_equals_brute_force(seed, share, integers, count):
  """Integer costs put limits exactly on reachable values."""
  rng = np.random.default_rng(seed)
  weights = {
    n: np.where(m, rng.dirichlet(np.ones(m.shape[1]), 2), 0.0)
    for n, m in SPACE.masks.items()
  }
  metrics = [
    metric_of(tables_of(rng, integers), 1.0, f"metric_{i}")
    for i in range(count)
  ]
  anyone = [spaces.Architecture(SPACE, c) for c in every()]
  limits = []
  for metric in metrics:
    values = sorted(metric.exact(a) for a in anyone)
    limits.append((metric, values[int(share * (len(values) - 1))]))

  def score(architecture):
    return sum(
      np.log(np.maximum(weights[n][np.arange(2), c], SMALLEST_WEIGHT)).sum()
      for n, c in architecture.choices.items()
    )

  within = [
    a for a in anyone if all(m.exact(a) <= limit for m, limit in limits)
  ]
  if not within:
    with pytest.raises(InputError, match="nearest reachable"):
      spaces.decide(SPACE, weights, limits)
    return
  found = spaces.decide(SPACE, weights, limits)
  assert all(m.exact(found) <= limit for m, limit in limits)
  assert score(found) == pytest.approx(max(score(a) for a in within), abs=1e-5)


def test_infeasible_limit_names_the_smallest_value():
  metric = metric_of({"a": np.full((2, 3), 2.0), "b": np.eye(2)}, 1.0)
  uniform = {n: m / m.sum(-1, keepdims=True) for n, m in SPACE.masks.items()}
  with pytest.raises(InputError, match="smallest reachable value is.*=5 ms"):
    spaces.decide(SPACE, uniform, [constraints.at_most(metric, 4.9)])
  assert spaces.decide(SPACE, uniform, [(metric, 5.0)])


def test_metrics_that_are_not_additive_bound_all_the_same():
  metric = Metric(
    "peak",
    "B",
    None,
    lambda w: None,
    lambda a: float(np.prod(1 + a.choices["a"]) * np.prod(1 + a.choices["b"])),
  )
  uniform = {n: m / m.sum(-1, keepdims=True) for n, m in SPACE.masks.items()}
  with pytest.raises(ValueError, match="not additive"):
    additive_costs(SPACE, metric)
  found = spaces.decide(SPACE, uniform, [(metric, 3.0)])
  assert metric.exact(found) <= 3.0


def test_candidates_without_weight_still_serve_a_limit():
  metric = metric_of(
    {"a": np.array([[0, 9, 9], [0, 9, 9.0]]), "b": np.zeros((2, 2))}, 0.5
  )
  weights = {
    "a": np.array([[0, 1, 0], [0, 0, 1.0]]),
    "b": np.array([[1, 0], [0, 1.0]]),
  }
  found = spaces.decide(SPACE, weights, [(metric, 1.0)])
  np.testing.assert_array_equal(found.choices["a"], [0, 0])
  np.testing.assert_array_equal(found.choices["b"], [0, 1])
