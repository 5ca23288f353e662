"""Reads the benchmark tables that the experiments run on, and their spaces."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from nasjax import spaces
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import fit, networks


class Problem:
  """A space's choices as the fits and predictors take them."""

  def __init__(self, name: str):
    """Makes the choices of `nasbench201`, `fbnet` or `macro`."""
    self.name = name
    if name in ("fbnet", "macro"):  # every entry of their tables is its own
      space = getattr(spaces, name)()
      self.groups, self.ends, self.ties = space.groups, {}, None
    elif name == "nasbench201":
      space = spaces.nasbench201()
      self.groups = space.groups
      self.ends = choice_tables.ends_of(space)
      self.ties = fit.ties_of(space)
    else:
      raise SystemExit(f"error: --space {name}: nasbench201, fbnet or macro")


def read(path: str) -> dict[str, list[str]]:
  """Columns of a CSV file, plain or .gz."""
  opened = gzip.open if path.endswith(".gz") else open
  with opened(Path(path), "rt", encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  return {name: [row[name] for row in rows] for name in rows[0]}


def column(columns: dict[str, list[str]], name: str) -> np.ndarray:
  """One column as f64[N]."""
  if name not in columns:
    raise SystemExit(f"error: no column {name}; there are {', '.join(columns)}")
  return np.array([float(v) for v in columns[name]])


def choices(columns, problem: Problem, where: str) -> dict[str, np.ndarray]:
  """The column `arch` as choices i32[N, E] a group."""
  rows = [
    networks.parse(text, problem.groups, f"{where}:{line}")
    for line, text in enumerate(columns["arch"], start=2)
  ]
  return networks.stack(rows, problem.groups)


def layerwise(path: str, device: str, groups) -> choice_tables.ChoiceTable:
  """One device of a table `device,layer,op,op_name,latency_ms`.

  Layer -1 is what every network costs.
  """
  columns = read(path)
  ((group, (layers, names)),) = groups.items()
  entries, constant = np.full((layers, len(names)), np.nan), None
  for owner, layer, op, name, value in zip(
    *(columns[n] for n in ("device", "layer", "op", "op_name", "latency_ms")),
    strict=True,
  ):
    if owner != device:
      continue
    if int(layer) < 0:
      constant = abs(float(value))  # -0.0 stands for none
    elif names[int(op)] != name:
      raise SystemExit(f"error: {path}: operation {op} is {name}")
    else:
      entries[int(layer), int(op)] = float(value)
  if constant is None or np.isnan(entries).any():
    raise SystemExit(f"error: {path} has no whole table of device {device}")
  return choice_tables.ChoiceTable(
    path, {"device": device}, "latency_ms", constant, {group: entries}, groups
  )


def take(choices, rows) -> dict[str, np.ndarray]:
  """Those rows of choices."""
  return {name: found[rows] for name, found in choices.items()}
