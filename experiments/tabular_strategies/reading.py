"""Reads tables of finished architectures: CSV, plain or .gz, column `arch`."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Sequence

import numpy as np

from nasjax.errors import InputError, nearest
from nasjax.reader import MAX_TEXT_BYTES, number, read_bytes
from nasjax.spaces.nasbench201 import OPERATIONS, parse
from tabular_strategies import Table, table

ERROR = "error"


def columns(path: str, wanted: Sequence[str]) -> dict[str, dict[str, float]]:
  """The wanted columns of a file: for each name architecture -> value.

  Raises:
    InputError: names the line that is wrong.
  """
  data = read_bytes(path)
  if path.endswith(".gz"):
    try:
      with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        data = file.read(4 * MAX_TEXT_BYTES)
    except (OSError, EOFError, zlib.error) as error:
      raise InputError(path, f"is no gzip file: {error}") from None
  try:
    text = data.decode("utf-8")
  except UnicodeDecodeError:
    raise InputError(path, "is not UTF-8 text") from None
  rows = csv.DictReader(io.StringIO(text, newline=""), restval="")
  for name in ("arch", *wanted):
    if name not in (rows.fieldnames or ()):
      raise InputError(
        path, f"has no column {name!r}", nearest(name, rows.fieldnames or ())
      )
  found: dict[str, dict[str, float]] = {name: {} for name in wanted}
  for row in rows:
    where, architecture = f"{path}:{rows.line_num}", row["arch"].strip()
    for name in wanted:
      if architecture in found[name]:
        raise InputError(where, f"{architecture[:60]} stands there twice")
      found[name][architecture] = number(row[name], f"{where} {name}")
  if wanted and not found[wanted[0]]:
    raise InputError(path, "has a header but no rows")
  return found


def words(architecture: str) -> list[str]:
  """One word a gene: NAS-Bench-201's string, digits, or words with spaces.

  Raises:
    InputError: it starts like NAS-Bench-201's string and is none.
  """
  if architecture.startswith("|"):
    return parse(architecture)
  if architecture.isascii() and architecture.isdigit():
    return list(architecture)
  return architecture.split()


def genes(
  architectures: Sequence[str],
) -> tuple[np.ndarray, tuple[tuple[str, ...], ...]]:
  """(genes i32[N, G], the names of each gene's values) of architectures.

  A gene's values are those that occur, NAS-Bench-201's in its own order.

  Raises:
    InputError: architectures of different lengths, or without a word.
  """
  rows = [words(a) for a in architectures]
  for architecture, row in zip(architectures, rows, strict=True):
    if len(row) != len(rows[0]) or not row:
      raise InputError(
        "arch",
        f"{architecture[:60]!r} has {len(row)} genes, {architectures[0][:60]!r}"
        f" has {len(rows[0])}",
      )
  known = {name: i for i, name in enumerate(OPERATIONS)}
  names = tuple(
    tuple(sorted(set(column), key=lambda word: (known.get(word, 0), word)))
    for column in zip(*rows, strict=True)
  )
  index = [{name: i for i, name in enumerate(column)} for column in names]
  found = [
    [i[word] for i, word in zip(index, row, strict=True)] for row in rows
  ]
  return np.array(found, np.int32), names


def read(
  accuracy: str | None,
  accuracy_column: str,
  cost: str | None,
  objectives: str,
  classes: int,
  reward_column: str | None = None,
) -> Table:
  """The table of those architectures that the files have.

  Args:
    accuracy: the file of accuracies in percent, for the objective `error`.
    accuracy_column: its column.
    cost: the file of all other objectives; None where there are none.
    objectives: names with commas, `error` or columns of `cost`.
    classes: of the data set: a network that is no better than chance, with a
      tenth of a point to spare, violates.
    reward_column: the accuracies that are the table's signal, if any.

  Raises:
    InputError: names the file, line or flag that is wrong.
  """
  names = [name.strip() for name in objectives.split(",")]
  if len(set(names)) != len(names) or not all(names):
    raise InputError("--objectives", f"{objectives!r} must be different names")
  values, signal = {}, {}
  if ERROR in names:
    if accuracy is None:
      raise InputError("--objectives", f"{ERROR} needs --accuracy FILE")
    found = _percentages(accuracy, accuracy_column)
    values[ERROR] = {a: 100.0 - value for a, value in found.items()}
    if reward_column is not None:
      signal = _percentages(accuracy, reward_column)
  elif accuracy is not None or reward_column is not None:
    flag = "--reward-column" if accuracy is None else "--accuracy"
    raise InputError(flag, f"no objective is {ERROR}")
  others = [name for name in names if name != ERROR]
  if bool(others) == (cost is None):
    raise InputError(
      "--cost",
      f"is needed for {others[0]}" if others else "no objective is one",
    )
  values |= columns(cost, others) if others else {}
  first = values[names[0]]
  shared = [a for a in first if all(a in values[name] for name in names)]
  if not shared:
    raise InputError("arch", "the files share no architecture")
  rows, candidates = genes(shared)
  points = np.array([[values[name][a] for name in names] for a in shared])
  counts = [len(column) for column in candidates]
  over = np.zeros(len(shared))
  if ERROR in names:
    over = points[:, names.index(ERROR)] - (100.0 - 100.0 / classes - 0.1)
    over = np.where(over >= 0, np.maximum(over, 1e-3), 0.0)
  known = [signal[a] for a in shared] if signal else None
  return table(shared, rows, counts, candidates, points, names, over, known)


def _percentages(path: str, name: str) -> dict[str, float]:
  """A column of accuracies, architecture -> percent."""
  found = columns(path, [name])[name]
  for architecture, value in found.items():
    if not 0.0 <= value <= 100.0:
      raise InputError(
        f"{path} {name}", f"{value:g} of {architecture[:60]} is no percentage"
      )
  return found
