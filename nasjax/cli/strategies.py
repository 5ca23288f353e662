"""What --strategy names: the options it reads, its search and its decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from nasjax import search as searches
from nasjax.cli import parts
from nasjax.cli.config import SearchConfig, flag
from nasjax.errors import InputError
from nasjax.search import enas
from nasjax.spaces.space import Architecture
from nasjax.types import Relaxation, Search, SearchState

# Options that not every strategy reads, and what they are where none is given.
OPTIONS: Mapping[str, Mapping[str, Any]] = {
  "differentiable": {
    "objective": ("cross_entropy",),
    "relaxation": "proxyless",
    "temperature": None,
    "temperature_end": None,
    "hypergradient": "first_order",
    "weighting": "constant",
    "normalization": None,
    "operation_dropout": None,
    "front": None,
    "arch_learning_rate": 0.02,
  },
  "enas": {
    "objective": ("error",),
    "controller_samples": 10,
    "entropy_weight": 1e-3,
    "arch_learning_rate": 3.5e-3,
  },
}
OWN = tuple(dict.fromkeys(name for own in OPTIONS.values() for name in own))


class Strategy(NamedTuple):
  """A search, and how its state is read."""

  search: Search
  relaxation: Relaxation  # gives expected weights of its member's logits
  # (state, accuracy of an architecture) -> the network within the limits
  decide: Callable[[SearchState, Callable[[Architecture], float]], Architecture]
  # (member, member of a search on another device) -> the member with its
  # architecture parameters
  inherit: Callable[[Any, Any], Any]


def resolve(config: SearchConfig) -> SearchConfig:
  """Fills in what the strategy's own options are where none is given.

  Raises:
    InputError: an option that the strategy does not read.
  """
  own = OPTIONS[config.strategy]
  for name in OWN:
    if name not in own and getattr(config, name) is not None:
      raise InputError(
        flag(name), f"is not used by --strategy {config.strategy}", "leave it"
      )
  missing = {n: v for n, v in own.items() if getattr(config, n) is None}
  return dataclasses.replace(config, **missing)


def build(problem: Any) -> Strategy:
  """The strategy of a `search.Problem`; raises InputError."""
  make = {"differentiable": _differentiable, "enas": _enas}
  return make[problem.config.strategy](problem)


def _objectives(problem):
  medians = {
    n: float(np.median(c.of(problem.random))) for n, c in problem.costs.items()
  }
  return parts.make_objectives(
    problem.config, problem.metrics, medians, problem.limits
  )


def _shared_options(problem) -> dict[str, Any]:
  """What every strategy with a supernet takes."""
  config, steps = problem.config, problem.steps
  rate = optax.cosine_decay_schedule(config.learning_rate, steps)
  return dict(
    constraints=parts.make_constraints(config, problem.limits, steps),
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0),
      optax.add_decayed_weights(3e-4),
      optax.sgd(rate, momentum=0.9),
    ),
    arch_start=round(config.warmup * steps),
    remat={"auto": None, "on": True, "off": False}[config.remat],
    activations=config.activations,
  )


def _differentiable(problem) -> Strategy:
  config = problem.config
  relaxation = parts.relaxation(config, problem.space, problem.steps)
  objectives, preference = _objectives(problem)
  options = dict(
    relaxation=relaxation,
    objectives=objectives,
    weighting=parts.weighting(config),
    hypergradient=parts.hypergradient(config),
    arch_optimizer=optax.adam(config.arch_learning_rate, b1=0.5, b2=0.999),
    **_shared_options(problem),
  )
  if not problem.members:
    search = searches.differentiable(
      problem.space, preference=preference, **options
    )
  else:
    if config.penalty == "objective" and problem.limits:
      raise InputError("--penalty objective", "a front has many limits")
    search = searches.differentiable_front(
      problem.space,
      members=config.front,
      limits={
        metric.name: [bounds[i][1] for bounds in problem.members]
        for i, (metric, _) in enumerate(problem.limits)
      },
      preferences=[preference] * config.front,
      **options,
    )

  def decide(state, accuracy):
    del accuracy
    weights = relaxation.expect(state.member.logits, state.masks, state.step)
    return problem.space.decide(weights, problem.limits)

  def inherit(member, base):
    return member._replace(logits=base.logits)

  return Strategy(search, relaxation, decide, inherit)


def _enas(problem) -> Strategy:
  config, space = problem.config, problem.space
  objectives, preference = _objectives(problem)
  controller = enas.space_controller(
    space,
    samples=config.controller_samples,
    entropy_weight=config.entropy_weight,
    learning_rate=config.arch_learning_rate,
  )
  search = enas.enas(
    space,
    controller=controller,
    objectives=objectives,
    preference=preference,
    **_shared_options(problem),
  )

  def decide(state, accuracy):
    def score(architecture):
      costs = {n: m.exact(architecture) for n, m in problem.metrics.items()}
      hits = accuracy(architecture)
      return float(enas.reward(objectives, preference, hits, costs))

    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    params = state.member.controller.params
    return enas.decide(space, controller, params, key, score, problem.limits)

  def inherit(member, base):
    params = base.controller.params
    return member._replace(controller=member.controller._replace(params=params))

  return Strategy(search, enas.policy(space, controller), decide, inherit)
