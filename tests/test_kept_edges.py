"""Spaces of which a fixed number of edges is kept, against every network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, kept_edges, relaxations, search, spaces
from nasjax.hardware import transfer
from nasjax.hardware.predictor import architecture_predictor
from nasjax.hardware.workload import largest_metric
from nasjax.search import genes as genetics
from nasjax.spaces import darts_genotype as field
from nasjax.spaces import space as space_tools

# Two nodes: all of one set is kept, and two of three edges of the other.
SPACE = spaces.darts(channels=4, cells=3, nodes=2, image_shape=(8, 8, 3))
KEPT = kept_edges.kept_sets(SPACE)
NONE, SETS = KEPT["normal"]


def ways():
  """Choices i32[5] of every cell of the space."""
  for kept in itertools.combinations((2, 3, 4), 2):
    for real in itertools.product(range(1, 8), repeat=4):
      row = np.zeros(5, np.int32)
      row[[0, 1, *kept]] = real
      yield row


CELLS = np.array(list(ways()))
RESTS = spaces.architecture(SPACE, {n: CELLS[0] for n in SPACE.groups}).choices


@jax.jit
def probabilities(weights):
  return kept_edges.probabilities(weights, KEPT)


def drawn_weights(seed, scale=3.0):
  keys = jax.random.split(jax.random.key(seed), len(SPACE.masks))
  logits = {
    n: scale * jax.random.normal(k, m.shape)
    for k, (n, m) in zip(keys, SPACE.masks.items(), strict=True)
  }
  return relaxations.softmax().expect(logits, SPACE.masks, 0)


def chances(rows):
  """f64[C]: the probability of every cell, by the module's formula."""
  rows = np.asarray(rows, np.float64)
  logs = np.log(rows)[np.arange(5), CELLS]
  odds = np.exp(np.where(CELLS == NONE, 0.0, logs).sum(-1))
  return odds / odds.sum()


@given(st.integers(0, 10_000), st.sampled_from([0.1, 3.0, 6.0]))
def test_probabilities_are_those_of_all_networks(seed, scale):
  weights = drawn_weights(seed, scale)
  found = probabilities(weights)
  for name, rows in found.items():
    hot = np.eye(8)[CELLS]
    np.testing.assert_allclose(
      rows, np.einsum("c,cek->ek", chances(weights[name]), hot), atol=2e-6
    )


def test_a_network_is_its_own_expectation_and_gradients_are_finite():
  rows = {n: CELLS[[17, 5000]][i] for i, n in enumerate(SPACE.groups)}
  one = spaces.architecture(SPACE, rows)
  hot = {n: jnp.asarray(w) for n, w in one.one_hot().items()}
  found = probabilities(hot)
  for name, row in hot.items():
    np.testing.assert_allclose(found[name], row, atol=1e-6)
  metric = hardware.params(SPACE)
  slopes = jax.jit(jax.grad(metric.expected))(hot)
  assert all(np.isfinite(v).all() for v in slopes.values())


def test_what_is_decided_is_the_most_probable():
  for seed in range(3):
    weights = drawn_weights(seed)
    decided = SPACE.decide(weights)
    for name in SPACE.groups:
      best = CELLS[chances(weights[name]).argmax()]
      np.testing.assert_array_equal(decided.choices[name], best)


def metrics():
  """Metrics of every kind that has an expectation."""
  device = hardware.device("raspberry-pi-4")
  rng = np.random.default_rng(0)
  networks = space_tools.random_choices(SPACE, rng, 30)
  values = rng.uniform(1.0, 2.0, 30)
  table = {n: rng.uniform(0.0, 9.0, m.shape) for n, m in SPACE.masks.items()}
  none = {n: g.candidates.index("none") for n, g in SPACE.groups.items()}
  return {
    "params": hardware.params(SPACE),
    "macs": hardware.macs(SPACE),
    "skips": hardware.skips(SPACE),
    "latency": device.latency(SPACE),
    "largest": largest_metric("a_bytes", "B", 1.0, table, kept=KEPT),
    "working set": device.working_set(SPACE),
    "transferred": transfer.transfer(
      SPACE.groups,
      transfer.Samples(networks, values),
      gauge=none,
      kept=KEPT,
    ).metric("a_ms", "ms"),
  }


@pytest.mark.parametrize("name", list(metrics()))
def test_expected_costs_are_the_mean_over_all_networks(name):
  """Of one group's cells with the other group decided."""
  metric = metrics()[name]
  weights = drawn_weights(3, 1.0)
  hot = spaces.architecture(SPACE, RESTS).one_hot()
  expected = float(metric.expected({**hot, "normal": weights["normal"]}))
  exact = [
    metric.exact(spaces.Architecture(SPACE, {**RESTS, "normal": row}))
    for row in CELLS
  ]
  mean = chances(weights["normal"]) @ np.array(exact)
  assert expected == pytest.approx(mean, rel=1e-4)


def test_a_predicted_metric_reads_networks():
  rng = np.random.default_rng(0)
  networks = space_tools.random_choices(SPACE, rng, 40)
  macs = hardware.macs(SPACE)
  built = [
    spaces.Architecture(SPACE, {n: r[i] for n, r in networks.items()})
    for i in range(40)
  ]
  values = np.array([macs.exact(a) for a in built])
  made = architecture_predictor(SPACE, networks, values / values.mean())
  metric = made.metric("a_ms", "ms")
  weights = drawn_weights(1, 1.0)
  inside = kept_edges.probabilities(weights, KEPT)
  raw = made.process.predict(made.features(weights))
  found = float(metric.expected(weights))
  assert found == pytest.approx(
    float(made.process.predict(made.features(inside))), rel=1e-5
  )
  assert abs(found - float(raw)) > 1e-3


