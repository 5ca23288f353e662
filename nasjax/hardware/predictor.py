"""Learned predictors of costs and accuracies, as metrics of the search.

* `workload_predictor`: latency of one workload from its shapes, a small
  multi-layer perceptron on a measured table (the per-operation regression of
  nn-Meter, Zhang et al., MobiSys 2021). It fills shapes that no row has.
* `architecture_predictor`: a Gaussian process on features of the relaxed
  weights, so that what does not add up over the choices (edges that lead
  nowhere, fusion) is differentiable inside the search. BRP-NAS (Dudziak et
  al., NeurIPS 2020) learns the same from whole networks with a graph network.
* `accuracy_predictor`: the same with the noise of a cheap signal, and its
  standard deviation.

New devices from few networks: see `transfer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import kept_edges
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features, gaussian_process
from nasjax.hardware.scores import Errors, folds, prediction_errors
from nasjax.hardware.table import Table
from nasjax.hardware.workload import KINDS, Workload, additive_metric
from nasjax.spaces.space import random_choices
from nasjax.types import Choices, Group, Metric, Weights

__all__ = [
  "ArchitecturePredictor",
  "WorkloadPredictor",
  "accuracy_predictor",
  "architecture_predictor",
  "workload_predictor",
]

_REFERENCE = 2000  # random architectures by which features are standardised
# A signal such as the accuracy after 12 epochs is far from the score that is
# meant, and leaving samples out cannot tell how far: the noise is given, as
# much as there is signal. Both were chosen on NAS-Bench-201.
ACCURACY_NOISE = 1.0
ACCURACY_LENGTH = 2.0


class ArchitecturePredictor(NamedTuple):
  """Predicts one number of an architecture."""

  features: Callable[[Weights], Any]
  process: gaussian_process.GaussianProcess
  groups: Mapping[str, Group]
  errors: Errors  # each sample predicted from all others
  kept: Mapping[str, kept_edges.KeptSets] = {}  # of the space

  def expected(self, weights: Weights) -> jax.Array:
    """The mean f32[] of weights f[E, K] a group; differentiable."""
    return self.process.predict(self.features(self._relaxed(weights)))

  def _relaxed(self, weights: Weights) -> Weights:
    """Weights as f32, and as networks keep edges."""
    weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
    return kept_edges.probabilities(weights, self.kept)

  def of(self, choices: Choices) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation f64[N] of choices i32[N, E] a group."""
    weights = choice_tables.one_hot(choices, self.groups)
    return self.process.predict_with_deviation(self.features(weights))

  def metric(
    self,
    name: str,
    unit: str,
    *,
    device: str | None = None,
    deviations: float = 0.0,
  ) -> Metric:
    """The metric of mean + `deviations` standard deviations.

    Args:
      name: of the metric, with its unit.
      unit: of the values that were learned.
      device: they belong to, if any.
      deviations: 0 the mean; above 0 careful of what is unknown, as a limit
        wants it; below 0 curious.
    """

    def value(weights):
      found = self.features(weights)
      if not deviations:
        return self.process.predict(found)
      mean, spread = self.process.predict_with_deviation(found)
      return mean + deviations * spread

    def expected(weights):
      return value(self._relaxed(weights))

    def exact(architecture):
      hot = architecture.one_hot()
      return float(
        value({n: np.asarray(w, np.float64) for n, w in hot.items()})
      )

    samples = len(self.process.inputs)
    source = f"predicted from {samples} networks: {self.errors}"
    return Metric(name, unit, device, expected, exact, True, source, "other")


def architecture_predictor(
  space: Any, choices: Choices, values: Any, **settings: Any
) -> ArchitecturePredictor:
  """Learns a cost from measured networks.

  Args:
    space: the space.
    choices: i32[N, E] a group, the networks.
    values: f[N], what was measured.
    **settings: `lengths`, `linear`, `noises` of `gaussian_process.fit`.

  Returns:
    The predictor; its `errors` are of each network predicted from the others.

  Raises:
    ValueError: see `gaussian_process.fit`.
  """
  made = features.make(
    space.groups,
    ends=choice_tables.ends_of(space),
    costs=features.costs_of(space),
  )
  drawn = random_choices(space, np.random.default_rng(0), _REFERENCE)
  one_hot = choice_tables.one_hot
  process = gaussian_process.fit(
    made(one_hot(choices, space.groups)),
    values,
    reference=made(one_hot(drawn, space.groups)),
    **settings,
  )
  errors = prediction_errors(process.left_out, values)
  kept = kept_edges.kept_sets(space)
  return ArchitecturePredictor(made, process, space.groups, errors, kept)


