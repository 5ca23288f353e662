"""Cheap random bits: even, independent of their place, of their key alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.search import draws

SIZE = 2**16
draw = jax.jit(lambda key: draws.bits(key, (SIZE,)))


@pytest.fixture(scope="module")
def words():
  return np.stack([draw(jax.random.key(seed)) for seed in range(4)])


def test_every_bit_is_even_and_independent(words):
  """Within 5 deviations, as one of all these pairs of a fair coin would be."""
  off = 5.0 / np.sqrt(SIZE)
  bits = (words[..., None] >> np.arange(32)) & 1
  signs = 2.0 * bits - 1.0
  assert np.abs(signs.mean(1)).max() < off
  one = signs[0]
  between = one.T @ one / SIZE - np.eye(32)
  assert np.abs(between).max() < off
  # Neither with its neighbours, at several distances, nor with another key.
  for step in (1, 2, 3, 9, 32, 1024):
    assert np.abs((one[step:].T @ one[:-step]) / SIZE).max() < 1.1 * off
  assert np.abs(one.T @ signs[1] / SIZE).max() < off


def test_numbers_are_even(words):
  counts = np.array([1, 2, 5, 9], np.int32)
  found = np.asarray(draws.below(words.T, counts[None]))
  for column, count in zip(found.T, counts, strict=True):
    seen = np.bincount(column, minlength=count)
    assert len(seen) == count  # none is out of range
    expected = SIZE / count
    assert (np.abs(seen - expected) < 5.0 * np.sqrt(expected)).all()
  unit = np.asarray(draws.uniform(words[0]))
  assert unit.min() >= 0.0 and unit.max() < 1.0
  assert abs(unit.mean() - 0.5) < 5.0 / np.sqrt(12 * SIZE)


def test_ends_of_the_range_stay_within():
  ends = jnp.array([0, 2**32 - 1], jnp.uint32)
  assert draws.below(ends, jnp.int32(2**16)).tolist() == [0, 2**16 - 1]
  assert float(draws.uniform(ends)[1]) < 1.0


def test_bits_follow_from_the_key(words):
  np.testing.assert_array_equal(draw(jax.random.key(0)), words[0])
  shaped = draws.bits(jax.random.key(0), (4, SIZE // 4))
  np.testing.assert_array_equal(shaped, words[0].reshape(4, -1))
  assert len(np.unique(words)) > 0.99 * words.size
