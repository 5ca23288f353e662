"""The exact solvers against scipy's non-negative least squares in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from nasjax import small_qp

SIZES = range(2, 7)
KINDS = ("random", "equal", "opposite", "zero", "scaled", "parallel", "hull")


def instances(count, seed=0, sizes=(2, 6)):
  """Gradients f64[M, D], D = 1..200, degenerate ones among them."""
  rng = np.random.default_rng(seed)
  for number in range(count):
    kind = KINDS[number % len(KINDS)]
    size, dimension = rng.choice(sizes), rng.integers(1, 201)
    jacobian = rng.normal(size=(size, dimension))
    i, j = rng.choice(size, 2, replace=False)
    if kind == "equal":
      jacobian[i] = jacobian[j]
    elif kind == "opposite":
      jacobian[i] = -rng.uniform(0.5, 2) * jacobian[j]
    elif kind == "zero":
      jacobian[i] = 0.0
    elif kind == "scaled":
      jacobian *= 10.0 ** rng.uniform(-3, 3, size=(size, 1))
    elif kind == "parallel":
      jacobian = rng.normal(size=(size, 1)) * jacobian[:1]
    elif kind == "hull":
      jacobian[i] = rng.dirichlet(np.ones(size - 1)) @ np.delete(jacobian, i, 0)
    yield jacobian


def reference(jacobian):
  """The least norm in the hull (Lawson and Hanson's reduction to NNLS)."""
  scale = np.linalg.norm(jacobian, axis=1).max()
  system = np.vstack([jacobian.T / scale, np.ones(len(jacobian))])
  target = np.zeros(len(system))
  target[-1] = 1.0
  found, _ = nnls(system, target, maxiter=1000)
  return found / found.sum() @ jacobian


def check(dtype, tolerance, count, **options):
  worst, rises = 0.0, 0.0
  solve = jax.jit(small_qp.min_norm)
  for jacobian in instances(count, **options):
    scale = np.linalg.norm(jacobian, axis=1).max()
    given = jacobian.astype(dtype)
    found = np.asarray(solve(jnp.asarray(given @ given.T)))
    assert found.dtype == dtype
    assert (found >= 0).all() and abs(found.sum() - 1) < 1e-5
    direction = found.astype(np.float64) @ jacobian
    want = np.linalg.norm(reference(jacobian))
    worst = max(worst, abs(np.linalg.norm(direction) - want) / scale)
    # Optimal by duality, whatever the reference says; this is also that no
    # objective rises to first order: <g_i, d> >= |d|^2.
    inner = jacobian @ direction
    rises = max(rises, (direction @ direction - inner.min()) / scale**2)
  assert worst < tolerance, worst
  assert rises < tolerance, rises
  return worst, rises


def test_min_norm_float64():
  with jax.enable_x64(True):
    check(np.float64, 1e-6, 140)


def test_min_norm_float32():
  check(np.float32, 1e-3, 140)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_min_norm_thousand(dtype):
  with jax.enable_x64(dtype == np.float64):
    print(
      check(dtype, 1e-6 if dtype == np.float64 else 1e-3, 1000, sizes=SIZES)
    )


def test_min_norm_of_more_than_six():
  rng = np.random.default_rng(2)
  solve = jax.jit(small_qp.min_norm)
  with jax.enable_x64(True):
    for _ in range(10):
      jacobian = rng.normal(size=(9, 12)) + 0.4
      found = np.asarray(solve(jnp.asarray(jacobian @ jacobian.T)))
      error = np.linalg.norm(found @ jacobian - reference(jacobian))
      assert error / np.linalg.norm(jacobian, axis=1).max() < 1e-6


def test_min_norm_of_the_open_ones():
  rng = np.random.default_rng(3)
  for size in (2, 8):
    jacobian = rng.normal(size=(size, 5)).astype(np.float32)
    open = np.arange(size) != 1
    found = small_qp.min_norm(jacobian @ jacobian.T, open)
    want = np.linalg.norm(reference(jacobian[open].astype(float)))
    assert found[1] == 0
    assert np.linalg.norm(found @ jacobian) == pytest.approx(want, abs=1e-3)


def test_simplex_minimum_meets_its_optimality_conditions():
  rng = np.random.default_rng(4)
  solve = jax.jit(small_qp.simplex_minimum)
  with jax.enable_x64(True):
    for _ in range(40):
      size = 3
      jacobian = rng.normal(size=(size, rng.integers(1, 6)))
      gramian, linear = jacobian @ jacobian.T, rng.normal(size=size)
      found = np.asarray(solve(gramian, linear))
      slope = gramian @ found - linear
      # Frank and Wolfe's gap, an upper bound on how far from optimal.
      assert found @ slope - slope.min() < 1e-9


def test_cone_projections():
  rng = np.random.default_rng(5)
  solve = jax.jit(small_qp.cone_projections)
  with jax.enable_x64(True):
    for number, jacobian in enumerate(instances(70, 6, (2, 4))):
      found = np.asarray(solve(jnp.asarray(jacobian @ jacobian.T)))
      row = rng.integers(len(jacobian))
      scale = np.linalg.norm(jacobian, axis=1)
      # argmin |g_i + w J|, w >= 0, by NNLS on the vectors.
      own = max(scale[row], 1e-300)
      unit = jacobian / np.where(scale > 0, scale, 1.0)[:, None]
      _, want = nnls(unit.T, -jacobian[row] / own, maxiter=1000)
      got = np.linalg.norm(found[row] @ jacobian) / own
      assert got == pytest.approx(want, abs=2e-6), number
      assert (found >= -1e-12).all()


def test_opposite_gradients_in_float32():
  """Singular faces have huge coefficients, whose value is all rounding."""
  rng = np.random.default_rng(7)
  solve = jax.jit(small_qp.cone_projections)
  for _ in range(60):
    jacobian = rng.normal(size=(3, 8))
    jacobian[1] = -jacobian[0]
    jacobian *= rng.uniform(0.2, 2.0, size=(3, 1))
    gramian = (jacobian @ jacobian.T).astype(np.float32)
    found = np.asarray(solve(gramian), np.float64)
    for row in range(3):
      _, want = nnls(jacobian.T, -jacobian[row])
      got = np.linalg.norm(found[row] @ jacobian)
      assert got == pytest.approx(want, abs=5e-3)


def test_too_many_are_refused():
  with pytest.raises(ValueError, match="at most 6"):
    small_qp.cone_projections(jnp.eye(7))
  with pytest.raises(ValueError, match="at most 6"):
    small_qp.simplex_minimum(jnp.eye(7), jnp.ones(7))
