"""What choices cost: a metric as tables, or as what it is at the largest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from nasjax.hardware import products
from nasjax.spaces.space import Architecture, Space, kept_of, random_choices
from nasjax.types import Choices, Masks, Metric

ADDITIVE = ("sum", "products")  # forms of metrics


class NotAdditiveError(ValueError):
  """A metric whose form is "sum" is none over the choices."""


class AdditiveCosts(NamedTuple):
  """A metric as constant + the sum of one table entry an edge (float64).

  Of the form "products" also of one entry for combinations of choices.
  """

  constant: float
  tables: dict[str, np.ndarray]  # f64[E, K]
  # By group: which candidate is `none`, and the space's kept sets.
  kept: Mapping[str, tuple[int, tuple]] = {}
  products: tuple[products.ProductTable, ...] = ()

  def of(self, choices: Choices) -> np.ndarray:
    """Values f64[...] of choices i32[..., E]."""
    value = np.float64(self.constant)
    for name, table in self.tables.items():
      row = np.asarray(choices[name])
      value = value + table[np.arange(len(table)), row].sum(-1)
    return value + sum(table.of(choices) for table in self.products)

  def extremes(self, masks: Masks) -> tuple[float, float]:
    """Smallest and largest value over all architectures."""
    if self.products:
      terms = [*self.products, *products.of_rows(self.tables)]
      return (
        self.constant + products.least(terms, masks),
        self.constant + products.largest(terms, masks),
      )
    low = high = self.constant
    for name, table in self.tables.items():
      mask = np.asarray(masks[name])
      least = np.where(mask, table, np.inf)
      most = np.where(mask, table, -np.inf)
      none, sets = self.kept.get(name, (0, ()))
      for edges, count in sets:
        rows = list(edges)
        base = table[rows, none]
        down, up = (np.delete(t[rows], none, -1) for t in (least, most))
        low += base.sum() + np.sort(down.min(-1) - base)[:count].sum()
        high += base.sum() + np.sort(up.max(-1) - base)[-count:].sum()
      alone = np.delete(np.arange(len(mask)), sum((e for e, _ in sets), ()))
      low += least[alone].min(-1).sum()
      high += most[alone].max(-1).sum()
    return float(low), float(high)


def additive_costs(space: Space, metric: Metric) -> AdditiveCosts:
  """Reads a metric's tables off its values at single-choice changes.

  Args:
    space: the space.
    metric: a metric of it.

  Returns:
    Its additive form.

  Raises:
    NotAdditiveError: the metric is not a sum over the choices.
  """
  if metric.form == "products":
    own = metric.terms
    return AdditiveCosts(own.constant, own.tables, products=own.products)
  masks = {n: np.asarray(m) for n, m in space.masks.items()}
  base = {n: m.argmax(-1).astype(np.int32) for n, m in masks.items()}
  start = float(metric.exact(Architecture(space, base)))
  tables = {}
  for name, mask in masks.items():
    table = np.zeros(mask.shape)
    for edge, k in zip(*np.nonzero(mask), strict=True):
      row = base[name].copy()
      row[edge] = k
      changed = Architecture(space, {**base, name: row})
      table[edge, k] = float(metric.exact(changed)) - start
    tables[name] = table
  kept = {
    n: (space.groups[n].candidates.index("none"), sets)
    for n, sets in kept_of(space).items()
  }
  costs = AdditiveCosts(start, tables, kept)
  drawn = random_choices(space, np.random.default_rng(0), 8)
  for i in range(8):
    choices = {n: rows[i] for n, rows in drawn.items()}
    value = float(metric.exact(Architecture(space, choices)))
    if not np.isclose(value, costs.of(choices), rtol=1e-6, atol=1e-9):
      raise NotAdditiveError(
        f"{metric.name} is not additive over the choices; decide needs"
        " additive metrics"
      )
  return costs


class LargestCosts(NamedTuple):
  """A metric of the form "max": what each choice costs where it is the worst.

  `tables` hold the value with all other choices at their smallest.
  """

  constant: float  # with every choice at its smallest
  tables: dict[str, np.ndarray]  # f64[E, K]
  base: dict[str, np.ndarray]  # i32[E]: the smallest choices
  exact: Any  # Architecture -> float, or None: the largest entry is exact
  space: Any
  terms: products.Terms | None = None  # of combinations of choices: exact

  def of(self, choices: Choices) -> np.ndarray:
    """Values f64[...] of choices i32[..., E]."""
    if self.terms is not None:
      return self.terms.largest(choices)
    if self.exact is None:
      parts = [
        table[np.arange(len(table)), np.asarray(choices[name])].max(-1)
        for name, table in self.tables.items()
      ]
      return np.max(parts, axis=0)
    rows = {n: np.asarray(r) for n, r in choices.items()}
    shape = next(iter(rows.values())).shape[:-1]
    found = np.zeros(shape)
    for i in np.ndindex(shape):
      picked = Architecture(self.space, {n: r[i] for n, r in rows.items()})
      found[i] = self.exact(picked)
    return found

  def extremes(self, masks: Masks) -> tuple[float, float]:
    """Smallest value, and the largest that one choice alone can cause."""
    high = max(
      float(np.where(np.asarray(masks[n]), t, -np.inf).max())
      for n, t in self.tables.items()
    )
    return self.constant, high


def largest_costs(space: Space, metric: Metric) -> LargestCosts:
  """Reads off what each choice of a "max" metric costs at the least."""
  masks = {n: np.asarray(m) for n, m in space.masks.items()}
  base = {n: m.argmax(-1).astype(np.int32) for n, m in masks.items()}

  def value(name, edge, k):
    row = base[name].copy()
    row[edge] = k
    return float(metric.exact(Architecture(space, {**base, name: row})))

  for name, mask in masks.items():
    for edge in range(len(mask)):
      choices = np.flatnonzero(mask[edge])
      base[name][edge] = min(choices, key=lambda k: value(name, edge, k))  # noqa: B023
  tables = {}
  for name, mask in masks.items():
    tables[name] = np.zeros(mask.shape)
    for edge, k in zip(*np.nonzero(mask), strict=True):
      tables[name][edge, k] = value(name, edge, k)
  start = float(metric.exact(Architecture(space, base)))
  alone = metric.tight and metric.terms is None
  exact = None if alone else metric.exact
  terms = metric.terms if metric.tight else None
  return LargestCosts(start, tables, base, exact, space, terms)


class OtherCosts(NamedTuple):
  """A metric that is neither a sum nor a maximum of its choices."""

  constant: float
  tables: dict[str, np.ndarray]  # empty
  exact: Any
  space: Any

  def of(self, choices: Choices) -> np.ndarray:
    """Values f64[...] of choices i32[..., E]."""
    return LargestCosts(0.0, {}, {}, self.exact, self.space).of(choices)

  def extremes(self, masks: Masks) -> tuple[float, float]:
    """Not known without trying all: NaN."""
    del masks
    return np.nan, np.nan


Costs = AdditiveCosts | LargestCosts | OtherCosts


def resolved(space: Space, metric: Metric) -> Metric:
  """The metric with the form that it has: "other" for a sum that is none.

  What its `exact` raises is not taken for an answer.
  """
  if metric.form != "sum":
    return metric
  try:
    additive_costs(space, metric)
  except NotAdditiveError:
    return metric._replace(form="other")
  return metric


def costs(space: Space, metric: Metric) -> Costs:
  """A metric's costs by choice, as its form has them."""
  metric = resolved(space, metric)
  if metric.form in ADDITIVE:
    return additive_costs(space, metric)
  if metric.form == "max":
    return largest_costs(space, metric)
  base = {
    n: np.asarray(m).argmax(-1).astype(np.int32) for n, m in space.masks.items()
  }
  start = float(metric.exact(Architecture(space, base)))
  return OtherCosts(start, {}, metric.exact, space)
