"""Devices: named cost models with units."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import table as tables
from nasjax.hardware.workload import additive_metric
from nasjax.reader import read_csv
from nasjax.types import Metric

__all__ = ["Device", "device", "device_names"]

_FOLDER = Path(__file__).parent / "devices"


class Device(NamedTuple):
  """A device that costs are known of."""

  name: str
  table: tables.Table | choice_tables.ChoiceTable

  def latency(self, space: Any) -> Metric:
    """Latency in ms of one image through a space's networks.

    Raises:
      InputError: the table lacks a workload of the space, or latencies.
    """
    return self._metric(space, "latency_ms")

  def energy(self, space: Any) -> Metric:
    """Energy in mJ of one image through a space's networks.

    Raises:
      InputError: the table lacks a workload of the space, or energies.
    """
    return self._metric(space, "energy_mj")

  def _metric(self, space, column):
    if column not in self.table.costs:
      raise InputError(
        self.table.source,
        f"has no column {column}",
        f"it has {', '.join(self.table.costs)}",
      )
    if isinstance(self.table, choice_tables.ChoiceTable):
      return self.table.metric(space, device=self.name)
    header = self.table.header
    made = " ".join(header[k] for k in ("runtime", "date") if k in header)
    return additive_metric(
      column,
      tables.COSTS[column],
      space.workloads(),
      lambda work: self.table.cost(work, column),
      device=self.name,
      source=f"table of {self.name}" + (f" ({made})" if made else ""),
    )


def device_names() -> list[str]:
  """The devices that nasjax comes with."""
  return sorted(p.stem for p in _FOLDER.glob("*.csv"))


def device(name: str) -> Device:
  """A device by name, or from a table's file.

  Args:
    name: one of `device_names()`, or the path of a table (it ends in .csv): of
      workloads, or of choices (`choices.read`).

  Returns:
    The device; one from a file is called by its header's `device`, or else by
    the file's name.

  Raises:
    InputError: no such device or file, or a table that is wrong.
  """
  if name.endswith(".csv") or "/" in name:
    fitted = choice_tables.is_choice_table(read_csv(name).columns)
    table = choice_tables.read(name) if fitted else tables.read(name)
    own = table.header.get("device", Path(name).stem)
    return Device(tables.check_device_name(own, name), table)
  if name not in device_names():
    raise InputError(
      f"--device {name}",
      "no such device; " + nearest(name, device_names()),
      "or give a table's path, TABLE.csv",
    )
  return Device(name, tables.read(_FOLDER / f"{name}.csv"))
