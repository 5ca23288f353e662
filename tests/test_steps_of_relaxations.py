"""What a search's steps do with a relaxation: which paths, which logits."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax import relaxations, search
from nasjax.types import Batch, Group, Sampled

LOSSES = jnp.array([0.1, 0.6, 0.3, 0.9])
K = len(LOSSES)


def fake_space(edges=1):
  """A supernet that counts the candidates that its weight steps run."""

  def apply(variables, sampled, images, train):
    del train
    counts = variables["batch_stats"]["counts"]
    if sampled.paths is None:
      weights = sampled.weights["g"]
      ran = jnp.zeros_like(counts)
    else:
      paths = sampled.paths["g"]
      rows = jnp.arange(edges)
      ran = jnp.zeros_like(counts).at[rows, paths[:, 0]].add(1.0)
      weights = sampled.weights["g"]
    value = (weights * LOSSES[None]).sum()
    outputs = jnp.stack([value, 0.0 * value])[None] * (
      variables["params"]["w"] + jnp.zeros((len(images), 2))
    )
    return outputs, {"counts": counts + ran}

  return SimpleNamespace(
    name="fake",
    groups={"g": Group(edges, tuple("abcd"))},
    masks={"g": np.ones((edges, K), bool)},
    cuts={},
    init=lambda key: {
      "params": {"w": jnp.ones(())},
      "batch_stats": {"counts": jnp.zeros((edges, K))},
    },
    apply=apply,
  )


BATCH = Batch(jnp.zeros((2, 2, 2, 1)), jnp.ones(2, jnp.int32))


def steps(relaxation, logits, count, **options):
  """(state after `count` updates from these logits, logits of each step)."""
  space = fake_space(logits.shape[0])
  made = search.differentiable(
    space, relaxation=relaxation, optimizer=optax.sgd(0.0), **options
  )
  state = made.init(jax.random.key(0))
  state = state._replace(member=state.member._replace(logits={"g": logits}))

  def step(state, _):
    state, _ = made.update(state, BATCH, BATCH)
    return state, state.member.logits["g"]

  return jax.jit(lambda s: jax.lax.scan(step, s, length=count))(state)


@pytest.mark.parametrize(
  "p", [(0.9, 0.05, 0.03, 0.02), (0.4, 0.3, 0.2, 0.1), (0.97, 0.01, 0.01, 0.01)]
)
def test_weight_steps_of_proxyless_follow_the_probabilities(p):
  """Section 3.1: one path by its probability, also where an edge is sure."""
  draws = 20_000
  logits = jnp.log(jnp.array([p]))
  # The architecture waits: only weight steps run.
  state, _ = steps(relaxations.proxyless(), logits, draws, arch_start=draws)
  counts = np.asarray(state.shared.variables["batch_stats"]["counts"])[0]
  assert counts.sum() == draws
  error = np.sqrt(np.array(p) * (1 - np.array(p)) / draws)
  assert (np.abs(counts / draws - p) <= 4 * error).all(), counts / draws


def test_candidates_that_were_not_sampled_keep_their_probabilities():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(5, K)), jnp.float32)
  _, walk = steps(relaxations.proxyless(), logits, 30)
  walk = np.concatenate([np.asarray(logits)[None], np.asarray(walk)])
  p = np.asarray(jax.nn.softmax(walk, -1))
  moved = np.abs(np.diff(walk, axis=0)) > 0
  assert (moved.sum(-1) == 2).all()  # Adam has no momentum
  change = np.abs(np.diff(p, axis=0))
  assert change[~moved].max() < 1e-6
  assert change[moved].max() > 1e-4


def test_rescaling_is_the_papers_formula():
  """By hand: ratio = (e^a' + e^b') / (e^a + e^b), subtracted as its log."""
  before = {"g": jnp.array([[0.0, 1.0, 2.0, -1.0]])}
  after = {"g": jnp.array([[0.5, 1.0, 1.0, -1.0]])}
  masks = {"g": np.ones((1, 4), bool)}
  paths = {"g": jnp.array([[2, 0]])}
  found = relaxations.proxyless().rescale(before, after, masks, paths)["g"][0]
  shift = np.log((np.exp(0.5) + np.exp(1.0)) / (np.exp(0.0) + np.exp(2.0)))
  np.testing.assert_allclose(
    found, [0.5 - shift, 1.0, 1.0 - shift, -1.0], atol=1e-6
  )
  p = np.exp(np.asarray(found)) / np.exp(np.asarray(found)).sum()
  q = np.exp([0.0, 1.0, 2.0, -1.0])
  np.testing.assert_allclose(p[[1, 3]], (q / q.sum())[[1, 3]], atol=1e-6)


def test_what_is_closed_has_no_part_in_the_rescaling():
  before = {"g": jnp.array([[0.0, 7.0, 2.0]])}
  after = {"g": jnp.array([[0.5, 9.0, 2.0]])}
  masks = {"g": np.array([[True, False, True]])}
  paths = {"g": jnp.array([[0, 1]])}
  found = relaxations.proxyless().rescale(before, after, masks, paths)["g"]
  assert float(found[0, 0]) == pytest.approx(0.0)


def test_logits_of_softmax_decay_and_may_not():
  logits = jnp.full((1, K), 2.0)
  far = {"g": logits}
  grads = {"g": jnp.zeros((1, K))}
  for relaxation, decay, moves in (
    (relaxations.softmax(), None, True),
    (relaxations.softmax(), 0.0, False),
    (relaxations.gdas(), None, False),
    (relaxations.gdas(), 0.1, True),
  ):
    made = search.default_arch_optimizer(relaxation, 1e-2, decay)
    change, _ = made.update(grads, made.init(far), far)
    assert bool((change["g"] < 0).all()) == moves


def gumbel(key, logits, step):
  """A sampler of a user's own: soft Gumbel samples that cool down."""
  noise = jax.random.gumbel(key, logits.shape)
  return jax.nn.softmax((logits + noise) / (1.0 + 0.0 * step), -1)


