"""Activations against JAX's own: outputs, first and second derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.layers import activations

PAIRS = {
  "relu": (activations.relu, jax.nn.relu),
  "relu6": (activations.relu6, jax.nn.relu6),
}


def third_power(function, w):
  """Its derivatives depend on the activation's output."""
  return lambda x: (w * function(x) ** 3).sum()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_they_are_jaxs_own(name, dtype):
  ours, want = PAIRS[name]
  rng = np.random.default_rng(0)
  x = jnp.asarray(4.0 * rng.normal(size=(5, 7, 3)), dtype)
  w = jnp.asarray(rng.normal(size=(5, 7, 3)), dtype)
  found = jax.jit(ours)(x)
  assert found.dtype == x.dtype
  np.testing.assert_array_equal(found, want(x))
  np.testing.assert_array_equal(jax.vmap(ours)(x), want(x))
  gradients = [jax.grad(third_power(f, w)) for f in (ours, want)]
  first = [jax.jit(g)(x) for g in gradients]
  np.testing.assert_array_equal(*map(np.float32, first))
  second = [
    jax.jit(jax.grad(lambda x, g=g: (w * g(x)).sum()))(x) for g in gradients
  ]
  np.testing.assert_array_equal(*map(np.float32, second))
  assert np.abs(np.float32(second[0])).max() > 0


@pytest.mark.parametrize("name", PAIRS)
def test_the_gradient_is_zero_at_the_bounds(name):
  x = jnp.array([-1.0, 0.0, 3.0, 6.0, 7.0])
  inside = [0.0, 0.0, 1.0, 0.0, 0.0] if name == "relu6" else [0, 0, 1, 1, 1]
  found = jax.vmap(jax.grad(PAIRS[name][0]))(x)
  np.testing.assert_array_equal(found, np.float32(inside))


@pytest.mark.parametrize("name", PAIRS)
def test_padding_is_jaxs_own(name):
  ours, plain = PAIRS[name]
  rng = np.random.default_rng(0)
  x = jnp.asarray(4.0 * rng.normal(size=(2, 5, 7, 3)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(2, 9, 11, 3)), jnp.float32)

  def want(x):
    return jnp.pad(plain(x), ((0, 0), (2, 2), (2, 2), (0, 0)))

  def mine(x):
    return ours(x, 2)

  np.testing.assert_array_equal(jax.jit(mine)(x), want(x))
  gradients = [jax.grad(third_power(f, w)) for f in (mine, want)]
  np.testing.assert_array_equal(*(jax.jit(g)(x) for g in gradients))
  inner = w[:, 2:-2, 2:-2]
  second = [jax.grad(lambda x, g=g: (inner * g(x)).sum()) for g in gradients]
  np.testing.assert_array_equal(*(jax.jit(g)(x) for g in second))
