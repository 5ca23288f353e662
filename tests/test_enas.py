"""ENAS: rewards, weight steps on single paths, decisions, resuming."""

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import checkpoint, constraints, data, hardware, manifests
from nasjax import objectives as objective_parts
from nasjax.errors import InputError
from nasjax.search import enas, epochs
from nasjax.search import genes as genetics
from nasjax.spaces.space import Architecture
from nasjax.types import Batch, Group, Metric

EDGES, CLASSES = 3, 4
MASK = np.ones((EDGES, 3), bool)
MASK[1, 0] = False


def _right(weights):
  """f32[]: the share of edges that take their last candidate."""
  return weights["edges"][:, 2].mean()


def fake_space():
  """The more edges take candidate 2, the more images are told right."""

  def apply(variables, sampled, images, train):
    del train
    count = jnp.arange(len(images), dtype=jnp.float32)
    right = (count + 0.5) / len(images) < _right(sampled.weights)
    # The labels are in the images.
    label = images[:, 0, 0, 0].astype(jnp.int32)
    guess = jnp.where(right, label, (label + 1) % CLASSES)
    outputs = jax.nn.one_hot(guess, CLASSES) * jnp.exp(
      0.0 * variables["params"]["w"]
    )
    return outputs, variables["batch_stats"]

  return SimpleNamespace(
    name="fake",
    groups={"edges": Group(EDGES, ("a", "b", "c"))},
    masks={"edges": MASK},
    cuts={},
    init=lambda key: {"params": {"w": jnp.ones(())}, "batch_stats": {}},
    apply=apply,
    decide=lambda weights, limits: (weights, limits),
  )


FAKE = fake_space()


def _cost(values):
  def expected(weights):
    return jnp.sum(weights["edges"] * jnp.asarray(values)[None])

  def exact(architecture):
    return float(np.sum(np.asarray(values)[architecture.choices["edges"]]))

  return Metric("cost", "ms", None, expected, exact)


COST = _cost([1.0, 2.0, 5.0])


def label_batch(size=12):
  labels = np.arange(size, dtype=np.int32) % CLASSES
  images = np.zeros((size, 2, 2, 1), np.float32)
  images[:, 0, 0, 0] = labels
  return Batch(jnp.asarray(images), jnp.asarray(labels))


@functools.cache  # compiled once for all tests
def controller(samples=12):
  return enas.space_controller(
    FAKE, samples=samples, learning_rate=0.02, entropy_weight=1e-3
  )


@pytest.fixture(scope="module")
def free():
  """(state, infos) of a search without a limit."""
  return run(enas.enas(FAKE, controller=controller()), 150)


def run(made, steps, key=0):
  batch = label_batch()
  state = made.init(jax.random.key(key))

  def step(state, _):
    return made.update(state, batch, batch)

  return jax.jit(lambda s: jax.lax.scan(step, s, length=steps))(state)


def test_kinds_are_rows_of_one_group_with_the_same_candidates():
  masks = {"x": MASK, "y": MASK[:1]}
  assert genetics.kinds(SimpleNamespace(masks=masks)).tolist() == [0, 1, 0, 2]


def test_rewards_are_what_the_module_says():
  """The numbers of one step, computed by hand from the proposals."""
  made_by = controller(3)
  limit = constraints.at_most(COST, 6.0)
  objectives = [
    objective_parts.error(),
    objective_parts.metric(COST, reference=4.0),
    objective_parts.mnasnet_soft(COST, 5.0),
    objective_parts.cross_entropy(),
  ]
  made = enas.enas(
    FAKE,
    controller=made_by,
    objectives=objectives,
    preference=[1.0, 0.5, 0.25, 0.125],
    constraints=[limit],
  )
  state, batch = made.init(jax.random.key(1)), label_batch()
  genes, _ = made_by.ask(state.member.controller)
  choices = np.asarray(genetics.to_choices(FAKE, genes)["edges"])
  cost = np.array([1.0, 2.0, 5.0])[choices].sum(-1)
  accuracy = (choices == 2).mean(-1)
  wrong = np.log(3 + np.e)  # of a wrong guess; a right one has it less 1
  entropy = wrong - accuracy
  rows = np.array(list(itertools.product(range(3), range(2), range(3))))
  p = np.exp(made_by.log_probability(state.member.controller.params, rows))
  mean = p @ np.array([COST.exact(a) for a in everything()])
  _, info = made.update(state, batch, batch)
  # The mean over 128 draws, within 5 standard errors.
  expected = float(info.costs["cost"])
  assert abs(expected - mean) < 5 * 3.0 / 128**0.5
  multiplier = 60.0 * max(expected / 6.0 - 1.0, 0.0)
  want = -(1.0 - accuracy) - 0.5 * cost / 4.0
  want += 0.25 * accuracy * (cost / 5.0) ** -0.07 - 0.125 * entropy
  want -= multiplier * (cost - expected) / 6.0
  assert multiplier > 0 and np.ptp(want) > 0
  np.testing.assert_allclose(info.extra["reward"], want.mean(), rtol=1e-5)
  np.testing.assert_allclose(info.valid_accuracy, accuracy.mean(), rtol=1e-5)
  np.testing.assert_allclose(info.valid_loss, entropy.mean(), rtol=1e-5)
  np.testing.assert_allclose(info.multipliers["cost"], multiplier, rtol=1e-4)
  assert bool(info.finite) and set(info.objectives) == {
    o.name for o in objectives
  }


