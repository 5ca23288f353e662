"""Lookup tables: what each workload costs on one device.

A table is CSV with a block of `# key: value` lines before it (device, runtime,
date, threads, versions, the command that made it). Its columns are the
workload's fields, one row a workload,

    kind,height,width,channels_in,channels_out,kernel,stride,groups,bits,batch

and one column a cost with its unit in the name: `latency_ms` (per batch),
`energy_mj`. Other columns (minimum, spread) are kept but not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.hardware.workload import KINDS, Workload
from nasjax.reader import number, read_csv
from nasjax.run_folder import csv_text, write_atomic

WORKLOAD_COLUMNS = (
  "kind",
  "height",
  "width",
  "channels_in",
  "channels_out",
  "kernel",
  "stride",
  "groups",
  "bits",
)
COLUMNS = (*WORKLOAD_COLUMNS, "batch")
COSTS = {"latency_ms": "ms", "energy_mj": "mJ"}
_QUANTITIES = ("latency", "energy")
_LONGEST_NAME = 64  # of a device
_HIGHEST = 1e12  # of a cost: sums of these are finite in float32


class Table(NamedTuple):
  """Costs of workloads on a device.

  `rows[workload, batch]` are that row's costs by column name.
  """

  source: str
  header: Mapping[str, str]
  rows: Mapping[tuple[Workload, int], Mapping[str, float]]

  def cost(self, workload: Workload, column: str, batch: int = 1) -> float:
    """A workload's cost.

    Raises:
      InputError: the table has no such row; never a silent zero.
    """
    row = self.rows.get((workload.key, batch))
    if row is None:
      raise InputError(
        self.source,
        f"has no row for {workload} at batch {batch}",
        "measure it: nasjax hw measure",
      )
    return row[column]

  @property
  def costs(self) -> tuple[str, ...]:
    """The cost columns that it has."""
    return tuple(c for c in COSTS if c in next(iter(self.rows.values())))


def _whole(text: str, where: str) -> int:
  if not text.isascii() or not text.isdigit():
    raise InputError(where, f"{text[:20]!r} is not a whole number")
  value = int(text[:12])  # more digits are out of range however they go on
  if not 1 <= value <= 10**9:
    raise InputError(where, f"{value} is not between 1 and 10^9")
  return value


def check_device_name(name: str, where: str) -> str:
  """Returns a device's name if metrics and limits can carry it.

  Raises:
    InputError: it is empty, long, or has characters with another meaning.
  """
  if not name or len(name) > _LONGEST_NAME:
    raise InputError(
      where,
      f"a device's name has {len(name)} characters, 1 to {_LONGEST_NAME} are"
      " taken",
      "add a line `# device: NAME` to the table",
    )
  if not name.isprintable() or set(name) & set(':=,[]#"\\/'):
    raise InputError(
      where,
      f"{name!r} is no device's name",
      "letters, digits, spaces, - and _ are taken",
    )
  return name


def read(path: str | Path) -> Table:
  """Reads a table.

  Args:
    path: of the CSV file.

  Returns:
    The table.

  Raises:
    InputError: names the line and column that is wrong: a missing or repeated
      column or row, an unknown kind, a cost that is negative or not finite.
  """
  found = read_csv(path, COLUMNS)
  costs = [c for c in COSTS if c in found.columns]
  if not costs:
    raise InputError(
      str(path),
      "has no cost column",
      f"name one {' or '.join(COSTS)}, unit included",
    )
  for column in found.columns:
    if column.partition("_")[0] in _QUANTITIES and column not in COSTS:
      raise InputError(
        str(path),
        f"column {column[:40]!r} has no unit that is read",
        f"name one {' or '.join(COSTS)}",
      )
  for key, value in found.header.items():
    if not (key + value).isprintable():
      raise InputError(f"{path} # {key[:40]}", "holds control characters")
  rows: dict[tuple[Workload, int], dict[str, float]] = {}
  for line, cells in found.rows:
    where = f"{path}:{line}"
    if cells["kind"] not in KINDS:
      raise InputError(
        where,
        f"unknown kind {cells['kind'][:40]!r}",
        nearest(cells["kind"], KINDS),
      )
    sizes = [
      _whole(cells[c], f"{where} {c}") for c in (*WORKLOAD_COLUMNS[1:], "batch")
    ]
    key = (Workload(cells["kind"], *sizes[:-1]), sizes[-1])
    if key in rows:
      raise InputError(where, f"{key[0]} stands there twice")
    rows[key] = {
      c: number(cells[c], f"{where} {c}", low=0.0, high=_HIGHEST) for c in costs
    }
  return Table(str(path), found.header, rows)


def text(
  header: Mapping[str, str],
  rows: Sequence[tuple[Workload, int, Mapping[str, str]]],
  columns: Sequence[str],
) -> str:
  """A table as CSV text.

  Args:
    header: the block before it.
    rows: (workload, batch, values of `columns`).
    columns: cost columns, and others to keep beside them.

  Returns:
    What `read` reads.
  """
  head = "".join(f"# {key}: {value}\n" for key, value in header.items())
  lines = [
    {
      **{c: getattr(work, c) for c in WORKLOAD_COLUMNS},
      "batch": batch,
      **values,
    }
    for work, batch, values in rows
  ]
  return head + csv_text((*COLUMNS, *columns), lines)


def write(
  path: str | Path,
  header: Mapping[str, str],
  rows: Sequence[tuple[Workload, int, Mapping[str, str]]],
  columns: Sequence[str],
) -> None:
  """Writes a table, see `text`; whole or not at all."""
  write_atomic(path, text(header, rows, columns))
