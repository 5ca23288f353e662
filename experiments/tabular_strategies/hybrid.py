"""NSGA-II and GDAS through predictors in turn, at half of NSGA-II's price.

`--population` and `--generations` are NSGA-II's that it is compared with; the
hybrid stops at half of their evaluations. `share_to_nsga2` is the share of
them after which it has reached what NSGA-II reaches at its end.

CIFAR-10 of NAS-Bench-201, 50 x 30, seeds 0 to 9, means:

    objectives beside error         hybrid, 750  NSGA-II, 1,500  reached in
    latency raspi4                  .99959       .99932          9 of 10
    latency fpga                    .99994       .99952          10 of 10
    latency gold_6226               .99994       .99962          9 of 10
    latency raspi4, energy fpga     .99941       .99890          10 of 10
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.search import hybrid
from tabular_strategies import Evaluated, Options, Table, guesses, nsga2

OPTIONS = ("population", "generations")
# Chosen on seeds 100 to 105, as what the predictors may hope for.
BATCH, PERIOD = 25, 1


def search(table: Table, key, options: Options) -> Evaluated:
  whole = options.population * options.generations
  capacity = max(whole // 2, 1)
  evolution = _evolution(table, capacity)
  state = evolution.init(key)
  while int(state.evolution.archive.size) < capacity:
    points, state = evolution.ask(state)
    rows = table.lookup(points)
    state = evolution.tell(
      state, points, table.objectives[rows], table.violations[rows]
    )
  archive = state.evolution.archive
  rows = table.lookup(np.asarray(archive.genes)[: int(archive.size)])
  plain = nsga2.run(
    table,
    jax.random.fold_in(key, 2),
    options.population,
    options.generations,
  )
  return Evaluated(rows, others={"nsga2": plain.rows})


@functools.lru_cache(maxsize=4)
def _evolution(table, capacity):
  made = guesses.guesses(table)
  lookup, known = jax.jit(table.compiled_lookup()), jnp.asarray(table.genes)

  def repair(key, genes):
    return known[lookup(genes)]

  inner = hybrid.through_predictor(
    made.surrogate, made.space, capacity=capacity, count=BATCH
  )

  def propose(key, told):
    points = inner(key, told)
    return points if table.complete else np.asarray(repair(None, points))

  return hybrid.hybrid(
    table.cardinalities,
    propose,
    objectives=table.objectives.shape[1],
    population=BATCH,
    capacity=capacity,
    period=PERIOD,
    crossover_rate=nsga2.CROSSOVER_RATE,
    mutation_rate=nsga2.MUTATION_RATE,
    repair=None if table.complete else repair,
  )
