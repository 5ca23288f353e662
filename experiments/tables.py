"""Reads the benchmark tables that the experiments run on, and their spaces."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np

from nasjax import spaces
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import fit, networks
from nasjax.types import Group

FBNET = {
  "layers": Group(
    22,
    ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6")
    + ("k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip"),
  )
}


class Problem:
  """A space's choices as the fits and predictors take them."""

  def __init__(self, name: str):
    """Makes the choices of `nasbench201` or `fbnet`."""
    self.name = name
    if name == "fbnet":  # no workloads are known of: every entry is its own
      self.groups, self.ends, self.ties = FBNET, {}, None
    elif name == "nasbench201":
      space = spaces.nasbench201()
      self.groups = space.groups
      self.ends = choice_tables.ends_of(space)
      self.ties = fit.ties_of(space)
    else:
      raise SystemExit(f"error: --space {name}: nasbench201 or fbnet")


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


def take(choices, rows) -> dict[str, np.ndarray]:
  """Those rows of choices."""
  return {name: found[rows] for name, found in choices.items()}
