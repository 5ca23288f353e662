"""Quantisation: by hand, by properties, straight through."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import data, spaces, training
from nasjax.errors import InputError
from nasjax.hardware import kernel_errors
from nasjax.hardware import quantization as q
from nasjax.search import shared


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
  table = np.asarray(kernel_errors.candidate_errors(toy, params, 4)["layers"])
  assert table.shape == (3, 4)
  # none and skip have no weights; convolutions lose something.
  assert (table[:, :2] == 0).all() and (table[:, 2:] > 0).all()
  kernel = params["stage_0"]["edge_0"]["conv_1x1"]["convolution_1"]["kernel"]
  assert table[1, 2] == pytest.approx(float(q.error(kernel[1], 4)) ** 2)
  metric = kernel_errors.error_metric(toy, params, 4)
  found = toy.decide(
    {"layers": np.ones((3, 4)) / 4}, [(metric, float(table[0, 2]))]
  )
  assert metric.exact(found) <= table[0, 2]
  assert float(metric.expected(found.one_hot())) == pytest.approx(
    metric.exact(found), abs=1e-7
  )
  # More bits, less error, everywhere.
  eight = np.asarray(kernel_errors.candidate_errors(toy, params, 8)["layers"])
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


def test_errors_see_the_normalisation_that_will_be_folded_in(toy):
  """A channel of small variance is scaled up and takes the others' steps."""
  variables = toy.init(jax.random.key(0))
  stats = jax.tree.map(lambda v: v, variables["batch_stats"])
  own = stats["stage_0"]["edge_0"]["conv_1x1"]["norm_1"]
  own["var"] = own["var"].at[1].set(jnp.array([1e-4, 1.0, 4.0, 9.0]))
  params = variables["params"]
  kernel = params["stage_0"]["edge_0"]["conv_1x1"]["convolution_1"]["kernel"]
  deviations = np.sqrt(np.array([1e-4, 1.0, 4.0, 9.0]) + 1e-5)
  folded = jnp.float32(np.asarray(kernel[1]) / deviations)
  for per_channel in (False, True):
    found = kernel_errors.candidate_errors(
      toy, params, 4, per_channel=per_channel, batch_stats=stats
    )["layers"][1, 2]
    want = float(q.error(folded, 4, per_channel=per_channel)) ** 2
    assert float(found) == pytest.approx(want, rel=1e-4)
    plain = kernel_errors.candidate_errors(
      toy, params, 4, per_channel=per_channel
    )
    if not per_channel:
      assert float(found) != pytest.approx(float(plain["layers"][1, 2]))
  with pytest.raises(InputError, match="no plan"):
    kernel_errors.candidate_errors(spaces.mobilenet(), params, 4)


def test_asymmetry_of_choices_by_hand(toy):
  params = toy.init(jax.random.key(0))["params"]
  metric = kernel_errors.asymmetry_metric(toy, params)
  kernel = params["stage_0"]["edge_0"]["conv_3x3"]["convolution_1"]["kernel"]
  found = spaces.architecture(toy, {"layers": [0, 3, 1]})
  want = float(q.asymmetry(kernel[1]))
  assert metric.exact(found) == pytest.approx(want, rel=1e-5) and want > 0


def test_a_supernet_sees_quantised_weights_and_keeps_them_symmetric(
  toy, batches
):
  """`low_bits` is `fake_quantize_tree` before, and a penalty beside, a loss."""
  train, _ = batches((8, 8, 1))

  def made(low_bits):
    return shared.supernet(
      toy,
      optimizer=optax.sgd(0.1),
      remat=None,
      activations="float32",
      low_bits=low_bits,
      name="test",
    )

  start = made(q.FLOAT).init(jax.random.key(0)).variables
  params, stats = start["params"], start["batch_stats"]
  sampled = spaces.architecture(toy, {"layers": [3, 2, 3]}).sampled()

  @partial(jax.jit, static_argnums=1)
  def inner(params, low_bits):
    return jax.value_and_grad(
      lambda p: made(low_bits).inner(p, stats, sampled, train), has_aux=True
    )(params)

  for per_channel in (True, False):
    rounded = q.fake_quantize_tree(params, 3, per_channel=per_channel)
    (value, _), slope = inner(params, q.LowBits(3, per_channel))
    (want, _), wanted = inner(rounded, q.FLOAT)
    assert float(value) == pytest.approx(float(want), rel=1e-5)
    # Straight through: the gradient at the rounded weights.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      slope,
      wanted,
    )
  (plain, _), slope = inner(params, q.FLOAT)
  (value, (entropy, *_)), wanted = inner(params, q.LowBits(asymmetry=2.0))
  penalty = float(q.asymmetry_penalty(params))
  assert float(value - plain) == pytest.approx(2.0 * penalty, rel=1e-4)
  assert float(entropy) == float(plain)  # what is reported has no penalty
  more = jax.grad(q.asymmetry_penalty)(params)
  jax.tree.map(
    lambda a, b, c: np.testing.assert_allclose(
      b - a, 2.0 * c, rtol=1e-3, atol=1e-5
    ),
    slope,
    wanted,
    more,
  )
  for wrong in (q.LowBits(1), q.LowBits(asymmetry=-1.0)):
    with pytest.raises(ValueError, match="test: (bits=1|asymmetry=-1.0) must"):
      made(wrong)


def test_a_decided_network_is_trained_for_few_bits(toy):
  """At two bits only what was trained for them keeps its accuracy."""
  rng = np.random.default_rng(0)
  labels = rng.integers(4, size=256).astype(np.int32)
  pixels = rng.integers(100, size=(256, 8, 8, 1), dtype=np.uint8)
  for i, label in enumerate(labels):
    y, x = 4 * (label // 2), 4 * (label % 2)
    pixels[i, y : y + 4, x : x + 4] += 120
  images = data.Images(pixels, labels)
  network = spaces.architecture(toy, {"layers": [3, 2, 3]})
  two = q.LowBits(2, False)
  accuracies = {}
  for name, low_bits in (("float", q.FLOAT), ("two", two)):
    recipe = training.Recipe(epochs=6, batch_size=16, low_bits=low_bits)
    state = training.begin(jax.random.key(0), network, recipe, 256)
    for epoch in training.epochs(
      network, recipe, images, state, key=jax.random.key(1)
    ):
      state = epoch.state
    variables = {
      **state.variables,
      "params": q.seen_weights(state.variables["params"], two),
    }
    accuracies[name] = training.accuracy(
      network, variables, images, data.statistics(images)
    )
  assert accuracies["two"] > accuracies["float"] + 0.2
