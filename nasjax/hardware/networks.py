"""Measured networks: CSV with a column `arch` and one a measured cost.

`arch` is NAS-Bench-201's string, one digit an edge (as many tables of the
field write layer-wise networks), or the candidates' names with spaces between
them, group after group.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nasjax.errors import InputError, nearest
from nasjax.reader import number, read_csv
from nasjax.spaces.nasbench201 import parse as parse_nasbench201
from nasjax.types import Group

__all__ = ["Networks", "parse", "read", "stack"]


class Networks(NamedTuple):
  """N measured networks."""

  choices: dict[str, np.ndarray]  # i32[N, E] a group
  values: np.ndarray  # f64[N]
  column: str  # of the file


def parse(text: str, groups: Mapping[str, Group], where: str) -> list[int]:
  """The choices of one network, group after group.

  Raises:
    InputError: it is of no known form, or of other choices than `groups`.
  """
  sizes = [g for g in groups.values() for _ in range(g.edges)]
  text = text.strip()
  if text.startswith("|"):
    words: Sequence[str] = parse_nasbench201(text)
  elif text.isascii() and text.isdigit() and len(text) == len(sizes):
    for edge, (digit, group) in enumerate(zip(text, sizes, strict=True)):
      if int(digit) >= len(group.candidates):
        raise InputError(
          where,
          f"digit {edge} is {digit}, there are {len(group.candidates)}"
          " candidates",
        )
    return [int(c) for c in text]
  else:
    words = text.split()
  if len(words) != len(sizes):
    raise InputError(
      where, f"names {len(words)} choices, the space has {len(sizes)}"
    )
  for word, group in zip(words, sizes, strict=True):
    if word not in group.candidates:
      raise InputError(
        where,
        f"unknown candidate {word[:40]!r}",
        nearest(word, group.candidates),
      )
  return [g.candidates.index(w) for w, g in zip(words, sizes, strict=True)]


def stack(
  rows: Sequence[Sequence[int]], groups: Mapping[str, Group]
) -> dict[str, np.ndarray]:
  """Networks as `parse` gives them -> choices i32[N, E] a group."""
  flat, found, start = np.asarray(rows, np.int32), {}, 0
  for name, group in groups.items():
    found[name] = flat[:, start : start + group.edges]
    start += group.edges
  return found


def read(
  path: str | Path, groups: Mapping[str, Group], column: str
) -> Networks:
  """Reads measured networks.

  Args:
    path: of the CSV file.
    groups: of the space.
    column: which column holds the cost.

  Returns:
    The networks.

  Raises:
    InputError: names the line that is wrong.
  """
  found = read_csv(path, ("arch", column))
  rows, values = [], []
  for line, cells in found.rows:
    rows.append(parse(cells["arch"], groups, f"{path}:{line} arch"))
    values.append(
      number(cells[column], f"{path}:{line} {column}", low=0.0, high=1e12)
    )
  return Networks(stack(rows, groups), np.array(values), column)
