"""`nasjax search`: images and a device in, a decided architecture out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax import (
  checkpoint,
  data,
  lock,
  run_folder,
  signals,
)
from nasjax.cli import (
  baselines,
  decisions,
  fingerprint,
  parts,
  paths,
  retraining,
  reuse,
  shrinking,
  strategies,
  tables,
  training,
)
from nasjax.cli import config as configs
from nasjax.cli import metrics as metric_parts
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError, one_line
from nasjax.search.epochs import epoch_steps
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as spaces
from nasjax.spaces.decision import decide
from nasjax.spaces.tiny import Configuration
from nasjax.types import Metric

_STEPS = 1800  # of a search whose epochs are not given
_RANDOM = 1000  # architectures behind the table of metrics
# Of them those that a metric sees which scores one network after the other: a
# cell of DARTS takes some tenth of a second to find its best order in memory.
_FEW = 50


class Problem(NamedTuple):
  """Everything that is checked before any work is done."""

  config: SearchConfig
  dataset: data.Dataset
  train: data.Images
  valid: data.Images
  augmentation: data.Augmentation
  space: Any
  metrics: Mapping[str, Metric]
  costs: Mapping[str, cost_tables.Costs]
  random: Mapping[str, np.ndarray]  # choices of random architectures
  limits: Sequence[tuple[Metric, float]]  # of a front the widest
  members: Sequence[Sequence[tuple[Metric, float]]]  # of a front, else empty
  steps: int  # of the whole search
  scored: int  # validation images that score a network
  warnings: Sequence[str] = ()  # rules of the devices that candidates break
  # Widths and resolutions that were looked at, the chosen one first.
  shrunk: Sequence[Configuration] = ()
  notes: Sequence[str] = ()  # what reading and splitting the data has to say

  def random_values(self, name: str) -> np.ndarray:
    """A metric's values f64[N] over the random architectures, or the first."""
    costs, drawn = self.costs[name], self.random
    if getattr(costs, "exact", None) is not None:
      drawn = {n: rows[:_FEW] for n, rows in drawn.items()}
    return costs.of(drawn)


def prepare(config: SearchConfig) -> Problem:
  """Loads and checks all that a configuration names; raises InputError."""
  config = parts.resolve_devices(strategies.check(config))
  config = paths.absolute(config)
  dataset = parts.dataset(config)
  devices = parts.devices(config)
  config, dataset, shrunk = shrinking.fitted(config, devices, dataset)
  space = parts.search_space(
    config, data.shape(dataset.train), dataset.num_classes
  )
  space = parts.on_devices(space, devices)
  if config.split_seed is None:
    config = dataclasses.replace(config, split_seed=config.seed)
  train, valid = halves(dataset, config.split_seed)
  metrics = metric_parts.metrics(config, space, devices, train)
  limits = metric_parts.limits(config, metrics)
  members = metric_parts.front_limits(config, limits)
  for bounds in [limits, *members]:
    decide(space, _uniform(space), bounds)
  if members and config.stop_on_skips is not None:
    raise InputError("--stop-on-skips", "a front has many networks", "leave it")
  size = min(len(train.labels), len(valid.labels))
  if config.batch_size is None:
    config = dataclasses.replace(config, batch_size=min(64, size))
  if config.batch_size > size:
    raise InputError(
      "--batch-size", f"{config.batch_size} is over the {size} training images"
    )
  for name in ("warmup", "stop_on_skips"):
    value = getattr(config, name)
    if value is not None and value > 1:
      raise InputError(configs.flag(name), "is a share, at most 1")
  steps = epoch_steps(len(train.labels), config.batch_size)
  if config.epochs is None:
    config = dataclasses.replace(config, epochs=max(1, round(_STEPS / steps)))
  augmentation = parts.augmentation(config.augment, dataset)
  config = dataclasses.replace(
    config,
    augment=data.augmentation_text(augmentation),
    background=dataset.background,
    row_order=data.ROW_ORDER,
    classes=parts.classes(dataset),
    data_digest=fingerprint.of_data(dataset),
  )
  scored = config.score_images or strategies.scored(config)
  # Not the run's seed: what is drawn scales the objectives of a compiled step.
  rng = np.random.default_rng(0)
  return Problem(
    config,
    dataset,
    train,
    valid,
    augmentation,
    space,
    metrics,
    {n: cost_tables.costs(space, m) for n, m in metrics.items()},
    spaces.random_choices(space, rng, _RANDOM),
    limits,
    members,
    steps * config.epochs,
    min(len(valid.labels), scored),
    [line for d in devices for line in d.warnings(space)],
    shrunk,
    (*dataset.notes, *data.split_notes(train, valid, dataset.class_names)),
  )


