"""`nasjax search`: images and a device in, a decided architecture out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optax

from nasjax import checkpoint, data, errors, lock, run_folder, signals
from nasjax import search as searches
from nasjax.cli import config as configs
from nasjax.cli import parts, tables, training
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError
from nasjax.search.epochs import epoch_steps
from nasjax.spaces import genotype
from nasjax.spaces import space as spaces
from nasjax.types import Metric

_STEPS = 1800  # of a search whose epochs are not given
_RANDOM = 1000  # architectures behind the table of metrics
_BASELINES = 10


class Problem(NamedTuple):
  """Everything that is checked before any work is done."""

  config: SearchConfig
  dataset: data.Dataset
  train: data.Images
  valid: data.Images
  augmentation: data.Augmentation
  space: Any
  metrics: Mapping[str, Metric]
  costs: Mapping[str, Any]  # see spaces.costs_of
  random: Mapping[str, np.ndarray]  # choices of random architectures
  limits: Sequence[tuple[Metric, float]]
  steps: int  # of the whole search


def prepare(config: SearchConfig) -> Problem:
  """Loads and checks all that a configuration names; raises InputError."""
  config = parts.resolve_devices(config)
  dataset = data.load(
    config.data,
    image_size=config.image_size,
    max_bytes=config.max_dataset_bytes,
  )
  space = parts.search_space(config, dataset)
  metrics = parts.metrics(config, space)
  limits = parts.limits(config, metrics)
  spaces.decide(space, _uniform(space), limits)
  train, valid = data.split(dataset.train, seed=config.seed)
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
  steps = epoch_steps(size, config.batch_size)
  if config.epochs is None:
    config = dataclasses.replace(config, epochs=max(1, round(_STEPS / steps)))
  rng = np.random.default_rng(config.seed)
  drawn = spaces.random_choices(space, rng, _RANDOM)
  return Problem(
    config,
    dataset,
    train,
    valid,
    parts.augmentation(config, dataset),
    space,
    metrics,
    {n: spaces.costs_of(space, m, drawn) for n, m in metrics.items()},
    drawn,
    limits,
    steps * config.epochs,
  )


def _uniform(space):
  return {n: m / m.sum(-1, keepdims=True) for n, m in space.masks.items()}


def build(problem: Problem) -> tuple[Any, Any]:
  """The search and its relaxation."""
  config, steps = problem.config, problem.steps
  relaxation = parts.relaxation(config, problem.space, steps)
  medians = {
    n: float(np.median(c.of(problem.random))) for n, c in problem.costs.items()
  }
  objectives, preference = parts.make_objectives(
    config, problem.metrics, medians
  )
  rate = optax.cosine_decay_schedule(config.learning_rate, steps)
  made = searches.differentiable(
    problem.space,
    relaxation=relaxation,
    objectives=objectives,
    weighting=parts.weighting(config),
    preference=preference,
    constraints=parts.make_constraints(config, problem.limits),
    hypergradient=parts.hypergradient(config),
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0),
      optax.add_decayed_weights(3e-4),
      optax.sgd(rate, momentum=0.9),
    ),
    arch_optimizer=optax.adam(config.arch_learning_rate, b1=0.5, b2=0.999),
    arch_start=round(config.warmup * steps),
    remat={"auto": None, "on": True, "off": False}[config.remat],
    activations=config.activations,
  )
  return made, relaxation


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
  made, relaxation = build(problem)
  config = problem.config
  if config.out is None:
    name = "-".join(
      [config.space, "".join(c if c.isalnum() else "_" for c in config.data)]
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    config = dataclasses.replace(config, out=f"runs/{name}-{stamp}")
  folder = run_folder.create(config.out, force=force)
  with signals.caught() as stop, lock.hold(folder):
    run_folder.clear(folder)
    checkpoint.remove_all(folder / checkpoint.FOLDER)
    run_folder.write_atomic(
      folder / run_folder.ENVIRONMENT,
      run_folder.json_text(run_folder.environment()),
    )
    # Last: with it the folder can be resumed.
    run_folder.write_atomic(folder / run_folder.CONFIG, configs.to_yaml(config))
    return carry_on(problem, made, relaxation, folder, stop)


def carry_on(
  problem: Problem, made, relaxation, folder, stop, carried=None
) -> int:
  """Runs what is left of a search, in a folder that this process holds.

  Args:
    problem: what is searched.
    made: the search.
    relaxation: its relaxation.
    folder: of the run.
    stop: says when a signal has come.
    carried: what a checkpoint held; default: a new search.

  Returns:
    The exit code.
  """
  tables.show_problem(problem)
  state = training.train(problem, made, relaxation, folder, stop, carried)
  _decide(problem, relaxation, state, folder, stop)
  print("DONE", flush=True)
  return errors.DONE


def _decide(problem, relaxation, state, folder, stop) -> None:
  """Decides, compares with random architectures, writes genotype.json."""
  config, space = problem.config, problem.space
  weights = training.expected(relaxation, state)
  decided = space.decide(weights, problem.limits)
  accuracy = searches.supernet_accuracy(
    space,
    state.shared.variables,
    problem.valid,
    data.statistics(problem.train),
  )
  own = accuracy(decided)
  others = []
  for architecture in _random_within(problem, _BASELINES):
    stop.check()
    others.append((accuracy(architecture), architecture))
  best_accuracy, best = max(others, key=lambda pair: pair[0])
  expected = {n: float(m.expected(weights)) for n, m in problem.metrics.items()}
  metrics = {
    n: {"value": float(m.exact(decided)), "unit": m.unit, "source": m.source}
    for n, m in problem.metrics.items()
  }
  metrics["valid_accuracy"] = {
    "value": own,
    "unit": "",
    "source": "supernet's weights",
  }
  value = genotype.to_json(
    decided,
    metrics=metrics,
    limits={m.name: bound for m, bound in problem.limits},
    seed=config.seed,
  )
  value["expected"] = expected
  run_folder.write_atomic(
    folder / run_folder.GENOTYPE, run_folder.json_text(value)
  )
  tables.show_decision(
    problem, decided, expected, own, best, best_accuracy, folder
  )


def _random_within(problem, count) -> list[spaces.Architecture]:
  """Random architectures within the limits."""
  rng = np.random.default_rng(problem.config.seed + 1)
  drawn = spaces.random_choices(problem.space, rng, 20_000)
  good = np.ones(20_000, bool)
  for metric, bound in problem.limits:
    good &= problem.costs[metric.name].of(drawn) <= bound
  found = [
    spaces.Architecture(problem.space, {n: r[i] for n, r in drawn.items()})
    for i in np.flatnonzero(good)[:count]
  ]
  while len(found) < count:
    # Limits so tight that chance does not meet them: decide random weights.
    weights = {
      n: rng.dirichlet(np.ones(np.shape(m)[1]), np.shape(m)[0]) * m
      for n, m in problem.space.masks.items()
    }
    found.append(problem.space.decide(weights, problem.limits))
  return found