@pytest.mark.parametrize("kind", [hardware.params, hardware.macs])
def test_expected_over_decided_is_near_one(kind):
  space = spaces.darts()
  metric, found = kind(space), []
  for seed in range(20):
    rng = np.random.default_rng(seed)
    logits = {n: 3 * rng.normal(size=m.shape) for n, m in space.masks.items()}
    weights = relaxations.softmax().expect(
      {n: jnp.asarray(v, jnp.float32) for n, v in logits.items()},
      space.masks,
      0,
    )
    decided = space.decide({n: np.asarray(w) for n, w in weights.items()})
    found.append(float(metric.expected(weights)) / metric.exact(decided))
  assert 0.9 <= np.mean(found) <= 1.1
  assert min(found) >= 0.75 and max(found) <= 1.3


def test_genes_are_the_networks_of_the_space():
  counts = genetics.cardinalities(SPACE)
  assert counts.tolist() == 2 * [1, 7, 7, 3, 7, 7]
  genes = np.stack(
    np.meshgrid(*map(np.arange, counts[:6]), indexing="ij"), -1
  ).reshape(-1, 6)
  both = np.concatenate([genes, genes[::-1]], -1).astype(np.int32)
  choices = genetics.to_choices(SPACE, both)
  want = {tuple(row) for row in CELLS.tolist()}
  assert {tuple(r) for r in choices["normal"].tolist()} == want
  np.testing.assert_array_equal(genetics.from_choices(SPACE, choices), both)
  traced = jax.jit(lambda g: genetics.to_choices(SPACE, g))(both)
  for name, rows in choices.items():
    np.testing.assert_array_equal(traced[name], rows)
  some = both[::97]
  weights = genetics.to_weights(SPACE, genetics.one_hot(some, counts))
  for name, rows in choices.items():
    np.testing.assert_array_equal(weights[name], np.eye(8)[rows[::97]])
  one = {n: r[0].copy() for n, r in choices.items()}
  one["normal"][2:] = 3
  with pytest.raises(ValueError, match="number of edges"):
    genetics.from_choices(SPACE, one)


def test_relaxed_genes_are_the_mean_of_what_is_drawn():
  counts = genetics.cardinalities(SPACE)
  rng = np.random.default_rng(0)
  hot = np.zeros((len(counts), counts.max()))
  for row, count in zip(hot, counts, strict=True):
    row[:count] = rng.dirichlet(np.ones(count))
  drawn = np.stack(
    [rng.choice(len(row), 20_000, p=row) for row in hot], -1
  ).astype(np.int32)
  mean = {
    n: np.eye(8)[rows].mean(0)
    for n, rows in genetics.to_choices(SPACE, drawn).items()
  }
  weights = genetics.to_weights(SPACE, jnp.asarray(hot, jnp.float32))
  for name, rows in weights.items():
    np.testing.assert_allclose(rows, mean[name], atol=0.02)


def test_networks_are_drawn_as_the_weights_say():
  weights = drawn_weights(5, 1.0)
  genes = genetics.drawn(SPACE, weights, jax.random.key(0), 20_000)
  choices = genetics.to_choices(SPACE, genes)
  want = probabilities(weights)
  for name, rows in choices.items():
    found = np.eye(8)[rows].mean(0)
    np.testing.assert_allclose(found, want[name], atol=0.02)


def test_a_closed_candidate_is_in_no_network():
  masks = {n: np.array(m) for n, m in SPACE.masks.items()}
  masks["normal"][3, 4:] = False  # some candidates of one edge
  masks["normal"][4, 1:] = False  # all but none: it is never kept
  space = SPACE.__class__(**{**SPACE.__dict__, "allowed": masks})
  counts = genetics.cardinalities(space)
  assert counts.tolist() == [1, 7, 7, 1, 7, 7, 1, 7, 7, 3, 7, 7]
  genes = np.asarray(genetics.random(jax.random.key(0), counts, 500))
  rows = genetics.to_choices(space, genes)["normal"]
  assert np.take_along_axis(masks["normal"][None], rows[..., None], 2).all()
  assert (rows[:, 4] == NONE).all() and (rows[:, :4] != NONE).all()


def test_uniform_paths_are_networks():
  draw = jax.jit(jax.vmap(lambda key: genetics.uniform_path(SPACE, key)))
  sampled = draw(jax.random.split(jax.random.key(0), 3000))
  for name, paths in sampled.paths.items():
    rows = np.asarray(paths)[..., 0]
    assert ((rows[:, 2:] != NONE).sum(-1) == 2).all()
    share = np.eye(8)[rows].mean(0)
    np.testing.assert_allclose(share[:2, 1:], 1 / 7, atol=0.03)
    np.testing.assert_allclose(share[2:, 1:], 2 / 21, atol=0.03)
    np.testing.assert_array_equal(
      np.asarray(sampled.weights[name]).argmax(-1), rows
    )


def test_skips_of_the_papers_cell():
  space = spaces.darts()
  decided = field.from_genotype(space, field.DARTS_V2)
  assert hardware.skips(space).exact(decided) == 5
  assert space_tools.count_skips(decided) == (5, 16)


def test_only_kept_edges_are_led_by_skips():
  rows = np.full((5, 8), 0.02)
  skip = SPACE.groups["normal"].candidates.index("skip_connect")
  rows[:, NONE] = 0.9  # says nothing about what is kept
  rows[0, skip] = 0.5  # one of the four that are kept
  rows[4, skip] = 0.03  # the weakest of its node
  rows[2:4, skip + 1] = 0.5
  rows /= rows.sum(-1, keepdims=True)
  share = search.led_by_skips(SPACE, {"normal": rows})
  assert share == pytest.approx(1 / 4)
