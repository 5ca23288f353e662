"""Per-choice tables: what each candidate of each edge adds to a network.

Such a table belongs to one space. It is CSV with `# key: value` lines before
it, of which three are read besides `device`:

    # space: nasbench201
    # constant_latency_ms: 2.31     what every network costs
    # counted: every_edge           or reaching_output
    group,edge,candidate,latency_ms

`every_edge` sums the chosen entries. `reaching_output` counts an edge only if
a way of edges that are not `none` leads from it to the output: runtimes that
execute a graph from its output never run the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.errors import InputError, nearest
from nasjax.hardware import table as tables
from nasjax.reader import number, read_csv, whole
from nasjax.run_folder import csv_text, write_atomic
from nasjax.types import Choices, Group, Metric

__all__ = ["COUNTED", "ChoiceTable", "ends_of", "read", "reaching", "write"]

COUNTED = ("every_edge", "reaching_output")
COLUMNS = ("group", "edge", "candidate")
_HIGHEST = 1e12

Ends = Mapping[str, Sequence[tuple[int, int]]]


def ends_of(space: Any) -> Ends:
  """Nodes (from, to) of a space's edges by group; {} where it has no cells."""
  return getattr(space, "ends", {})


def reaching(on, ends: Sequence[tuple[int, int]]) -> list:
  """Probability that each edge's end leads to the output.

  Exact where the ways to the output share no edge, and at 0 and 1.

  Args:
    on: f[..., E], the probability that an edge is not `none`.
    ends: nodes (from, to) of each edge, from < to; the last is the output.

  Returns:
    E values f[...] or 1.0.
  """
  last = max(to for _, to in ends)
  reach = {last: 1.0}
  for node in range(last - 1, -1, -1):
    missed = 1.0
    for edge, (start, end) in enumerate(ends):
      if start == node:
        missed = missed * (1.0 - on[..., edge] * reach[end])
    reach[node] = 1.0 - missed
  return [reach[end] for _, end in ends]


class ChoiceTable(NamedTuple):
  """Costs of choices on a device: one cost column, entries f64[E, K]."""

  source: str
  header: Mapping[str, str]
  column: str  # latency_ms or energy_mj
  constant: float
  tables: Mapping[str, np.ndarray]
  groups: Mapping[str, Group]
  counted: str = "every_edge"

  @property
  def costs(self) -> tuple[str, ...]:
    """The cost columns that it has."""
    return (self.column,)

  def counts(self, weights, ends: Ends):
    """How far each choice counts: f[..., E, K] a group, weights times reach.

    Args:
      weights: f[..., E, K] a group, numpy or JAX.
      ends: of the space, see `ends_of`.
    """
    return counted_weights(weights, self.groups, self.counted, ends)

  def value(self, weights, ends: Ends):
    """The cost f[...] of weights f[..., E, K]; differentiable with JAX."""
    total = self.constant
    for name, counts in self.counts(weights, ends).items():
      # As float32 beside JAX arrays, and float64 beside numpy's.
      table = self.tables[name].astype(counts.dtype)
      total = total + (counts * table).sum((-2, -1))
    return total

  def metric(self, space: Any, *, device: str | None = None) -> Metric:
    """The metric of a space's networks, `expected` and `exact` alike.

    Raises:
      InputError: the table is one of other choices.
    """
    wanted = {n: Group(*g) for n, g in space.groups.items()}
    if dict(self.groups) != wanted:
      raise InputError(
        self.source,
        f"holds choices {_sizes(self.groups)}",
        f"the space {space.name} has {_sizes(wanted)}",
      )
    ends = ends_of(space)
    if self.counted == "reaching_output" and set(ends) != set(wanted):
      raise InputError(
        f"{self.source} # counted",
        f"{self.counted} needs cells of edges between nodes",
        f"the space {space.name} has none",
      )

    kept = kept_edges.kept_sets(space)

    def expected(weights):
      weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
      weights = kept_edges.probabilities(weights, kept)
      return jnp.float32(self.value(weights, ends))

    def exact(architecture):
      weights = {
        n: w.astype(np.float64) for n, w in architecture.one_hot().items()
      }
      return float(self.value(weights, ends))

    made = " ".join(
      self.header[k] for k in ("runtime", "date") if k in self.header
    )
    return Metric(
      self.column,
      tables.COSTS[self.column],
      device,
      expected,
      exact,
      True,
      f"fitted table of {device}" + (f" ({made})" if made else ""),
      "sum" if self.counted == "every_edge" else "other",
    )

  def of(self, choices: Choices, ends: Ends) -> np.ndarray:
    """Costs f64[N] of choices i32[N, E] a group."""
    return self.value(one_hot(choices, self.groups), ends)


