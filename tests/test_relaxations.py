"""Every relaxation, by the same properties."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import relaxations, testing
from nasjax.types import Relaxation, Sampled

ALL = {
  "softmax": relaxations.softmax(),
  "softmax_scheduled": relaxations.softmax(
    temperature=optax.exponential_decay(5.0, 10, 0.5)
  ),
  "gumbel_softmax": relaxations.gumbel_softmax(),
  "gdas": relaxations.gdas(),
  "proxyless": relaxations.proxyless(),
  "sparsemax": relaxations.sparsemax(),
  "dirichlet": relaxations.dirichlet(),
  "from_function": relaxations.from_function(
    lambda key, logits, step: jax.nn.softmax(2.0 * logits, -1)
  ),
}
ALL["operation_dropout"] = relaxations.operation_dropout(
  relaxations.gdas(), {"g": np.eye(3, 5, dtype=bool)}, 0.5
)


def logits_and_masks(seed, scale):
  rng = np.random.default_rng(seed)
  mask = rng.random((3, 5)) < 0.7
  mask[np.arange(3), rng.integers(5, size=3)] = True
  logits = (scale * rng.normal(size=(3, 5))).astype(np.float32)
  return {"g": jnp.asarray(logits)}, {"g": mask}


@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([0.0, 1.0, 30.0]))
def test_weights_are_on_the_simplex_and_zero_where_masked(name, seed, scale):
  relaxation = ALL[name]
  logits, masks = logits_and_masks(seed, scale)
  step = jnp.int32(seed % 50)
  sampled = relaxation.sample(jax.random.key(seed), logits, masks, step)
  expected = relaxation.expect(logits, masks, step)
  for weights in (np.asarray(sampled.weights["g"]), np.asarray(expected["g"])):
    assert np.isfinite(weights).all()
    assert (weights[~masks["g"]] == 0).all()
    assert weights.min() >= -1e-6
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-5)
  if sampled.paths is not None:
    paths = np.asarray(sampled.paths["g"])
    best = np.take_along_axis(np.asarray(sampled.weights["g"]), paths, -1)
    np.testing.assert_allclose(best[:, 0], 1.0, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in ALL if n != "operation_dropout"])
def test_conformance(name):
  testing.check_relaxation(ALL[name], name)


def test_straight_through_jacobian_is_the_soft_samples():
  logits, masks = logits_and_masks(5, 1.0)
  key, step = jax.random.key(2), jnp.int32(0)

  def jacobian(relaxation):
    return jax.jacobian(
      lambda v: relaxation.sample(key, {"g": v}, masks, step).weights["g"]
    )(logits["g"])

  hard = jacobian(relaxations.gdas(temperature=0.7))
  soft = jacobian(relaxations.gumbel_softmax(temperature=0.7))
  np.testing.assert_allclose(hard, soft, atol=1e-6)
  assert np.abs(hard).max() > 1e-3


def test_proxyless_jacobian_is_the_two_way_softmax():
  logits, masks = logits_and_masks(5, 1.0)
  logits = logits["g"]
  key, step = jax.random.key(2), jnp.int32(0)
  relaxation = relaxations.proxyless()
  pair = relaxation.arch_sample(key, {"g": logits}, masks, step).paths["g"]
  rows = np.arange(3)[:, None]

  def two_way(v):
    closed = jnp.where(masks["g"], v, -1e9)
    two = jax.nn.softmax(closed[rows, pair], -1)
    return jnp.zeros_like(v).at[rows, pair].set(two)

  ours = jax.jacobian(
    lambda v: relaxation.arch_sample(key, {"g": v}, masks, step).weights["g"]
  )(logits)
  np.testing.assert_allclose(ours, jax.jacobian(two_way)(logits), atol=1e-6)


def test_gates_of_proxyless_pairs():
  logits = {"g": jnp.log(jnp.array([[0.5, 0.3, 0.2]]))}
  masks = {"g": np.ones((1, 3), bool)}
  p = np.array([0.5, 0.3, 0.2])
  # P(active = i) = sum over pairs drawn without replacement.
  want = np.zeros(3)
  for i in range(3):
    for j in range(3):
      if i != j:
        pair = p[i] * p[j] * (1 / (1 - p[i]) + 1 / (1 - p[j]))
        want[i] += pair * p[i] / (p[i] + p[j])
  keys = jax.random.split(jax.random.key(0), 20000)
  sample = relaxations.proxyless().arch_sample
  first = jax.vmap(
    lambda k: sample(k, logits, masks, jnp.int32(0)).paths["g"][0, 0]
  )(keys)
  share = np.bincount(np.asarray(first), minlength=3) / 20000
  np.testing.assert_allclose(share, want, atol=0.015)


def test_gdas_samples_the_softmax():
  logits = {"g": jnp.log(jnp.array([[0.6, 0.3, 0.1]]))}
  masks = {"g": np.ones((1, 3), bool)}
  keys = jax.random.split(jax.random.key(0), 20000)
  sample = relaxations.gdas().sample
  drawn = jax.vmap(
    lambda k: sample(k, logits, masks, jnp.int32(0)).paths["g"][0, 0]
  )(keys)
  share = np.bincount(np.asarray(drawn), minlength=3) / 20000
  np.testing.assert_allclose(share, [0.6, 0.3, 0.1], atol=0.015)


@given(seed=st.integers(0, 2**31))
def test_sparsemax_is_the_euclidean_projection(seed):
  from scipy.optimize import minimize

  z = np.random.default_rng(seed).normal(size=4).astype(np.float32)
  masks = {"g": np.ones((1, 4), bool)}
  ours = relaxations.sparsemax().expect(
    {"g": jnp.asarray(z[None])}, masks, jnp.int32(0)
  )["g"][0]
  found = minimize(
    lambda p: ((p - z) ** 2).sum(),
    np.full(4, 0.25),
    jac=lambda p: 2 * (p - z),
    bounds=[(0, 1)] * 4,
    constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
    tol=1e-12,
  )
  np.testing.assert_allclose(ours, found.x, atol=1e-4)


def test_dirichlet_mean_and_pathwise_gradient():
  logits = {"g": jnp.array([[0.3, -0.5, 1.0]])}
  masks = {"g": np.ones((1, 3), bool)}
  relaxation = relaxations.dirichlet()
  keys = jax.random.split(jax.random.key(0), 20000)

  def mean(logits):
    weights = jax.vmap(
      lambda k: relaxation.sample(k, logits, masks, jnp.int32(0)).weights["g"]
    )(keys)
    return weights.mean(0)[0, 0]

  want = relaxation.expect(logits, masks, jnp.int32(0))["g"][0, 0]
  assert float(mean(logits)) == pytest.approx(float(want), abs=0.01)
  slope = jax.grad(mean)(logits)["g"]
  exact = jax.grad(
    lambda v: relaxation.expect(v, masks, jnp.int32(0))["g"][0, 0]
  )(logits)["g"]
  np.testing.assert_allclose(slope, exact, atol=0.02)


def test_temperature_is_floored():
  logits, masks = logits_and_masks(0, 1.0)
  for make in (relaxations.softmax, relaxations.gumbel_softmax):
    cold = make(temperature=optax.constant_schedule(0.0))
    floor = make(temperature=0.01)
    for r in (cold, floor):
      gradient = jax.grad(
        lambda v, r=r: r.sample(
          jax.random.key(0), v, masks, jnp.int32(0)
        ).weights["g"][0, 0]
      )(logits)
      assert np.isfinite(gradient["g"]).all()
    a, b = (
      r.sample(jax.random.key(0), logits, masks, jnp.int32(0)).weights["g"]
      for r in (cold, floor)
    )
    np.testing.assert_array_equal(a, b)
  with pytest.raises(ValueError, match="temperature"):
    relaxations.softmax(temperature=0.0)


def test_operation_dropout_closes_only_what_it_may():
  masks = {"g": np.ones((2, 3), bool)}
  skips = {"g": np.array([[True, False, False], [True, True, True]])}
  dropped = relaxations.operation_dropout(relaxations.softmax(), skips, 1.0)
  weights = dropped.sample(
    jax.random.key(0), {"g": jnp.zeros((2, 3))}, masks, jnp.int32(0)
  ).weights["g"]
  np.testing.assert_allclose(weights[0], [0, 0.5, 0.5], atol=1e-6)
  # A row is never left without candidates.
  np.testing.assert_allclose(weights[1], [1 / 3] * 3, atol=1e-6)


SETS = {"g": (((0, 1), 1), ((2, 3, 4), 2))}


def test_normalized_edges_are_one_softmax_over_a_node():
  """PC-DARTS: shares of a node's edges times those of their candidates."""
  rng = np.random.default_rng(0)
  logits = {n: jnp.asarray(rng.normal(size=(6, 3)), "f4") for n in "gh"}
  masks = {n: np.ones((6, 3), bool) for n in "gh"}
  masks["g"][3, 1] = False
  made = relaxations.edge_normalized(relaxations.softmax(), SETS)
  found = made.sample(jax.random.key(0), logits, masks, jnp.int32(0)).weights
  expected = made.expect(logits, masks, jnp.int32(0))
  plain = relaxations.softmax().expect(logits, masks, jnp.int32(0))
  for rows, count in SETS["g"]:
    power = np.exp(logits["g"])[list(rows)] * masks["g"][list(rows)]
    share = power / power.sum()
    np.testing.assert_allclose(found["g"][np.array(rows)], share, rtol=1e-5)
    np.testing.assert_allclose(
      expected["g"][np.array(rows)], count * share, rtol=1e-5
    )
  # Edges of no set, and groups without sets, stay as they are.
  np.testing.assert_array_equal(found["g"][5], plain["g"][5])
  np.testing.assert_array_equal(found["h"], plain["h"])


