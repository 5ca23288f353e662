"""The epochs of a run: metrics.csv, checkpoints, signals and bad numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import checkpoint, data, run_folder
from nasjax.cli import fingerprint, parts, populations, tables
from nasjax.errors import NumbersError
from nasjax.hardware.quantization import seen_weights
from nasjax.search import epochs
from nasjax.search.evaluation import supernet_accuracy
from nasjax.search.skips import led_by_skips
from nasjax.signals import Stop
from nasjax.spaces.space import Architecture
from nasjax.types import SearchState

_CHUNK_SECONDS = 2.0  # how long a signal may wait, about


class Carried(NamedTuple):
  """What a checkpoint of a search holds. A pytree."""

  progress: epochs.Progress
  ended: Any  # bool[]: stopped before its last epoch
  evolution: Any = ()  # what follows the epochs, see `populations.Evolving`

  def step(self) -> int:
    """Names the checkpoint: steps, and generations after them."""
    generations = self.evolution.generation if self.evolution else 0
    return int(self.progress.state.step) + int(generations)


def loop(problem, strategy) -> epochs.Loop:
  """What runs the steps of a search."""
  config = problem.config
  return epochs.prepare(
    strategy.search_of,
    strategy.settings,
    problem.train,
    problem.valid,
    batch_size=config.batch_size,
    augmentation=problem.augmentation,
    most_failures=config.skip_steps,
  )


def start(problem, strategy, loop: epochs.Loop) -> Carried:
  """What a new search carries."""
  key = jax.random.fold_in(jax.random.key(problem.config.seed), 0)
  init = jax.jit(_init(problem, strategy))
  state, follows = init(strategy.settings, key)
  return Carried(epochs.begin(loop, state), np.bool_(False), follows)


def _init(problem, strategy):
  """(settings, key) -> (state of the search, what follows its epochs)."""

  def init(settings, key):
    follows = populations.begin(problem, jax.random.fold_in(key, 1))
    return strategy.search_of(settings).init(key), follows

  return init


def restore(
  saved: checkpoint.Saved, problem, strategy, loop: epochs.Loop, where: str
) -> Carried:
  """What the checkpoint holds; raises InputError if it does not fit."""
  state, follows = jax.eval_shape(
    _init(problem, strategy), strategy.settings, jax.random.key(0)
  )
  progress = epochs.begin(loop, state)
  target = Carried(progress, np.bool_(False), follows)
  return checkpoint.fit(saved, target, where)


class Recorder:
  """Writes the files of a run as it goes on."""

  def __init__(self, problem, folder: Path, rows: list[dict[str, Any]]):
    """Makes it for a run whose metrics.csv has `rows`."""
    self.rows = rows
    self._folder = folder
    self._fingerprint = fingerprint.of(problem)
    self._start = self._saved = time.monotonic()
    self._before = float(rows[-1]["elapsed_seconds"]) if rows else 0.0

  def epoch(self, epoch: epochs.Epoch) -> None:
    """Adds a row to metrics.csv."""
    elapsed = self._before + time.monotonic() - self._start
    self.rows.append(_row(epoch, elapsed))
    self.write_metrics()

  def write_metrics(self) -> None:
    """Writes metrics.csv anew."""
    path = self._folder / run_folder.METRICS
    if self.rows:
      text = run_folder.csv_text(list(self.rows[0]), self.rows)
      run_folder.write_atomic(path, text)
    else:
      path.unlink(missing_ok=True)

  def due(self, minutes: float) -> bool:
    """Whether the last checkpoint is that old."""
    return time.monotonic() - self._saved >= 60.0 * minutes

  def save(self, carried: Carried, log: Callable[[str], None]) -> None:
    """Makes a checkpoint and logs it once it is durable."""
    step = carried.step()
    if not _finite(carried.progress.state):
      raise NumbersError(f"step {step}: the state is not finite; not saved")
    folder = self._folder / checkpoint.FOLDER
    checkpoint.save(folder, step, carried, self._fingerprint)
    self._saved = time.monotonic()
    log(f"CHECKPOINT {step}")


def _finite(state: SearchState) -> bool:
  return all(
    np.isfinite(np.asarray(leaf)).all()
    for leaf in jax.tree.leaves(state)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  )


def _row(epoch: epochs.Epoch, seconds: float) -> dict[str, Any]:
  """One line of metrics.csv."""
  info = epoch.info
  row = {
    "epoch": epoch.number,
    "train_loss": info.train_loss,
    "train_accuracy": info.train_accuracy,
    "valid_loss": info.valid_loss,
    "valid_accuracy": info.valid_accuracy,
  }
  row |= {f"expected_{n}": v for n, v in info.costs.items()}
  row |= {f"violation_{n}": v for n, v in info.violations.items()}
  row |= {f"multiplier_{n}": v for n, v in info.multipliers.items()}
  row |= info.extra
  row = {
    name: v if name == "epoch" else _cell(v)
    for k, values in row.items()
    for name, v in _columns(k, values)
  }
  row["skipped_steps"] = epoch.skipped
  return row | {"elapsed_seconds": f"{seconds:.3f}"}


def _columns(name, values):
  """(column, value) of a number, or of each member of a front."""
  if np.ndim(values) == 0:
    return [(name, values)]
  return [(f"{name}__{i}", value) for i, value in enumerate(values)]


def _cell(value) -> str:
  """Empty where there was no architecture step in the epoch."""
  return "" if np.isnan(value) else repr(float(value))


def train(
  problem,
  strategy,
  loop: epochs.Loop,
  folder: Path,
  stop: Stop,
  carried: Carried | None = None,
) -> tuple[Carried, Recorder]:
  """Runs the epochs that are left.

  Args:
    problem: a `search.Problem`.
    strategy: its `strategies.Strategy`.
    loop: what runs its steps.
    folder: of the run.
    stop: says when a signal has come.
    carried: from a checkpoint; default: a new search.

  Returns:
    What the run carries at the end, and what writes its files.

  Raises:
    NumbersError: too many steps in a row were not finite.
    StorageError: a checkpoint could not be saved.
    Stopped: a signal has come; where the search stands is saved.
  """
  config = problem.config
  key = jax.random.key(config.seed)
  steps = problem.steps // config.epochs
  if carried is None:
    rows = []
    carried = start(problem, strategy, loop)
  else:
    now = carried.progress
    finished = int(now.epoch) - (int(now.done) < steps)
    rows = run_folder.read_rows(folder / run_folder.METRICS, finished)
  recorder = Recorder(problem, folder, rows)
  recorder.write_metrics()
  now, ended = carried.progress, bool(carried.ended)
  if not ended:
    # A run that failed fails again, unless something was changed.
    epochs.check_numbers(now, config.skip_steps)
  with tables.Progress(problem, done=int(now.state.step)) as progress:
    chunks = epochs.run_chunks(
      loop,
      now,
      epochs=0 if ended else config.epochs,
      key=jax.random.fold_in(key, 1),
      seconds=min(_CHUNK_SECONDS, 60.0 * config.checkpoint_minutes),
    )
    for now in chunks:
      carried = carried._replace(progress=now)
      ended = _after_chunk(
        carried, problem, strategy.relaxation, recorder, progress, stop
      )
      if ended:
        carried = carried._replace(ended=np.bool_(True))
        progress.say(
          f"stopped after epoch {int(now.epoch)}: skips lead at least"
          f" {config.stop_on_skips:.0%} of the edges (--stop-on-skips)"
        )
        break
  return carried, recorder


def _after_chunk(
  carried, problem, relaxation, recorder, progress, stop: Stop
) -> bool:
  """Reports and saves what a chunk did; whether the search ends with it."""
  config, now = problem.config, carried.progress
  steps = problem.steps // config.epochs
  done = int(now.done)
  last = jax.tree.map(lambda v: np.asarray(v)[done - 1], now.infos)
  progress.update(int(now.epoch), done, steps, last)
  failed = int(now.failed) > config.skip_steps
  whole = done == steps and not failed
  ended = False
  if whole:
    epoch = epochs.summary(now)
    recorder.epoch(epoch)
    progress.epoch_done(epoch)
    ended = _led_by_skips(problem, relaxation, now.state)
  if (
    whole
    or failed
    or stop.signal is not None
    or recorder.due(config.checkpoint_minutes)
  ):
    recorder.save(carried._replace(ended=np.bool_(ended)), progress.log)
  epochs.check_numbers(now, config.skip_steps)
  stop.check()
  return ended


def _led_by_skips(problem, relaxation, state) -> bool:
  if problem.config.stop_on_skips is None:
    return False
  share = led_by_skips(problem.space, expected(relaxation, state))
  return share >= problem.config.stop_on_skips


def variables(problem, state) -> dict[str, Any]:
  """The supernet's variables as its forward pass sees them."""
  found = state.shared.variables
  low_bits = parts.low_bits(problem.config)
  return {**found, "params": seen_weights(found["params"], low_bits)}


def scorer(problem, state) -> Callable[[Architecture], float]:
  """Architectures to accuracy on validation images, at a state's weights."""
  return supernet_accuracy(
    problem.space,
    variables(problem, state),
    problem.train,
    problem.valid,
    data.statistics(problem.train),
    most=problem.scored,
  )


def expected(relaxation, state) -> dict[str, np.ndarray]:
  """The relaxation's expected weights of a state, f32[E, K] a group."""
  weights = relaxation.expect(state.member.logits, state.masks, state.step)
  return {n: np.asarray(w) for n, w in weights.items()}