def hard_gumbel(key, logits, step):
  del step
  noise = jax.random.gumbel(key, logits.shape)
  return jax.nn.one_hot((logits + noise).argmax(-1), logits.shape[-1])


def decided(function, edges, step):
  """(share of edges decided against the most probable, weights, logits)."""
  logits = {"g": jax.random.normal(jax.random.key(step), (edges, 8))}
  masks = {"g": np.ones((edges, 8), bool)}
  made = relaxations.from_function(function)
  weights = made.expect(logits, masks, jnp.int32(step))["g"]
  wrong = (weights.argmax(-1) != logits["g"].argmax(-1)).mean()
  return float(wrong), weights, logits["g"]


@pytest.mark.slow
@pytest.mark.parametrize("function, step", [(gumbel, 0), (hard_gumbel, 7)])
def test_a_users_sampler_is_decided_for_the_most_probable(function, step):
  assert decided(function, 200, step)[0] <= 0.02


def test_the_error_that_draws_leave_is_what_is_said():
  """Where the mean is known; an edge of 40 may be a near tie."""
  wrong, weights, logits = decided(hard_gumbel, 40, 3)
  assert wrong <= 0.05
  off = np.asarray(weights - jax.nn.softmax(logits, -1))
  assert off.std() <= 0.002


def test_a_users_own_expectation_decides():
  def expect(logits, step):
    del step
    return jax.nn.softmax(logits, -1)

  made = relaxations.from_function(gumbel, expect=expect)
  logits = {"g": jax.random.normal(jax.random.key(0), (200, 8))}
  masks = {"g": np.ones((200, 8), bool)}
  masks["g"][:, 3] = False
  weights = made.expect(logits, masks, jnp.int32(0))["g"]
  want = jax.nn.softmax(jnp.where(masks["g"], logits["g"], -jnp.inf), -1)
  np.testing.assert_allclose(weights, want, atol=1e-6)
  assert made.estimate is None
  bad = relaxations.from_function(gumbel, expect=lambda v, s: v[:1])
  with pytest.raises(ValueError, match="returned shape"):
    bad.expect(logits, masks, jnp.int32(0))


def test_estimates_of_steps_differ_and_are_without_bias():
  made = relaxations.from_function(gumbel)
  logits = {"g": jax.random.normal(jax.random.key(0), (20, 8))}
  masks = {"g": np.ones((20, 8), bool)}
  found = [
    np.asarray(made.estimate(logits, masks, jnp.int32(i))["g"])
    for i in range(100)
  ]
  assert np.abs(found[0] - found[1]).max() > 1e-3
  exact = np.asarray(made.expect(logits, masks, jnp.int32(0))["g"])
  assert np.abs(np.mean(found, 0) - exact).max() < 0.015


def test_samples_are_at_least_one():
  with pytest.raises(ValueError, match="at least 1"):
    relaxations.from_function(gumbel, samples=0)


def test_wrapped_samplers_are_wrapped_in_both_steps():
  skips = {"g": np.array([[True, False, False, False]])}
  made = relaxations.operation_dropout(relaxations.proxyless(), skips, 1.0)
  masks = {"g": np.ones((1, K), bool)}
  keys = jax.random.split(jax.random.key(0), 200)
  for sample in (made.sample, made.arch_sample):
    found: Sampled = jax.vmap(
      lambda k, s=sample: s(k, {"g": jnp.zeros((1, K))}, masks, jnp.int32(0))
    )(keys)
    assert not (np.asarray(found.paths["g"])[..., 0] == 0).any()
  assert made.rescale is not None and made.b1 == 0.0
