"""What --strategy names: the options it reads, its search, its end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import relaxations
from nasjax import search as searches
from nasjax.cli import (
  decisions,
  evolution,
  goals,
  metrics,
  parts,
  populations,
  training,
)
from nasjax.cli.config import SearchConfig, flag
from nasjax.errors import InputError
from nasjax.search import enas, evaluation, genes, rates
from nasjax.search.shared import default_optimizer
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Metric, Relaxation, Search

_GRADIENT, _LEARNT = metrics.GRADIENT, metrics.LEARNT
# Options that not every strategy reads, and which do.
_READ_BY = {
  "relaxation": _GRADIENT,
  "temperature": _GRADIENT,
  "temperature_end": _GRADIENT,
  "hypergradient": _GRADIENT,
  "weighting": _GRADIENT,
  "normalization": _GRADIENT,
  "front": ("differentiable",),
  "operation_dropout": _GRADIENT,
  "penalty": _LEARNT,
  "penalty_strength": _LEARNT,
  "tighten": _LEARNT,
  "arch_learning_rate": _LEARNT,
  "arch_weight_decay": _GRADIENT,
  "stop_on_skips": _LEARNT,
  "warmup": _LEARNT,
  "from_": (*_LEARNT, *metrics.ONE_BY_ONE),
  "controller_samples": ("enas",),
  "entropy_weight": ("enas",),
  "population": populations.STRATEGIES,
  "generations": populations.STRATEGIES,
  "measured": populations.STRATEGIES,
  "predictor_samples": ("staged",),
  "refine_every": ("hybrid",),
  "refine_through": ("hybrid",),
}
# What is left open and depends on the strategy.
_OWN: dict[str, dict[str, Any]] = {
  "differentiable": {"arch_learning_rate": 0.02, "relaxation": "proxyless"},
  "enas": {"arch_learning_rate": 3.5e-3},
  "hybrid": {
    "relaxation": "gdas",  # its architectures start the population
    "arch_learning_rate": 0.02,
    "population": 25,
    "generations": 20,
  },
  "nsga2": {"population": 50, "generations": 20},
  "random": {"population": 50, "generations": 20},
  "staged": {"population": 15, "generations": 14},
}

# Defaults of earlier runs, which their config.yaml holds for every strategy.
_FORMERLY = {"relaxation": "proxyless"}


class Decision(NamedTuple):
  """The one network that a search decides."""

  architecture: Architecture
  accuracy: Callable[[Architecture], float]  # how all are scored at the end
  # Each metric before deciding; None where nothing was relaxed.
  expected: Mapping[str, float] | None
  # Title and best network of a random search at equal evaluations, if there
  # was one.
  chance: tuple[str, Architecture] | None = None


class Settings(NamedTuple):
  """The numbers in which runs of one compiled program differ. A pytree."""

  steps: Array  # f32[], of the whole search
  learning_rate: Array  # f32[], of the weights at the start
  arch_learning_rate: Array  # f32[]
  arch_start: Array  # i32[], the first step that moves the architecture
  limits: tuple[Array, ...]  # f32[] a limit, of a front f32[P]


class Strategy(NamedTuple):
  """A search, and what follows its epochs."""

  search_of: Callable[[Settings], Search]  # of numbers that may be traced
  settings: Settings  # of this run
  search: Search  # of these settings, checked
  relaxation: Relaxation  # gives expected weights of the member's logits
  # (what the run carries, recorder, folder, stop) -> its decision; None where
  # it decides many networks and wrote them itself
  end: Callable[..., Decision | None]
  # (member, that of a run on another device) -> the member with the run's
  # architecture parameters
  inherit: Callable[[Any, Any], Any]


def check(config: SearchConfig) -> SearchConfig:
  """Refuses options that the strategy does not read, fills in its own.

  Raises:
    InputError: names the flag.
  """
  for name in foreign(config.strategy):
    value = getattr(config, name)
    if value not in (getattr(SearchConfig(), name), _FORMERLY.get(name)):
      raise InputError(
        flag(name),
        f"is no option of --strategy {config.strategy}",
        "leave it out",
      )
  own = _OWN[config.strategy].items()
  open_ = {name: v for name, v in own if getattr(config, name) is None}
  return dataclasses.replace(config, **open_)


def foreign(strategy: str) -> list[str]:
  """The options that a strategy does not read."""
  return [name for name, known in _READ_BY.items() if strategy not in known]


def open_options() -> list[str]:
  """The options whose defaults are a strategy's own."""
  return sorted({name for own in _OWN.values() for name in own})


