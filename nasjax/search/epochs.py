"""Epochs of a search: compiled chunks over data that stays on the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax import data
from nasjax.errors import NumbersError
from nasjax.types import Array, Batch, Key, Search, SearchState


class Epoch(NamedTuple):
  """What an epoch gave: `info` holds means over its steps, `finite` all."""

  number: int  # from 1
  state: SearchState
  info: Any
  skipped: int = 0  # steps left out, as a number in them was not finite


class Progress(NamedTuple):
  """Where a search stands: all that it takes to go on. A pytree."""

  state: SearchState
  infos: Any  # Info of the epoch's steps, leading axis S; 0 where not yet run
  epoch: Array  # i32[], from 1
  done: Array  # i32[], steps of the epoch that were run
  failed: Array  # i32[], steps in a row whose numbers were not finite


def epoch_steps(size: int, batch_size: int) -> int:
  """Steps of an epoch over `size` images.

  Raises:
    ValueError: fewer images than one batch.
  """
  steps = size // batch_size
  if steps < 1:
    raise ValueError(f"batch size {batch_size} is over the {size} images")
  return steps


def on_device(images: data.Images) -> data.Images:
  """The images as arrays of the default device."""
  return data.Images(
    jnp.asarray(images.images), jnp.asarray(images.labels, jnp.int32)
  )


def begin(
  search: Search, state: SearchState, shape: tuple[int, ...], steps: int, batch
) -> Progress:
  """The progress of a search that has not begun.

  Args:
    search: the search.
    state: where it starts.
    shape: height, width and channels of an image.
    steps: of an epoch.
    batch: images a step.

  Returns:
    Progress at step 0 of epoch 1.
  """
  example = Batch(
    jax.ShapeDtypeStruct((batch, *shape), jnp.float32),
    jax.ShapeDtypeStruct((batch,), jnp.int32),
  )
  _, info = jax.eval_shape(search.update, state, example, example)
  infos = jax.tree.map(lambda s: jnp.zeros((steps, *s.shape), s.dtype), info)
  # Separate arrays: each is donated.
  return Progress(state, infos, jnp.int32(1), jnp.int32(0), jnp.int32(0))


def make_chunk(
  search: Search,
  augmentation: data.Augmentation,
  statistics: tuple,
  *,
  most_failures: int = 0,
) -> Callable:
  """One compiled call: the search's update over some batches of an epoch.

  Its length is an argument, so one program serves every length and where an
  epoch is cut changes no bit. A step with a number that is not finite leaves
  all but the step count as it was; once more than `most_failures` of them came
  in a row nothing changes any more.

  Args:
    search: the search.
    augmentation: of the training batches, applied inside the step.
    statistics: (mean, std), f32[C] each, of the training images.
    most_failures: steps in a row that may be left out.

  Returns:
    `chunk(progress, train, valid, train_rows i32[S, B], valid_rows i32[S, B],
    key, stop i32[])` -> Progress with the steps before `stop` done; the old
    one is donated.
  """
  mean, std = statistics

  def chunk(progress, train, valid, train_rows, valid_rows, key, stop):
    def step(now):
      state = now.state
      own = jax.random.fold_in(key, state.step)
      batch = data.gather(train, train_rows[now.done], mean, std)
      images = data.augment(own, batch.images, augmentation)
      new, info = search.update(
        state,
        batch._replace(images=images),
        data.gather(valid, valid_rows[now.done], mean, std),
      )
      failed = jnp.where(info.finite, 0, now.failed + 1)
      # Not `where`: it makes XLA compute the update twice, which doubles the
      # time it takes to compile.
      kept = lax.cond(
        info.finite, lambda new, old: new, lambda new, old: old, new, state
      )
      return Progress(
        kept._replace(step=state.step + 1),
        jax.tree.map(lambda a, v: a.at[now.done].set(v), now.infos, info),
        now.epoch,
        now.done + 1,
        failed,
      )

    def more(now):
      return (now.done < stop) & (now.failed <= most_failures)

    return lax.while_loop(more, step, progress)

  return jax.jit(chunk, donate_argnums=0)


def run_chunks(
  search: Search,
  progress: Progress,
  train: data.Images,
  valid: data.Images,
  *,
  epochs: int,
  batch_size: int,
  augmentation: data.Augmentation,
  key: Key,
  most_failures: int = 0,
  seconds: float = 2.0,
  longest: int | None = None,
) -> Iterator[Progress]:
  """Runs a search chunk by chunk from where it stands.

  Args:
    search: the search.
    progress: where it stands; donated.
    train: images for the weight steps.
    valid: images for the architecture steps, others than `train`.
    epochs: how many there are in all.
    batch_size: of both.
    augmentation: of the training batches.
    key: decides the order of the images and the augmentation.
    most_failures: see `make_chunk`.
    seconds: about how long a chunk may take.
    longest: steps of a chunk at most.

  Yields:
    The progress after each chunk, at the latest at an epoch's end. It is
    donated when the next one is asked for. The last one after too many
    failures in a row has `failed` over `most_failures`.

  Raises:
    ValueError: fewer images than one batch.
  """
  steps = epoch_steps(min(len(train.labels), len(valid.labels)), batch_size)
  chunk = make_chunk(
    search, augmentation, data.statistics(train), most_failures=most_failures
  )
  train, valid = on_device(train), on_device(valid)
  # Weak types would make a second program.
  progress = jax.tree.map(
    lambda v: lax.convert_element_type(v, v.dtype), progress
  )
  pace = 1
  epoch, done = int(progress.epoch), int(progress.done)
  if done == steps:
    epoch, done = epoch + 1, 0
    progress = next_epoch(progress)
  while epoch <= epochs:
    keys = jax.random.split(jax.random.fold_in(key, epoch), 3)
    rows = [
      data.epoch_indices(k, len(images.labels), steps, batch_size)
      for k, images in zip(keys[:2], (train, valid), strict=True)
    ]
    while done < steps:
      stop = min(steps, done + min(pace, longest or steps))
      start = time.monotonic()
      progress = chunk(progress, train, valid, *rows, keys[2], jnp.int32(stop))
      jax.block_until_ready(progress.done)
      each = (time.monotonic() - start) / (stop - done)
      # The first chunk compiles, so the pace may grow, but not at one go.
      pace = max(1, min(8 * pace, int(seconds / max(each, 1e-9))))
      done = stop
      yield progress
      if int(progress.failed) > most_failures:
        return
    epoch, done = epoch + 1, 0
    progress = next_epoch(progress)


def next_epoch(progress: Progress) -> Progress:
  """The progress at the start of the next epoch."""
  return progress._replace(epoch=progress.epoch + 1, done=jnp.int32(0))


def summary(progress: Progress) -> Epoch:
  """What an epoch gave, at its end."""
  infos = jax.tree.map(np.asarray, progress.infos)
  means = jax.tree.map(_mean, infos)
  skipped = int((~infos.finite).sum())
  return Epoch(
    int(progress.epoch),
    progress.state,
    means._replace(finite=not skipped),
    skipped,
  )


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
  most_failures: int = 0,
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
    most_failures: steps in a row that are left out when a number in them is
      not finite.

  Yields:
    Each epoch's end.

  Raises:
    ValueError: fewer images than one batch.
    NumbersError: more steps in a row had a number that is not finite.
  """
  steps = epoch_steps(min(len(train.labels), len(valid.labels)), batch_size)
  start = begin(search, state, data.shape(train), steps, batch_size)
  for progress in run_chunks(
    search,
    start,
    train,
    valid,
    epochs=epochs,
    batch_size=batch_size,
    augmentation=augmentation,
    key=key,
    most_failures=most_failures,
  ):
    check_numbers(progress, most_failures)
    if int(progress.done) == steps:
      yield summary(progress)


def check_numbers(progress: Progress, most_failures: int) -> None:
  """Raises NumbersError if more steps in a row failed."""
  failed = int(progress.failed)
  if failed <= most_failures:
    return
  last = int(progress.done) - 1
  sound = {n: bool(v[last]) for n, v in progress.infos.sound.items()}
  culprits = ", ".join(n for n, good in sound.items() if not good)
  step, epoch = int(progress.state.step), int(progress.epoch)
  raise NumbersError(
    f"step {step} (epoch {epoch}): not finite: {culprits};"
    f" {failed} such steps in a row; lower --learning-rate or"
    " --arch-learning-rate"
  )


def _mean(values: np.ndarray) -> np.ndarray:
  """Mean over the steps that have a finite value; NaN where none has."""
  known = np.isfinite(values)
  total = np.where(known, values, 0.0).sum(0, dtype=np.float64)
  count = known.sum(0)
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)
