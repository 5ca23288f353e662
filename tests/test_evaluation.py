"""Accuracies of sub-networks with batch statistics of their own."""

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import data, search, spaces
from nasjax.spaces import space as space_tools


def images(seed, size):
  rng = np.random.default_rng(seed)
  labels = rng.integers(4, size=size).astype(np.int32)
  pixels = rng.integers(256, size=(size, 8, 8, 1), dtype=np.uint8)
  return data.Images(pixels, labels)


def test_statistics_are_the_mean_over_the_calibration_batches(toy):
  """Against the decided network itself, its statistics averaged by hand."""
  train, valid = images(0, 200), images(1, 400)
  statistics = data.statistics(train)
  variables = toy.init(jax.random.key(0))
  rows = space_tools.random_choices(toy, np.random.default_rng(0), 6)
  score = search.population_accuracy(
    toy, train, valid, statistics, batch_size=50, calibration_batches=3
  )
  found = jax.jit(score)(
    variables, {n: jnp.asarray(r, jnp.int32) for n, r in rows.items()}
  )
  # The first of each class that make 150 of 200 training images.
  seen = data.ordered(train)
  seen = data.take(seen, data.stratified(seen.labels, 150))
  want = []
  for i in range(6):
    one = spaces.architecture(toy, {n: r[i] for n, r in rows.items()})
    network, own = toy.build(one), toy.extract(variables, one)
    statistics_of = []
    for batch in range(3):
      rows_of = jnp.arange(50 * batch, 50 * batch + 50)
      shown = data.gather(seen, rows_of, *statistics).images
      # Batch statistics by difference: two starts, one batch.
      _, new = network.apply(own, shown, True, mutable=["batch_stats"])
      statistics_of.append(
        jax.tree.map(
          lambda after, before: before + (after - before) / 0.1,
          new["batch_stats"],
          own["batch_stats"],
        )
      )
    own["batch_stats"] = jax.tree.map(
      lambda *v: sum(v) / len(v), *statistics_of
    )
    every = data.gather(valid, jnp.arange(400), *statistics)
    hits = jnp.argmax(network.apply(own, every.images), -1) == every.labels
    want.append(float(hits.mean()))
  assert len(set(want)) > 1
  # A tie between classes may fall either way.
  np.testing.assert_allclose(found, want, atol=1 / 400 + 1e-6)
