"""Devices: named cost models with units.

A device has a table of measurements, a profile from its datasheet, or both. A
table's column takes the place of the model: measured costs where they exist,
the roofline and the energy model elsewhere. Every metric says which in its
`source`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import InputError, nearest
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import (
  closing,
  dvfs,
  memory,
  profile,
  roofline,
  table_metric,
)
from nasjax.hardware import energy as energies
from nasjax.hardware import table as tables
from nasjax.hardware.peak_memory import peak_metric
from nasjax.hardware.profile import Profile
from nasjax.hardware.workload import (
  added,
  additive_metric,
  largest_metric,
)
from nasjax.types import Metric

__all__ = ["Device", "device", "device_names"]

_FOLDER = Path(__file__).parent / "devices"
# The metrics of a device: name -> unit.
METRICS = {
  "latency_ms": "ms",
  "energy_mj": "mJ",
  "peak_sram_bytes": "B",
  "flash_bytes": "B",
  "working_set_bytes": "B",
  "edp_mj_ms": "mJ ms",
  "cost": "",
}


class Device(NamedTuple):
  """A device that costs are known of."""

  name: str
  table: tables.Table | choice_tables.ChoiceTable | None = None
  profile: Profile | None = None

  @property
  def metrics(self) -> tuple[str, ...]:
    """The metrics that it knows, by name."""
    columns = () if self.table is None else self.table.costs
    if {"latency_ms", "energy_mj"} <= set(columns):
      columns = (*columns, "edp_mj_ms")
    return tuple(m for m in METRICS if self.profile or m in columns)

  def metric(
    self,
    space: Any,
    name: str,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
    in_place: Sequence[str] = (),
    deadline_ms: float | None = None,
  ) -> Metric:
    """The metric of that name, one of `METRICS`; the rest as `latency`.

    Args:
      space: the space.
      name: of the metric.
      batch: of latency and energy.
      bits: of latency and energy.
      interpolate: for latency and energy.
      in_place: of the peak memory, see `memory.schedule`.
      deadline_ms: of the energy-delay product: it is taken at each network's
        own best frequency, see `dvfs`.

    Raises:
      InputError: the device does not know it, or lacks a workload of the space.
    """
    if name == "edp_mj_ms" and deadline_ms is not None:
      return self.dvfs(space, deadline_ms)[0]
    if name == "peak_sram_bytes":
      return self.peak_sram(space, in_place=in_place)
    tabled = {
      "latency_ms": self.latency,
      "energy_mj": self.energy,
      "edp_mj_ms": self.edp,
      "cost": self.cost,
    }
    if name in tabled:
      return tabled[name](
        space, batch=batch, bits=bits, interpolate=interpolate
      )
    make = {
      "flash_bytes": self.flash,
      "working_set_bytes": self.working_set,
    }
    return make[name](space)

  def latency(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
    counting: str = "tiled",
  ) -> Metric:
    """Latency in ms of one call of a space's networks.

    Args:
      space: the space.
      batch: images in the call.
      bits: of weights and activations, 32 or 8; a profile has its own.
      interpolate: also between a table's measured shapes.
      counting: of the bytes that a profile's roofline moves, `tiled` or
        `textbook`, see `roofline`.

    Returns:
      The metric: the sum of the workloads' rows under the table's rules, or
      the profile's roofline.

    Raises:
      InputError: the table lacks a workload of the space, at this batch and
        these bits, or latencies; a profile is asked for bits or shapes between
        measured ones.
    """
    if self._tabled("latency_ms"):
      if counting != "tiled":
        raise InputError(
          f"device {self.name}", "was measured: no bytes are counted"
        )
      return self._measured(space, "latency_ms", batch, bits, interpolate)
    self._unmeasured("latency_ms", bits, interpolate)
    own = self._profile("latency_ms")

    def took(work):
      return batch * roofline.latency_ms(
        work, own, counting=counting, batch=batch
      )

    called = "roofline" + (
      f", {counting} bytes," if counting != "tiled" else ""
    )
    return self._modelled(space, "latency_ms", took, called, batch)

  def energy(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
  ) -> Metric:
    """Energy in mJ of one call of a space's networks, see `latency`.

    The rules of a table with energies are of latency and do not count. A device
    without energies, but with measured latencies, has the model's energy of
    computing and moving, and static power for as long as was measured.

    Raises:
      InputError: the table lacks a workload of the space, or energies.
    """
    if self._tabled("energy_mj"):
      return self._measured(space, "energy_mj", batch, bits, interpolate)
    own = self._profile("energy_mj")
    if not self._tabled("latency_ms"):
      self._unmeasured("energy_mj", bits, interpolate)

      def spent(work):
        return batch * energies.energy_mj(work, own, batch=batch)

      return self._modelled(space, "energy_mj", spent, "energy model", batch)
    busy = self._modelled(
      space,
      "energy_mj",
      lambda work: batch * energies.busy_mj(work, own),
      "energy model",
      batch,
    )
    latency = self._measured(space, "latency_ms", batch, bits, interpolate)
    return added(busy, latency, own.static_w, "static power x latency")

  def cost(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
  ) -> Metric:
    """FLOPs, bytes and latency, weighted by the profile; no unit.

    Of an image, where the batch has one; of one call otherwise. The latency is
    that of `latency`.

    Raises:
      InputError: the device has no profile; as `latency`.
    """
    own = self._profile("cost")
    flops, moved, per_ms = own.cost

    def counted(work):
      return batch * (
        flops * work.flops + moved * roofline.moved_bytes(work, own)
      )

    parts = self._modelled(space, "cost", counted, "counted", batch)
    how = dict(batch=batch, bits=bits, interpolate=interpolate)
    return added(parts, self.latency(space, **how), per_ms, "latency")

  def flash(self, space: Any) -> Metric:
    """Bytes of all weights in the device's bits, biases in 32.

    Raises:
      InputError: the device has no profile.
    """
    bits = self._profile("flash_bytes").bits
    called = f"counted, {bits} bits, biases 32 bits,"
    return self._sum(space, "flash_bytes", memory.flash_bytes, called)

  def working_set(self, space: Any) -> Metric:
    """Bytes that the largest operation touches: below a cache's, it fits.

    Raises:
      InputError: the device has no profile.
    """
    own = self._profile("working_set_bytes")

    def size(items) -> float:
      return max(
        (
          roofline.working_set_bytes(w, roofline.bits_of(w, own)) for w in items
        ),
        default=0.0,
      )

    works = space.workloads()
    found = {
      group: np.array([[size(cell) for cell in row] for row in edges])
      for group, edges in works.groups.items()
    }
    return largest_metric(
      "working_set_bytes",
      "B",
      size(works.fixed),
      found,
      joint=[p.table(size) for p in works.products],
      kept=works.kept,
      device=self.name,
      source=f"counted, {own.bits} bits of {self.name} ({own.source})",
    )

  def peak_sram(self, space: Any, *, in_place: Sequence[str] = ()) -> Metric:
    """Peak activation memory in bytes under the best order, see `memory`.

    Args:
      space: the space.
      in_place: `("depthwise",)` lets those write over their input.

    Raises:
      InputError: the device has no profile, or the space no plan.
    """
    own = self._profile("peak_sram_bytes")
    return peak_metric(
      space,
      own.bits,
      in_place=in_place,
      device=self.name,
      source="counted, best order, "
      + "".join(f"{kind} in place, " for kind in in_place)
      + f"{own.bits} bits of {self.name} ({own.source})",
    )

  def edp(
    self,
    space: Any,
    *,
    batch: int = 1,
    bits: int = 32,
    interpolate: bool = False,
  ) -> Metric:
    """Energy-delay product in mJ ms of a space's networks, see `latency`.

    Raises:
      InputError: as `latency` and `energy`.
    """
    how = dict(batch=batch, bits=bits, interpolate=interpolate)
    return energies.energy_delay_product(
      self.latency(space, **how), self.energy(space, **how)
    )

  def dvfs(
    self, space: Any, deadline_ms: float
  ) -> tuple[Metric, Callable[[Any], energies.Dvfs]]:
    """Energy-delay product at each network's own best frequency.

    Args:
      space: the space.
      deadline_ms: the longest time of one image.

    Returns:
      (metric `edp_mj_ms` in mJ ms, function from weights to the optimum).

    Raises:
      InputError: the device has no profile, or several choices of the space
        shape one layer.
    """
    own = self._profile("edp_mj_ms")
    if self._tabled("latency_ms") or self._tabled("energy_mj"):
      raise InputError(
        f"device {self.name}",
        "was measured at one frequency: nothing is known of others",
        "leave the deadline out, or give its profile alone",
      )
    return dvfs.best_product(space, own, self.name, deadline_ms)

  def fastest(self, space: Any) -> Metric:
    """Latency in ms of one image at the highest frequency: `fastest_ms`.

    A deadline of `dvfs` can be kept where it is no longer than that.

    Raises:
      InputError: the device has no profile.
    """
    own = self._profile("edp_mj_ms")
    top = own._replace(frequency_hz=own.points[-1][0])
    metric = self._sum(
      space,
      "latency_ms",
      lambda work, _: roofline.latency_ms(work, top),
      f"roofline at {top.frequency_hz / 1e6:g} MHz",
    )
    return metric._replace(name="fastest_ms")

  def warnings(self, space: Any) -> list[str]:
    """One line for each rule of the profile that candidates break."""
    if self.profile is None:
      return []
    return [
      f"{self.name}: {rule.name}: {', '.join(names)}"
      + (" closed" if rule.closes else f" x{rule.slowdown:g} time")
      + f" ({self.profile.source})"
      for rule in self.profile.rules
      if (names := closing.broken_by(rule, space))
    ]

  def _profile(self, what: str) -> Profile:
    if self.profile is None and self.table is not None and what in tables.COSTS:
      raise InputError(
        self.table.source,
        f"has no column {what}",
        f"it has {', '.join(self.table.costs)}",
      )
    if self.profile is None:
      raise InputError(
        f"device {self.name}",
        f"{what} needs a profile and it has only a table",
        "name a device of `nasjax hw list` or a PROFILE.toml",
      )
    return self.profile

  def _tabled(self, column: str) -> bool:
    return self.table is not None and column in self.table.costs

  def _unmeasured(self, column, bits, interpolate) -> None:
    if (bits, interpolate) != (32, False):
      raise InputError(
        f"device {self.name}",
        f"{column} is modelled by a profile, at its own bits",
        "leave out bits and interpolation, or give a table",
      )

  def _sum(self, space, column, model, called) -> Metric:
    own = self._profile(column)
    return self._modelled(space, column, lambda w: model(w, own), called)

  def _modelled(self, space, column, cost, called, batch=1) -> Metric:
    own = self._profile(column)
    return additive_metric(
      column,
      METRICS[column],
      space.workloads(),
      cost,
      device=self.name,
      source=f"{called} of {self.name} ({own.source})"
      + (f", batch {batch}" if batch != 1 else ""),
    )

  def _measured(self, space, column, batch, bits, interpolate) -> Metric:
    return table_metric.measured(
      self.name, self.table, space, column, batch, bits, interpolate
    )


def device_names() -> list[str]:
  """The devices that nasjax comes with."""
  found = [*_FOLDER.glob("*.csv"), *_FOLDER.glob("*.toml")]
  return sorted({p.stem for p in found})


def device(name: str) -> Device:
  """A device by name, or from a table's or profile's file.

  Args:
    name: one of `device_names()`, or the path of a table (it ends in .csv), of
      workloads or of choices, or of a profile (in .toml).

  Returns:
    The device; one from a table is called by its header's `device`, or else by
    the file's name, as one from a profile is.

  Raises:
    InputError: no such device or file, or a table or profile that is wrong.
  """
  if name.endswith(".toml"):
    own = profile.read(name)
    return Device(tables.check_device_name(own.name, name), None, own)
  if name.endswith(".csv") or "/" in name:
    fitted = choice_tables.is_choice_file(name)
    table = choice_tables.read(name) if fitted else tables.read(name)
    called = table.header.get("device", Path(name).stem)
    return Device(tables.check_device_name(called, name), table)
  if name not in device_names():
    raise InputError(
      f"--device {name}",
      "no such device; " + nearest(name, device_names()),
      "or give a table's path, TABLE.csv, or a profile's, PROFILE.toml",
    )
  rows, sheet = _FOLDER / f"{name}.csv", _FOLDER / f"{name}.toml"
  return Device(
    name,
    tables.read(rows) if rows.exists() else None,
    profile.read(sheet) if sheet.exists() else None,
  )