def halves(dataset: data.Dataset, seed: int) -> tuple[data.Images, data.Images]:
  """Images for the weights, and for the architecture: val/ if there is one."""
  if dataset.valid is not None:
    return dataset.train, dataset.valid
  return data.split(dataset.train, seed=seed, groups=dataset.groups)


def _uniform(space):
  return {n: m / m.sum(-1, keepdims=True) for n, m in space.masks.items()}


def run(config: SearchConfig, *, force: bool = False) -> int:
  """Runs a search and writes its run folder.

  Args:
    config: what to do.
    force: replace a run that is in the folder.

  Returns:
    The exit code.

  Raises:
    InputError: anything wrong with what the configuration names; nothing is
      written then.
    NumbersError: the search met a number that is not finite.
  """
  problem = prepare(config)
  strategy = strategies.build(problem)
  reuse.check(problem, strategy)
  config = problem.config
  if config.out is None:
    name = "-".join(
      # Of a user's own space, path/to/file.py:name, the name.
      "".join(c if c.isalnum() else "_" for c in word)
      for word in (config.space.rpartition(":")[2], problem.dataset.name)
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    config = dataclasses.replace(config, out=f"runs/{name}-{stamp}")
  folder = run_folder.create(config.out, force=force)
  with signals.caught() as stop, lock.hold(folder):
    run_folder.clear(folder)
    checkpoint.remove_all(folder / checkpoint.FOLDER)
    retraining.forget(folder)
    run_folder.write_atomic(
      folder / run_folder.ENVIRONMENT,
      run_folder.json_text(run_folder.environment()),
    )
    # Last: with it the folder can be resumed.
    run_folder.write_atomic(folder / run_folder.CONFIG, configs.to_yaml(config))
    carry_on(problem, strategy, folder, stop)
  del problem, strategy  # the images are read anew
  return retraining.after_search(folder, config)


def carry_on(
  problem: Problem,
  strategy: strategies.Strategy,
  folder,
  stop,
  loop=None,
  carried=None,
) -> None:
  """Runs what is left of a search, in a folder that this process holds.

  Args:
    problem: what is searched.
    strategy: how.
    folder: of the run.
    stop: says when a signal has come.
    loop: what runs its steps, if that was made.
    carried: what a checkpoint held; default: a new search.
  """
  loop = training.loop(problem, strategy) if loop is None else loop
  for line in problem.notes:
    print(one_line(line), flush=True)
  shrinking.show(problem.shrunk)
  tables.show_problem(problem)
  for line in problem.warnings:
    print(f"warning: {line}", flush=True)
  if carried is None:
    carried = reuse.carried(problem, strategy, loop)
  carried, recorder = training.train(
    problem, strategy, loop, folder, stop, carried
  )
  decisions.check_ranking(problem, carried.progress.state, folder, stop)
  decision = strategy.end(carried, recorder, folder, stop)
  if decision is not None:
    _finish(problem, decision, folder)
  print("DONE", flush=True)


def _finish(problem, decision, folder) -> None:
  """Compares with the baselines, writes genotype.json and shows the table.

  Args:
    problem: what was searched.
    decision: a `strategies.Decision`.
    folder: of the run.
  """
  decided, accuracy, expected = decision[:3]
  own = baselines.Column("decided", decided, accuracy(decided))
  columns = baselines.compare(
    problem, own, problem.limits, accuracy, decision.chance
  )
  baselines.write(problem, [({}, columns)], folder)
  value = decisions.described(
    problem, decided, expected, own.accuracy, problem.limits
  )
  run_folder.write_atomic(
    folder / run_folder.GENOTYPE, run_folder.json_text(value)
  )
  tables.show_decision(problem, columns, expected, folder)
