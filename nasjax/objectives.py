"""Objectives: what is minimised.

Accuracy has no gradient. Where a published reward multiplies it, exp(-cross
entropy) stands for it: the geometric mean of the probabilities given to the
right classes, 1 at best and 1 / classes for a guess. A search that needs no
gradient gives the task scalar `accuracy`, and then that is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax.scipy.special import logsumexp

from nasjax.tracing import is_traced
from nasjax.types import Array, Costs, Metric, Objective, Task

__all__ = [
  "cross_entropy",
  "efficiency",
  "error",
  "metric",
  "mnasnet_hard",
  "mnasnet_soft",
  "weighted",
  "worst",
]


def cross_entropy() -> Objective:
  """Mean cross entropy of the validation batch, in nats."""
  return Objective(
    "cross_entropy",
    ("cross_entropy",),
    lambda task, costs: task["cross_entropy"],
  )


def error() -> Objective:
  """1 - accuracy on the validation batch, for searches without gradients."""
  return Objective(
    "error", ("accuracy",), lambda task, costs: 1.0 - task["accuracy"]
  )


def _accuracy(task: Task, exponent: float = 1.0) -> Array:
  """The accuracy, or what stands for it, to a power."""
  if "accuracy" in task:
    return task["accuracy"] ** exponent
  return jnp.exp(-exponent * task["cross_entropy"])


def _check_above_zero(name: str, **numbers: float) -> None:
  for argument, value in numbers.items():
    if not is_traced(value) and not value > 0:
      raise ValueError(f"objective {name}: {argument}={value} <= 0")


def metric(metric: Metric, *, reference: float = 1.0) -> Objective:
  """The expected value of a metric, over `reference`.

  Args:
    metric: of the space: latency, energy, their product
      (`hardware.energy_delay_product`), parameters, FLOPs, ...
    reference: what it is divided by, in its unit.

  Returns:
    The objective; with `weightings.constant` and cross entropy it is
    ProxylessNAS's loss (section 3.3).

  Raises:
    ValueError: `reference` is not above 0.
  """
  _check_above_zero(metric.name, reference=reference)
  return Objective(
    metric.name,
    (),
    lambda task, costs: costs[metric.name] / reference,
    (metric,),
  )


def weighted(
  metrics: Sequence[Metric], weights: Sequence[float], *, name: str
) -> Objective:
  """A weighted sum of metrics: one number for the latencies of many devices.

  Args:
    metrics: each named by its device.
    weights: one a metric, 1 / its unit, 0 or more.
    name: of the objective.

  Returns:
    The objective, sum_d w_d cost_d.

  Raises:
    ValueError: another number of weights, none, or one below 0.
  """
  weights = [float(w) for w in weights]
  if not metrics or len(weights) != len(metrics):
    raise ValueError(
      f"objective {name}: {len(weights)} weights for {len(metrics)} metrics"
    )
  if not all(w >= 0 for w in weights):
    raise ValueError(f"objective {name}: weights {weights} must be 0 or more")

  def value(task: Task, costs: Costs) -> Array:
    del task
    return sum(w * costs[m.name] for w, m in zip(weights, metrics, strict=True))

  return Objective(name, (), value, tuple(metrics))


def worst(
  metrics: Sequence[Metric],
  references: Sequence[float],
  *,
  name: str,
  temperature: float = 0.1,
) -> Objective:
  """The smooth worst case of a metric over devices.

  t log sum_d exp(cost_d / reference_d / t): never below the largest ratio, and
  above it by t log(devices) at most. Its gradient is a mean of the devices',
  weighted by the softmax of their ratios over t.

  Args:
    metrics: one a device.
    references: what each is divided by, in its unit.
    name: of the objective.
    temperature: t, in ratios; towards 0 the worst device alone counts.

  Returns:
    The objective.

  Raises:
    ValueError: another number of references, none, or a reference or the
      temperature not above 0.
  """
  if not metrics or len(references) != len(metrics):
    raise ValueError(
      f"objective {name}: {len(references)} references for"
      f" {len(metrics)} metrics"
    )
  _check_above_zero(name, temperature=temperature)
  for reference in references:
    _check_above_zero(name, reference=reference)

  def value(task: Task, costs: Costs) -> Array:
    del task
    ratios = [
      costs[m.name] / r for m, r in zip(metrics, references, strict=True)
    ]
    return temperature * logsumexp(jnp.stack(ratios) / temperature)

  return Objective(name, (), value, tuple(metrics))


def _mnasnet(name, cost, target, below, above):
  _check_above_zero(name, target=target)

  def value(task: Task, costs: Costs) -> Array:
    ratio = costs[cost.name] / target
    exponent = jnp.where(ratio > 1.0, above, below)
    return -_accuracy(task) * ratio**exponent

  # Within the target the hard reward is an accuracy; the soft one has no bound.
  low = -1.0 if below == 0 else -math.inf
  return Objective(name, ("cross_entropy",), value, (cost,), low)


def mnasnet_soft(
  cost: Metric, target: float, *, exponent: float = -0.07
) -> Objective:
  """MnasNet's soft reward, -ACC (LAT / TAR)^w (Tan et al. 2019, equation 2).

  exp(-cross entropy) stands for ACC. It trades accuracy against the cost on
  both sides of the target, so it is no limit: it goes on rewarding below.

  Args:
    cost: the metric.
    target: TAR, in the metric's unit.
    exponent: w, below 0; twice the cost is worth 5 % of accuracy at -0.07.

  Returns:
    The objective, to minimise.

  Raises:
    ValueError: `target` is not above 0, or `exponent` not below.
  """
  if not exponent < 0:
    raise ValueError(f"mnasnet_soft: exponent={exponent} must be below 0")
  return _mnasnet("mnasnet_soft", cost, target, exponent, exponent)


def mnasnet_hard(
  cost: Metric, target: float, *, exponent: float = -1.0
) -> Objective:
  """MnasNet's hard reward: ACC within the target, less beyond (figure 3).

  -ACC where LAT <= TAR, else -ACC (LAT / TAR)^w with w = -1; exp(-cross
  entropy) stands for ACC. Within the target the cost has no gradient.

  Args:
    cost: the metric.
    target: TAR, in the metric's unit.
    exponent: w beyond the target, below 0.

  Returns:
    The objective, to minimise.

  Raises:
    ValueError: `target` is not above 0, or `exponent` not below.
  """
  if not exponent < 0:
    raise ValueError(f"mnasnet_hard: exponent={exponent} must be below 0")
  return _mnasnet("mnasnet_hard", cost, target, 0.0, exponent)


def efficiency(
  latency: Metric,
  energy: Metric,
  *,
  accuracy_exponent: float = 1.0,
  energy_exponent: float = 0.1,
  latency_exponent: float = 0.1,
  energy_reference: float = 1.0,
  latency_reference: float = 1.0,
) -> Objective:
  """-Accuracy^a / (Energy^b Latency^c); exp(-cross entropy) for Accuracy.

  Args:
    latency: of the space.
    energy: of the space.
    accuracy_exponent: a, above 0.
    energy_exponent: b, 0 or more.
    latency_exponent: c, 0 or more.
    energy_reference: what the energy is divided by first, in its unit.
    latency_reference: what the latency is divided by first, in its unit.

  Returns:
    The objective, to minimise.

  Raises:
    ValueError: an exponent or reference out of range.
  """
  _check_above_zero(
    "efficiency",
    accuracy_exponent=accuracy_exponent,
    energy_reference=energy_reference,
    latency_reference=latency_reference,
  )
  if not (energy_exponent >= 0 and latency_exponent >= 0):
    raise ValueError("objective efficiency: exponents must be 0 or more")

  def value(task: Task, costs: Costs) -> Array:
    energies = (costs[energy.name] / energy_reference) ** energy_exponent
    latencies = (costs[latency.name] / latency_reference) ** latency_exponent
    return -_accuracy(task, accuracy_exponent) / (energies * latencies)

  return Objective(
    "efficiency", ("cross_entropy",), value, (latency, energy), -math.inf
  )
