"""Workloads: concrete operations with their shapes, and what they count.

A workload is what a device executes: batch normalisation after a convolution
is folded into it, so `batch_norm` changes its parameters but not its cost. The
workloads of a space are the bridge between networks and hardware models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.hardware import products
from nasjax.hardware.products import Product, ProductTable
from nasjax.types import Metric

_CONVOLUTIONS = ("convolution", "depthwise")
# These read two inputs; a block saves its own for them.
JOINS = ("add", "multiply", "concat")
_POOLS = ("average_pool", "max_pool")
# Operations on each element, with the floating-point operations they take.
_ELEMENTWISE = {
  "add": 1,
  "multiply": 1,
  "relu": 1,
  "relu6": 2,
  "hswish": 5,
  "hsigmoid": 4,
  "batch_norm": 2,
  "normalize": 2,  # a normalisation without scale and shift
}
KINDS = (
  *_CONVOLUTIONS,
  "linear",
  *_POOLS,
  "global_average_pool",
  "broadcast",
  "concat",
  "subsample",  # even rows and columns beside odd ones, twice the channels
  "channel_shuffle",  # channels of `groups` groups take turns
  *_ELEMENTWISE,
)


class Workload(NamedTuple):
  """One operation on one image; sizes are those of its input."""

  kind: str
  height: int
  width: int
  channels_in: int
  channels_out: int
  kernel: int = 1
  stride: int = 1
  groups: int = 1
  bits: int = 32
  batch_norm: bool = False  # followed by a normalisation that is folded in
  # The kind it reads directly, "" at a block's start: a runtime may fuse them.
  after: str = ""
  dilation: int = 1  # of the kernel

  @property
  def padding(self) -> int:
    """Zeros on each side of a convolution's images."""
    return self.dilation * (self.kernel // 2)

  @property
  def outputs(self) -> tuple[int, int]:
    """Height and width of the output."""
    if self.kind in ("global_average_pool", "linear"):
      return 1, 1
    return -(-self.height // self.stride), -(-self.width // self.stride)

  @property
  def macs(self) -> int:
    """Multiply-adds of convolutions and linear layers, as the field counts."""
    if self.kind == "linear":
      return self.channels_in * self.channels_out
    if self.kind not in _CONVOLUTIONS:
      return 0
    height, width = self.outputs
    inputs = self.channels_in // self.groups
    return height * width * self.channels_out * inputs * self.kernel**2

  @property
  def flops(self) -> int:
    """Floating-point operations: 2 a multiply-add, and the pointwise ones."""
    height, width = self.outputs
    elements = height * width * self.channels_out
    if self.kind in _POOLS:
      return elements * self.kernel**2
    if self.kind == "global_average_pool":
      return self.height * self.width * self.channels_in
    return 2 * self.macs + elements * _ELEMENTWISE.get(self.kind, 0)

  @property
  def params(self) -> int:
    """Trained parameters, scale and shift of the normalisation included."""
    normal = 2 * self.channels_out if self.batch_norm else 0
    if self.kind == "linear":
      return self.channels_in * self.channels_out + self.channels_out
    if self.kind == "batch_norm":
      return 2 * self.channels_out
    if self.kind not in _CONVOLUTIONS:
      return 0
    inputs = self.channels_in // self.groups
    return self.kernel**2 * inputs * self.channels_out + normal

  @property
  def key(self) -> Workload:
    """The workload alone, as a device sees it: normalisation folded away."""
    return self._replace(batch_norm=False, after="")

  def __str__(self) -> str:
    """For a message: kind, sizes and what differs from the default."""
    extra = "".join(
      f" {name}={value}"
      for name, value, plain in (
        ("kernel", self.kernel, 1),
        ("stride", self.stride, 1),
        ("groups", self.groups, 1),
        ("dilation", self.dilation, 1),
        ("bits", self.bits, 32),
      )
      if value != plain
    )
    return (
      f"{self.kind} {self.height}x{self.width}"
      f" {self.channels_in}->{self.channels_out}{extra}"
    )


class SpaceWorkloads(NamedTuple):
  """Which workloads a space's networks are made of.

  `groups[name][edge][candidate]` are the workloads that choosing this
  candidate adds (over all cells that share the choice), `fixed` those that
  every network has. `joins`, shaped like `groups`, names the additions among
  `fixed` that read a candidate's output, with that in `after` (`none` or `skip`
  where nothing is computed): a device's fusion rules may make them cheaper.
  A node that sums n edges has n - 1 additions: `join_shares` says, by group and
  edge, how much of an addition is the edge's (1 where it says nothing).
  `products` are layers whose workloads several choices shape together. `kept`
  says of which edges a network keeps a fixed number, see `kept_edges`.
  """

  fixed: tuple[Workload, ...]
  groups: Mapping[str, tuple[tuple[tuple[Workload, ...], ...], ...]]
  joins: Mapping[str, tuple[tuple[tuple[Workload, ...], ...], ...]] = {}
  products: tuple[Product, ...] = ()
  kept: Mapping[str, kept_edges.KeptSets] = {}
  join_shares: Mapping[str, tuple[float, ...]] = {}

  def shares(self, group: str) -> np.ndarray:
    """f64[E]: how much of an addition each edge of a group brings."""
    edges = len(self.groups[group])
    return np.array(self.join_shares.get(group, (1.0,) * edges))

  def distinct(self) -> list[Workload]:
    """Every workload once, as the device sees it, sorted."""
    found = {w.key for w in self.fixed}
    for edges in self.groups.values():
      found.update(w.key for row in edges for cell in row for w in cell)
    for product in self.products:
      found.update(w.key for cell in set(product.cells.flat) for w in cell)
    return sorted(found)


def additive_metric(
  name: str,
  unit: str,
  workloads: SpaceWorkloads,
  cost: Callable[[Workload], float],
  *,
  device: str | None = None,
  constant: float = 0.0,
  source: str = "",
) -> Metric:
  """A metric that is a sum over workloads.

  Args:
    name: its name, with the unit.
    unit: its unit.
    workloads: of the space.
    cost: one workload's cost in `unit`; called once for each, here. It may
      read `after`; what an addition costs less there is a candidate's own.
    device: the device it belongs to, if any.
    constant: what every network costs besides its workloads.
    source: where the numbers come from.

  Returns:
    `expected` = constant + fixed + sum(probabilities * table), differentiable,
    and the multilinear forms of layers that several choices shape; `exact` the
    same in float64. The probabilities are the weights, but for edges of which a
    fixed number is kept, see `kept_edges`.

  Raises:
    ValueError: a cost that is not finite; it would make gradients NaN even at
      probability 0.
  """
  known: dict[Workload, float] = {}

  def total(items):
    items = list(items)
    for item in items:
      if item not in known:
        known[item] = float(cost(item))
      if not np.isfinite(known[item]):
        raise ValueError(f"{name}: the cost of {item} is {known[item]}")
    return sum(known[item] for item in items)

  fixed = constant + total(workloads.fixed)
  tables = {
    group: np.array([[total(cell) for cell in row] for row in edges])
    for group, edges in workloads.groups.items()
  }
  for group, edges in workloads.joins.items():
    shares = workloads.shares(group)
    tables[group] += shares[:, None] * [
      [total(cell) - total(w._replace(after="") for w in cell) for cell in row]
      for row in edges
    ]
  joint = tuple(p.table(total) for p in workloads.products)
  of_products = products.expected(joint)

  def expected(weights):
    weights = kept_edges.probabilities(weights, workloads.kept)
    value = jnp.float32(fixed) + of_products(weights)
    for group, table in tables.items():
      value += jnp.sum(weights[group] * jnp.asarray(table, jnp.float32))
    return value

  def exact(architecture):
    choices = architecture.choices
    return (
      fixed
      + sum(
        float(table[np.arange(len(table)), choices[group]].sum())
        for group, table in tables.items()
      )
      + sum(products.one(table, choices) for table in joint)
    )

  if not joint:
    return Metric(name, unit, device, expected, exact, True, source)
  terms = products.Terms(fixed, tables, joint)
  return Metric(
    name, unit, device, expected, exact, True, source, "products", terms
  )


def added(first: Metric, second: Metric, times: float, called: str) -> Metric:
  """The metric `first` + `times` `second`, by the name of the first.

  Args:
    first: a metric of a space.
    second: another of it, in another unit; `times` makes it the first's.
    times: a number.
    called: what the second is in the first's source.

  Returns:
    The metric; a sum where both are sums.
  """
  both = (first, second)
  form, terms = "other", None
  if all(m.form in ("sum", "products") for m in both):
    form = "products" if any(m.form == "products" for m in both) else "sum"
  if form == "products":
    form = "other" if None in (first.terms, second.terms) else form
  if form == "products":
    terms = products.Terms(
      first.terms.constant + times * second.terms.constant,
      {
        n: table + times * second.terms.tables[n]
        for n, table in first.terms.tables.items()
      },
      (
        *first.terms.products,
        *(t._replace(values=times * t.values) for t in second.terms.products),
      ),
    )
  return first._replace(
    expected=lambda w: first.expected(w) + times * second.expected(w),
    exact=lambda a: first.exact(a) + times * second.exact(a),
    tight=first.tight and second.tight,
    source=f"{first.source}, {called} ({second.source})",
    form=form,
    terms=terms,
  )


def largest_metric(
  name: str,
  unit: str,
  floor: float,
  tables: Mapping[str, np.ndarray],
  *,
  joint: Sequence[ProductTable] = (),
  exact: Callable[[Any], float] | None = None,
  device: str | None = None,
  source: str = "",
  kept: Mapping[str, kept_edges.KeptSets] | None = None,
) -> Metric:
  """A metric that is the largest of its parts: one table entry a choice.

  Args:
    name: its name, with the unit.
    unit: its unit.
    floor: the largest of what every network has.
    tables: f64[E, K] a group.
    joint: the same of combinations of choices.
    exact: an architecture's value where the tables only bound it from above;
      default: they are the value.
    device: the device it belongs to, if any.
    source: where the numbers come from.
    kept: edges of which a network keeps a fixed number, see `kept_edges`.

  Returns:
    `expected` is the mean of the largest entry when every choice is drawn
    from its weights on its own, and edges are kept as `kept` says: by the
    distribution function, a polynomial in the weights, so differentiable. It
    is exact at one-hot points (an upper bound with `exact`). The mean of the
    largest, not the largest of the means: that one would lie below. Where
    combinations share a choice, see `products.below`, it is an upper bound
    between one-hot points.
  """
  groups = list(tables)
  rows = [np.maximum(np.asarray(tables[g], np.float64), floor) for g in groups]
  joint = tuple(t._replace(values=np.maximum(t.values, floor)) for t in joint)
  flat = [r.ravel() for r in (*rows, *(t.values for t in joint))]
  levels = np.unique(np.concatenate([[floor], *flat]))
  steps = jnp.asarray(np.diff(levels), jnp.float32)
  below = [
    jnp.asarray(row[None] <= levels[:-1, None, None], jnp.float32)
    for row in rows
  ]
  jointly_below = products.below(joint, levels[:-1])
  kept = kept or {}

  def expected(weights):
    under = jointly_below(weights)
    for group, inside in zip(groups, below, strict=True):
      rows = jnp.asarray(weights[group], jnp.float32)
      none, sets = kept.get(group, (0, ()))
      under *= kept_edges.below(rows, inside, none, sets)
    return jnp.float32(floor) + jnp.sum(steps * (1.0 - under))

  def largest(architecture):
    choices = architecture.choices
    singles = [
      float(row[np.arange(len(row)), choices[group]].max())
      for group, row in zip(groups, rows, strict=True)
    ]
    return max(floor, *singles, *(products.one(t, choices) for t in joint))

  return Metric(
    name,
    unit,
    device,
    expected,
    exact or largest,
    exact is None,
    source,
    "max",
    products.Terms(floor, dict(zip(groups, rows, strict=True)), joint)
    if joint
    else None,
  )


def params(space) -> Metric:
  """Trained parameters of a space's networks."""
  return additive_metric(
    "params", "", space.workloads(), lambda w: w.params, source="counted"
  )


def macs(space) -> Metric:
  """Multiply-adds of one image through a space's networks."""
  return additive_metric(
    "macs", "", space.workloads(), lambda w: w.macs, source="counted"
  )


def flops(space) -> Metric:
  """Floating-point operations of one image, pointwise ones included."""
  return additive_metric(
    "flops", "", space.workloads(), lambda w: w.flops, source="counted"
  )


def skips(space) -> Metric:
  """Choices that compute nothing, `none` and skips, of a space's networks.

  `none` does not count where every network has as many of them: on edges of
  which a fixed number is kept.

  As a limit it is P-DARTS's bound on skips (Chen et al. 2019, section 3.3), in
  the search as well as on what it decides.
  """
  tables = {n: np.asarray(m, np.float32) for n, m in space.skips.items()}

  kept = kept_edges.kept_sets(space)

  def expected(weights):
    weights = kept_edges.probabilities(weights, kept)
    return sum(jnp.sum(weights[n] * table) for n, table in tables.items())

  def exact(architecture):
    rows = architecture.choices
    return float(
      sum(t[np.arange(len(t)), rows[n]].sum() for n, t in tables.items())
    )

  return Metric("skips", "", None, expected, exact, True, "counted")


def output_shape(
  candidates: Mapping[str, Any], shape: tuple[int, ...]
) -> tuple[int, ...]:
  """[B, H', W', C'] of an edge's candidates, which all agree, on [B, H, W, C].

  Those without workloads keep the shape; a skip that is one says so.
  """
  blocks = [b for b in candidates.values() if b is not None and b.workloads]
  return (shape[0], *blocks[0].output) if blocks else tuple(shape)
