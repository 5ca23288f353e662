"""Quantisation: by hand, by properties, straight through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax.hardware import quantization as q


def test_by_hand():
  # 3 bits, symmetric: steps of max / 3. Per tensor 6 / 3 = 2.
  w = jnp.array([[1.0, 6.0], [-3.0, 2.9]])
  np.testing.assert_allclose(
    q.quantize(w, 3, per_channel=False), [[0.0, 6.0], [-4.0, 2.0]]
  )
  # Per channel: steps 1 and 2.
  np.testing.assert_allclose(q.quantize(w, 3), [[1.0, 6.0], [-3.0, 2.0]])
  # Only 0.9 is lost of the norm sqrt(1 + 36 + 9 + 8.41).
  assert float(q.error(w, 3)) == pytest.approx(0.9 / 54.41**0.5)
  # Channels [-3, 1] and [2.9, 6]: ((1 - 3) / 4)^2 = 0.25, and over 1, so 1.
  assert float(q.asymmetry(w)) == pytest.approx(0.625)
  assert float(q.asymmetry(jnp.array([[-2.0], [2.0]]))) == 0.0
  with pytest.raises(ValueError, match="bits=1"):
    q.quantize(w, 1)
  assert float(q.error(jnp.zeros((2, 2)), 8)) == 0.0


@given(
  seed=st.integers(0, 2**31),
  bits=st.integers(2, 12),
  scale=st.floats(1e-3, 1e3),
)
def test_errors_are_bounded_and_fall_with_bits_and_channels(seed, bits, scale):
  rng = np.random.default_rng(seed)
  w = jnp.asarray(scale * rng.normal(size=(3, 3, 4, 5)), jnp.float32)
  found = q.quantize(w, bits)
  step = q.scales(w, bits, True)
  assert float(jnp.max(jnp.abs(w - found) / step)) <= 0.5 + 1e-3
  # Channels of their own have no larger a step, on any of them.
  assert bool(jnp.all(step <= q.scales(w, bits, False) * (1 + 1e-6)))
  # Idempotent: what is representable stays.
  np.testing.assert_allclose(q.quantize(found, bits), found, rtol=1e-4)
  # Four more bits make a step 16 times as fine.
  assert float(q.error(w, bits + 4)) < float(q.error(w, bits))


def test_gradients_go_straight_through():
  w = jnp.array([[0.3, -0.7], [0.11, 0.5]])
  gradient = jax.grad(lambda w: jnp.sum(3.0 * q.fake_quantize(w, 4)))(w)
  np.testing.assert_allclose(gradient, 3.0)
  np.testing.assert_allclose(q.fake_quantize(w, 4), q.quantize(w, 4), rtol=1e-6)
  seen = q.Range(jnp.float32(-1), jnp.float32(2), jnp.int32(1))
  values = jnp.array([-3.0, -0.5, 0.0, 1.0, 5.0])
  out, pull = jax.vjp(lambda v: q.fake_quantize_activations(v, seen, 8), values)
  np.testing.assert_allclose(pull(jnp.ones(5))[0], [0, 1, 1, 1, 0])
  step = 3 / 255
  # -1 is 85 steps: the grid holds it, 0 and 2.
  np.testing.assert_allclose(out, [-1, -0.5, 0, 1, 2], atol=step / 2 + 1e-6)
  assert float(out[2]) == 0.0 and float(out[4]) == pytest.approx(2.0)


def test_ranges_average_over_batches():
  seen = q.update_range(q.start_range(), jnp.array([-1.0, 3.0]))
  assert (float(seen.low), float(seen.high)) == (-1.0, 3.0)
  seen = q.update_range(seen, jnp.array([-2.0, 5.0]), momentum=0.5)
  assert (float(seen.low), float(seen.high)) == (-1.5, 4.0)


def test_a_spaces_choices_have_errors(toy):
  params = toy.init(jax.random.key(0))["params"]
  table = np.asarray(q.candidate_errors(toy, params, 4)["layers"])
  assert table.shape == (3, 4)
  # none and skip have no weights; convolutions lose something.
  assert (table[:, :2] == 0).all() and (table[:, 2:] > 0).all()
  kernel = params["stage_0"]["edge_0"]["conv_1x1"]["convolution_1"]["kernel"]
  assert table[1, 2] == pytest.approx(float(q.error(kernel[1], 4)) ** 2)
  metric = q.error_metric(toy, params, 4)
  found = toy.decide(
    {"layers": np.ones((3, 4)) / 4}, [(metric, float(table[0, 2]))]
  )
  assert metric.exact(found) <= table[0, 2]
  assert float(metric.expected(found.one_hot())) == pytest.approx(
    metric.exact(found), abs=1e-7
  )
  # More bits, less error, everywhere.
  eight = np.asarray(q.candidate_errors(toy, params, 8)["layers"])
  assert (eight[:, 2:] < table[:, 2:]).all()
  stats = q.layer_errors(params["stem"], 8)
  assert list(stats) == ["convolution_0"]


def test_kernels_of_stacked_cells_are_quantised_each_alone(toy):
  params = toy.init(jax.random.key(0))["params"]
  found = q.fake_quantize_tree(params, 4)
  path = ("stage_0", "edge_0", "conv_3x3", "convolution_1", "kernel")
  before, after = params, found
  for name in path:
    before, after = before[name], after[name]
  for r in range(3):
    np.testing.assert_allclose(after[r], q.quantize(before[r], 4), atol=1e-6)
  np.testing.assert_allclose(
    found["stem"]["convolution_0"]["kernel"],
    q.quantize(params["stem"]["convolution_0"]["kernel"], 4),
    atol=1e-6,
  )
  assert 0 <= float(q.asymmetry_penalty(params)) <= 1
