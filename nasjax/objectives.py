"""Objectives: what is minimised."""

from __future__ import annotations

from nasjax.types import Metric, Objective

__all__ = ["cross_entropy", "metric"]


def cross_entropy() -> Objective:
  """Mean cross entropy of the validation batch, in nats."""
  return Objective(
    "cross_entropy",
    ("cross_entropy",),
    lambda task, costs: task["cross_entropy"],
  )


def metric(metric: Metric, *, reference: float = 1.0) -> Objective:
  """The expected value of a metric, over `reference`.

  Args:
    metric: of the space.
    reference: what it is divided by, in its unit.

  Returns:
    The objective; with `weightings.constant` and cross entropy it is
    ProxylessNAS's loss (section 3.3).

  Raises:
    ValueError: `reference` is not above 0.
  """
  if not reference > 0:
    raise ValueError(f"objective {metric.name}: reference={reference} <= 0")
  return Objective(
    metric.name,
    (),
    lambda task, costs: costs[metric.name] / reference,
    (metric,),
  )
