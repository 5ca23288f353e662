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
from nasjax.data import pool as pools
from nasjax.errors import NumbersError
from nasjax.types import Array, Key, Search, SearchState

CHUNK = 64  # most steps of one compiled call


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


class Chunk(NamedTuple):
  """What one compiled call left. A pytree."""

  state: SearchState
  infos: Any  # Info of its steps, leading axis `CHUNK`
  done: Array  # i32[], steps that were run
  failed: Array  # i32[], see `Progress`


# Makes the search of a run from its settings, numbers that may be traced.
SearchOf = Callable[[Any], Search]


def epoch_steps(size: int, batch_size: int) -> int:
  """Steps of an epoch over `size` images.

  Raises:
    ValueError: fewer images than one batch.
  """
  steps = size // batch_size
  if steps < 1:
    raise ValueError(f"batch size {batch_size} is over the {size} images")
  return steps


class Loop(NamedTuple):
  """What runs the steps of a search; made by `prepare`."""

  chunk: Callable  # see `make_chunk`
  settings: Any
  train: pools.Pool
  valid: pools.Pool
  sizes: tuple[int, int]  # images of both
  steps: int  # of an epoch
  batch_size: int
  most_failures: int  # steps in a row that may be left out


def prepare(
  search_of: SearchOf,
  settings: Any,
  train: data.Images,
  valid: data.Images,
  *,
  batch_size: int,
  augmentation: data.Augmentation,
  most_failures: int = 0,
) -> Loop:
  """Puts the images on the device, and says what a step is.

  Args:
    search_of: settings -> the search; it is called while a program is traced,
      and the settings are arguments of that program.
    settings: of this run; a pytree of arrays.
    train: images for the weight steps.
    valid: images for the architecture steps, others than `train`.
    batch_size: of both.
    augmentation: of the training batches.
    most_failures: see `make_chunk`.

  Raises:
    ValueError: fewer images than one batch.
  """
  sizes = len(train.labels), len(valid.labels)
  steps = epoch_steps(sizes[0], batch_size)
  epoch_steps(sizes[1], batch_size)
  statistics = data.statistics(train)
  return Loop(
    make_chunk(search_of, augmentation, most_failures=most_failures),
    settings,
    pools.make_pool(train, statistics),
    pools.make_pool(valid, statistics),
    sizes,
    steps,
    batch_size,
    most_failures,
  )


def begin(loop: Loop, state: SearchState) -> Progress:
  """The progress of a search that has not begun.

  Args:
    loop: what will run it.
    state: where it starts; arrays or `jax.ShapeDtypeStruct`.

  Returns:
    Progress at step 0 of epoch 1.
  """
  rows = jax.ShapeDtypeStruct((CHUNK, loop.batch_size), jnp.int32)
  count = jax.ShapeDtypeStruct((), jnp.int32)
  # The trace is the one that runs: it is made once.
  made = loop.chunk.eval_shape(
    loop.settings,
    state,
    count,
    loop.train,
    loop.valid,
    rows,
    rows,
    jax.eval_shape(lambda: jax.random.key(0)),
    count,
  )
  infos = jax.tree.map(
    lambda s: np.zeros((loop.steps, *s.shape[1:]), s.dtype), made.infos
  )
  return Progress(state, infos, np.int32(1), np.int32(0), np.int32(0))


def make_chunk(
  search_of: SearchOf,
  augmentation: data.Augmentation,
  *,
  most_failures: int = 0,
) -> Callable:
  """One compiled call: the search's update over some batches of an epoch.

  Its length is an argument, so one program serves every length and where an
  epoch is cut changes no bit; so are the settings, the number of images and
  their mean and deviation, so one program serves every seed and every set of
  images of one shape. A step with a number that is not finite leaves all but
  the step count as it was; once more than `most_failures` of them came in a row
  nothing changes any more.

  Args:
    search_of: settings -> the search.
    augmentation: of the training batches, applied inside the step.
    most_failures: steps in a row that may be left out.

  Returns:
    `chunk(settings, state, failed i32[], train, valid, train_rows i32[CHUNK,
    B], valid_rows i32[CHUNK, B], key, stop i32[])` -> Chunk with the first
    `stop` of these steps done; train and valid are pools, the old state is
    donated.
  """

  def chunk(
    settings, state, failed, train, valid, train_rows, valid_rows, key, stop
  ):
    search = search_of(settings)

    def update(state, done):
      own = jax.random.fold_in(key, state.step)
      batch = pools.gather(train, train_rows[done])
      images = data.augment(own, batch.images, augmentation)
      return search.update(
        state,
        batch._replace(images=images),
        pools.gather(valid, valid_rows[done]),
      )

    def step(now):
      state = now.state
      new, info = update(state, now.done)
      failed = jnp.where(info.finite, 0, now.failed + 1)
      # Not `where`: it makes XLA compute the update twice, which doubles the
      # time it takes to compile.
      kept = lax.cond(
        info.finite, lambda new, old: new, lambda new, old: old, new, state
      )
      return Chunk(
        kept._replace(step=state.step + 1),
        jax.tree.map(lambda a, v: a.at[now.done].set(v), now.infos, info),
        now.done + 1,
        failed,
      )

    def more(now):
      return (now.done < stop) & (now.failed <= most_failures)

    _, info = jax.eval_shape(update, state, jnp.int32(0))
    infos = jax.tree.map(lambda s: jnp.zeros((CHUNK, *s.shape), s.dtype), info)
    start = Chunk(state, infos, jnp.int32(0), failed)
    return lax.while_loop(more, step, start)

  return jax.jit(chunk, donate_argnums=1)