def scored(config: SearchConfig) -> int:
  """Validation images that score a network, if no flag says how many."""
  many = config.strategy in populations.STRATEGIES
  return evaluation.SCORED_OF_MANY if many else evaluation.SCORED


def build(problem: Any) -> Strategy:
  """The strategy of a `search.Problem`; raises InputError."""
  make = {
    "differentiable": _differentiable,
    "enas": _enas,
    "hybrid": _hybrid,
    "nsga2": _evolution,
    "random": _evolution,
    "staged": _evolution,
  }
  return make[problem.config.strategy](problem)


def _objectives(problem, bounds):
  medians = {
    n: float(np.median(problem.random_values(n))) for n in problem.costs
  }
  return goals.make_objectives(problem.config, problem.metrics, medians, bounds)


def _settings(problem) -> Settings:
  """The settings of a `search.Problem`."""
  config, steps = problem.config, problem.steps
  limits = [bound for _, bound in problem.limits]
  if problem.members:
    limits = [
      [bounds[i][1] for bounds in problem.members] for i in range(len(limits))
    ]
  return Settings(
    jnp.float32(steps),
    jnp.float32(config.learning_rate),
    jnp.float32(config.arch_learning_rate or 0.0),
    jnp.int32(round(config.warmup * steps)),
    tuple(jnp.asarray(v, jnp.float32) for v in limits),
  )


def _strategy(problem, search_of, relaxation, end, inherit) -> Strategy:
  own = _settings(problem)
  return Strategy(search_of, own, search_of(own), relaxation, end, inherit)


def _bounds(problem, settings) -> list[tuple[Metric, Array]]:
  """(metric, limit) of each limit; of a front one of a member's."""
  return [
    (metric, limit if limit.ndim == 0 else limit[0])
    for (metric, _), limit in zip(problem.limits, settings.limits, strict=True)
  ]


def _arch_start(problem, settings) -> int | Array:
  """The first step that moves the architecture; 0 where none waits."""
  return settings.arch_start if problem.config.warmup else 0


def _weight_options(problem, settings) -> dict[str, Any]:
  """How the weights of any supernet are trained."""
  config = problem.config
  rate = rates.cosine(settings.learning_rate, settings.steps)
  return dict(
    optimizer=default_optimizer(rate),
    remat={"auto": None, "on": True, "off": False}[config.remat],
    activations=config.activations,
    low_bits=parts.low_bits(config),
  )


def _decision(problem, relaxation, state, decide, stop) -> Decision:
  """Decides by `decide(weights, accuracy)`, scored at the shared weights."""
  score = training.scorer(problem, state)

  def accuracy(architecture):
    stop.check()
    return score(architecture)

  weights = training.expected(relaxation, state)
  expected = {n: float(m.expected(weights)) for n, m in problem.metrics.items()}
  return Decision(decide(weights, accuracy), accuracy, expected)


