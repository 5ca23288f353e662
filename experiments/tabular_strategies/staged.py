"""Predictors from few evaluations, NSGA-II on them, batches that promise.

CIFAR-10 of NAS-Bench-201, 360 evaluations of which 150 are random, seeds 0 to
9, mean hypervolume over the true one, and NSGA-II's at as many:

    objectives beside error         staged   NSGA-II
    latency raspi4                 .99831   .99666
    latency fpga                   .99910   .99785
    latency gold_6226              .99871   .99550
    latency raspi4, energy fpga    .99721   .99543
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.search import staged
from tabular_strategies import Evaluated, Options, Table, guesses, nsga2

OPTIONS = ("max_evaluations", "predictor_samples")
# NSGA-II at as many evaluations, for comparison: chosen on seeds 100 to 139.
POPULATION = 20


def search(table: Table, key, options: Options) -> Evaluated:
  evolution = _evolution(
    table, options.predictor_samples, options.max_evaluations
  )
  state = evolution.init(key)
  while True:
    points, state = evolution.ask(state)
    if not len(points):
      break
    rows = table.lookup(points)
    state = evolution.tell(
      state, points, table.objectives[rows], table.violations[rows]
    )
  archive = state.random.archive
  rows = table.lookup(np.asarray(archive.genes)[: int(archive.size)])
  plain = nsga2.run(
    table,
    jax.random.fold_in(key, 2),
    POPULATION,
    -(-options.max_evaluations // POPULATION),
  )
  others = {"nsga2": plain.rows[: options.max_evaluations]}
  return Evaluated(rows, others=others)


@functools.lru_cache(maxsize=4)
def _evolution(table, samples, capacity):
  lookup, known = jax.jit(table.compiled_lookup()), jnp.asarray(table.genes)
  return staged.staged(
    table.cardinalities,
    guesses.fit(table),
    objectives=table.objectives.shape[1],
    samples=samples,
    capacity=capacity,
    repair=None if table.complete else lambda key, genes: known[lookup(genes)],
  )
