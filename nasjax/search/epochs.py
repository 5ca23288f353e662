"""Epochs of a search: compiled chunks over data that stays on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax import data
from nasjax.types import Key, Search, SearchState

LONGEST_CHUNK = 32


class Epoch(NamedTuple):
  """What an epoch gave: `info` holds means over its steps, `finite` all."""

  number: int  # from 1
  state: SearchState
  info: Any


class Plan(NamedTuple):
  """Steps of an epoch and how many of them one compiled call runs."""

  steps: int
  chunk: int


def plan_epoch(size: int, batch_size: int) -> Plan:
  """Splits an epoch over `size` images into equal chunks.

  Raises:
    ValueError: fewer images than one batch.
  """
  steps = size // batch_size
  if steps < 1:
    raise ValueError(f"batch size {batch_size} is over the {size} images")
  chunks = -(-steps // LONGEST_CHUNK)
  chunk = steps // chunks
  return Plan(chunk * chunks, chunk)


def on_device(images: data.Images) -> data.Images:
  """The images as arrays of the default device."""
  return data.Images(
    jnp.asarray(images.images), jnp.asarray(images.labels, jnp.int32)
  )


def make_chunk(
  search: Search, augmentation: data.Augmentation, statistics: tuple
) -> Callable:
  """One compiled call: a scan of the search's update over batches.

  Args:
    search: the search.
    augmentation: of the training batches, applied inside the step.
    statistics: (mean, std), f32[C] each, of the training images.

  Returns:
    `chunk(state, train, valid, train_rows i32[S, B], valid_rows i32[S, B],
    key)` -> (state, Info with a leading axis S); the state is donated.
  """
  mean, std = statistics

  def chunk(state, train, valid, train_rows, valid_rows, key):
    def step(state, rows):
      own = jax.random.fold_in(key, state.step)
      batch = data.gather(train, rows[0], mean, std)
      images = data.augment(own, batch.images, augmentation)
      return search.update(
        state,
        batch._replace(images=images),
        data.gather(valid, rows[1], mean, std),
      )

    return lax.scan(step, state, (train_rows, valid_rows))

  return jax.jit(chunk, donate_argnums=0)


def run_epochs(
  search: Search,
  state: SearchState,
  train: data.Images,
  valid: data.Images,
  *,
  epochs: int,
  batch_size: int,
  augmentation: data.Augmentation,
  key: Key,
  on_chunk: Callable[[int, int, int, Any], None] | None = None,
) -> Iterator[Epoch]:
  """Runs a search epoch by epoch.

  Args:
    search: the search.
    state: where it starts; donated.
    train: images for the weight steps.
    valid: images for the architecture steps, others than `train`.
    epochs: how many.
    batch_size: of both.
    augmentation: of the training batches.
    key: decides the order of the images and the augmentation.
    on_chunk: called with (epoch, steps done in it, its steps, last Info).

  Yields:
    Each epoch's end.

  Raises:
    ValueError: fewer images than one batch.
  """
  plan = plan_epoch(min(len(train.labels), len(valid.labels)), batch_size)
  statistics = data.statistics(train)
  run_chunk = make_chunk(search, augmentation, statistics)
  train, valid = on_device(train), on_device(valid)
  for epoch in range(1, epochs + 1):
    keys = jax.random.split(jax.random.fold_in(key, epoch), 3)
    rows = [
      data.epoch_indices(k, len(images.labels), plan.steps, batch_size)
      for k, images in zip(keys[:2], (train, valid), strict=True)
    ]
    infos = []
    for start in range(0, plan.steps, plan.chunk):
      part = [r[start : start + plan.chunk] for r in rows]
      state, info = run_chunk(state, train, valid, *part, keys[2])
      info = jax.tree.map(np.asarray, info)
      infos.append(info)
      if on_chunk is not None:
        last = jax.tree.map(lambda v: v[-1], info)
        on_chunk(epoch, start + plan.chunk, plan.steps, last)
    whole = jax.tree.map(lambda *v: np.concatenate(v), *infos)
    means = jax.tree.map(_mean, whole)
    yield Epoch(epoch, state, means._replace(finite=bool(whole.finite.all())))


def _mean(values: np.ndarray) -> np.ndarray:
  """Mean over the steps that have a value; NaN where none has."""
  known = ~np.isnan(values)
  total = np.where(known, values, 0.0).sum(0, dtype=np.float64)
  count = known.sum(0)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
