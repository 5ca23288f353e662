"""The compiled update: every combination of parts, limits, lowering."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax import (
  constraints,
  hardware,
  hypergradients,
  objectives,
  relaxations,
  search,
  weightings,
)

RELAXATIONS = (
  "softmax",
  "gumbel_softmax",
  "gdas",
  "proxyless",
  "sparsemax",
  "dirichlet",
)
HYPERGRADIENTS = (
  "single_level",
  "first_order",
  "unrolled",
  "finite_difference",
)


def make(space, relaxation="softmax", hypergradient="first_order", **options):
  return search.differentiable(
    space,
    relaxation=getattr(relaxations, relaxation)(),
    hypergradient=getattr(hypergradients, hypergradient)(),
    **options,
  )


def check_step(space, made, batches):
  train, valid = batches(space.arguments["image_shape"])
  state = made.init(jax.random.key(0))
  new, info = jax.jit(made.update)(state, train, valid)
  jax.tree.map(
    lambda a, b: np.testing.assert_equal(
      (jnp.shape(a), jnp.result_type(a)), (jnp.shape(b), jnp.result_type(b))
    ),
    state._replace(member=state.member._replace(key=0)),
    new._replace(member=new.member._replace(key=0)),
  )
  assert bool(info.finite)
  assert int(new.step) == 1
  group = next(iter(space.groups))
  moved = np.abs(
    np.asarray(new.member.logits[group] - state.member.logits[group])
  )
  assert moved.max() > 0
  return new, info


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_steps(relaxation, tiny_edge, batches):
  check_step(tiny_edge, make(tiny_edge, relaxation), batches)


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS)
def test_every_hypergradient_steps(hypergradient, tiny_edge, batches):
  check_step(tiny_edge, make(tiny_edge, "gdas", hypergradient), batches)


def lowers(space, made, batches):
  train, valid = batches(space.arguments["image_shape"])
  state = jax.eval_shape(made.init, jax.random.key(0))
  traced = jax.jit(made.update).trace(state, train, valid)
  lowered = traced.lower(lowering_platforms=("cuda", "tpu"))
  assert "_platform_index" in lowered.as_text()


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_lowers_for_accelerators(
  relaxation, tiny_edge, batches
):
  lowers(tiny_edge, make(tiny_edge, relaxation, arch_start=1), batches)


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS)
def test_every_hypergradient_lowers_for_accelerators(
  hypergradient, tiny_nasbench201, batches
):
  made = make(tiny_nasbench201, "gdas", hypergradient)
  lowers(tiny_nasbench201, made, batches)


def test_scan_equals_steps(tiny_edge, batches):
  made = make(tiny_edge, "gdas")
  train, valid = batches((8, 8, 1))
  start = made.init(jax.random.key(0))

  @jax.jit
  def scan(state):
    return jax.lax.scan(
      lambda s, _: made.update(s, train, valid), state, length=3
    )

  end, infos = scan(start)
  update, state = jax.jit(made.update), start
  for i in range(3):
    state, info = update(state, train, valid)
    np.testing.assert_allclose(
      infos.train_loss[i], info.train_loss, rtol=1e-3, atol=1e-4
    )
  assert int(end.step) == int(state.step) == 3
  assert update._cache_size() == 1


def test_direction_is_the_weighted_sum_of_gradients(tiny_edge, batches):
  """Metrics and limits alone, against autodiff of the formula."""
  space = tiny_edge
  params, macs = hardware.params(space), hardware.macs(space)
  limit = 0.7 * float(macs.expected({"nodes": jnp.full((2, 12), 1 / 12)}))
  made = make(
    space,
    objectives=[
      objectives.metric(params, reference=1e3),
      objectives.metric(macs, reference=1e5),
    ],
    weighting=weightings.constant(),
    preference=[2.0, 0.5],
    constraints=[
      constraints.at_most(
        macs, limit, penalty=constraints.quadratic(strength=3.0)
      )
    ],
    arch_optimizer=optax.sgd(1.0),
  )
  state = made.init(jax.random.key(0))

  def total(logits):
    weights = relaxations.softmax().expect(logits, space.masks, jnp.int32(0))
    violation = macs.expected(weights) / limit - 1.0
    return (
      2.0 * params.expected(weights) / 1e3
      + 0.5 * macs.expected(weights) / 1e5
      + 3.0 * jnp.maximum(violation, 0.0) ** 2
    )

  new, info = jax.jit(made.update)(state, *batches((8, 8, 1)))
  want = jax.grad(total)(state.member.logits)["nodes"]
  got = state.member.logits["nodes"] - new.member.logits["nodes"]
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
  assert float(info.violations["macs"]) > 0
  assert float(info.multipliers["macs"]) == pytest.approx(
    6.0 * float(info.violations["macs"]), rel=1e-5
  )


def test_a_limit_is_reached_and_not_rewarded_below(tiny_edge, batches):
  space = tiny_edge
  macs = hardware.macs(space)
  start = float(macs.expected({"nodes": jnp.full((2, 12), 1 / 12)}))
  limit = 0.9 * start
  made = make(
    space,
    objectives=[objectives.metric(macs, reference=1e30)],
    constraints=[constraints.at_most(macs, limit)],
    arch_optimizer=optax.adam(0.05),
  )
  update = jax.jit(made.update)
  state = made.init(jax.random.key(0))
  train, valid = batches((8, 8, 1))
  for _ in range(60):
    state, info = update(state, train, valid)
  assert 0.85 * limit <= float(info.costs["macs"]) <= 1.05 * limit


def test_warm_up_leaves_the_logits(tiny_edge, batches):
  made = make(tiny_edge, arch_start=2)
  update = jax.jit(made.update)
  state = start = made.init(jax.random.key(0))
  for step in range(3):
    state, _ = update(state, *batches((8, 8, 1)))
    same = np.array_equal(
      state.member.logits["nodes"], start.member.logits["nodes"]
    )
    assert same == (step < 2)


def test_the_finite_flag_falls(tiny_edge, batches):
  made = make(tiny_edge)
  train, valid = batches((8, 8, 1))
  images = np.array(train.images)
  images[0, 0, 0, 0] = np.nan
  _, info = jax.jit(made.update)(
    made.init(jax.random.key(0)), train._replace(images=images), valid
  )
  assert not bool(info.finite)


def test_wrong_parts_are_refused(tiny_edge):
  params = hardware.params(tiny_edge)
  with pytest.raises(ValueError, match="at least one objective"):
    make(tiny_edge, objectives=[])
  with pytest.raises(ValueError, match="preference"):
    make(tiny_edge, preference=[1.0, 2.0])
  with pytest.raises(ValueError, match="two different metrics"):
    make(
      tiny_edge,
      objectives=[objectives.metric(params)],
      constraints=[constraints.at_most(hardware.params(tiny_edge), 10.0)],
    )
  with pytest.raises(ValueError, match="above 0"):
    constraints.at_most(params, 0.0)
  with pytest.raises(ValueError, match="task scalar"):
    make(
      tiny_edge,
      objectives=[objectives.cross_entropy()._replace(task=("colour",))],
    )