def run_chunks(
  loop: Loop,
  progress: Progress,
  *,
  epochs: int,
  key: Key,
  seconds: float = 2.0,
  longest: int = CHUNK,
) -> Iterator[Progress]:
  """Runs a search chunk by chunk from where it stands.

  Args:
    loop: what runs it.
    progress: where it stands; its state is donated.
    epochs: how many there are in all.
    key: decides the order of the images and the augmentation.
    seconds: about how long a chunk may take.
    longest: steps of a chunk at most.

  Yields:
    The progress after each chunk, at the latest at an epoch's end. It is
    donated when the next one is asked for. The last one after too many
    failures in a row has `failed` over the loop's `most_failures`.
  """
  # Weak types would make a second program.
  state = jax.tree.map(
    lambda v: lax.convert_element_type(v, v.dtype), progress.state
  )
  progress = progress._replace(state=state)
  pace = 1
  if int(progress.done) == loop.steps:
    progress = next_epoch(progress)
  while int(progress.epoch) <= epochs:
    while (left := loop.steps - int(progress.done)) > 0:
      start = time.monotonic()
      count = min(left, pace, longest, CHUNK)
      progress = advance(loop, progress, key, count)
      each = (time.monotonic() - start) / count
      # The first chunk compiles, so the pace may grow, but not at one go.
      pace = max(1, min(8 * pace, int(seconds / max(each, 1e-9))))
      yield progress
      if int(progress.failed) > loop.most_failures:
        return
    progress = next_epoch(progress)


def advance(loop: Loop, progress: Progress, key: Key, count: int) -> Progress:
  """Runs the next steps of an epoch, in one compiled call.

  Args:
    loop: what runs them.
    progress: where the search stands; its state is donated.
    key: of the run, see `run_chunks`.
    count: steps, at most `CHUNK` and what is left of the epoch; 0 compiles
      alone.

  Returns:
    The progress after them, or after too many failures in a row.
  """
  done = int(progress.done)
  own = jax.random.fold_in(key, int(progress.epoch))
  *orders, chance = jax.random.split(own, 3)
  made = loop.chunk(
    loop.settings,
    progress.state,
    jnp.int32(progress.failed),
    loop.train,
    loop.valid,
    *(
      next_rows(pools.epoch_rows(k, size, loop.steps, loop.batch_size), done)
      for k, size in zip(orders, loop.sizes, strict=True)
    ),
    chance,
    jnp.int32(count),
  )
  ran = int(made.done)

  def put(whole, part):
    whole = np.array(whole)
    whole[done : done + ran] = np.asarray(part)[:ran]
    return whole

  return Progress(
    made.state,
    jax.tree.map(put, progress.infos, made.infos),
    progress.epoch,
    np.int32(done + ran),
    np.int32(made.failed),
  )


def next_rows(rows: np.ndarray, done: int) -> np.ndarray:
  """The rows of the next steps, i32[CHUNK, B]; 0 beyond the epoch."""
  following = rows[done : done + CHUNK]
  return np.pad(following, [(0, CHUNK - len(following)), (0, 0)])


def next_epoch(progress: Progress) -> Progress:
  """The progress at the start of the next epoch."""
  epoch = np.int32(int(progress.epoch) + 1)
  return progress._replace(epoch=epoch, done=np.int32(0))


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
  loop = prepare(
    lambda _: search,
    (),
    train,
    valid,
    batch_size=batch_size,
    augmentation=augmentation,
    most_failures=most_failures,
  )
  start = begin(loop, state)
  for progress in run_chunks(loop, start, epochs=epochs, key=key):
    check_numbers(progress, most_failures)
    if int(progress.done) == loop.steps:
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