def test_it_finds_the_most_accurate_network(free):
  made_by, (state, info) = controller(), free
  assert np.all(info.finite)
  found = genetics.architecture(
    FAKE, made_by.greedy(state.member.controller.params)
  )
  assert found.choices["edges"].tolist() == [2, 2, 2]
  assert info.valid_accuracy[-10:].mean() > info.valid_accuracy[:10].mean()
  weights = enas.policy(FAKE, made_by).expect(state.member.logits, None, None)
  weights = np.asarray(weights["edges"])
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
  assert weights[1, 0] == 0 and weights[:, 2].min() > 0.6


def test_a_limit_keeps_the_proposals_mean_at_it(free):
  """All right costs 15; within 9 an expensive choice has to go."""
  made_by = controller()
  limit = constraints.at_most(
    COST, 9.0, penalty=constraints.quadratic(strength=5.0)
  )
  made = enas.enas(FAKE, controller=made_by, constraints=[limit])
  _, info = run(made, 150)
  assert 0.7 * 9 < info.costs["cost"][-20:].mean() < 1.1 * 9
  assert 3 * free[1].valid_accuracy[-20:].mean() > 2.5  # 12.5 or more


def test_the_controller_waits_for_warm_weights():
  made = enas.enas(FAKE, controller=controller(3), arch_start=2)
  state, info = run(made, 4)
  np.testing.assert_array_equal(
    np.isnan(info.extra["reward"]), [True, True, False, False]
  )
  assert int(state.member.controller.told) == 2
  assert np.isfinite(info.train_loss).all() and np.all(info.finite)


def everything():
  rows = itertools.product(range(3), range(2), range(3))
  return [genetics.architecture(FAKE, np.array(r, np.int32)) for r in rows]


def score(architecture):
  row = architecture.choices["edges"]
  return float((row == 2).sum() - 0.1 * (row == 0).sum())


@pytest.mark.parametrize("bound", [4.0, 6.0, 8.0, 100.0])
def test_decide_takes_the_best_proposal_within_the_limit(bound):
  """An untrained controller proposes everything, so the best of all."""
  made_by = controller()
  params = made_by.init(jax.random.key(0)).params
  key = jax.random.key(5)
  found = enas.decide(FAKE, made_by, params, key, score, [(COST, bound)])
  feasible = [a for a in everything() if COST.exact(a) <= bound]
  assert COST.exact(found) <= bound
  assert score(found) == max(map(score, feasible))
  limit = constraints.at_most(COST, bound)
  again = enas.proposals(FAKE, made_by, params, key, [limit])
  assert sorted(a.choices["edges"].tolist() for a in again) == sorted(
    a.choices["edges"].tolist() for a in feasible
  )
  few = enas.proposals(FAKE, made_by, params, key, [limit], most=2)
  assert len(few) == min(2, len(feasible))


def test_decide_falls_back_on_the_exact_decision():
  made_by = controller()
  params = made_by.init(jax.random.key(0)).params
  weights, limits = enas.decide(
    FAKE, made_by, params, jax.random.key(0), score, [(COST, 3.5)]
  )
  assert weights["edges"].shape == (3, 3) and limits[0][1] == 3.5


def test_proposals_that_lead_nowhere_are_left_out(tiny_nasbench201):
  made_by = enas.space_controller(tiny_nasbench201)
  params = made_by.init(jax.random.key(0)).params
  found = enas.proposals(
    tiny_nasbench201, made_by, params, jax.random.key(0), most=5000
  )
  assert len(found) > 1000
  for one in found:
    row = one.choices["cell"]
    assert (row[[0, 1, 3]] != 0).any() and (row[[3, 4, 5]] != 0).any()


