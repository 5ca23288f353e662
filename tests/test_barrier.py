"""Values that are computed once are still the same values."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from nasjax.layers.barrier import computed_once


def test_values_and_derivatives_are_those_of_the_identity():
  x = jax.random.normal(jax.random.key(0), (2, 3, 3, 4))

  def f(x):
    return jnp.sum(computed_once(x**2) ** 2)

  np.testing.assert_array_equal(jax.jit(computed_once)(x), x)
  np.testing.assert_allclose(jax.grad(f)(x), 4 * x**3, rtol=1e-5)
  check_grads(f, (x,), order=2, rtol=2e-2)
  np.testing.assert_array_equal(jax.vmap(computed_once)(x), x)


def test_what_is_not_finite_stays_so():
  x = jnp.array([jnp.inf, 1.0, jnp.nan])
  np.testing.assert_array_equal(jax.jit(computed_once)(x), x)
  np.testing.assert_array_equal(jax.jit(computed_once)(x[::-1]), x[::-1])


def test_what_two_consumers_read_is_stored():
  """Without it, XLA would fuse the producer into both of its consumers."""
  x = jnp.ones((64, 64))

  def absolutes(once):
    def f(x):
      x = once(jnp.abs(x))
      return jnp.sin(x), jnp.cumsum(jnp.cos(x), 0)

    text = jax.jit(f).lower(x).compile().as_text()
    return text.count(" abs(")

  assert absolutes(computed_once) == 1 < absolutes(lambda x: x)
