"""Which images a step sees, and how they are scaled."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import data
from nasjax.data import pool as pools
from nasjax.search import epochs
from nasjax.types import Search, SearchState

BATCH = 8


class Seen(NamedTuple):
  train: Any  # f32[B], a pixel of each image as the step had it
  valid: Any
  labels: Any  # i32[B], of the training batch
  finite: Any
  sound: Any


def numbered(first, count):
  """Images whose pixels are their own number, labelled by its remainder."""
  numbers = np.arange(first, first + count)
  pixels = np.broadcast_to(numbers[:, None, None, None], (count, 2, 2, 1))
  return data.Images(pixels.astype(np.uint8), (numbers % 4).astype(np.int32))


def watching():
  """A search that learns nothing and reports what it is shown."""

  def update(state, train, valid):
    seen = Seen(
      train.images[:, 0, 0, 0],
      valid.images[:, 0, 0, 0],
      train.labels,
      jnp.bool_(True),
      {},
    )
    return state._replace(step=state.step + 1), seen

  def init(key):
    return SearchState(jnp.float32(0), key, {}, jnp.int32(0))

  return Search(init, update)


def whole_epochs(train, valid, count, seed=0):
  search = watching()
  loop = epochs.prepare(
    lambda _: search,
    (),
    train,
    valid,
    batch_size=BATCH,
    augmentation=data.Augmentation(),
  )
  start = epochs.begin(loop, search.init(jax.random.key(0)))
  return [
    now.infos
    for now in epochs.run_chunks(
      loop, start, epochs=count, key=jax.random.key(seed), longest=3
    )
    if int(now.done) == loop.steps
  ]


@pytest.mark.parametrize("size", [40, 43])
def test_an_epoch_shows_each_training_image_once(size):
  train, valid = numbered(0, size), numbered(100, 24)
  mean, std = data.statistics(train)
  found = whole_epochs(train, valid, 2)
  found += whole_epochs(train, valid, 1, seed=1)
  orders = []
  for infos in found:
    # Scaled by the training half's mean and deviation, both halves.
    rows, others = (
      np.rint((np.asarray(x) * std + mean) * 255).astype(int)
      for x in (infos.train, infos.valid)
    )
    assert rows.shape == (size // BATCH, BATCH)
    assert len(set(rows.ravel())) == rows.size and set(rows.ravel()) <= set(
      range(size)
    )
    np.testing.assert_array_equal(infos.labels, rows % 4)
    # Fewer than are trained on: each is shown before any comes again.
    assert set(others[:3].ravel()) == set(range(100, 124))
    assert set(others.ravel()) == set(range(100, 124))
    orders.append(rows.ravel().tolist())
  # Another epoch and another seed have orders of their own.
  assert orders[0] != orders[1] and orders[0] != orders[2]


def test_a_pool_has_few_sizes_and_nothing_else_of_its_set():
  sizes = [pools.padded(n) for n in range(1, 5000)]
  assert all(n <= p <= n * 9 / 8 for n, p in enumerate(sizes, 1))
  assert len(set(sizes)) < 100
  images = numbered(0, 43)
  pool = pools.make_pool(images, data.statistics(images))
  assert pool.images.shape[0] == 44 and int(pool.size) == 43
  ordered = data.ordered(images)
  np.testing.assert_array_equal(pool.images[:43], ordered.images)
  np.testing.assert_array_equal(pool.labels[:43], ordered.labels)
