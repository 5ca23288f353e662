"""`nasjax hw coverage`, `nasjax hw time`: use a table, use a user's measure."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from nasjax import errors, hardware
from nasjax.cli import own_spaces
from nasjax.cli.hw import numbers, spaces_of
from nasjax.cli.hw_config import CoverageConfig, TimeConfig
from nasjax.errors import InputError
from nasjax.hardware import bundle, interpolate, measured
from nasjax.reader import load_part


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
