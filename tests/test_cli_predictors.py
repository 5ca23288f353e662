"""What staged search expects: costs and limits exact, the rest learnt."""

import jax
import numpy as np
import pytest

from nasjax.cli import populations, predictors, search
from nasjax.cli.config import SearchConfig
from nasjax.search import genes as genetics
from nasjax.spaces.space import is_connected

BOUND = 20_000


@pytest.fixture(scope="module")
def problem(npz):
  return search.prepare(
    SearchConfig(
      strategy="staged",
      data=npz,
      space="nasbench201",
      channels=2,
      cells=1,
      limit=(f"macs={BOUND}",),
      objective=("cross_entropy", "params", "macs"),
    )
  )


def _guessed(problem, measured):
  """(genes, built, errors, a measurement, what is predicted) of 80 networks."""
  counts = genetics.cardinalities(problem.space)
  rng = np.random.default_rng(0)
  genes = rng.integers(counts, size=(80, len(counts))).astype(np.int32)
  built = [genetics.architecture(problem.space, g) for g in genes]
  errors = 0.2 + 0.05 * (genes == 0).sum(-1)
  costs = populations.costs(problem)
  taken = 1.0 + (genes == 3).sum(-1)
  values = np.column_stack(
    [errors]
    + [
      taken if m.name in measured else [m.exact(a) for a in built]
      for m in costs
    ]
  )
  violations = np.array([0.0 if is_connected(a) else 1.0 for a in built])
  if measured:
    violations = np.maximum(violations, taken / 2.0 - 1.0)
  predict = predictors.fit(
    problem, predictors.surrogate(problem, costs, measured)
  )(genes[:60], values[:60], violations[:60])
  return built, values, predict(genes)


def test_costs_and_limits_are_exact_and_errors_are_learnt(problem):
  built, values, guess = _guessed(problem, ())
  np.testing.assert_allclose(guess.mean[:, 1:], values[:, 1:], rtol=1e-6)
  assert (guess.deviation[:, 1:] == 0).all()
  assert (guess.deviation[:, 0] > 0).all()
  want = [
    is_connected(a) and problem.metrics["macs"].exact(a) <= BOUND for a in built
  ]
  assert 0 < sum(want) < len(want)
  np.testing.assert_array_equal(guess.feasible, np.array(want, float))
  new = slice(60, None)
  rank = np.corrcoef(guess.mean[new, 0], values[new, 0])[0, 1]
  assert rank > 0.8


def test_an_error_of_zero_is_taken(problem):
  genes = np.zeros((20, 6), np.int32)
  genes[:, 0] = np.arange(20) % 5
  values = np.column_stack([np.arange(20) / 40, np.ones((20, 2))])
  made = predictors.surrogate(problem, populations.costs(problem), ())
  guess = predictors.fit(problem, made)(genes, values, np.zeros(20))(genes)
  assert np.isfinite(guess.mean).all() and (guess.mean[:, 0] > 0).all()


def test_what_is_measured_is_learnt_too(problem):
  _, values, guess = _guessed(problem, ("macs",))
  column = 1 + [m.name for m in populations.costs(problem)].index("macs")
  assert (guess.deviation[:, column] > 0).all()
  new = slice(60, None)
  assert np.corrcoef(guess.mean[new, column], values[new, column])[0, 1] > 0.8
  # Whether a measured limit is kept is not known but probable.
  inside = (guess.feasible > 0) & (guess.feasible < 1)
  assert inside.any()


def test_gradients_see_what_is_predicted(problem):
  """At one-hot weights the same means; towards fewer macs more feasible."""
  counts = genetics.cardinalities(problem.space)
  rng = np.random.default_rng(1)
  genes = rng.integers(counts, size=(40, len(counts))).astype(np.int32)
  built = [genetics.architecture(problem.space, g) for g in genes]
  costs = populations.costs(problem)
  values = np.array(
    [
      [0.2 + 0.01 * g.sum(), *(m.exact(a) for m in costs)]
      for g, a in zip(genes, built, strict=True)
    ]
  )
  made = predictors.surrogate(problem, costs, ())
  choices = genetics.to_choices(problem.space, genes)
  state = made.fit(choices, values, np.zeros(40))
  hot = {
    n: np.stack([a.one_hot()[n] for a in built]).astype(np.float32)
    for n in problem.space.masks
  }
  mean, feasible = made.expected(state, hot)
  guess = made.predict(state, choices)
  np.testing.assert_allclose(mean, guess.mean, rtol=1e-3)
  macs = guess.mean[:, 1 + [m.name for m in costs].index("macs")]
  np.testing.assert_array_equal(np.asarray(feasible) >= 0.5, macs <= BOUND)
  slope = jax.grad(lambda w: made.expected(state, w)[1].sum())(hot)
  table = problem.costs["macs"].tables["cell"]
  dear, cheap = table.argmax(-1), table.argmin(-1)
  rows = np.arange(len(table))
  near = np.abs(macs / BOUND - 1) < 0.2
  assert near.any()
  assert (
    slope["cell"][near][:, rows, dear] < slope["cell"][near][:, rows, cheap]
  ).all()
