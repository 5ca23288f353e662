"""Weightings as properties: conflicts, permutations, scaling, fixed points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import weightings

ALL = {name: getattr(weightings, name)() for name in weightings.__all__}
NON_CONFLICTING = ("mgda", "upgrad")
# PCGrad's order is random with three objectives.
PERMUTATION_INVARIANT = sorted(set(ALL) - {"pcgrad", "epsilon_constraint"})
LINEAR_UNDER_SCALING = ("constant", "upgrad")
UPDATES = {name: jax.jit(w.update) for name, w in ALL.items()}


def coefficients(name, jacobian, values=None, preference=None):
  count = len(jacobian)
  values = jnp.ones(count) if values is None else jnp.asarray(values)
  preference = np.ones(count) if preference is None else preference
  preference = jnp.asarray(preference, jnp.float32)
  state = ALL[name].init(jax.random.key(1), preference)
  gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
  values = values.astype(jnp.float32)
  found, state = UPDATES[name](values, gramian, state)
  assert found.shape == (count,) and found.dtype == jnp.float32
  assert np.isfinite(found).all()
  return np.asarray(found, np.float64)


@st.composite
def jacobians(draw, count=3):
  rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  jacobian = rng.normal(size=(count, draw(st.integers(1, 8))))
  kind = draw(st.sampled_from(["random", "equal", "opposite", "zero"]))
  if kind == "equal":
    jacobian[1] = jacobian[0]
  if kind == "opposite":
    jacobian[1] = -jacobian[0]
  if kind == "zero":
    jacobian[1] = 0.0
  return jacobian


@pytest.mark.parametrize("name", sorted(ALL))
def test_state_is_stable_and_one_program_serves(name):
  jacobian = np.random.default_rng(0).normal(size=(3, 7))
  state = start = ALL[name].init(jax.random.key(0), jnp.array([1.0, 2.0, 0.5]))
  gramian = jnp.asarray(jacobian @ jacobian.T, jnp.float32)
  rows, programs = [], []
  for _ in range(3):
    found, state = UPDATES[name](jnp.ones(3), gramian, state)
    rows.append(np.asarray(found))
    programs.append(UPDATES[name]._cache_size())
  assert programs[0] == programs[2]
  assert jax.tree.structure(state) == jax.tree.structure(start)
  assert np.isfinite(rows).all() and (np.array(rows) >= 0).all()
  if name != "pcgrad":
    np.testing.assert_array_equal(rows[0], rows[2])


@pytest.mark.parametrize("name", NON_CONFLICTING)
@given(jacobian=jacobians())
def test_no_objective_rises(name, jacobian):
  direction = coefficients(name, jacobian) @ jacobian
  scale = np.linalg.norm(jacobian, axis=1).max()
  assert (jacobian @ direction).min() >= -1e-3 * scale**2


@pytest.mark.parametrize("name", PERMUTATION_INVARIANT)
@given(
  jacobian=jacobians(),
  order=st.permutations(range(3)),
  values=st.lists(st.floats(0.5, 4.0, width=32), min_size=3, max_size=3),
)
def test_the_order_of_the_objectives_does_not_matter(
  name, jacobian, order, values
):
  values, preference = np.array(values), np.array([1.0, 0.5, 2.0])
  order = np.array(order)
  first = coefficients(name, jacobian, values, preference) @ jacobian
  again = coefficients(name, jacobian[order], values[order], preference[order])
  scale = np.linalg.norm(jacobian, axis=1).max()
  np.testing.assert_allclose(again @ jacobian[order], first, atol=5e-3 * scale)


@pytest.mark.parametrize("name", LINEAR_UNDER_SCALING)
@given(jacobian=jacobians(), seed=st.integers(0, 1000))
def test_linear_under_scaling(name, jacobian, seed):
  rng = np.random.default_rng(seed)
  one, two = rng.uniform(0.2, 2.0, (2, 3))

  def direction(scales):
    scaled = jacobian * scales[:, None]
    return coefficients(name, scaled) @ scaled

  np.testing.assert_allclose(
    direction(2.0 * one + 0.5 * two),
    2.0 * direction(one) + 0.5 * direction(two),
    atol=5e-3 * np.linalg.norm(jacobian, axis=1).max(),
  )


@pytest.mark.parametrize("name", ["pcgrad", "upgrad"])
def test_without_conflict_it_is_the_weighted_sum(name):
  jacobian = np.abs(np.random.default_rng(1).normal(size=(3, 4)))
  found = coefficients(name, jacobian, preference=[1.0, 2.0, 0.5])
  np.testing.assert_allclose(found, [1.0, 2.0, 0.5], rtol=1e-4)


def test_pcgrad_of_two_is_the_papers_formula():
  a, b = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
  found = coefficients("pcgrad", np.stack([a, b])) @ np.stack([a, b])
  want = (a - (a @ b) / (b @ b) * b) + (b - (a @ b) / (a @ a) * a)
  np.testing.assert_allclose(found, want, rtol=1e-5)


def test_chebyshev_is_the_gradient_of_its_scalar():
  values, preference = np.array([1.0, 3.0, 2.0]), np.array([1.0, 0.5, 1.0])

  def scalar(f):
    return (preference * f).max() + 0.01 * (preference * f).sum()

  jacobian = np.eye(3)
  found = coefficients("chebyshev", jacobian, values, preference)
  np.testing.assert_allclose(found, jax.grad(scalar)(values), rtol=1e-5)
  tied = coefficients("chebyshev", jacobian)
  np.testing.assert_allclose(tied, 1 / 3 + 0.01, rtol=1e-5)


@pytest.mark.parametrize("normalization", weightings.NORMALIZATIONS)
def test_mgda_normalizes_as_told(normalization):
  made = weightings.mgda(normalization=normalization)
  jacobian = np.diag([1.0, 10.0, 100.0]).astype(np.float32)
  values = jnp.array([2.0, 1.0, 4.0])
  found, _ = jax.jit(made.update)(values, jacobian @ jacobian.T, jnp.ones(3))
  norms = {"l2": [1.0, 10.0, 100.0], "loss": [2.0, 1.0, 4.0]}
  scale = np.ones(3)
  for name in {"none": (), "loss+": ("l2", "loss")}.get(
    normalization, (normalization,)
  ):
    scale = scale / np.array(norms[name])
  # Orthogonal gradients: alpha_i ~ 1 / |s_i g_i|^2, c_i = s_i alpha_i.
  want = scale / (scale * np.diag(jacobian)) ** 2
  got = np.asarray(found) / np.asarray(found).sum()
  np.testing.assert_allclose(got, want / want.sum(), rtol=1e-4)


def test_mgda_prefers_in_proportion_where_nothing_conflicts():
  found = coefficients("mgda", np.eye(3), preference=[1.0, 2.0, 4.0])
  np.testing.assert_allclose(found / found[0], [1.0, 2.0, 4.0], rtol=1e-4)


def test_a_kept_limit_does_not_stop_mgda():
  """A hinge at 0 asks for nothing; any other zero gradient is stationary."""
  jacobian = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
  kept = coefficients("mgda", jacobian, [1.0, 1.0, 0.0])
  np.testing.assert_allclose(kept, [0.5, 0.5, 0.0], atol=1e-5)
  still = coefficients("mgda", jacobian, [1.0, 1.0, 1.0])
  np.testing.assert_allclose(still @ jacobian, 0.0, atol=1e-5)


def fonseca(x):
  """Fonseca and Fleming 1995: not convex; the Pareto set is x_i all equal."""
  root = 1.0 / jnp.sqrt(float(len(x)))
  return jnp.stack(
    [
      1.0 - jnp.exp(-jnp.sum((x - root) ** 2)),
      1.0 - jnp.exp(-jnp.sum((x + root) ** 2)),
    ]
  )


def descend(made, function, start, preference, rate=0.05, steps=3000):
  state = made.init(jax.random.key(0), jnp.asarray(preference, jnp.float32))

  def step(carry, _):
    x, state = carry
    jacobian = jax.jacrev(function)(x)
    found, state = made.update(function(x), jacobian @ jacobian.T, state)
    return (x - rate * found @ jacobian, state), None

  start = jnp.asarray(start, jnp.float32)
  (end, _), _ = jax.jit(lambda c: jax.lax.scan(step, c, length=steps))(
    (start, state)
  )
  return np.asarray(end)


@pytest.mark.parametrize("start", [[0.9, -0.4, 0.1], [0.2, 0.6, -0.9]])
@pytest.mark.parametrize("name", ["mgda", "exact_pareto"])
def test_the_stationary_point_is_pareto_optimal(name, start):
  end = descend(ALL[name], fonseca, start, [1.0, 1.0])
  assert end.max() - end.min() < 1e-2
  assert abs(end.mean()) <= 1 / np.sqrt(3) + 1e-3
  values, before = fonseca(end), fonseca(jnp.array(start))
  if name == "mgda":
    assert (np.asarray(values) <= np.asarray(before) + 1e-5).all()
  else:
    assert values[0] == pytest.approx(float(values[1]), abs=1e-2)


def two_parabolas(x):
  return jnp.stack(
    [
      jnp.sum((x - jnp.array([1.0, 0.0])) ** 2) + 0.1,
      jnp.sum((x + jnp.array([1.0, 0.0])) ** 2) + 0.1,
    ]
  )


def test_exact_pareto_meets_the_ray():
  made = weightings.exact_pareto(horizon=0.1)
  end = descend(made, two_parabolas, [-0.3, 1.0], [1.0, 4.0])
  values = np.asarray(two_parabolas(end))
  assert abs(end[1]) < 1e-2
  assert values[0] == pytest.approx(4 * values[1], rel=2e-2)


@pytest.mark.parametrize("start", [[0.9, 1.0], [-0.9, -1.0]])
def test_epsilon_constraint_keeps_its_bound(start):
  made = weightings.epsilon_constraint(margin=0.02)
  end = descend(made, two_parabolas, start, [1.0, 1.1], rate=0.005)
  values = np.asarray(two_parabolas(end))
  assert 0.95 * 1.1 <= values[1] <= 1.01 * 1.1
  # The first is at the least that the bound allows: x near 0 on the axis.
  assert values[0] == pytest.approx(1.1, rel=0.06)


def test_wrong_options_are_refused():
  with pytest.raises(ValueError, match="known: none, l2"):
    weightings.mgda(normalization="norm")
  with pytest.raises(ValueError, match="margin"):
    weightings.epsilon_constraint(margin=2.0)
  with pytest.raises(ValueError, match="horizon"):
    weightings.exact_pareto(horizon=0.0)
  with pytest.raises(ValueError, match="rho"):
    weightings.chebyshev(rho=-1.0)
