"""`nasjax hw coverage`, `nasjax hw time`: use a table, use a user's measure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import errors, hardware, run_folder
from nasjax.cli import own_spaces
from nasjax.cli.hw import numbers, spaces_of
from nasjax.cli.hw_config import CoverageConfig, ScheduleConfig, TimeConfig
from nasjax.errors import InputError
from nasjax.hardware import bundle, interpolate, measured, schedules
from nasjax.hardware import table as tables
from nasjax.reader import load_part


def coverage(config: CoverageConfig) -> int:
  """Prints which workloads of a space a table knows; 2 if one is missing."""
  device = hardware.device(config.device)
  if not isinstance(device.table, tables.Table):
    raise InputError(
      f"--device {config.device}",
      "has no table of workloads",
      "give one of `nasjax hw measure` or `hw import`",
    )
  works = sorted(
    {w for space in spaces_of(config) for w in space.workloads().distinct()}
  )
  view = Table("metric", "batch", "bits", title=f"table of {device.name}")
  for name in (
    interpolate.EXACT,
    interpolate.INTERPOLATED,
    interpolate.MISSING,
  ):
    view.add_column(name, justify="right")
  gone = []
  for column in device.table.costs:
    for batch in numbers(config.batch, "--batch"):
      for bits in numbers(config.bits, "--bits"):
        asked = [w._replace(bits=bits) for w in works]
        found = interpolate.coverage(device.table, asked, column, batch)
        counts = [str(len(part)) for part in found]
        view.add_row(column, str(batch), str(bits), *counts)
        gone += [f"{work} at batch {batch}" for work in found.missing]
  console = Console()
  console.print(view)
  for text in dict.fromkeys(gone):
    console.print(f"missing: {text}", highlight=False)
  return errors.BAD_INPUT if gone else errors.DONE


def schedule(path: str, config: ScheduleConfig) -> int:
  """Prints a decided network's execution order, memory and best frequency.

  Args:
    path: of its genotype.json or run folder.
    config: the device and how it runs.

  Returns:
    The exit code.

  Raises:
    InputError: no genotype, a device without a profile, or patches that
      cannot be.
  """
  architecture, _ = own_spaces.read_genotype(path)
  device = hardware.device(config.device)
  own = device.profile
  if own is None:
    raise InputError(f"--device {config.device}", "has no profile")
  if config.out is not None and Path(config.out).exists() and not config.force:
    raise InputError(config.out, "exists", "name another --out, or --force")
  found = schedules.plan(
    architecture,
    own.bits,
    in_place=("depthwise",) if config.in_place_depthwise else (),
    patches=config.patches,
    patched_operations=config.patched_operations,
  )
  source = f"counted, {own.bits} bits of {device.name} ({own.source})"
  value = dict(schedules.as_json(found, source))
  order = found.schedule
  lines = [f"peak_sram_bytes {order.peak_bytes:,.0f} B: {source}"]
  if config.patched_operations:
    lines.append(
      f"computing of the patched operations x{found.patched_computing:.3f}"
    )
  if config.deadline_ms is not None:
    at = _best_frequency(device, architecture, config.deadline_ms)
    value["dvfs"] = at
    lines.append(
      f"best frequency {1e-6 * at['frequency_hz']:.4g} MHz:"
      f" {at['latency_ms']:.4g} ms, {at['energy_mj']:.4g} mJ: {at['source']}"
    )
  table = Table("step", "operation", title=f"execution order on {device.name}")
  table.add_column("memory (B)", justify="right")
  for number, (name, live) in enumerate(
    zip(order.order, order.live_bytes, strict=True), start=1
  ):
    peak = " peak" if live == order.peak_bytes else ""
    table.add_row(str(number), escape(name), f"{live:,.0f}{peak}")
  console = Console()
  console.print(table)
  for line in lines:
    console.print(escape(line), highlight=False)
  if config.out is not None:
    run_folder.write_atomic(config.out, run_folder.json_text(value))
  return errors.DONE


def _best_frequency(device, architecture, deadline_ms) -> dict[str, Any]:
  """The frequency of least energy-delay product, as JSON values."""
  metric, best = device.dvfs(architecture.space, deadline_ms)
  at = best(architecture.one_hot())
  milliseconds = 1e3 * float(at.time_s)
  if not bool(at.kept):
    raise InputError(
      f"--deadline-ms {deadline_ms:g}",
      f"{device.name} takes {milliseconds:.4g} ms at its highest frequency",
    )
  return {
    "deadline_ms": deadline_ms,
    "frequency_hz": float(at.frequency_hz),
    "latency_ms": milliseconds,
    "energy_mj": 1e3 * float(at.energy_j),
    "source": metric.source,
  }


def time_network(path: str, config: TimeConfig) -> int:
  """Measures a decided network with the user's program and prints it."""
  if not config.measure:
    raise InputError("--measure", "is missing", "give what measures it")
  architecture, _ = own_spaces.read_genotype(path)
  if measured.PLACE in config.measure:
    measure = measured.command(
      config.measure,
      model=bundle.decided_model,
      timeout_seconds=config.timeout_seconds,
      retries=config.retries,
      cache=config.cache,
    )
    print(
      "note: the network in {onnx} has random weights: measure what it costs,"
      " not what it gets right",
      file=sys.stderr,
    )
  else:
    measure = measured.function(
      load_part(config.measure, "--measure"),
      timeout_seconds=config.timeout_seconds,
      retries=config.retries,
      cache=config.cache,
    )
  for name, value in measure(architecture).items():
    print(f"{name} {value:.6g}")
  return errors.DONE
