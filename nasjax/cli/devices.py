"""`nasjax hw list` and `nasjax hw show`: the devices and their numbers."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import errors, hardware
from nasjax.hardware import choices
from nasjax.hardware import profile as profiles


def _source(device: hardware.Device) -> str:
  """Where a device's latencies come from, and the rest of its numbers."""
  parts = []
  if device.table is not None:
    parts.append(f"measured: {', '.join(device.table.costs)}")
  if device.profile is not None:
    parts.append(device.profile.source)
  return "; ".join(parts)


def listed() -> int:
  """Prints the devices that nasjax comes with."""
  table = Table("device", "platform", "what", "source of its numbers")
  for name in hardware.device_names():
    device = hardware.device(name)
    own = device.profile
    what = ("", "a table") if own is None else (own.platform, own.description)
    table.add_row(*map(escape, (name, *what, _source(device))))
  Console().print(table)
  return errors.DONE


def show(name: str) -> int:
  """Prints what is known of one device, each number with unit and source.

  Raises:
    InputError: no such device, or a file that is wrong.
  """
  device = hardware.device(name)
  console = Console()
  table = Table("what", "value", "unit", "source", title=escape(device.name))
  for row in _table_rows(device) + _profile_rows(device.profile):
    table.add_row(*map(escape, row))
  console.print(table)
  if device.profile is not None:
    for rule in device.profile.rules:
      console.print(
        escape(
          f"rule: {rule.name}: {', '.join(rule.kinds)}"
          + (" closed" if rule.closes else f" x{rule.slowdown:g} time")
          + f" ({device.profile.source})"
        ),
        highlight=False,
      )
    for candidate, block in device.profile.substitutes.items():
      console.print(
        escape(f"substitute: {block} for {candidate} (--block device)"),
        highlight=False,
      )
  return errors.DONE


def _table_rows(device) -> list[tuple[str, str, str, str]]:
  if device.table is None:
    return []
  table, header = device.table, device.table.header
  made = " ".join(header[k] for k in ("runtime", "date") if k in header)
  if isinstance(table, choices.ChoiceTable):
    found = sum(entries.size for entries in table.tables.values())
    kind, source = "choices", f"fitted {made}"
  else:
    found, kind, source = len(table.rows), "workloads", f"measured {made}"
  return [(f"{kind} with {c}", str(found), "", source) for c in table.costs]


def _profile_rows(own: profiles.Profile | None):
  if own is None:
    return []
  lanes = own.simd_bits // own.bits
  peak = own.frequency_hz * own.cores * lanes * own.flops_per_lane
  rows = [
    ("arithmetic", str(own.bits), "bits"),
    ("clock", f"{own.frequency_hz / 1e6:g}", "MHz"),
    ("cores", str(own.cores), ""),
    ("vector", str(own.simd_bits), "bits"),
    ("peak", f"{peak / 1e9:.4g}", "GFLOP/s"),
    ("overhead of an operation", f"{own.overhead_us:g}", "us"),
    ("control of an operation and batch", f"{own.control_us:g}", "us"),
    ("bandwidth reached", f"{own.efficiency:g}", "of the peak"),
    ("static power", f"{own.static_w:g}", "W"),
    ("activations hold", f"{own.sram_bytes / 1024:,.0f}", "KiB"),
    ("weights hold", f"{own.flash_bytes / 1024:,.0f}", "KiB"),
  ]
  for name, value in own.utilisation.items():
    rows.append((f"utilisation, {name}", f"{value:g}", "of the peak"))
  for name, value in own.capacitance_nf.items():
    rows.append((f"capacitance, {name}", f"{value:g}", "nF"))
  for level in own.memory:
    rows += [
      (f"{level.name} size", f"{level.size_bytes / 1024:,.0f}", "KiB"),
      (
        f"{level.name} bandwidth",
        f"{level.bandwidth_bytes_per_s / 1e9:g}",
        "GB/s",
      ),
      (f"{level.name} energy", f"{level.energy_pj_per_byte:g}", "pJ/B"),
    ]
  for hertz, volts in own.points:
    rows.append((f"voltage at {hertz / 1e6:g} MHz", f"{volts:g}", "V"))
  for name, value in zip(("FLOP", "byte", "ms"), own.cost, strict=True):
    rows.append((f"cost of a {name}", f"{value:g}", "1"))
  return [(*row, own.source) for row in rows]
