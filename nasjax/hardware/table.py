"""Lookup tables: what each workload costs on one device.

A table is CSV with a block of `# key: value` lines before it (device, runtime,
date, threads, versions, the command that made it). Its columns are the
workload's fields, one row a workload,

    kind,height,width,channels_in,channels_out,kernel,stride,groups,bits,batch

with `dilation` before `batch` where some kernel has one, and one column a cost
with its unit in the name: `latency_ms` (per batch), `energy_mj`. Other columns
(minimum, spread) are kept but not read.

A whole network is not the sum of its operations timed alone: a runtime fuses
some, and has costs of its own. A line `# rules bits=32 batch=1:` says what was
found of whole networks there: `constant_ms=0.02`, which every network costs
besides, and factors such as `convolution>relu6=0.1`: the latency of a relu6
that directly reads a convolution counts a tenth (`*>relu6`: of any other).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
_DILATION = "dilation"  # a column of its own only where it says something
COSTS = {"latency_ms": "ms", "energy_mj": "mJ"}
_QUANTITIES = ("latency", "energy")
_RULES = "rules"
ANY = "*"
_LONGEST_NAME = 64  # of a device
_HIGHEST = 1e12  # of a cost: sums of these are finite in float32


class Rules(NamedTuple):
  """How the latency of a network differs from the sum of its workloads'."""

  constant_ms: float = 0.0
  factors: Mapping[str, float] = {}  # "after>kind" or "*>kind" -> factor

  def factor(self, workload: Workload) -> float:
    """What a workload's latency counts, given what it directly reads."""
    exact = f"{workload.after}>{workload.kind}"
    return self.factors.get(
      exact, self.factors.get(f"{ANY}>{workload.kind}", 1.0)
    )

  def text(self) -> str:
    """As a table's header states them."""
    words = [f"constant_ms={self.constant_ms:.6g}"]
    words += [f"{k}={v:.4g}" for k, v in sorted(self.factors.items())]
    return " ".join(words)


def rules_key(bits: int, batch: int) -> str:
  """The header's key of the rules of a setting."""
  return f"{_RULES} bits={bits} batch={batch}"


class Table(NamedTuple):
  """Costs of workloads on a device.

  `rows[workload, batch]` are that row's costs by column name, `rules[bits,
  batch]` what the latency of whole networks adds to them.
  """

  source: str
  header: Mapping[str, str]
  rows: Mapping[tuple[Workload, int], Mapping[str, float]]
  rules: Mapping[tuple[int, int], Rules] = {}

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


def whole_cell(text: str, where: str) -> int:
  """A size, 1 to 10^9; raises InputError."""
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
  for name, value in found.header.items():
    if not (name + value).isprintable():
      raise InputError(f"{path} # {name[:40]}", "holds control characters")
  rows: dict[tuple[Workload, int], dict[str, float]] = {}
  for line, cells in found.rows:
    where = f"{path}:{line}"
    row = key(cells, where)
    if row in rows:
      raise InputError(where, f"{row[0]} stands there twice")
    rows[row] = {c: cost(cells[c], f"{where} {c}") for c in costs}
  rules = {
    _setting(name, f"{path} # {name[:40]}"): _rules(
      value, f"{path} # {name[:40]}"
    )
    for name, value in found.header.items()
    if name.split(" ")[0] == _RULES
  }
  return Table(str(path), found.header, rows, rules)


def key(cells: Mapping[str, str], where: str) -> tuple[Workload, int]:
  """(workload, batch) of a row; raises InputError naming the column."""
  if cells["kind"] not in KINDS:
    raise InputError(
      where,
      f"unknown kind {cells['kind'][:40]!r}",
      nearest(cells["kind"], KINDS),
    )
  sizes = [
    whole_cell(cells[c], f"{where} {c}")
    for c in (*WORKLOAD_COLUMNS[1:], "batch")
  ]
  dilation = whole_cell(cells.get(_DILATION, "1"), f"{where} {_DILATION}")
  work = Workload(cells["kind"], *sizes[:-1], dilation=dilation)
  return work, sizes[-1]


def workload_columns(works: Iterable[Workload]) -> tuple[str, ...]:
  """The columns that rows of these workloads need."""
  dilated = any(work.dilation != 1 for work in works)
  return (*WORKLOAD_COLUMNS, *([_DILATION] if dilated else ()))


def cost(text: str, where: str) -> float:
  """A cost, finite and not negative; raises InputError."""
  return number(text, where, low=0.0, high=_HIGHEST)


def _setting(name: str, where: str) -> tuple[int, int]:
  found = re.fullmatch(r"rules bits=(\d{1,3}) batch=(\d{1,9})", name, re.ASCII)
  if not found:
    raise InputError(where, "is not `rules bits=32 batch=1`")
  return int(found[1]), int(found[2])


def _rules(text: str, where: str) -> Rules:
  constant, factors = 0.0, {}
  for word in text.split():
    name, equals, value = word.partition("=")
    worth = number(value, where, low=0.0, high=_HIGHEST)
    after, arrow, kind = name.partition(">")
    if name == "constant_ms" and equals:
      constant = worth
    elif arrow and kind in KINDS and name not in factors:
      if after not in (ANY, "", "none", "skip", *KINDS):
        raise InputError(where, f"unknown kind {after[:40]!r}")
      factors[name] = worth
    else:
      raise InputError(
        where, f"{word[:40]!r} is not KIND>KIND=FACTOR or constant_ms=VALUE"
      )
  return Rules(constant, factors)


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
  own = workload_columns(work for work, _, _ in rows)
  lines = [
    {
      **{c: getattr(work, c) for c in own},
      "batch": batch,
      **values,
    }
    for work, batch, values in rows
  ]
  return head + csv_text((*own, "batch", *columns), lines)


def write(
  path: str | Path,
  header: Mapping[str, str],
  rows: Sequence[tuple[Workload, int, Mapping[str, str]]],
  columns: Sequence[str],
) -> None:
  """Writes a table, see `text`; whole or not at all."""
  write_atomic(path, text(header, rows, columns))
