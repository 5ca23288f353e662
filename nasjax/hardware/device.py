"""Devices: named cost models with units."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.hardware import interpolate as interpolation
from nasjax.hardware import table as tables
from nasjax.hardware.workload import Workload, additive_metric
from nasjax.types import Metric

__all__ = ["Device", "device", "device_names"]

_FOLDER = Path(__file__).parent / "devices"


class Device(NamedTuple):
  """A device that costs are known of."""

  name: str
  table: tables.Table

  def latency(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
  ) -> Metric:
    """Latency in ms of one call of a space's networks.

    Args:
      space: the space.
      batch: images in the call.
      bits: of weights and activations, 32 or 8.
      interpolate: also between measured shapes.

    Returns:
      The metric: the sum of the workloads' rows under the table's rules.

    Raises:
      InputError: the table lacks a workload of the space, at this batch and
        these bits, or latencies.
    """
    return self._metric(space, "latency_ms", batch, bits, interpolate)

  def energy(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
  ) -> Metric:
    """Energy in mJ of one call of a space's networks, see `latency`.

    The table's rules are of latency and do not count.

    Raises:
      InputError: the table lacks a workload of the space, or energies.
    """
    return self._metric(space, "energy_mj", batch, bits, interpolate)

  def _metric(self, space, column, batch, bits, interpolate):
    table = self.table
    if column not in table.costs:
      raise InputError(
        table.source,
        f"has no column {column}",
        f"it has {', '.join(table.costs)}",
      )
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

    made = " ".join(
      table.header[k] for k in ("runtime", "date") if k in table.header
    )
    metric = additive_metric(
      column,
      tables.COSTS[column],
      space.workloads(),
      cost,
      device=self.name,
      constant=rules.constant_ms,
    )
    words = [made] if made else []
    words += [f"batch {batch}"] if batch != 1 else []
    words += [f"{bits} bits"] if bits != 32 else []
    between = sum((own, batch) not in table.rows for own in known)
    if between:
      words.append(f"{between} of {len(known)} workloads interpolated")
    return metric._replace(
      source=f"table of {self.name}"
      + (f" ({', '.join(words)})" if words else "")
    )


def device_names() -> list[str]:
  """The devices that nasjax comes with."""
  return sorted(p.stem for p in _FOLDER.glob("*.csv"))


def device(name: str) -> Device:
  """A device by name, or from a table's file.

  Args:
    name: one of `device_names()`, or the path of a table (it ends in .csv).

  Returns:
    The device; one from a file is called by its header's `device`, or else by
    the file's name.

  Raises:
    InputError: no such device or file, or a table that is wrong.
  """
  if name.endswith(".csv") or "/" in name:
    table = tables.read(name)
    own = table.header.get("device", Path(name).stem)
    return Device(tables.check_device_name(own, name), table)
  if name not in device_names():
    raise InputError(
      f"--device {name}",
      "no such device; " + nearest(name, device_names()),
      "or give a table's path, TABLE.csv",
    )
  return Device(name, tables.read(_FOLDER / f"{name}.csv"))