def _differentiable(problem) -> Strategy:
  config = problem.config
  if problem.members and config.penalty == "objective" and problem.limits:
    raise InputError("--penalty objective", "a front has many limits")

  def search_of(settings):
    bounds = _bounds(problem, settings)
    objectives, preference = _objectives(problem, bounds)
    start = _arch_start(problem, settings)
    relaxation = parts.relaxation(config, problem.space, settings.steps)
    options = dict(
      **_weight_options(problem, settings),
      relaxation=relaxation,
      objectives=objectives,
      weighting=parts.weighting(config),
      constraints=goals.make_constraints(config, bounds, settings.steps, start),
      hypergradient=parts.hypergradient(config),
      arch_optimizer=searches.default_arch_optimizer(
        relaxation, settings.arch_learning_rate, config.arch_weight_decay
      ),
      arch_start=start,
    )
    if not problem.members:
      return searches.differentiable(
        problem.space, preference=preference, **options
      )
    return searches.differentiable_front(
      problem.space,
      members=config.front,
      limits={
        metric.name: limits
        for (metric, _), limits in zip(
          problem.limits, settings.limits, strict=True
        )
      },
      preferences=[preference] * config.front,
      **options,
    )

  relaxation = parts.relaxation(config, problem.space, problem.steps)

  def end(carried, recorder, folder, stop):
    state = carried.progress.state
    if problem.members:
      decisions.decide_front(
        problem, relaxation, state, recorder.rows, folder, stop
      )
      return None

    def decide(weights, accuracy):
      del accuracy
      return problem.space.decide(weights, problem.limits)

    return _decision(problem, relaxation, state, decide, stop)

  def inherit(member, base):
    return member._replace(logits=base.logits)

  return _strategy(problem, search_of, relaxation, end, inherit)


def _hybrid(problem) -> Strategy:
  """A gradient search, and an evolution that starts from its samples."""
  measure = populations.check(problem)
  gradient = _differentiable(problem)

  def end(carried, recorder, folder, stop):
    weights = training.expected(gradient.relaxation, carried.progress.state)
    found = evolution.run(
      problem, measure, carried, recorder, folder, stop, weights
    )
    return Decision(found.architecture, found.accuracy, None, found.chance)

  return gradient._replace(end=end)


def _enas(problem) -> Strategy:
  config, space = problem.config, problem.space

  def controller_of(settings):
    return enas.space_controller(
      space,
      samples=config.controller_samples,
      entropy_weight=config.entropy_weight,
      learning_rate=settings.arch_learning_rate,
    )

  def search_of(settings):
    bounds = _bounds(problem, settings)
    objectives, preference = _objectives(problem, bounds)
    start = _arch_start(problem, settings)
    return enas.enas(
      space,
      controller=controller_of(settings),
      objectives=objectives,
      preference=preference,
      constraints=goals.make_constraints(config, bounds, settings.steps, start),
      arch_start=start,
      **_weight_options(problem, settings),
    )

  controller = controller_of(_settings(problem))
  relaxation = enas.policy(space, controller)
  objectives, preference = _objectives(problem, problem.limits)

  def end(carried, recorder, folder, stop):
    del recorder, folder
    state = carried.progress.state

    def decide(weights, accuracy):
      del weights

      def score(architecture):
        costs = {n: m.exact(architecture) for n, m in problem.metrics.items()}
        hits = accuracy(architecture)
        return float(enas.reward(objectives, preference, hits, costs))

      key = jax.random.fold_in(jax.random.key(config.seed), 2)
      params = state.member.controller.params
      return enas.decide(
        space, controller, params, key, score, problem.limits, say=print
      )

    return _decision(problem, relaxation, state, decide, stop)

  def inherit(member, base):
    params = base.controller.params
    return member._replace(controller=member.controller._replace(params=params))

  return _strategy(problem, search_of, relaxation, end, inherit)


def _evolution(problem) -> Strategy:
  """A supernet trained on uniform single paths (Guo et al. 2020), then points.

  The logits stay where they are, equal.
  """
  measure = populations.check(problem)

  def sample(key, logits, masks, step):
    del logits, masks, step
    return genes.uniform_path(problem.space, key)

  def init(key, masks):
    del key
    return {n: jnp.zeros(jnp.shape(m), jnp.float32) for n, m in masks.items()}

  relaxation = relaxations.softmax()._replace(init=init, sample=sample)

  def search_of(settings):
    return searches.differentiable(
      problem.space,
      relaxation=relaxation,
      arch_start=settings.steps,
      **_weight_options(problem, settings),
    )

  def end(carried, recorder, folder, stop):
    found = evolution.run(problem, measure, carried, recorder, folder, stop)
    return Decision(found.architecture, found.accuracy, None, found.chance)

  def inherit(member, base):
    del base
    return member

  return _strategy(problem, search_of, relaxation, end, inherit)
