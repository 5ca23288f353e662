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
  spaces,
  weightings,
)
from nasjax.types import Batch

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
def test_every_relaxation_steps(relaxation, toy, batches):
  check_step(toy, make(toy, relaxation), batches)


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS)
def test_every_hypergradient_steps(hypergradient, toy, batches):
  check_step(toy, make(toy, "gdas", hypergradient), batches)


@pytest.mark.parametrize("relaxation", ["softmax", "gdas"])
def test_remat_and_half_precision_are_the_same_search(relaxation, toy, batches):
  """Recomputed cells give the same step; bfloat16 one close to it."""
  plain, info = check_step(toy, make(toy, relaxation, remat=False), batches)
  again, other = check_step(toy, make(toy, relaxation, remat=True), batches)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    (plain.shared, plain.member.logits, info.train_loss),
    (again.shared, again.member.logits, other.train_loss),
  )
  half = make(toy, relaxation, activations=jnp.bfloat16)
  _, low = check_step(toy, half, batches)
  np.testing.assert_allclose(low.train_loss, info.train_loss, rtol=0.05)
  assert low.train_loss != info.train_loss


def test_unrolled_through_all_candidates_of_cells_in_a_loop():
  """Second derivatives of a scan over whole cells can be traced."""
  space = spaces.edge(
    channels=4, cells=2, nodes=1, stages=1, image_shape=(8, 8, 3)
  )
  made = make(space, "softmax", "unrolled")
  batch = Batch(
    jax.ShapeDtypeStruct((4, 8, 8, 3), jnp.float32),
    jax.ShapeDtypeStruct((4,), jnp.int32),
  )
  state = jax.eval_shape(made.init, jax.random.key(0))
  new, _ = jax.eval_shape(made.update, state, batch, batch)
  assert jax.tree.structure(new) == jax.tree.structure(state)


def test_options_that_cannot_be_are_refused(toy):
  with pytest.raises(ValueError, match="floating"):
    make(toy, activations=jnp.int32)
  with pytest.raises(ValueError, match="remat"):
    search.differentiable(object(), remat=True)


def lowers(space, made, batches):
  train, valid = batches(space.arguments["image_shape"])
  state = jax.eval_shape(made.init, jax.random.key(0))
  traced = jax.jit(made.update).trace(state, train, valid)
  lowered = traced.lower(lowering_platforms=("cuda", "tpu"))
  assert "_platform_index" in lowered.as_text()


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_every_relaxation_lowers_for_accelerators(relaxation, toy, batches):
  lowers(toy, make(toy, relaxation, arch_start=1), batches)


@pytest.mark.parametrize("hypergradient", HYPERGRADIENTS)
def test_every_hypergradient_lowers_for_accelerators(
  hypergradient, toy, batches
):
  lowers(toy, make(toy, "gdas", hypergradient), batches)


def test_every_space_lowers_for_accelerators(
  tiny_edge, tiny_nasbench201, batches
):
  lowers(tiny_edge, make(tiny_edge, "proxyless"), batches)
  lowers(tiny_nasbench201, make(tiny_nasbench201, "gdas", "unrolled"), batches)


def test_every_space_steps(tiny_edge, batches):
  check_step(tiny_edge, make(tiny_edge, "softmax"), batches)


def test_scan_equals_steps(toy, batches):
  made = make(toy, "gdas")
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


def test_direction_is_the_weighted_sum_of_gradients(toy, batches):
  """Metrics and limits alone, against autodiff of the formula."""
  space = toy
  params, macs = hardware.params(space), hardware.macs(space)
  limit = 0.7 * float(macs.expected({"layers": jnp.full((3, 4), 1 / 4)}))
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
  want = jax.grad(total)(state.member.logits)["layers"]
  got = state.member.logits["layers"] - new.member.logits["layers"]
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)
  assert float(info.violations["macs"]) > 0
  assert float(info.multipliers["macs"]) == pytest.approx(
    6.0 * float(info.violations["macs"]), rel=1e-5
  )


def test_a_limit_is_reached_and_not_rewarded_below(toy, batches):
  space = toy
  macs = hardware.macs(space)
  start = float(macs.expected({"layers": jnp.full((3, 4), 1 / 4)}))
  limit = 0.9 * start
  made = make(
    space,
    objectives=[objectives.metric(macs, reference=1e30)],
    constraints=[constraints.at_most(macs, limit)],
    arch_optimizer=optax.adam(0.01),
  )
  update = jax.jit(made.update)
  state = made.init(jax.random.key(0))
  train, valid = batches((8, 8, 1))
  for _ in range(200):
    state, info = update(state, train, valid)
  assert 0.85 * limit <= float(info.costs["macs"]) <= 1.05 * limit


def test_warm_up_leaves_the_logits(toy, batches):
  made = make(toy, arch_start=2)
  update = jax.jit(made.update)
  state = start = made.init(jax.random.key(0))
  for step in range(3):
    state, _ = update(state, *batches((8, 8, 1)))
    same = np.array_equal(
      state.member.logits["layers"], start.member.logits["layers"]
    )
    assert same == (step < 2)


def test_the_finite_flag_falls(toy, batches):
  made = make(toy)
  train, valid = batches((8, 8, 1))
  images = np.array(train.images)
  images[0, 0, 0, 0] = np.nan
  _, info = jax.jit(made.update)(
    made.init(jax.random.key(0)), train._replace(images=images), valid
  )
  assert not bool(info.finite)


def test_wrong_parts_are_refused(toy):
  params = hardware.params(toy)
  with pytest.raises(ValueError, match="at least one objective"):
    make(toy, objectives=[])
  with pytest.raises(ValueError, match="preference"):
    make(toy, preference=[1.0, 2.0])
  with pytest.raises(ValueError, match="two different metrics"):
    make(
      toy,
      objectives=[objectives.metric(params)],
      constraints=[constraints.at_most(hardware.params(toy), 10.0)],
    )
  with pytest.raises(ValueError, match="above 0"):
    constraints.at_most(params, 0.0)
  with pytest.raises(ValueError, match="task scalar"):
    make(
      toy,
      objectives=[objectives.cross_entropy()._replace(task=("colour",))],
    )


@pytest.mark.parametrize("tightening", [False, True])
def test_limits_are_part_of_the_state(toy, batches, tightening):
  """One compiled step serves every limit, one that moves too."""
  schedule = constraints.tighten(start=2.0, tau=5.0) if tightening else None
  metric = hardware.params(toy)
  made = search.differentiable(
    toy,
    constraints=[constraints.at_most(metric, 400.0, schedule=schedule)],
    hypergradient=hypergradients.single_level(),
  )
  state = jax.jit(made.init)(jax.random.key(0))
  train, valid = batches(toy.arguments["image_shape"])
  for limit in (400.0, 200.0):
    (own,) = state.member.limits
    member = state.member._replace(limits=(jnp.full_like(own, limit),))
    _, info = made.update(state._replace(member=member), train, valid)
    cost = float(info.costs["params"])
    found = float(info.violations["params"])
    assert found == pytest.approx(cost / limit - 1, rel=1e-5)
