"""Random search on a table: rows in random order, none twice."""

from __future__ import annotations

import jax
import numpy as np

from tabular_strategies import Evaluated, Options, Table

OPTIONS = ("max_evaluations",)


def search(table: Table, key, options: Options) -> Evaluated:
  return Evaluated(rows(table, key, options.max_evaluations))


def rows(table: Table, key, count: int) -> np.ndarray:
  """So many different random rows, i64[count] at most."""
  order = jax.random.permutation(key, len(table.architectures))
  return np.asarray(order, np.int64)[:count]
