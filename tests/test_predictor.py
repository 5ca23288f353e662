"""Predictors: features, Gaussian processes, workloads, transfer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor, kernels

from nasjax import (
  constraints,
  hardware,
  hypergradients,
  objectives,
  relaxations,
  spaces,
  weightings,
)
from nasjax import search as searches
from nasjax.hardware import (
  choices,
  features,
  fit,
  gaussian_process,
  predictor,
  transfer,
)
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_module

SPACE = spaces.nasbench201()
ENDS = choices.ends_of(SPACE)
GAUGE = fit.gauge_of(SPACE.groups)
TIES = fit.ties_of(SPACE)


def draw(seed, count):
  return space_module.random_choices(SPACE, np.random.default_rng(seed), count)


def device(seed, counted="every_edge", noise=0.0):
  """A made-up device: (table by operation, its latencies of choices)."""
  rng = np.random.default_rng(seed)
  costs = np.array([0.0, 0.2, 1.0, 3.0, 0.5]) * np.exp(0.3 * rng.normal(size=5))
  table = choices.ChoiceTable(
    "t.csv",
    {},
    "latency_ms",
    1.0,
    {"cell": np.tile(costs, (6, 1))},
    SPACE.groups,
    counted,
  )

  def measure(drawn):
    exact = table.of(drawn, ENDS)
    return exact * (1 + noise * rng.normal(size=exact.shape))

  return table, measure


def test_ways_through_the_cell():
  assert features.ways(ENDS["cell"]) == [(3,), (0, 4), (1, 5), (0, 2, 5)]


def test_features_count_what_they_say():
  made = features.make(SPACE.groups, ends=ENDS, costs=features.costs_of(SPACE))
  # Edge 0 -> 1 a 3x3, 1 -> 3 a skip, 0 -> 2 a 1x1 that leads nowhere.
  row = {"cell": np.array([[3, 2, 0, 0, 1, 0]])}
  found = made(choices.one_hot(row, SPACE.groups))[0]
  np.testing.assert_array_equal(found[30:35], [3, 1, 1, 1, 0])  # all edges
  np.testing.assert_array_equal(found[35:39], [1, 0, 1, 0])  # to the output
  np.testing.assert_array_equal(found[39:43], [1, 0, 1, 0])  # and reached
  np.testing.assert_array_equal(found[43:45], [1, 1])  # connected, one way
  same = made(
    {"cell": jnp.asarray(choices.one_hot(row, SPACE.groups)["cell"][0])}
  )
  np.testing.assert_allclose(same, found, rtol=1e-5)


def test_the_process_equals_scikit_learns():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(40, 3))
  y = np.sin(x[:, 0]) + x[:, 1] ** 2 + 0.1 * rng.normal(size=40)
  made = gaussian_process.fit(
    x, y, lengths=(1.0,), linear=(0.0,), noises=(0.1,)
  )
  scaled = (x - made.center) / made.scale
  # Distances here are means over the features.
  kernel = kernels.RBF(np.sqrt(3.0), "fixed")
  other = GaussianProcessRegressor(kernel, alpha=0.1, optimizer=None)
  other.fit(scaled, (y - y.mean()) / y.std())
  new = rng.normal(size=(7, 3))
  mean, deviation = other.predict(
    (new - made.center) / made.scale, return_std=True
  )
  ours = made.predict_with_deviation(new)
  np.testing.assert_allclose(ours[0], y.mean() + y.std() * mean, rtol=1e-8)
  np.testing.assert_allclose(
    ours[1], y.std() * deviation * np.sqrt(made.variance), rtol=1e-6
  )


@pytest.mark.parametrize("choosing", [5, 400])
def test_left_out_predictions_are_those_of_the_other_samples(
  monkeypatch, choosing
):
  monkeypatch.setattr(gaussian_process, "CHOOSING", choosing)
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(12, 2)), rng.normal(size=12)
  settings = dict(lengths=(2.0,), linear=(0.3,), noises=(0.1,))
  made = gaussian_process.fit(x, y, **settings)
  kernel = gaussian_process._kernel(made.inputs, made.inputs, 2.0, 0.3)
  z = (y - y.mean()) / y.std()
  for i in range(12):
    others = np.delete(np.arange(12), i)
    inner = kernel[np.ix_(others, others)] + 0.1 * np.eye(11)
    mean = kernel[i, others] @ np.linalg.solve(inner, z[others])
    assert made.left_out[i] == pytest.approx(y.mean() + y.std() * mean)


def test_an_architecture_predictor_sees_edges_that_lead_nowhere():
  _, measure = device(0, "reaching_output")
  seen, rest = draw(1, 150), draw(2, 400)
  made = predictor.architecture_predictor(SPACE, seen, measure(seen))
  predicted, spread = made.of(rest)
  found = np.corrcoef(predicted, measure(rest))[0, 1]
  assert found > 0.98 and (spread > 0).all()
  assert made.errors.rows == 150 and made.errors.spearman > 0.95
  for deviations in (0.0, 1.0):
    metric = made.metric("latency_ms", "ms", deviations=deviations)
    architecture = spaces.architecture(SPACE, {"cell": rest["cell"][0]})
    one_hot = {n: jnp.asarray(w) for n, w in architecture.one_hot().items()}
    exact = metric.exact(architecture)
    assert exact == pytest.approx(
      predicted[0] + deviations * spread[0], rel=1e-6
    )
    assert float(metric.expected(one_hot)) == pytest.approx(exact, rel=2e-3)
  weights = np.random.default_rng(0).dirichlet(np.ones(5), 6)
  metric = made.metric("latency_ms", "ms")
  gradient = jax.jit(jax.grad(metric.expected))(
    {"cell": jnp.asarray(weights, jnp.float32)}
  )["cell"]
  step = 1e-5
  for edge, k in ((0, 3), (2, 0), (5, 1)):
    moved = [weights.copy(), weights.copy()]
    moved[0][edge, k] += step
    moved[1][edge, k] -= step
    high, low = (
      made.process.predict(made.features({"cell": m})) for m in moved
    )
    slope = (high - low) / (2 * step)
    assert float(gradient[edge, k]) == pytest.approx(slope, rel=0.02, abs=0.02)


def test_an_accuracy_predictor_is_unsure_where_it_knows_nothing():
  _, measure = device(0)
  seen = {"cell": draw(0, 60)["cell"].copy()}
  seen["cell"][:, 3] = 1  # always a skip there
  made = predictor.accuracy_predictor(SPACE, seen, measure(seen))
  other = {"cell": seen["cell"].copy()}
  other["cell"][:, 3] = 3
  assert made.of(other)[1].mean() > 1.2 * made.of(seen)[1].mean()


def transferred(target, measure, sources, seed, count=10):
  rows = draw(100 + seed, count)
  return transfer.transfer(
    SPACE.groups,
    transfer.Samples(rows, measure(rows)),
    sources,
    ends=ENDS,
    ties=TIES,
    gauge=GAUGE,
  )


def test_other_devices_help_with_noisy_samples():
  known = draw(0, 300)
  sources = [
    transfer.Samples(known, device(s, noise=0.02)[1](known))
    for s in range(1, 8)
  ]
  rest, gains = draw(9, 500), []
  for seed in range(16):
    table, measure = device(20 + seed, noise=0.1)
    truth = table.of(rest, ENDS)
    off = [
      np.abs(transferred(table, measure, s, seed, 8).of(rest) - truth).mean()
      for s in (sources, ())
    ]
    gains.append(off[1] - off[0])
  assert np.mean(gains) > 0.05


@pytest.mark.parametrize("counted", choices.COUNTED)
def test_transfer_finds_which_edges_count(counted):
  table, measure = device(3, counted)
  made = transferred(table, measure, (), 0, 30)
  assert made.evidence[counted] > 0.99
  rest = draw(9, 200)
  np.testing.assert_allclose(
    made.of(rest), table.of(rest, ENDS), rtol=0.02, atol=0.02
  )
  metric = made.metric("latency_ms", "ms", device="new")
  architecture = spaces.architecture(SPACE, {"cell": rest["cell"][0]})
  one_hot = {n: jnp.asarray(w) for n, w in architecture.one_hot().items()}
  assert float(metric.expected(one_hot)) == pytest.approx(
    metric.exact(architecture), rel=1e-5
  )


def test_sources_that_are_alike_count_once():
  base = np.random.default_rng(0).random(6)
  alike = np.stack([base, 2 * base, 3 * base + 1e-6])
  assert transfer._alike(alike) == pytest.approx(1.0, abs=1e-3)
  assert transfer._alike(np.eye(4)) > 2.5


@pytest.mark.slow
def test_the_predictors_metric_works_in_a_search(toy, batches):
  """One compiled update with a predicted limit moves the logits."""
  drawn = space_module.random_choices(toy, np.random.default_rng(0), 30)
  values = cost_tables.additive_costs(toy, hardware.macs(toy)).of(drawn)
  made = predictor.architecture_predictor(toy, drawn, values / values.mean())
  limit = constraints.at_most(
    made.metric("latency_ms", "ms"),
    0.1,
    penalty=constraints.quadratic(strength=30.0),
  )
  made_search = searches.differentiable(
    toy,
    relaxation=relaxations.softmax(),
    objectives=[objectives.cross_entropy()],
    weighting=weightings.constant(),
    preference=[1.0],
    constraints=[limit],
    hypergradient=hypergradients.first_order(),
    optimizer=optax.sgd(0.01),
    arch_optimizer=optax.adam(0.1),
  )
  state = made_search.init(jax.random.key(0))
  update = jax.jit(made_search.update)
  train, valid = batches((8, 8, 1))
  costs = []
  for _ in range(8):
    state, info = update(state, train, valid)
    costs.append(float(info.costs["latency_ms"]))
  assert costs[-1] < costs[0] and np.isfinite(costs).all()
