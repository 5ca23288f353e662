"""The evolution that a strategy of `nasjax search` runs after its epochs."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import data
from nasjax.cli import measuring, metrics, predictors
from nasjax.data import pool as pools
from nasjax.errors import InputError
from nasjax.hardware import bundle
from nasjax.search import genes, hybrid, nsga2, refinement, staged
from nasjax.search.shared import TASKS
from nasjax.types import Array, Evolution, Key

_REFINED_ON = 128  # validation images of a step that refines
STRATEGIES = ("hybrid", "nsga2", "random", "staged")


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


class Measured(NamedTuple):
  """What `--measured` names."""

  measure: measuring.Measure
  names: tuple[str, ...]  # of the metrics that it measures and the search uses


def check(problem) -> Measured | None:
  """What measures in the loop; None where nothing does.

  Raises:
    InputError: a space, an objective or a measurement that it cannot have.
  """
  used = [m.name for m in costs(problem)]
  used += [m.name for m, _ in problem.limits if m.name not in used]
  word, batch = problem.config.measured, problem.config.device_batch
  if word is None:
    return None
  measure = measuring.make(word, batch)
  (one,) = bundle.random_networks(problem.space, 1, problem.config.seed)
  return Measured(measure, tuple(measuring.names(measure, one, used)))


def ends(problem) -> np.ndarray:
  """i64[generations]: how many points are evaluated at the end of each."""
  config = problem.config
  first = () if config.strategy != "staged" else (config.predictor_samples,)
  return np.cumsum([*first, *[config.population] * config.generations])


def make(
  problem, measured: Measured | None = None, variables: Any = None
) -> Evolution:
  """The evolution of a problem; the rest only where it runs.

  Args:
    problem: what is searched.
    measured: see `check`.
    variables: of the trained supernet.
  """
  config = problem.config
  counts = genes.cardinalities(problem.space)
  shared = dict(
    objectives=1 + len(costs(problem)), capacity=int(ends(problem)[-1])
  )
  through = config.strategy == "hybrid" and config.refine_through
  if config.strategy == "staged" or through == "predictor":
    names = () if measured is None else measured.names
    learnt = predictors.surrogate(problem, costs(problem), names)
  if config.strategy == "staged":
    return staged.staged(
      counts,
      predictors.fit(problem, learnt),
      samples=config.predictor_samples,
      batch=config.population,
      **shared,
    )
  if config.strategy == "hybrid":
    if through == "supernet":
      refine = _through_supernet(problem, variables)
    else:
      refine = hybrid.through_predictor(
        learnt,
        problem.space,
        capacity=shared["capacity"],
        count=config.population,
      )
    return hybrid.hybrid(
      counts,
      refine,
      population=config.population,
      period=config.refine_every,
      **shared,
    )
  made = {"nsga2": nsga2.nsga2, "random": nsga2.random_search}
  return made[config.strategy](counts, population=config.population, **shared)


def _through_supernet(problem, variables) -> hybrid.Propose:
  """Refines through the supernet's loss on validation images."""
  size = min(_REFINED_ON, len(problem.valid.labels))
  pool = pools.make_pool(problem.valid, data.statistics(problem.train))

  def loss(sampled, key):
    rows = jax.random.randint(key, (size,), 0, pool.size)
    batch = pools.gather(pool, rows)
    outputs, _ = problem.space.apply(variables, sampled, batch.images, True)
    return TASKS["cross_entropy"](outputs, batch.labels)

  return refinement.through_supernet(
    problem.space,
    loss,
    costs(problem),
    problem.limits,
    count=problem.config.population,
  )


def begin(problem, key: Key) -> Evolving | tuple:
  """Where the evolution starts; () for a strategy without one."""
  if problem.config.strategy not in STRATEGIES:
    return ()
  return Evolving(make(problem).init(key), jnp.int32(0))


def sampled_points(problem, weights, key: Key) -> np.ndarray:
  """What a gradient search proposes for the first generation, i32[N, G].

  Args:
    problem: what is searched.
    weights: f32[E, K] a group, its expected weights.
    key: consumed.

  Returns:
    The most probable architecture within the limits, then samples.
  """
  space, size = problem.space, problem.config.population - 1
  best = space.decide(weights, problem.limits).choices
  first = genes.from_choices(space, {n: row[None] for n, row in best.items()})
  return np.concatenate([first, genes.drawn(space, weights, key, size)])


def random_points(problem, key: Key) -> np.ndarray:
  """As many random points as the evolution evaluates, i32[N, G]."""
  size = int(ends(problem)[-1])
  made = nsga2.random_search(
    genes.cardinalities(problem.space),
    objectives=1,
    population=size,
    capacity=size,
  )
  points, _ = made.ask(made.init(jax.random.fold_in(key, 1)))
  # Of a space that is used up the last ones repeat others.
  _, first = np.unique(np.asarray(points), axis=0, return_index=True)
  return np.asarray(points)[np.sort(first)]
