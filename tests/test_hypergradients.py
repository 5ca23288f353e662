"""Hypergradients against brute force, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nasjax import hypergradients
from nasjax.types import Batch

# A supernet small enough to difference: 3 candidates of which the last is
# masked out of the mixture, so its weights have exactly zero gradients.
_OPEN = jnp.array([[True, True, False]] * 2)


def make_loss(scale):
  def loss(params, batch_stats, logits, batch, key):
    weights = jax.nn.softmax(jnp.where(_OPEN, logits["a"], -1e9), -1)
    weights = jnp.where(_OPEN, weights, 0.0)
    x = batch.images
    for edge in range(2):
      x = sum(
        weights[edge, k] * jnp.tanh(x @ params[f"w{edge}{k}"]) for k in range(3)
      )
    value = ((x.sum(-1) - batch.labels) ** 2).mean() * scale
    return value, (batch_stats, jnp.float32(0.0))

  return loss


def problem(optimizer):
  rng = np.random.default_rng(0)
  params = {
    f"w{e}{k}": jnp.asarray(rng.normal(size=(4, 4)))
    for e in range(2)
    for k in range(3)
  }
  logits = {"a": jnp.asarray(rng.normal(size=(2, 3)))}
  batches = [
    Batch(jnp.asarray(rng.normal(size=(6, 4))), jnp.asarray(rng.normal(size=6)))
    for _ in range(2)
  ]
  state = optimizer.init(params)
  # A state with history, so that momentum and second moments count.
  for seed in range(2):
    grads = jax.tree.map(
      lambda p, s=seed: jnp.asarray(
        np.random.default_rng(s).normal(size=p.shape)
      ),
      params,
    )
    if isinstance(state, tuple) and seed == 0:
      grads = {**grads, "w02": jnp.zeros((4, 4)), "w12": jnp.zeros((4, 4))}
    _, state = optimizer.update(grads, state, params)
  return params, logits, batches, state


OPTIMIZERS = {
  "sgd": lambda: optax.chain(
    optax.add_decayed_weights(3e-2), optax.sgd(0.1, momentum=0.9)
  ),
  "adam": lambda: optax.adam(0.1, eps_root=1e-8),
}


@pytest.fixture
def x64():
  with jax.enable_x64(True):
    yield


def gradients(method, optimizer, fresh):
  params, logits, (train, valid), state = problem(optimizer)
  if fresh:
    state = optimizer.init(params)
  inner, outer = make_loss(1.0), make_loss(0.7)
  key = jax.random.key(0)

  def brute(flat):
    a = {"a": flat.reshape(2, 3)}
    gradient = jax.grad(lambda p: inner(p, {}, a, train, key)[0])(params)
    updates, _ = optimizer.update(gradient, state, params)
    stepped = optax.apply_updates(params, updates)
    return outer(stepped, {}, a, valid, key)[0]

  value, gradient, _ = jax.jit(
    lambda a: method(
      inner, outer, optimizer, state, params, {}, a, train, valid, key
    )
  )(logits)
  start = np.asarray(logits["a"]).ravel()
  brute = jax.jit(brute)
  assert float(value) > 0
  step, differences = 1e-4, []
  for i in range(6):
    at = [
      float(brute(jnp.asarray(start + m * step * np.eye(6)[i])))
      for m in (-2, -1, 1, 2)
    ]
    differences.append((at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step))
  return np.asarray(gradient["a"]).ravel(), np.array(differences)


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_unrolled_equals_brute_force(x64, name, fresh):
  ours, brute = gradients(hypergradients.unrolled(), OPTIMIZERS[name](), fresh)
  assert np.abs(ours - brute).max() <= 1e-6 * np.abs(brute).max()
  assert ours[2] == ours[5] == 0.0
  # The second-order part is there: first order is far from it.
  first, _ = gradients(hypergradients.first_order(), OPTIMIZERS[name](), fresh)
  assert np.abs(first - brute).max() > 1e-2 * np.abs(brute).max()


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_finite_difference_is_close(x64, name):
  ours, brute = gradients(
    hypergradients.finite_difference(), OPTIMIZERS[name](), False
  )
  assert np.abs(ours - brute).max() <= 1e-2 * np.abs(brute).max()


def test_single_level_and_first_order_are_partial_derivatives(x64):
  optimizer = OPTIMIZERS["sgd"]()
  params, logits, (train, valid), state = problem(optimizer)
  loss, key = make_loss(1.0), jax.random.key(0)
  for method, batch in (
    (hypergradients.single_level(), train),
    (hypergradients.first_order(), valid),
  ):
    value, gradient, _ = method(
      loss, loss, optimizer, state, params, {}, logits, train, valid, key
    )
    want, slope = jax.value_and_grad(
      lambda a, b=batch: loss(params, {}, a, b, key)[0]
    )(logits)
    np.testing.assert_allclose(value, want)
    np.testing.assert_allclose(gradient["a"], slope["a"])


def test_adam_without_eps_root_is_refused():
  optimizer = optax.adam(0.1)
  params, logits, (train, valid), state = problem(optimizer)
  with pytest.raises(ValueError, match="eps_root"):
    hypergradients.unrolled()(
      make_loss(1.0),
      make_loss(1.0),
      optimizer,
      state,
      params,
      {},
      logits,
      train,
      valid,
      jax.random.key(0),
    )


def test_bad_radius_is_refused():
  with pytest.raises(ValueError, match="radius"):
    hypergradients.finite_difference(radius=0.0)