def accuracy_predictor(
  space: Any, choices: Choices, values: Any, *, noise: float = ACCURACY_NOISE
) -> ArchitecturePredictor:
  """Learns an accuracy (or error) from networks that were trained a little.

  Args:
    space: the space.
    choices: i32[N, E] a group, the networks.
    values: f[N], accuracy or error of each.
    noise: variance of what the values say beside what is meant, over the
      variance of the values.

  Returns:
    The predictor, with standard deviations.
  """
  return architecture_predictor(
    space,
    choices,
    values,
    lengths=(ACCURACY_LENGTH,),
    linear=(0.0,),
    noises=(noise,),
  )


class _Perceptron(nn.Module):
  width: int

  @nn.compact
  def __call__(self, x):
    for _ in range(2):
      x = nn.silu(nn.Dense(self.width)(x))
    return nn.Dense(1)(x)[..., 0]


class WorkloadPredictor(NamedTuple):
  """Predicts a cost of one workload, on a device, at any shape."""

  kinds: tuple[str, ...]  # that the table had
  params: Any  # of an ensemble, leaves [members, ...]
  center: np.ndarray
  scale: np.ndarray
  offset: tuple[float, float]  # mean and deviation of the costs' logarithms
  width: int
  column: str
  unit: str
  device: str | None
  errors: Errors  # of rows that were held out

  def costs(self, workloads, batch: int = 1) -> np.ndarray:
    """Costs f64[N] of N workloads: the members' geometric mean.

    Raises:
      ValueError: a workload of a kind that the table had no row of.
    """
    for work in workloads:
      if work.kind not in self.kinds:
        raise ValueError(
          f"no {work.kind} was measured; there are {', '.join(self.kinds)}"
        )
    rows = _rows([(w, batch) for w in workloads])
    x = jnp.asarray((rows - self.center) / self.scale, jnp.float32)
    logs = jax.vmap(lambda p: _Perceptron(self.width).apply({"params": p}, x))(
      self.params
    )
    mean, deviation = self.offset
    return np.exp(mean + deviation * np.asarray(logs, np.float64).mean(0))

  def metric(self, space: Any, *, batch: int = 1) -> Metric:
    """The sum of predicted costs over a space's networks."""
    found = space.workloads().distinct()
    known = dict(zip(found, self.costs(found, batch), strict=True))
    return additive_metric(
      self.column,
      self.unit,
      space.workloads(),
      lambda work: known[work.key],
      device=self.device,
      source=f"predicted a workload: {self.errors}",
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


def _train(x, y, key, width, steps, members, rate):
  """Trains an ensemble on all rows at once: parameters, leaves [members]."""
  net, optimizer = (
    _Perceptron(width),
    optax.adamw(optax.cosine_decay_schedule(rate, steps), weight_decay=1e-3),
  )

  def one(key):
    params = net.init(key, x)["params"]

    def step(carry, _):
      params, state = carry

      def loss(p):
        return optax.losses.huber_loss(
          net.apply({"params": p}, x), y, delta=0.3
        ).mean()

      updates, state = optimizer.update(jax.grad(loss)(params), state, params)
      return (optax.apply_updates(params, updates), state), None

    carry = (params, optimizer.init(params))
    return jax.lax.scan(step, carry, None, length=steps)[0][0]

  return jax.jit(jax.vmap(one))(jax.random.split(key, members))


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
    parts: one of so many parts of the rows is held out for `errors`, and then
      learned like the others.
    seed: of everything random.

  Returns:
    The predictor.

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
  kinds = tuple(sorted({work.kind for (work, _), _ in pairs}))
  center = rows.mean(0)
  scale = np.where(rows.std(0) > 1e-9, rows.std(0), 1.0)
  x = jnp.asarray((rows - center) / scale, jnp.float32)
  logs = np.log(values)
  offset = float(logs.mean()), float(logs.std()) or 1.0
  y = jnp.asarray((logs - offset[0]) / offset[1], jnp.float32)
  made = WorkloadPredictor(
    kinds, None, center, scale, offset, width, column, unit, device, None
  )

  def train(some):
    key = jax.random.key(seed)
    params = _train(x[some], y[some], key, width, steps, members, rate)
    return made._replace(params=params)

  rest, held = next(folds(len(pairs), parts, seed))
  tested = train(rest)
  predicted = np.concatenate(
    [tested._replace(kinds=KINDS).costs([w], b) for w, b in _keys(pairs, held)]
  )
  errors = prediction_errors(predicted, values[held])
  return train(np.arange(len(pairs)))._replace(errors=errors)


def _keys(pairs, rows) -> list[tuple[Workload, int]]:
  return [pairs[row][0] for row in rows]
