"""The evolution that a strategy of `nasjax search` runs after its epochs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nasjax.cli import metrics
from nasjax.errors import InputError
from nasjax.search import genes, nsga2
from nasjax.spaces.space import kept_of
from nasjax.types import Array, Evolution, Key

STRATEGIES = ("nsga2", "random")


class Evolving(NamedTuple):
  """What a checkpoint holds of an evolution. A pytree."""

  state: Any
  generation: Array  # i32[], generations told


def costs(problem) -> list:
  """The metrics that are objectives beside the error.

  Those that `--objective` names; if it names none, what limits bound, and
  without limits the first metric of the space.
  """
  found = []
  for text in problem.config.objective:
    name, value = metrics.split_assignment(text, "--objective")
    if value is not None:
      raise InputError(
        f"--objective {name}",
        f"--strategy {problem.config.strategy} keeps objectives apart: it has"
        " no coefficients",
      )
    if name != "cross_entropy":
      found.append(metrics.find(name, problem.metrics, f"--objective {name}"))
  found = found or [metric for metric, _ in problem.limits]
  return found or [next(iter(problem.metrics.values()))]


def check(problem) -> None:
  """Raises InputError for a space or an objective that it cannot have."""
  if kept_of(problem.space):
    raise InputError(
      f"--strategy {problem.config.strategy}",
      f"{problem.space.name} keeps a fixed number of edges, which crossover and"
      " mutation do not",
      "use differentiable or enas",
    )
  costs(problem)


def make(problem, *, random: bool = False) -> Evolution:
  """The evolution of a problem; `random`: random search of the same size."""
  config = problem.config
  constructor = nsga2.nsga2
  if random or config.strategy == "random":
    constructor = nsga2.random_search
  return constructor(
    genes.cardinalities(problem.space.masks),
    objectives=1 + len(costs(problem)),
    population=config.population,
    capacity=config.population * config.generations,
  )


def begin(problem, key: Key) -> Evolving | tuple:
  """Where the evolution starts; () for a strategy without one."""
  if problem.config.strategy not in STRATEGIES:
    return ()
  return Evolving(make(problem).init(key), jnp.int32(0))


def random_begin(problem, key: Key) -> tuple[Evolution, Any]:
  """Random search beside it, and where it starts."""
  made = make(problem, random=True)
  return made, made.init(jax.random.fold_in(key, 1))
