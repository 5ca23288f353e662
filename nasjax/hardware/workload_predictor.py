"""A learned predictor of what one workload costs, from a measured table.

A small multi-layer perceptron on the workload's shape (the per-operation
regression of nn-Meter, Zhang et al., MobiSys 2021). It fills shapes between
those that have a row, and refuses what lies outside of them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.errors import InputError
from nasjax.hardware import table as tables
from nasjax.hardware.scores import Errors, folds, prediction_errors
from nasjax.hardware.table import Table
from nasjax.hardware.workload import KINDS, Workload, additive_metric
from nasjax.types import Metric

__all__ = ["WorkloadPredictor", "workload_predictor"]

# A workload's sizes, of which each must lie between those that were measured.
_SIZES = (
  "height",
  "width",
  "channels_in",
  "channels_out",
  "kernel",
  "stride",
  "dilation",
  "groups",
)


class _Perceptron(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      x = nn.silu(nn.Dense(self.width)(x))
    return nn.Dense(1)(x)[..., 0]


class _Fitted(NamedTuple):
  """An ensemble of perceptrons, and how their rows are standardised."""

  params: Any  # leaves [members, ...]
  center: np.ndarray  # f64[F]
  scale: np.ndarray  # f64[F]
  offset: tuple[float, float]  # mean and deviation of the costs' logarithms
  width: int

  def costs(self, rows: np.ndarray) -> np.ndarray:
    """Costs f64[N] of features f64[N, F]: the members' geometric mean."""
    x = jnp.asarray((rows - self.center) / self.scale, jnp.float32)
    logs = jax.vmap(lambda p: _Perceptron(self.width).apply({"params": p}, x))(
      self.params
    )
    mean, deviation = self.offset
    return np.exp(mean + deviation * np.asarray(logs, np.float64).mean(0))


class Measured(NamedTuple):
  """The settings and, by kind, the smallest and largest sizes of the rows."""

  bits: tuple[int, ...]
  batches: tuple[int, ...]
  sizes: Mapping[str, Mapping[str, tuple[int, int]]]


class WorkloadPredictor(NamedTuple):
  """Predicts a cost of one workload, on a device, between measured shapes."""

  fitted: _Fitted
  measured: Measured
  column: str
  unit: str
  device: str | None
  rules: Mapping[tuple[int, int], tables.Rules]  # by (bits, batch)
  errors: Errors  # of workloads that were held out

  def _setting(self, name: str, value: int | None) -> int:
    """The bits or the batch asked for; the only one if none is."""
    known = getattr(self.measured, {"bits": "bits", "batch": "batches"}[name])
    if value is None:
      if len(known) > 1:
        raise InputError(
          f"{self.column} of {self.device or 'the table'}",
          f"was measured at {name} {', '.join(map(str, known))}",
          f"say which: {name}=",
        )
      return known[0]
    inside = (
      known[0] <= value <= known[-1] if name == "batch" else value in known
    )
    if not inside:
      raise InputError(
        f"{self.column} of {self.device or 'the table'}",
        f"was measured at {name} {', '.join(map(str, known))}, not {value}",
        "what lies outside is not predicted",
      )
    return value

  def costs(
    self,
    workloads: Sequence[Workload],
    batch: int | None = None,
    bits: int | None = None,
  ) -> np.ndarray:
    """Costs f64[N] of N workloads, whatever bits they name.

    Args:
      workloads: the workloads.
      batch: images, between those measured; None: the only one.
      bits: one of those measured; None: the only one.

    Raises:
      InputError: a kind, bits, batch or size outside of what was measured.
    """
    batch, bits = self._setting("batch", batch), self._setting("bits", bits)
    for work in workloads:
      if work.kind not in self.measured.sizes:
        raise InputError(
          str(work),
          f"no {work.kind} was measured",
          f"there are {', '.join(sorted(self.measured.sizes))}",
        )
      for size, (low, high) in self.measured.sizes[work.kind].items():
        value = getattr(work, size)
        if not low <= value <= high:
          raise InputError(
            str(work),
            f"{size} {value} is outside of the {low} to {high} measured",
            "what lies outside is not predicted",
          )
    keys = [(work._replace(bits=bits).key, batch) for work in workloads]
    return self.fitted.costs(_rows(keys))

  def metric(
    self, space: Any, *, batch: int | None = None, bits: int | None = None
  ) -> Metric:
    """The sum of predicted costs over a space's networks.

    Where the table has fusion rules of that setting, they count here too.

    Raises:
      InputError: as `costs`.
    """
    batch, bits = self._setting("batch", batch), self._setting("bits", bits)
    works = space.workloads()
    found = works.distinct()
    known = dict(zip(found, self.costs(found, batch, bits), strict=True))
    rules = tables.Rules()
    if self.column == "latency_ms":
      rules = self.rules.get((bits, batch), rules)
    return additive_metric(
      self.column,
      self.unit,
      works,
      lambda work: rules.factor(work) * known[work.key],
      device=self.device,
      constant=rules.constant_ms,
      source=f"predicted a workload at {bits} bits, batch {batch}:"
      f" {self.errors}",
    )


