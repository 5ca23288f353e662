"""Training a decided network."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import data, spaces, training
from nasjax.cli import own_spaces

EXAMPLE = Path(__file__).parent.parent / "experiments" / "my_space.py"


def images(seed, size):
  """Four classes that differ in which quarter is bright."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(4, size=size).astype(np.int32)
  pixels = rng.integers(100, size=(size, 8, 8, 1), dtype=np.uint8)
  for i, label in enumerate(labels):
    y, x = 4 * (label // 2), 4 * (label % 2)
    pixels[i, y : y + 4, x : x + 4] += 120
  return data.Images(pixels, labels)


@pytest.fixture
def network(toy):
  return spaces.architecture(toy, {"layers": [3, 2, 3]})


RECIPE = training.Recipe(epochs=12, batch_size=16, drop_path=0.1)


def run(network, recipe, train, state, key=0):
  found = None
  for found in training.epochs(
    network, recipe, train, state, key=jax.random.key(key)
  ):
    assert found.finite
  return found


def test_it_learns_and_goes_on_to_the_same_bits(network):
  train, test = images(0, 320), images(1, 300)
  start = training.begin(jax.random.key(0), network, RECIPE, 320)
  whole = run(network, RECIPE, train, start)
  score = training.accuracy(
    network,
    whole.state.variables,
    test,
    data.statistics(train),
    batch_size=128,
  )
  assert score > 0.9
  start = training.begin(jax.random.key(0), network, RECIPE, 320)
  epochs = training.epochs(network, RECIPE, train, start, key=jax.random.key(0))
  half = [next(epochs) for _ in range(3)][-1].state
  again = run(network, RECIPE, train, half)
  jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_dropped_paths_keep_the_mean(network):
  """Each image keeps an edge or not; what is kept is scaled up."""
  module = network.space.build(network)
  x = jax.random.normal(jax.random.key(1), (5000, 2, 2, 3)) ** 2 + 0.1
  dropped = module.clone(drop_path=0.25).apply(
    {}, x, method=lambda m, y: m._drop(y), rngs={"drop_path": jax.random.key(2)}
  )
  kept = (np.asarray(dropped) != 0).all((1, 2, 3))
  gone = (np.asarray(dropped) == 0).all((1, 2, 3))
  assert (kept | gone).all() and abs(kept.mean() - 0.75) < 0.03
  np.testing.assert_allclose(dropped[kept], x[kept] / 0.75, rtol=1e-6)


@pytest.mark.parametrize("name", ["nasbench201", "chain"])
def test_dropped_paths_leave_the_identity(name):
  """At a rate of 1 skips remain, and what a layer of a chain is added to.

  DARTS's code drops no identity; a chain's layer is the only way through.
  """
  if name == "chain":
    space = own_spaces.constructor(f"{EXAMPLE}:chain", "test")(cells=1)
    rows = (
      ["inverted_residual", "sep_conv_5x5"],
      ["skip_connect", "sep_conv_5x5"],
    )
  else:
    space = spaces.nasbench201(channels=4, cells=1, image_shape=(8, 8, 1))
    rows = [1, 3, 1, 4, 2, 1], [1, 0, 1, 0, 0, 1]
  images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("f4")
  variables = space.init(jax.random.key(0))
  (group,) = space.groups
  outputs = []
  for row, rate in zip(rows, (1.0, 0.0), strict=True):
    one = spaces.architecture(space, {group: row})
    network = space.build(one).clone(drop_path=rate)

    @jax.jit
    def run(own, network=network):
      rngs = {"drop_path": jax.random.key(1)}
      return network.apply(
        own, images, True, mutable=["batch_stats"], rngs=rngs
      )[0]

    outputs.append(run(space.extract(variables, one)))
  np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
  assert np.ptp(outputs[0]) > 0.01


def test_the_loss_is_the_smoothed_cross_entropy(network):
  """The first epoch of one batch, at rate about 0: its loss by hand."""
  train = images(3, 32)
  recipe = training.Recipe(
    epochs=1,
    batch_size=32,
    label_smoothing=0.3,
    learning_rate=1e-9,
    augmentation=data.Augmentation(),
  )
  state = training.begin(jax.random.key(0), network, recipe, 32)
  module = network.space.build(network)
  batch = data.gather(train, jnp.arange(32), *data.statistics(train))
  outputs, _ = module.apply(
    state.variables, batch.images, True, mutable=["batch_stats"]
  )
  log = np.asarray(jax.nn.log_softmax(outputs))
  wanted = 0.7 * np.eye(4)[np.asarray(batch.labels)] + 0.3 / 4
  found = run(network, recipe, train, state)
  assert found.loss == pytest.approx(-(wanted * log).sum(-1).mean(), rel=1e-5)


@pytest.mark.parametrize(
  "change, said",
  [
    (dict(drop_path=1.0), "drop_path"),
    (dict(label_smoothing=-0.1), "label_smoothing"),
    (dict(epochs=0), "epochs"),
    (dict(auxiliary=-1.0), "auxiliary"),
    (dict(auxiliary=0.4), "the space toy has no place"),
    (dict(learning_rate=0.0), "learning_rate"),
    (dict(batch_size=999), "batch size 999"),
  ],
)
def test_what_cannot_be_is_refused(change, said, network):
  with pytest.raises(ValueError, match=said):
    training.begin(jax.random.key(0), network, RECIPE._replace(**change), 320)
