"""Penalties: no reward below the limit, and the limit reached in the end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import constraints
from nasjax.types import Metric

METRIC = Metric("latency_ms", "ms", None, lambda w: w, lambda a: 0.0)
PENALTIES = {
  "quadratic": constraints.quadratic(),
  "augmented_lagrangian": constraints.augmented_lagrangian(),
  "log_barrier": constraints.log_barrier(),
}
UPDATES = {n: jax.jit(p.update) for n, p in PENALTIES.items()}


@pytest.mark.parametrize("name", sorted(PENALTIES))
@given(st.lists(st.floats(-0.875, 5.0, width=32), min_size=1, max_size=6))
def test_multipliers_are_finite_and_never_below_zero(name, violations):
  state = PENALTIES[name].init(jnp.float32(1.0))
  for step, violation in enumerate(violations):
    violation = jnp.float32(violation)
    found, state = UPDATES[name](violation, state, jnp.int32(step))
    assert found.dtype == jnp.float32
    assert np.isfinite(found) and found >= 0


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_nothing_rewards_below_the_limit_for_long(name):
  """After a long breach, 30 % below: the push stops, exactly."""
  state = PENALTIES[name].init(jnp.float32(1.0))
  for violation, steps in ((0.5, 20), (-0.3, 600)):
    for step in range(steps):
      found, state = UPDATES[name](
        jnp.float32(violation), state, jnp.int32(step)
      )
  assert float(found) == 0.0


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_a_breach_is_pushed_back_the_more_the_larger(name):
  found = []
  for violation in (0.05, 0.5, 2.0):
    # The barrier's start is made feasible: let its widening pass.
    state = PENALTIES[name].init(jnp.float32(1.0))
    if name == "log_barrier":
      state = state._replace(room=jnp.float32(0.0))
    push, _ = UPDATES[name](jnp.float32(violation), state, jnp.int32(0))
    found.append(float(push))
  assert 0 < found[0] < found[1] < found[2]


def minimize(constraint, start, steps=4000, rate=0.002, free=3.0):
  """min (x - free)^2 / 2 with x <= 1, by gradient descent with the penalty."""

  def step(carry, step):
    x, state = carry
    violation = x / constraint.limit - 1.0
    push, state = constraint.update(violation, state, step)
    x = x - rate * ((x - free) + push / constraint.limit)
    return (x, state), (x, push)

  start = (jnp.float32(start), constraint.init(jnp.float32(constraint.limit)))
  return jax.jit(lambda c: jax.lax.scan(step, c, jnp.arange(steps)))(start)


@pytest.mark.parametrize("start", [0.2, 6.0])
def test_the_augmented_lagrangian_needs_no_tuning(start):
  """The limit is met exactly at any strength, and mu is the true multiplier."""
  for strength in (3.0, 30.0, 100.0):
    penalty = constraints.augmented_lagrangian(strength=strength)
    limit = constraints.at_most(METRIC, 1.0, penalty=penalty)
    (x, mu), _ = minimize(limit, start)
    assert float(x) == pytest.approx(1.0, abs=1e-3)
    assert float(mu) == pytest.approx(2.0, rel=1e-2)
  soft = constraints.at_most(
    METRIC, 1.0, penalty=constraints.quadratic(strength=3.0)
  )
  (x, _), _ = minimize(soft, start)
  assert float(x) == pytest.approx(1.0 + 2.0 / 7.0, abs=1e-3)  # its bias


@pytest.mark.parametrize("start", [0.2, 6.0])
@pytest.mark.parametrize("free", [0.3, 3.0])
def test_an_equality_is_met_from_both_sides(start, free):
  """A metric that the loss keeps below its limit is pulled up to it."""
  limit = constraints.at_most(METRIC, 1.0, penalty=constraints.equality())
  (x, mu), _ = minimize(limit, start, free=free)
  assert float(x) == pytest.approx(1.0, abs=1e-3)
  assert float(mu) == pytest.approx(free - 1.0, rel=1e-2)
  one_sided = constraints.augmented_lagrangian()
  limit = constraints.at_most(METRIC, 1.0, penalty=one_sided)
  (x, _), _ = minimize(limit, start, free=free)
  assert float(x) == pytest.approx(min(free, 1.0), abs=1e-3)


def test_an_equality_pulls_no_harder_than_told():
  penalty = constraints.equality(pull=2.0)
  state = penalty.init(jnp.float32(1.0))
  for _ in range(500):
    found, state = penalty.update(jnp.float32(-0.9), state, jnp.int32(0))
  assert float(found) == -2.0 and float(state) == -2.0


@pytest.mark.parametrize("start", [0.2, 6.0])
def test_the_barrier_stays_inside_from_a_feasible_start(start):
  limit = constraints.at_most(METRIC, 1.0, penalty=constraints.log_barrier())
  (x, _), (path, _) = minimize(limit, start)
  assert 0.9 < float(x) < 1.0
  if start < 1:
    assert float(path.max()) < 1.0


def test_tightening_is_the_formula():
  schedule = constraints.tighten(start=3.0, tau=50.0, begin=10)
  steps = jnp.array([0, 10, 60, 10_000])
  want = 1 + 2 * np.exp(-np.maximum(np.array(steps) - 10, 0) / 50.0)
  np.testing.assert_allclose(schedule.factor(steps), want, rtol=1e-6)
  limit = constraints.at_most(METRIC, 4.0, schedule=schedule)
  # 12 is the bound at step 10: a metric of 13 is over it by 1 / 12.
  state = limit.init(jnp.float32(4.0))
  push, _ = limit.update(jnp.float32(13 / 4 - 1), state, jnp.int32(10))
  assert float(push) == pytest.approx(60 * (13 / 12 - 1) / 3, rel=1e-4)
  assert limit.update(jnp.float32(11 / 4 - 1), state, jnp.int32(10))[0] == 0.0


def test_a_limit_as_an_objective():
  made = constraints.as_objective(METRIC, 4.0)

  def value(cost):
    return made.value({}, {"latency_ms": cost})

  assert made.name == "over_latency_ms"
  assert value(3.0) == 0.0 and jax.grad(value)(3.0) == 0.0
  assert value(6.0) == 0.5 and jax.grad(value)(6.0) == 0.25


def test_out_of_range_is_refused():
  for wrong in (
    lambda: constraints.augmented_lagrangian(strength=0.0),
    lambda: constraints.augmented_lagrangian(rate=0.0),
    lambda: constraints.equality(pull=0.0),
    lambda: constraints.log_barrier(width=0.0),
    lambda: constraints.tighten(start=0.0, tau=1.0),
    lambda: constraints.as_objective(METRIC, float("inf")),
  ):
    with pytest.raises(ValueError):
      wrong()