def counted_weights(weights, groups, counted: str, ends: Ends):
  """Weights times the probability that their edge counts, see `ChoiceTable`."""
  if counted == "every_edge":
    return dict(weights)
  found = {}
  for name, weight in weights.items():
    none = groups[name].candidates.index("none")
    reach = reaching(1.0 - weight[..., none], ends[name])
    rows = [weight[..., e, :] * _column(r) for e, r in enumerate(reach)]
    stack = np.stack if isinstance(weight, np.ndarray) else jnp.stack
    found[name] = stack(rows, axis=-2)
  return found


def _column(value):
  return value[..., None] if hasattr(value, "ndim") else value


def one_hot(choices: Choices, groups: Mapping[str, Group]) -> dict:
  """Choices i32[..., E] as weights f64[..., E, K]."""
  return {
    n: np.eye(len(groups[n].candidates))[np.asarray(row)]
    for n, row in choices.items()
  }


def _sizes(groups):
  return ", ".join(
    f"{n} of {g.edges} edges and {len(g.candidates)} candidates"
    for n, g in groups.items()
  )


def is_choice_file(path: str) -> bool:
  """Whether a file holds a table of choices; False where it cannot be read."""
  try:
    return is_choice_table(read_csv(path).columns)
  except InputError:
    return False  # who reads it says what is wrong


def is_choice_table(columns: Sequence[str]) -> bool:
  """Whether a CSV file's columns are those of a per-choice table."""
  return set(COLUMNS) <= set(columns)


def read(path: str | Path) -> ChoiceTable:
  """Reads a per-choice table.

  Raises:
    InputError: names the line and what is wrong with it: no or several cost
      columns, an entry missing or said twice, a number that is negative.
  """
  found = read_csv(path, COLUMNS)
  costs = [c for c in tables.COSTS if c in found.columns]
  if len(costs) != 1:
    raise InputError(
      str(path),
      f"has {len(costs)} cost columns, 1 is needed",
      f"name it {' or '.join(tables.COSTS)}",
    )
  for key, value in found.header.items():
    if not (key + value).isprintable():
      raise InputError(f"{path} # {key[:40]}", "holds control characters")
  entries: dict[str, dict[tuple[int, str], float]] = {}
  for line, cells in found.rows:
    where = f"{path}:{line}"
    edge = whole(cells["edge"], f"{where} edge", low=0, high=10_000)
    group = entries.setdefault(cells["group"], {})
    key = (edge, cells["candidate"])
    if key in group:
      raise InputError(where, f"{cells['group']}{list(key)} stands there twice")
    group[key] = number(
      cells[costs[0]], f"{where} {costs[0]}", low=0.0, high=_HIGHEST
    )
  arrays, groups = {}, {}
  for name, group in entries.items():
    names = tuple(dict.fromkeys(c for _, c in group))
    edges = max(e for e, _ in group) + 1
    if edges > len(group):  # before an array of that size is made
      raise InputError(str(path), f"{name} has no rows for some edges")
    array = np.full((edges, len(names)), np.nan)
    for (edge, candidate), value in group.items():
      array[edge, names.index(candidate)] = value
    for edge, k in np.argwhere(np.isnan(array)):
      raise InputError(str(path), f"has no row for {name}[{edge}] {names[k]}")
    arrays[name], groups[name] = array, Group(edges, names)
  counted = found.header.get("counted", COUNTED[0])
  if counted not in COUNTED:
    raise InputError(
      f"{path} # counted",
      f"unknown {counted[:40]!r}",
      nearest(counted, COUNTED),
    )
  for name, group in groups.items():
    if counted == "reaching_output" and "none" not in group.candidates:
      raise InputError(f"{path} # counted", f"{name} has no candidate none")
  key = f"constant_{costs[0]}"
  constant = number(
    found.header.get(key, "0"), f"{path} # {key}", low=0.0, high=_HIGHEST
  )
  return ChoiceTable(
    str(path), found.header, costs[0], constant, arrays, groups, counted
  )


def text(table: ChoiceTable) -> str:
  """A per-choice table as CSV text that `read` reads."""
  header = {
    **table.header,
    f"constant_{table.column}": f"{table.constant:.9g}",
    "counted": table.counted,
  }
  head = "".join(f"# {key}: {value}\n" for key, value in header.items())
  rows = [
    {
      "group": name,
      "edge": edge,
      "candidate": candidate,
      table.column: f"{table.tables[name][edge, k]:.9g}",
    }
    for name, group in table.groups.items()
    for edge in range(group.edges)
    for k, candidate in enumerate(group.candidates)
  ]
  return head + csv_text((*COLUMNS, table.column), rows)


def write(path: str | Path, table: ChoiceTable) -> None:
  """Writes a per-choice table, whole or not at all."""
  write_atomic(path, text(table))
