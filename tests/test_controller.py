"""The controller: a distribution, its policy gradient, learning, resuming."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from nasjax import checkpoint, manifests
from nasjax.search import controller as controllers

SIZES, KINDS = (3, 2, 4), (1, 0, 1)
ALL = np.array(list(itertools.product(*map(range, SIZES))), np.int32)
REWARDS = np.random.default_rng(0).normal(size=len(ALL)) + 2.0


def make(counts=SIZES, kinds=KINDS, **options):
  options = dict(hidden=5, temperature=0.5) | options
  return controllers.controller(counts, kinds=kinds, **options)


@pytest.fixture(scope="module", params=[2.5, None], ids=["tanh", "linear"])
def made_toy(request):
  with jax.enable_x64(True):
    made = make(tanh_constant=request.param, entropy_weight=0.3)
    params = made.init(jax.random.key(1)).params
    # Far enough from uniform for every term to count.
    return made, jax.tree.map(lambda v: 15.0 * v + 0.05, params)


@pytest.fixture
def toy(made_toy):
  """(controller, params far from uniform) of 24 architectures, in float64."""
  with jax.enable_x64(True):
    yield made_toy


def joint(made, params):
  """P(A) of all architectures."""
  return np.exp(made.log_probability(params, ALL))


def test_it_is_a_distribution_over_what_exists(toy):
  made, params = toy
  p = joint(made, params)
  assert p.dtype == np.float64 and abs(p.sum() - 1) < 1e-12
  assert p.max() > 3 * p.min()


def test_samples_follow_it(toy):
  made, params = toy
  drawn = made.sample(params, jax.random.key(3), 20_000)
  np.testing.assert_allclose(
    made.log_probability(params, drawn.genes), drawn.log_probability, atol=1e-12
  )
  place = {tuple(genes): i for i, genes in enumerate(ALL.tolist())}
  found = [place[tuple(genes)] for genes in np.asarray(drawn.genes).tolist()]
  counts = np.bincount(found, minlength=len(ALL))
  p = joint(made, params)
  assert stats.chisquare(counts, 20_000 * p).pvalue > 1e-3
  # The chain rule of the entropy: it is one number for each architecture.
  found = dict(zip(found, np.asarray(drawn.entropy), strict=True))
  entropy = sum(p[i] * found[i] for i in range(len(ALL)))
  np.testing.assert_allclose(entropy, -np.sum(p * np.log(p)), atol=1e-12)


def test_greedy_takes_the_best_candidate_of_each_decision_in_turn(toy):
  made, params = toy
  p, rows = joint(made, params), np.ones(len(ALL), bool)
  for decision, gene in enumerate(np.asarray(made.greedy(params))):
    share = [p[rows & (ALL[:, decision] == k)].sum() for k in range(4)]
    assert gene == np.argmax(share)
    rows &= ALL[:, decision] == gene


@pytest.mark.parametrize("baseline", [0.0, 2.3])
def test_the_policy_gradient_is_exact_in_expectation(toy, baseline):
  """E over all architectures of the estimator against grad E[R] + w H."""
  made, params = toy

  def objective(params):
    log_p = made.log_probability(params, ALL)
    return jnp.sum(jnp.exp(log_p) * (REWARDS - 0.3 * log_p))

  want = jax.grad(objective)(params)
  estimates = jax.vmap(
    lambda genes, reward: made.gradient(
      params, genes[None], reward[None], jnp.float64(baseline)
    )
  )(jnp.asarray(ALL), jnp.asarray(REWARDS))
  p = joint(made, params)
  found = jax.tree.map(lambda e: jnp.tensordot(p, e, 1), estimates)
  assert optax.tree.norm(want) > 0.1
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), found, want
  )


def test_a_batch_is_the_mean_of_its_samples(toy):
  made, params = toy
  genes, rewards = jnp.asarray(ALL[:5]), jnp.asarray(REWARDS[:5])
  one = [
    made.gradient(params, genes[i : i + 1], rewards[i : i + 1], jnp.ones(()))
    for i in range(5)
  ]
  mean = jax.tree.map(lambda *v: sum(v) / 5, *one)
  whole = made.gradient(params, genes, rewards, jnp.ones(()))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), whole, mean
  )
  # A baseline b takes b times the gradient of the mean log P away.
  bare = made.gradient(params, genes, rewards, jnp.zeros(()))
  slope = jax.grad(lambda p: made.log_probability(p, genes).mean())(params)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(a, b - c, atol=1e-12),
    whole,
    bare,
    slope,
  )


def test_the_cell_is_flax_s_lstm():
  kinds = (1, 0, 0, 1)
  made = make([3] * 4, kinds, temperature=2.0, tanh_constant=1.5)
  state = made.init(jax.random.key(0))
  params = jax.tree.map(lambda v: 5.0 * v, state.params)
  genes = jnp.array([[2, 0, 1, 1], [0, 0, 2, 1]])
  hidden = params.positions.shape[-1]
  dense = {}
  for name, columns in zip(
    "ifog", jnp.split(params.kernel, 4, -1), strict=True
  ):
    dense["i" + name] = {"kernel": columns[:hidden]}
    dense["h" + name] = {"kernel": columns[hidden:]}
  for name, bias in zip("ifog", jnp.split(params.bias, 4), strict=True):
    dense["h" + name]["bias"] = bias
  cell = nn.LSTMCell(hidden)
  apply = jax.jit(cell.apply)
  for row in range(2):
    carry = (jnp.zeros(hidden),) * 2
    total = 0.0
    for t in range(4):
      x = params.positions[t]
      x += params.candidates[kinds[t - 1], genes[row, t - 1]] if t else 0.0
      carry, y = apply({"params": dense}, carry, x)
      logits = 1.5 * jnp.tanh(y @ params.head[kinds[t]] / 2.0)
      total += jax.nn.log_softmax(logits)[genes[row, t]]
    found = made.log_probability(params, genes)[row]
    np.testing.assert_allclose(found, total, rtol=1e-5)


def reward(genes):
  """How many decisions are their last candidate, less one wrong pair."""
  hits = jnp.sum(genes == jnp.array([[2, 1, 3, 1]]), -1)
  return hits.astype(jnp.float32) - (genes[:, 0] == genes[:, 3])


WIDE = (3, 2, 4, 2)


@functools.cache  # compiled once for all tests
def learner(**options):
  return make(
    WIDE, None, optimizer=optax.adam(0.02), temperature=1.0, **options
  )


def test_it_learns_within_the_tanh_constant_s_bounds():
  made = learner(tanh_constant=2.0)
  start = made.init(jax.random.key(0))
  state, (genes, rewards, info) = made.run(start, reward, 150)
  assert genes.shape == (150, 10, 4) and rewards.shape == (150, 10)
  assert made.greedy(state.params).tolist() == [2, 1, 3, 1]
  assert rewards[-20:].mean() > rewards[:20].mean() + 1.0
  assert bool(info.finite.all())
  best = made.log_probability(state.params, jnp.array([[2, 1, 3, 1]]))[0]
  most = sum(2.0 - np.log(np.exp(2) + (k - 1) * np.exp(-2)) for k in WIDE)
  assert -2.0 < best < most + 1e-5


def test_entropy_pays():
  """With nothing else to gain, the bonus makes all choices alike."""
  made = learner(entropy_weight=1.0, tanh_constant=None)
  state = made.init(jax.random.key(0))
  far = jax.tree.map(lambda v: 30.0 * v, state.params)
  state = state._replace(params=far)
  flat = lambda genes: jnp.zeros(len(genes))  # noqa: E731
  state, (_, _, info) = made.run(state, flat, 300)
  most = np.log(WIDE).sum()
  assert info.entropy[0] < 0.97 * most < 0.99 * most < info.entropy[-1]


def test_asking_and_telling_is_the_same_as_the_compiled_loop():
  made = learner(samples=5, baseline_decay=0.8)
  state = made.init(jax.random.key(4))
  baseline, want, infos = None, [], []
  other = state
  for _ in range(3):
    genes, other = made.ask(other)
    rewards = np.asarray(reward(genes))  # anywhere outside
    values = rewards + 1e-4 * np.asarray(
      entropy_of(made, other.params, genes), np.float32
    )
    baseline = values.mean() if baseline is None else baseline
    want.append(baseline)
    baseline = 0.8 * baseline + 0.2 * values.mean()
    other, info = made.tell(other, genes, rewards)
    infos.append(info)
  np.testing.assert_allclose([i.baseline for i in infos], want, rtol=1e-5)
  state, (_, _, info) = made.run(state, reward, 3)
  np.testing.assert_allclose(info.reward, [i.reward for i in infos], rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
    state._replace(key=0),
    other._replace(key=0),
  )
  assert int(state.asked) == int(state.told) == 3


def entropy_of(made, params, genes):
  """The sum of conditional entropies along given genes, by brute force."""
  everything = np.array(list(itertools.product(range(3), range(2), range(4))))
  p = np.zeros((3, 2, 4, 2))
  for last in range(2):
    rows = np.c_[everything, np.full(len(everything), last)]
    p[tuple(rows.T)] = np.exp(made.log_probability(params, rows))
  totals = []
  for row in np.asarray(genes):
    total = 0.0
    for t in range(4):
      inner = p[tuple(row[:t])]
      share = inner.reshape(inner.shape[0], -1).sum(-1)
      share /= share.sum()
      total -= np.sum(share * np.log(share))
    totals.append(total)
  return totals


def test_a_bad_reward_is_reported():
  made = learner(samples=5, baseline_decay=0.8)
  state = made.init(jax.random.key(0))
  genes, state = made.ask(state)
  rewards = np.zeros(5, np.float32)
  assert bool(made.tell(state, genes, rewards)[1].finite)
  rewards[3] = np.nan
  assert not bool(made.tell(state, genes, rewards)[1].finite)


def test_it_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path):
  made = learner(samples=5, baseline_decay=0.8)

  def digest(state):
    return manifests.state_digest(manifests.flatten(state)[0])

  state = made.init(jax.random.key(5))
  target = jax.eval_shape(made.init, jax.random.key(5))
  whole, _ = made.run(state, reward, 6)
  half, _ = made.run(state, reward, 3)
  checkpoint.save(tmp_path, 3, half, {})
  again = checkpoint.fit(checkpoint.verify(tmp_path, 3), target, "c")
  rest, _ = made.run(again, reward, 3)
  assert digest(rest) == digest(whole) != digest(half)


@pytest.mark.parametrize(
  "counts, options, said",
  [
    ([], {}, "all >= 1"),
    ([2, 0], {}, "all >= 1"),
    ([[2, 2]], {}, "all >= 1"),
    ([3, 3], {"kinds": [0]}, "2 numbers"),
    ([3, 3], {"kinds": [0, -1]}, "2 numbers"),
    ([3, 3], {"samples": 0}, "samples=0"),
    ([3, 3], {"temperature": 0.0}, "above 0"),
    ([3, 3], {"tanh_constant": -1.0}, "above 0"),
    ([3, 3], {"entropy_weight": -1.0}, "must be >= 0"),
    ([3, 3], {"baseline_decay": 1.0}, "0..1"),
  ],
)
def test_mistakes_are_refused(counts, options, said):
  with pytest.raises(ValueError, match=said):
    controllers.controller(counts, **options)