def test_normalized_edges_keep_the_contract():
  sets = {"open": (((0, 1, 2), 2),), "partly": (((0, 1), 1),)}
  made = relaxations.edge_normalized(relaxations.gdas(), sets)
  testing.check_relaxation(made)


def broken(**changes):
  return relaxations.softmax()._replace(**changes)


BROKEN = {
  "shape": broken(
    sample=lambda k, v, m, s: Sampled({n: w[:, :1] for n, w in v.items()})
  ),
  "NaN": broken(expect=lambda v, m, s: {n: w * jnp.nan for n, w in v.items()}),
  "simplex": broken(
    expect=lambda v, m, s: {n: jnp.where(m[n], 0.4, 0.0) for n in v}
  ),
  "masked": broken(
    expect=lambda v, m, s: {n: jax.nn.softmax(w, -1) for n, w in v.items()}
  ),
  "gradient of sample is not finite": relaxations.from_function(
    lambda k, v, s: (
      jax.nn.softmax(v, -1)
      + 0.0 * jnp.where(v > 1e9, jnp.sqrt(v - v), jnp.sqrt(v - v))
    )
  ),
  "zero everywhere": broken(
    expect=lambda v, m, s: {
      n: jax.lax.stop_gradient(w)
      for n, w in relaxations.softmax().expect(v, m, s).items()
    }
  ),
  "Sampled": broken(sample=lambda k, v, m, s: v),
  "raised": broken(sample=lambda k, v, m, s: Sampled({"g": 1 / 0})),
}


class Impure:
  count = 0.0

  def __call__(self, logits, masks, step):
    self.count += 1.0
    return relaxations.softmax().expect(
      {n: v * self.count for n, v in logits.items()}, masks, step
    )


BROKEN["pure"] = broken(expect=Impure())


@pytest.mark.parametrize("said", BROKEN)
def test_check_relaxation_says_what_is_wrong(said):
  with pytest.raises(ValueError, match=f"(?s)mine.*{said}"):
    testing.check_relaxation(BROKEN[said], "mine")


def test_check_relaxation_refuses_other_types():
  with pytest.raises(ValueError, match="not a nasjax.types.Relaxation"):
    testing.check_relaxation(lambda: None)
  assert isinstance(ALL["gdas"], Relaxation)
