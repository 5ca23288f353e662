"""Costs that depend on several choices at once.

Where a layer's expansion, kernel and activation are chosen apart from each
other, what it costs is one number for each combination of them: a table with
an axis for each choice. Its expectation is the multilinear form

    sum_{i, j, ..} p_i q_j .. table[i, j, ..]

exact where the choices are drawn on their own, and at one-hot points.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nasjax.types import Array, Choices, Masks, Weights

__all__ = ["Product", "ProductTable", "below", "expected", "largest", "least"]

Places = tuple[tuple[str, int], ...]  # (group, row) of each axis


class Product(NamedTuple):
  """Workloads of a layer that several choices shape."""

  choices: Places
  cells: np.ndarray  # object[K_1, ..., K_n]: a tuple of workloads each

  def table(self, cost: Callable[[tuple], float]) -> ProductTable:
    """The costs of its combinations; equal ones are computed once."""
    known: dict[tuple, float] = {}
    values = np.zeros(self.cells.shape)
    for index in np.ndindex(self.cells.shape):
      cell = self.cells[index]
      if cell not in known:
        known[cell] = float(cost(cell))
      values[index] = known[cell]
    return ProductTable(self.choices, values)


class ProductTable(NamedTuple):
  """One number for each combination of several choices."""

  choices: Places
  values: np.ndarray  # f64[K_1, ..., K_n]

  def of(self, choices: Choices) -> np.ndarray:
    """Entries f64[...] of choices i32[..., E] a group."""
    index = tuple(np.asarray(choices[g])[..., row] for g, row in self.choices)
    return self.values[index]


@dataclasses.dataclass(frozen=True, eq=False)
class Terms:
  """A metric as numbers that an exact decision can read."""

  constant: float
  tables: dict[str, np.ndarray]  # f64[E, K] a group, of single choices
  products: tuple[ProductTable, ...]

  def largest(self, choices: Choices) -> np.ndarray:
    """The largest entry f64[...] of choices i32[..., E] a group."""
    found = np.float64(self.constant)
    for name, table in self.tables.items():
      row = table[np.arange(len(table)), np.asarray(choices[name])]
      found = np.maximum(found, row.max(-1))
    for table in self.products:
      found = np.maximum(found, table.of(choices))
    return found


def expected(tables: Sequence[ProductTable]) -> Callable[[Weights], Array]:
  """The sum of the tables' expectations, as a function of weights.

  Tables over the same groups are contracted together: one einsum over
  [tables, K_1, ..., K_n] and a matrix of weights [tables, K] a factor.
  """
  alike: dict[tuple, list[ProductTable]] = {}
  for table in tables:
    groups = tuple(g for g, _ in table.choices)
    alike.setdefault((groups, table.values.shape), []).append(table)
  parts = []
  for (groups, shape), found in alike.items():
    rows = np.array([[row for _, row in t.choices] for t in found], np.int32)
    values = jnp.asarray(np.stack([t.values for t in found]), jnp.float32)
    axes = "abcdefghijklmnopqrstuvwxy"[: len(shape)]
    form = ",".join([f"z{axes}", *(f"z{a}" for a in axes)]) + "->"
    parts.append((groups, rows, values, form))

  def total(weights):
    value = jnp.float32(0.0)
    for groups, rows, values, form in parts:
      factors = [
        jnp.asarray(weights[g], jnp.float32)[rows[:, i]]
        for i, g in enumerate(groups)
      ]
      value += jnp.einsum(form, values, *factors)
    return value

  return total


def below(
  tables: Sequence[ProductTable], levels: np.ndarray
) -> Callable[[Weights], Array]:
  """The probability that every table's entry is at most each level.

  Args:
    tables: of the layers.
    levels: f64[N], rising.

  Returns:
    A function of weights -> f32[N], the product of the tables' distribution
    functions. Exact unless tables share a choice; where larger candidates of
    a shared choice cost no less it is then never above the probability.
  """
  parts = []
  for table in tables:
    flat = table.values.ravel()
    order = np.argsort(flat, kind="stable")
    count = np.searchsorted(flat[order], levels, side="right")
    parts.append((table.choices, order, count))

  def probability(weights):
    under = jnp.ones(len(levels))
    for choices, order, count in parts:
      joint = jnp.ones(1)
      for group, row in choices:
        own = jnp.asarray(weights[group], jnp.float32)[row]
        joint = (joint[:, None] * own[None]).reshape(-1)
      sums = jnp.concatenate([jnp.zeros(1), jnp.cumsum(joint[order])])
      under *= sums[count]
    return under

  return probability


def _open(table: ProductTable, masks: Masks) -> np.ndarray:
  """The entries, +inf where a choice does not exist."""
  values = np.array(table.values, np.float64)
  for axis, (group, row) in enumerate(table.choices):
    shut = ~np.asarray(masks[group], bool)[row]
    values[(slice(None),) * axis + (shut,)] = np.inf
  return values


def least(tables: Sequence[ProductTable], masks: Masks) -> float:
  """The smallest sum of entries over all choices, exactly.

  Choices are eliminated one after the other (Dechter 1999, bucket
  elimination): first those of one table alone, then those that tables share.
  """
  factors: list[tuple[Places, np.ndarray]] = [
    (t.choices, _open(t, masks)) for t in tables
  ]
  while True:
    variables = {v: 0 for choices, _ in factors for v in choices}
    if not variables:
      return float(sum(values for _, values in factors))
    for v in variables:
      variables[v] = len({u for c, _ in factors if v in c for u in c})
    count = {v: sum(v in c for c, _ in factors) for v in variables}
    first = min(variables, key=lambda v: (count[v] > 1, variables[v], v))  # noqa: B023
    own = [f for f in factors if first in f[0]]
    rest = [f for f in factors if first not in f[0]]
    axes = (first, *dict.fromkeys(v for c, _ in own for v in c if v != first))
    joined = sum(_spread(f, axes) for f in own)
    factors = [*rest, (axes[1:], joined.min(0))]


def largest(tables: Sequence[ProductTable], masks: Masks) -> float:
  """The largest sum of entries over all choices, see `least`."""
  return -least([t._replace(values=-t.values) for t in tables], masks)


def _spread(factor: tuple[Places, np.ndarray], axes: Places) -> np.ndarray:
  """A factor with its axes in this order, 1 where it has none."""
  choices, values = factor
  order = [choices.index(v) for v in axes if v in choices]
  shape = iter(np.transpose(values, order).shape)
  return np.transpose(values, order).reshape(
    [next(shape) if v in choices else 1 for v in axes]
  )


def of_rows(tables: dict[str, np.ndarray]) -> list[ProductTable]:
  """Tables f64[E, K] of single choices as products of one factor each."""
  return [
    ProductTable(((group, row),), values)
    for group, table in tables.items()
    for row, values in enumerate(table)
  ]


def one(table: ProductTable, choices: Any) -> float:
  """The entry of one architecture's choices, i32[E] a group."""
  index = tuple(int(choices[group][row]) for group, row in table.choices)
  return float(table.values[index])
