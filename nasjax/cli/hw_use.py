"""`nasjax hw coverage`, `nasjax hw time`: use a table, use a user's measure."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nasjax import errors, hardware
from nasjax.cli.config import CoverageConfig
from nasjax.cli.hw import numbers, spaces_of
from nasjax.hardware import interpolate


def coverage(config: CoverageConfig) -> int:
  """Prints which workloads of a space a table knows; 2 if one is missing."""
  device = hardware.device(config.device)
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
