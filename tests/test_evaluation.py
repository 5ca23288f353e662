"""Accuracies of sub-networks with batch statistics of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import data, search, spaces, training
from nasjax.search import evaluation
from nasjax.spaces import space as space_tools


def images(seed, size):
  rng = np.random.default_rng(seed)
  labels = rng.integers(4, size=size).astype(np.int32)
  pixels = rng.integers(256, size=(size, 8, 8, 1), dtype=np.uint8)
  return data.Images(pixels, labels)


def by_class(images):
  return data.take(images, np.argsort(images.labels, kind="stable"))


def test_what_is_measured_is_what_is_deployed(toy):
  """A network taken out of the supernet scores as the search scored it."""
  train, valid = by_class(images(0, 300)), by_class(images(1, 131))
  statistics = data.statistics(train)
  variables = toy.init(jax.random.key(0))
  one = spaces.architecture(toy, {"layers": [3, 2, 3]})
  score = search.supernet_accuracy(toy, variables, train, valid, statistics)
  own = training.recalibrate(one, toy.extract(variables, one), train)
  deployed = training.accuracy(one, own, valid, statistics)
  assert score(one) == pytest.approx(deployed, abs=1e-6)
  # In any other order too, and by class.
  shuffled = data.take(valid, np.random.default_rng(0).permutation(131))
  again = search.supernet_accuracy(toy, variables, train, shuffled, statistics)
  assert again(one) == score(one)
  shares = training.class_accuracies(one, own, valid, statistics)
  sizes = np.bincount(valid.labels)
  assert shares @ sizes / 131 == pytest.approx(deployed)


def test_a_part_of_the_images_has_each_class_by_its_share(toy):
  sorted_images = by_class(images(1, 400))
  few = evaluation.scoring(
    sorted_images, sorted_images, data.statistics(sorted_images), most=100
  )
  assert int(few.images.size) == 100
  counts = np.bincount(few.images.labels[:100], minlength=4)
  wanted = np.bincount(sorted_images.labels) / 4
  assert np.abs(counts - wanted).max() < 1


def test_statistics_are_the_mean_over_the_calibration_batches(toy):
  """Against the decided network itself, its statistics averaged by hand."""
  # Sorted by class, as folders come, and with a part of a batch at the end.
  train, valid = by_class(images(0, 200)), by_class(images(1, 417))
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
    every = data.gather(valid, jnp.arange(417), *statistics)
    hits = jnp.argmax(network.apply(own, every.images), -1) == every.labels
    want.append(float(hits.mean()))
  assert len(set(want)) > 1
  # A tie between classes may fall either way.
  np.testing.assert_allclose(found, want, atol=1 / 417 + 1e-6)