def test_a_weight_step_moves_one_path_alone(toy, batches):
  train, valid = batches(toy.arguments["image_shape"])
  made = enas.enas(toy, controller=enas.space_controller(toy, samples=2))
  state = made.init(jax.random.key(0))
  new, info = made.update(state, train, valid)
  assert bool(info.finite) and int(new.step) == 1
  same = jax.tree.map(lambda a, b: jnp.shape(a) == jnp.shape(b), state, new)
  assert all(jax.tree.leaves(same))
  old, moved = (s.shared.variables["params"]["stage_0"] for s in (state, new))
  kernel = {
    name: np.abs(np.asarray(b - a)).reshape(3, -1).max(-1)
    for name in ("conv_1x1", "conv_3x3")
    for a, b in [
      (
        jax.tree.leaves(old["edge_0"][name])[0],
        jax.tree.leaves(moved["edge_0"][name])[0],
      )
    ]
  }
  # Weight decay shrinks what was not on the path, by 3e-4 of it at most.
  on = {n: moved > 1e-4 for n, moved in kernel.items()}
  key = jax.random.fold_in(state.member.key, 0)
  path = enas.policy(toy, enas.space_controller(toy, samples=2)).sample(
    key, new.member.logits, None, None
  )
  taken = np.asarray(path.paths["layers"])[:, 0]
  for layer, k in enumerate(taken):
    for name, number in (("conv_1x1", 2), ("conv_3x3", 3)):
      assert on[name][layer] == (k == number)


def test_it_lowers_for_gpu_and_tpu(toy, batches):
  train, valid = batches(toy.arguments["image_shape"])
  made = enas.enas(toy, arch_start=1)
  state = jax.eval_shape(made.init, jax.random.key(0))
  traced = jax.jit(made.update).trace(state, train, valid)
  traced.lower(lowering_platforms=("cuda", "tpu"))


def test_it_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
  rng = np.random.default_rng(0)
  images = data.Images(
    rng.integers(4, size=(24, 2, 2, 1), dtype=np.uint8),
    rng.integers(4, size=24).astype(np.int32),
  )
  made = enas.enas(
    FAKE,
    controller=controller(3),
    constraints=[
      constraints.at_most(COST, 6.0, penalty=constraints.augmented_lagrangian())
    ],
    arch_start=1,
  )

  loop = epochs.prepare(
    lambda _: made,
    (),
    images,
    images,
    batch_size=8,
    augmentation=data.Augmentation(),
  )

  def begin():
    return epochs.begin(loop, made.init(jax.random.key(0)))

  def chunks(progress):
    return epochs.run_chunks(
      loop, progress, epochs=2, key=jax.random.key(1), longest=1
    )

  def digest(progress):
    return manifests.state_digest(manifests.flatten(progress)[0])

  want = []
  for now in chunks(begin()):
    want.append(digest(now))
    checkpoint.save(tmp_path, int(now.state.step), now, {}, keep=9)
  assert len(set(want)) == 6
  target = jax.eval_shape(begin)
  for step in (1, 2, 4):
    now = checkpoint.fit(checkpoint.verify(tmp_path, step), target, "c")
    assert [digest(p) for p in chunks(now)] == want[step:]


def test_mistakes_are_refused(toy):
  with pytest.raises(ValueError, match="enas: preference has 2"):
    enas.enas(FAKE, preference=[1.0, 2.0])
  with pytest.raises(ValueError, match="enas: at least one"):
    enas.enas(FAKE, objectives=())
  with pytest.raises(ValueError, match="enas: activations"):
    enas.enas(FAKE, activations=jnp.int32)
  params = hardware.params(toy)
  with pytest.raises(InputError, match="no architecture"):
    made_by = enas.space_controller(toy)
    enas.decide(
      toy,
      made_by,
      made_by.init(jax.random.key(0)).params,
      jax.random.key(0),
      lambda a: 0.0,
      [(params, 1.0)],
    )


def test_the_reward_of_a_decided_network_is_the_search_s():
  objectives = [
    objective_parts.error(),
    objective_parts.mnasnet_hard(COST, 6.0),
    objective_parts.cross_entropy(),
  ]
  value = enas.reward(objectives, [1.0, 2.0, 0.5], 0.5, {"cost": 9.0})
  want = -0.5 + 2.0 * 0.5 * (9.0 / 6.0) ** -1 - 0.5 * np.log(2.0)
  np.testing.assert_allclose(value, want, rtol=1e-6)
  assert isinstance(everything()[0], Architecture)
