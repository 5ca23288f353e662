"""`nasjax show`: prints a decided architecture."""

from __future__ import annotations

import json
import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nasjax import errors, hardware, spaces
from nasjax.cli import own_spaces
from nasjax.errors import InputError, nearest
from nasjax.spaces import genotype
from nasjax.spaces.darts_genotype import from_genotype, to_genotype
from nasjax.spaces.nasbench201 import from_string, to_string
from nasjax.spaces.space import check_connected

# A benchmark's own text: how it begins, its space, how it is read and written.
BENCHMARKS = {
  "nasbench201": ("|", spaces.nasbench201, from_string, to_string),
  "darts": ("Genotype", spaces.darts, from_genotype, to_genotype),
}
FORMATS = (*BENCHMARKS, "json", "table")


def run(what: str, style: str) -> int:
  """Prints the architecture of a run, a file or a benchmark string."""
  if style not in FORMATS:
    raise InputError(
      "--format", f"unknown name {style!r}", nearest(style, FORMATS)
    )
  architecture = None
  named = [b for b in BENCHMARKS.values() if what.lstrip().startswith(b[0])]
  if named and not os.path.exists(what):
    _, make, read, _ = named[0]
    architecture = read(make(), what)
    check_connected(architecture)
    value = genotype.to_json(
      architecture, metrics=counted(architecture), limits={}, seed=0
    )
    stated = genotype.stated(value, what)
  else:
    if not os.path.exists(what):  # Path.exists raises for a name too long
      raise InputError(
        what, "is neither a run folder, a file nor an architecture string"
      )
    stated, value = genotype.read_stated(what)
    # A user's own space is code, which is not run to show a file.
    if ":" not in stated.space:
      architecture, value = genotype.read(what, own_spaces.known())
  if style == "json":
    print(json.dumps(value, indent=2))
  elif style in BENCHMARKS:
    if architecture is None or stated.space != style:
      raise InputError(
        f"--format {style}",
        f"{what[:40]} is of the space {stated.space}",
        "use --format json or table",
      )
    print(BENCHMARKS[style][3](architecture))
  else:
    console = Console()
    console.print(choices_table(stated))
    console.print(_metrics_table(value.get("metrics", {})))
  return errors.DONE


def counted(architecture) -> dict[str, dict]:
  """Parameters, multiply-adds and FLOPs, as genotype.json holds them."""
  return {
    m.name: {"value": m.exact(architecture), "unit": m.unit, "source": m.source}
    for m in (
      make(architecture.space)
      for make in (hardware.params, hardware.macs, hardware.flops)
    )
  }


def choices_table(stated: genotype.Stated) -> Table:
  """The decided operations, one row an edge."""
  table = Table("group", "edge", "operation", title=escape(stated.space))
  for group, names in stated.choices.items():
    for edge, name in enumerate(names):
      table.add_row(escape(group), str(edge), escape(name))
  return table


def _metrics_table(metrics) -> Table:
  table = Table("metric", "value", "unit", "source")
  for name, item in metrics.items():
    words = (name, str(item["value"]), item["unit"], item["source"])
    table.add_row(*map(escape, words))
  return table
