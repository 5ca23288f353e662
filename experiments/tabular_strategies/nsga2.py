"""NSGA-II on a table, all generations in one compiled program.

Mutation and crossover rates were chosen on seeds 100 to 139 of NAS-Bench-201.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.search import nsga2
from tabular_strategies import Evaluated, Options, Table

OPTIONS = ("population", "generations")
CROSSOVER_RATE, MUTATION_RATE = 0.7, 0.1


def search(table: Table, key, options: Options) -> Evaluated:
  return run(table, key, options.population, options.generations)


def run(table: Table, key, population: int, generations: int) -> Evaluated:
  """NSGA-II; the first population is the first generation."""
  archive = _program(table, population, generations)(key)
  genes = np.asarray(archive.genes)[: int(archive.size)]
  return Evaluated(table.lookup(genes))


@functools.lru_cache(maxsize=4)
def _program(table, population, generations):
  """The compiled search, the same for all seeds."""
  rows = table.compiled_lookup()
  points = jnp.asarray(table.objectives, jnp.float32)
  violations = jnp.asarray(table.violations, jnp.float32)
  known = jnp.asarray(table.genes)
  evolution = nsga2.nsga2(
    table.cardinalities,
    objectives=points.shape[1],
    population=population,
    capacity=population * generations,
    crossover_rate=CROSSOVER_RATE,
    mutation_rate=MUTATION_RATE,
    repair=None if table.complete else lambda key, genes: known[rows(genes)],
  )

  def evaluate(genes):
    return points[rows(genes)], violations[rows(genes)]

  @jax.jit
  def run(key):
    state = nsga2.evolve(evolution, evolution.init(key), evaluate, generations)
    return state.archive

  return run