def _rows(pairs) -> np.ndarray:
  """Features f64[N, F] of (workload, batch): kind, logs of sizes and work."""
  found = []
  for work, batch in pairs:
    height, width = work.outputs
    sizes = [
      work.height,
      work.width,
      work.channels_in,
      work.channels_out,
      work.kernel,
      work.stride,
      work.dilation,
      work.groups,
      work.bits,
      batch,
      1 + batch * work.flops,
      1 + batch * work.height * work.width * work.channels_in,
      1 + batch * height * width * work.channels_out,
      1 + work.params,
    ]
    kind = [1.0 if work.kind == k else 0.0 for k in KINDS]
    found.append([*kind, *np.log(sizes)])
  return np.array(found)


@functools.partial(
  jax.jit, static_argnames=("rate", "width", "steps", "members")
)
def _train(x, y, used, key, *, rate, width, steps, members):
  """Trains an ensemble on the rows that are `used`, all at once.

  Args:
    x: f32[N, F], standardised features.
    y: f32[N], standardised logarithms.
    used: f32[N], 1 for rows to learn from, else 0: so one compiled program
      serves every fold.
    key: of the weights at the start.
    rate: learning rate at the start.
    width: of the hidden layers.
    steps: of AdamW.
    members: networks.

  Returns:
    Parameters, leaves [members, ...].
  """
  net = _Perceptron(width)
  optimizer = optax.adamw(
    optax.cosine_decay_schedule(rate, steps), weight_decay=1e-3
  )

  def one(key):
    params = net.init(key, x)["params"]

    def step(carry, _):
      params, state = carry

      def loss(p):
        lost = optax.losses.huber_loss(
          net.apply({"params": p}, x), y, delta=0.3
        )
        return (lost * used).sum() / used.sum()

      updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    return jax.lax.scan(step, carry, None, length=steps)[0][0]

  return jax.vmap(one)(jax.random.split(key, members))


def workload_predictor(
  table: Table,
  *,
  column: str = "latency_ms",
  unit: str = "ms",
  device: str | None = None,
  width: int = 64,
  steps: int = 1000,
  members: int = 4,
  rate: float = 3e-3,
  parts: int = 5,
  seed: int = 0,
) -> WorkloadPredictor:
  """Learns a cost of workloads from a measured table.

  Args:
    table: rows with costs above 0 are learned, their logarithms.
    column: the cost.
    unit: of the cost.
    device: the device's name, for the metric.
    width: of the two hidden layers.
    steps: of AdamW, each over all rows.
    members: networks of the ensemble.
    rate: learning rate at the start, to 0 by a cosine.
    parts: the workloads are cut into so many; for `errors` each is predicted
      by what was learned, and standardised, from the others alone. All rows of
      a workload, its batches and bits, stay in one part.
    seed: of everything random.

  Returns:
    The predictor, learned from all rows.

  Raises:
    ValueError: fewer than 10 rows have a cost above 0.
  """
  pairs = [
    (key, row[column]) for key, row in table.rows.items() if row[column] > 0
  ]
  if len(pairs) < 10:
    raise ValueError(f"{len(pairs)} rows have a cost above 0, 10 are needed")
  rows = _rows([key for key, _ in pairs])
  values = np.array([value for _, value in pairs])

  def train(some):
    center = rows[some].mean(0)
    deviation = rows[some].std(0)
    scale = np.where(deviation > 1e-9, deviation, 1.0)
    logs = np.log(values[some])
    offset = float(logs.mean()), float(logs.std()) or 1.0
    used = np.zeros(len(rows), np.float32)
    used[some] = 1.0
    # Rows that are not learned from are 0, whatever they are.
    x = np.where(used[:, None] > 0, (rows - center) / scale, 0.0)
    y = np.where(used > 0, (np.log(values) - offset[0]) / offset[1], 0.0)
    params = _train(
      jnp.asarray(x, jnp.float32),
      jnp.asarray(y, jnp.float32),
      used,
      jax.random.key(seed),
      rate=rate,
      width=width,
      steps=steps,
      members=members,
    )
    return _Fitted(params, center, scale, offset, width)

  alike = [work._replace(bits=0) for (work, _), _ in pairs]
  predicted = np.zeros(len(pairs))
  for rest, held in folds(len(pairs), parts, seed, alike):
    predicted[held] = train(rest).costs(rows[held])
  return WorkloadPredictor(
    train(np.arange(len(pairs))),
    _measured([key for key, _ in pairs]),
    column,
    unit,
    device,
    table.rules,
    prediction_errors(predicted, values),
  )


def _measured(keys: Sequence[tuple[Workload, int]]) -> Measured:
  """What a table's rows span."""
  by_kind: dict[str, list[Workload]] = {}
  for work, _ in keys:
    by_kind.setdefault(work.kind, []).append(work)
  return Measured(
    tuple(sorted({work.bits for work, _ in keys})),
    tuple(sorted({batch for _, batch in keys})),
    {
      kind: {
        size: (
          min(getattr(w, size) for w in works),
          max(getattr(w, size) for w in works),
        )
        for size in _SIZES
      }
      for kind, works in by_kind.items()
    },
  )
