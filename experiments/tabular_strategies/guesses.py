"""Predictors of a table's objectives, from the rows that were evaluated."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from nasjax import spaces
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features
from nasjax.hardware import fit as fitting
from nasjax.search import genes as genetics
from nasjax.search import surrogate as surrogates
from nasjax.spaces.nasbench201 import OPERATIONS
from nasjax.types import Group
from tabular_strategies import Table, reading

_REFERENCE = 2000


class Guesses(NamedTuple):
  """A surrogate of a table and the candidates of its genes."""

  surrogate: surrogates.Surrogate
  space: Any  # with the masks bool[G, K] of its one group

  def choices(self, genes) -> dict[str, np.ndarray]:
    """Choices i32[N, G] of genes i32[N, G]."""
    return genetics.to_choices(self.space, np.asarray(genes))


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
  # A gene's values stand in the order of the words.
  masks = {
    group: np.array(
      [[word in names for word in words] for names in table.candidates]
    )
  }
  own = SimpleNamespace(masks=masks, groups=groups)
  drawn = np.random.default_rng(0).integers(
    table.cardinalities, size=(_REFERENCE, len(table.candidates))
  )
  kinds = ["error" if n == reading.ERROR else "cost" for n in table.names]
  found = surrogates.surrogate(
    groups,
    kinds,
    genetics.to_choices(own, drawn),
    ends=ends,
    ties=ties,
    costs=costs,
  )
  return Guesses(found, own)


def fit(table: Table):
  """What `staged.staged` takes: fits to evaluated rows, predicts any genes."""
  made = guesses(table)

  def fitted(genes, objectives, violations):
    state = made.surrogate.fit(made.choices(genes), objectives, violations)
    return lambda genes: made.surrogate.predict(state, made.choices(genes))

  return fitted
