"""A front in one program: its members are searches of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax import constraints, hardware, objectives, relaxations, search
from nasjax.search import front as fronts
from nasjax.types import SearchState


def make(
  space, relaxation="softmax", members=3, factors=(0.5, 0.8, 1.1), **more
):
  macs = hardware.macs(space)
  middle = float(macs.expected({"layers": jnp.full((3, 4), 1 / 4)}))
  return search.differentiable_front(
    space,
    members=members,
    limits={"macs": [f * middle for f in factors]},
    relaxation=getattr(relaxations, relaxation)(),
    objectives=[objectives.cross_entropy()],
    constraints=[
      constraints.at_most(
        macs, middle, penalty=constraints.augmented_lagrangian()
      )
    ],
    arch_optimizer=optax.adam(0.05, b1=0.5, b2=0.999),
    **more,
  )


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["softmax", "gdas"])
def test_members_keep_their_own_limits(relaxation, toy, batches):
  """Each settles at or below its limit, and they differ."""
  made = make(toy, relaxation)
  train, valid = batches((8, 8, 1))

  @jax.jit
  def run(state):
    return jax.lax.scan(
      lambda s, _: made.update(s, train, valid), state, length=120
    )

  state, infos = run(made.init(jax.random.key(0)))
  assert bool(infos.finite.all())
  assert infos.valid_loss.shape == (120, 3)
  over = np.asarray(infos.violations["macs"])[-20:].mean(0)
  assert (over < 0.05).all()
  costs = np.asarray(infos.costs["macs"])[-1]
  assert costs[0] < costs[1]
  macs = hardware.macs(toy)
  limits = np.asarray(state.member.limits[0], np.float64)
  for own, limit in zip(search.members(state), limits, strict=True):
    weights = relaxations.softmax().expect(
      own.member.logits, own.masks, own.step
    )
    assert macs.exact(toy.decide(weights, [(macs, limit)])) <= limit


@pytest.mark.slow
def test_one_member_is_the_single_search(toy, batches):
  """Same key, same limit: the same first step as `differentiable`."""
  macs = hardware.macs(toy)
  options = dict(
    relaxation=relaxations.softmax(),
    constraints=[constraints.at_most(macs, 20_000.0)],
    arch_optimizer=optax.sgd(1.0),
  )
  single = search.differentiable(toy, **options)
  many = search.differentiable_front(toy, members=2, **options)
  state, group = single.init(jax.random.key(0)), many.init(jax.random.key(0))
  # The same start for both members; keys differ, softmax draws nothing.
  logits = jax.tree.map(
    lambda v: jnp.broadcast_to(v, (2, *v.shape)), state.member.logits
  )
  group = SearchState(
    state.shared,
    group.member._replace(logits=logits),
    group.masks,
    group.step,
  )
  train, valid = batches((8, 8, 1))
  one, info = single.update(state, train, valid)
  two, infos = many.update(group, train, valid)
  for own in search.members(two):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
      (own.member.logits, own.shared.variables),
      (one.member.logits, one.shared.variables),
    )
  np.testing.assert_allclose(
    infos.violations["macs"], info.violations["macs"], rtol=1e-5
  )


def test_warm_up_trains_the_weights_alone(toy, batches):
  made = make(toy, "gdas", arch_start=1)
  start = made.init(jax.random.key(0))
  state, info = made.update(start, *batches((8, 8, 1)))
  np.testing.assert_array_equal(
    state.member.logits["layers"], start.member.logits["layers"]
  )
  assert bool(info.finite) and info.costs["macs"].shape == (3,)
  state, info = made.update(state, *batches((8, 8, 1)))
  moved = state.member.logits["layers"] != start.member.logits["layers"]
  assert np.asarray(moved).any((1, 2)).all()


@pytest.mark.parametrize("relaxation", ["softmax", "proxyless"])
def test_it_lowers_for_accelerators(relaxation, toy, batches):
  made = make(toy, relaxation)
  state = jax.eval_shape(made.init, jax.random.key(0))
  traced = jax.jit(made.update).trace(state, *batches((8, 8, 1)))
  assert traced.lower(lowering_platforms=("cuda", "tpu")).as_text()


def test_sampled_paths_are_not_mapped_by_vmap(toy):
  mask = toy.masks
  assert fronts._mapping(relaxations.gdas(), mask) is jax.lax.map
  assert fronts._mapping(relaxations.softmax(), mask) is not jax.lax.map


def test_wrong_fronts_are_refused(toy):
  with pytest.raises(ValueError, match="members=0"):
    make(toy, members=0)
  with pytest.raises(ValueError, match=r"must be \(2,\)"):
    make(toy, members=2)
  with pytest.raises(ValueError, match="above 0"):
    make(toy, factors=(1.0, -1.0, 1.0))
  with pytest.raises(ValueError, match="preferences"):
    make(toy, preferences=[[1.0], [2.0]])
  with pytest.raises(ValueError, match="no constraint"):
    search.differentiable_front(toy, members=1, limits={"macs": [1.0]})
