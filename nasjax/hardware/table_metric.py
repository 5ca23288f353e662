"""Metrics of networks from what a device's table says of their workloads."""

from __future__ import annotations

from typing import Any

from nasjax.errors import InputError
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import interpolate as interpolation
from nasjax.hardware import table as tables
from nasjax.hardware.workload import Workload, additive_metric
from nasjax.types import Metric


def measured(
  name: str,
  table: tables.Table | choice_tables.ChoiceTable,
  space: Any,
  column: str,
  batch: int,
  bits: int,
  interpolate: bool,
) -> Metric:
  """The sum of a table's rows under its rules, or of its choices.

  Args:
    name: of the device.
    table: of it.
    space: the space.
    column: the cost.
    batch: images in one call.
    bits: of weights and activations.
    interpolate: also between measured shapes.

  Returns:
    The metric, in the column's unit.

  Raises:
    InputError: the table lacks a workload of the space, or has no batches, bits
      or shapes.
  """
  if isinstance(table, choice_tables.ChoiceTable):
    if (batch, bits, interpolate) != (1, 32, False):
      raise InputError(
        table.source,
        "is fitted to whole networks: it has no batches, bits or shapes",
      )
    return table.metric(space, device=name)
  rules = tables.Rules()
  if column == "latency_ms":
    rules = table.rules.get((bits, batch), rules)
  known: dict[Workload, float] = {}

  def cost(work):
    own = work._replace(bits=bits).key
    if own not in known:
      known[own] = (
        interpolation.cost(table, own, column, batch)
        if interpolate
        else table.cost(own, column, batch)
      )
    return rules.factor(work) * known[own]

  metric = additive_metric(
    column,
    tables.COSTS[column],
    space.workloads(),
    cost,
    device=name,
    constant=rules.constant_ms,
  )
  words = [table.header[k] for k in ("runtime", "date") if k in table.header]
  words += [f"batch {batch}"] if batch != 1 else []
  words += [f"{bits} bits"] if bits != 32 else []
  between = sum((own, batch) not in table.rows for own in known)
  if between:
    words.append(f"{between} of {len(known)} workloads interpolated")
  return metric._replace(
    source=f"measured, table of {name}"
    + (f" ({', '.join(words)})" if words else "")
  )
