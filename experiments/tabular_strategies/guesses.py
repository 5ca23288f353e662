"""Predictors of a table's objectives, from the rows that were evaluated."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from nasjax import spaces
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features
from nasjax.hardware import fit as fitting
from nasjax.search import surrogate as surrogates
from nasjax.spaces.nasbench201 import OPERATIONS
from nasjax.types import Group
from tabular_strategies import Table, reading

_REFERENCE = 2000


class Guesses(NamedTuple):
  """A surrogate of a table and the choices that it takes."""

  surrogate: surrogates.Surrogate
  group: str
  values: tuple[np.ndarray, ...]  # of each gene the choices i32

  def choices(self, genes) -> dict[str, np.ndarray]:
    """Choices i32[N, G] of genes i32[N, G]."""
    columns = [v[genes[..., g]] for g, v in enumerate(self.values)]
    return {self.group: np.stack(columns, -1)}


@functools.lru_cache(maxsize=4)
def guesses(table: Table) -> Guesses:
  """The predictors; NAS-Bench-201's cells have its space's features."""
  words = sorted({word for names in table.candidates for word in names})
  if set(words) <= set(OPERATIONS) and len(table.candidates) == 6:
    space = spaces.nasbench201()
    groups, ends = space.groups, choice_tables.ends_of(space)
    ties, costs = fitting.ties_of(space), features.costs_of(space)
    (group,), words = groups, list(OPERATIONS)
  else:
    group, ends, ties, costs = "genes", None, None, None
    groups = {group: Group(len(table.candidates), tuple(words))}
  values = tuple(
    np.array([words.index(word) for word in names], np.int32)
    for names in table.candidates
  )
  made = Guesses(None, group, values)
  drawn = np.random.default_rng(0).integers(
    table.cardinalities, size=(_REFERENCE, len(values))
  )
  kinds = ["error" if n == reading.ERROR else "cost" for n in table.names]
  found = surrogates.surrogate(
    groups, kinds, made.choices(drawn), ends=ends, ties=ties, costs=costs
  )
  return made._replace(surrogate=found)


def fit(table: Table):
  """What `staged.staged` takes: fits to evaluated rows, predicts any genes."""
  made = guesses(table)

  def fitted(genes, objectives, violations):
    state = made.surrogate.fit(made.choices(genes), objectives, violations)
    return lambda genes: made.surrogate.predict(state, made.choices(genes))

  return fitted
