"""Searches over a finished table of architectures, one module a strategy.

A module `experiments/tabular_strategies/NAME.py` is `--strategy NAME` of
`experiments/tabular.py` and has two names:

    OPTIONS = ("population", ...)  # the fields of Options that it reads

    def search(table: Table, key, options: Options) -> Evaluated:
      ...

`search` may look at `table.objectives[row]` only for rows that it returns:
each is a real evaluation, which reveals all objectives of that architecture.
Its randomness comes from `key` (`jax.random.key(seed)`) alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_DENSE = 2**24  # combinations up to which rows are looked up directly


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
  """N architectures, each of G categorical genes, with M objectives.

  It hashes by identity, so that compiled programs can be cached by table.
  """

  architectures: tuple[str, ...]  # N, unique
  genes: np.ndarray  # i32[N, G]
  cardinalities: np.ndarray  # i32[G]: gene g is 0 .. cardinalities[g] - 1
  candidates: tuple[tuple[str, ...], ...]  # names of each gene's values
  objectives: np.ndarray  # f64[N, M], minimised
  names: tuple[str, ...]  # M; "error" is 100 - accuracy in percent
  violations: np.ndarray  # f64[N]: above 0 where a network learns nothing
  numbers: np.ndarray  # i64[N], ascending: `number` of rows[i]
  rows: np.ndarray  # i64[N]
  # f64[N]: a cheap accuracy in percent that a reward may read; None: none is.
  signal: np.ndarray | None = None

  def lookup(self, genes: Any) -> np.ndarray:
    """Rows i64[...] of genes i32[..., G]; -1 where the table has none."""
    wanted = _number(np.asarray(genes), self.cardinalities)
    place = np.searchsorted(self.numbers, wanted)
    place = np.minimum(place, len(self.numbers) - 1)
    found = self.numbers[place] == wanted
    return np.where(found, self.rows[place], -1)

  def compiled_lookup(self) -> Callable[[jax.Array], jax.Array]:
    """The same to use inside jit: genes i32[K, G] -> rows i32[K].

    Where not all combinations stand in the table it gives the nearest row, by
    the number of genes that differ.
    """
    if self.complete and len(self.genes) <= _DENSE:
      rows = jnp.asarray(self.rows, jnp.int32)
      place = np.cumprod([1, *self.cardinalities[:0:-1]])[::-1].astype(np.int32)
      return lambda genes: rows[(genes * place[None]).sum(-1)]
    hot = jnp.asarray(_one_hot(np, self.genes, self.cardinalities))

    def nearest(genes):
      return (_one_hot(jnp, genes, self.cardinalities) @ hot.T).argmax(-1)

    return nearest

  @property
  def complete(self) -> bool:
    """Whether every combination of genes stands in the table."""
    return len(self.genes) == np.prod(self.cardinalities, dtype=float)


class Options(NamedTuple):
  """What the command line sets; a strategy reads those in its OPTIONS."""

  population: int = 50
  generations: int = 30
  max_evaluations: int = 360  # unique architectures
  predictor_samples: int = 150  # of them, random ones at the start
  samples: int = 2000  # architectures drawn, repeats counted


class Evaluated(NamedTuple):
  """What a search looked at."""

  rows: np.ndarray  # i64[E], in the order of evaluation; repeats count once
  report: Mapping[str, float] = {}  # further figures, printed by seed
  others: Mapping[str, np.ndarray] = {}  # rows of searches to compare with


def table(
  architectures,
  genes,
  cardinalities,
  candidates,
  objectives,
  names,
  violations,
  signal=None,
) -> Table:
  """A table with its lookup; see the fields of `Table`.

  Raises:
    ValueError: two rows hold the same genes.
  """
  genes = np.asarray(genes, np.int32)
  cardinalities = np.asarray(cardinalities, np.int32)
  numbers = _number(genes, cardinalities)
  rows = np.argsort(numbers, kind="stable")
  numbers = numbers[rows]
  twice = np.flatnonzero(numbers[1:] == numbers[:-1])
  if len(twice):
    first = architectures[rows[twice[0]]]
    raise ValueError(f"architecture {first} stands there twice")
  return Table(
    tuple(architectures),
    genes,
    cardinalities,
    candidates,
    np.asarray(objectives, np.float64),
    tuple(names),
    np.asarray(violations, np.float64),
    numbers,
    rows,
    None if signal is None else np.asarray(signal, np.float64),
  )


def _one_hot(library, genes, cardinalities):
  """f32[N, sum of cardinalities]."""
  columns = [
    genes[:, g, None] == np.arange(count)[None]
    for g, count in enumerate(cardinalities)
  ]
  return library.concatenate(columns, axis=-1).astype(np.float32)


def _number(genes, cardinalities):
  """Each architecture as one whole number, in mixed radix."""
  total = np.zeros(genes.shape[:-1], object if _large(cardinalities) else int)
  for gene, count in enumerate(cardinalities):
    total = total * int(count) + genes[..., gene]
  return total


def _large(cardinalities):
  return float(np.prod(cardinalities, dtype=float)) >= 2.0**62
