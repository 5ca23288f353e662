"""`peak_sram_bytes` of all networks of a space at once, see `memory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax import kept_edges
from nasjax.errors import InputError
from nasjax.hardware import memory
from nasjax.hardware.graph import Operation, network, of_link, opaque
from nasjax.hardware.products import ProductTable
from nasjax.hardware.workload import largest_metric
from nasjax.types import Metric


def peak_metric(
  space: Any,
  bits: int,
  *,
  in_place: Sequence[str] = (),
  device: str | None = None,
  source: str = "",
) -> Metric:
  """`peak_sram_bytes` of a space's networks.

  Args:
    space: a space with a plan or a chain.
    bits: of the activations.
    in_place: as `memory.schedule` takes it.
    device: the device it belongs to.
    source: where its numbers come from.

  Returns:
    `exact` is the peak under the best order. `expected` is never below the
    mean of `exact` over the choices: each choice counts its peak in the order
    of the network's text with every other choice's output in memory. Where
    cells hang together by one tensor and have one choice each the order is
    fixed, and the two are equal at one-hot points.

  Raises:
    InputError: the space has neither to read the graph from.
  """
  if hasattr(space, "chain"):
    floor, joint = _chain_peaks(space, bits, in_place)
    return largest_metric(
      "peak_sram_bytes",
      "B",
      floor,
      {},
      joint=joint,
      device=device,
      source=source,
    )
  if not hasattr(space, "plan"):
    raise InputError(
      f"space {space.name}", "has no plan: its peak memory is unknown"
    )
  floor, found, fixed_order = bounds(space, bits, in_place=in_place)
  known: dict[tuple, float] = {}

  def exact(architecture):
    row = tuple(int(k) for g in found for k in architecture.choices[g])
    if row not in known:
      best = memory.peak_bytes(architecture, bits, in_place=in_place)
      known[row] = best.peak_bytes
    return known[row]

  return largest_metric(
    "peak_sram_bytes",
    "B",
    floor,
    found,
    exact=None if fixed_order else exact,
    device=device,
    source=source,
    kept=kept_edges.kept_sets(space),
  )


def _chain_peaks(
  space: Any, bits: int, in_place: Sequence[str]
) -> tuple[float, list[ProductTable]]:
  """(peak of the fixed layers, that of the others by their choices).

  One tensor alone lies between layers, so the network's peak is the largest.
  """
  known: dict[Any, float] = {}
  floor, tables = 0.0, []
  for link in space.chain:
    values = np.zeros(link.blocks.shape)
    for index in np.ndindex(values.shape):
      block = link.blocks[index]
      key = (link.residual, None if block is None else block.workloads)
      if key not in known:
        operations = of_link(link, block, bits)
        known[key] = (
          memory.schedule(operations, in_place=in_place).peak_bytes
          if operations
          else 0.0
        )
      values[index] = known[key]
    if link.choices:
      tables.append(ProductTable(link.choices, values))
    else:
      floor = max(floor, float(values))
  return floor, tables


def bounds(
  space: Any, bits: int, *, in_place: Sequence[str] = ()
) -> tuple[float, dict[str, np.ndarray], bool]:
  """(floor, f64[E, K] a group, whether they are exact), see `peak_metric`."""
  operations, edges = opaque(space, bits)
  groups = space.groups
  found = {n: np.zeros((g.edges, len(g.candidates))) for n, g in groups.items()}
  if _one_choice_between_cuts(operations, edges):
    base = {
      n: np.full(g.edges, g.candidates.index("none")) for n, g in groups.items()
    }

    def peak(choices):
      operations = network(space, choices, bits)
      return memory.schedule(operations, in_place=in_place).peak_bytes

    for group, table in found.items():
      for e, k in np.ndindex(table.shape):
        row = base[group].copy()
        row[e] = k
        table[e, k] = peak({**base, group: row})
    return peak(base), found, True
  live = memory.in_order(operations, in_place=in_place)
  at = dict(zip(live.order, live.live_bytes, strict=True))
  floor = max(v for n, v in at.items() if n not in edges)
  sizes = {op.name: op.output_bytes for op in operations}
  for name, ((group, row), keeps, blocks, size) in edges.items():
    # Memory at this edge besides its own output, and its input if it dies.
    others = at[name] - sizes[name] - (0.0 if keeps else size)
    for k, operations_of in enumerate(blocks):
      own = (
        memory.in_order(operations_of, in_place=in_place).peak_bytes
        - (size if keeps else 0.0)
        if operations_of
        else 0.0
      )
      if keeps and operations_of:
        own = _with_kept_input(operations_of, in_place) - size
      table = found[group]
      table[row, k] = max(table[row, k], others + own)
  return floor, found, False


def _with_kept_input(
  operations: Sequence[Operation], in_place: Sequence[str]
) -> float:
  """The peak of a block whose input somebody reads later."""
  read = (operations[0].inputs[0], operations[-1].name)
  last = Operation("later", "keep", read, 0.0, 0.0, 0.0, {}, None)
  return memory.in_order([*operations, last], in_place=in_place).peak_bytes


def _one_choice_between_cuts(
  operations: Sequence[Operation], edges: Mapping[str, Any]
) -> bool:
  """Whether tensors that all must pass through separate the choices."""
  machine = memory.Machine(operations, ())
  done, since, rows = 0, 0, []
  for i, op in enumerate(operations):
    done |= 1 << i
    if op.name in edges:
      since += 1
      rows.append(edges[op.name][0])
    live = [
      n
      for n, maker in machine.makers.items()
      if done >> maker & 1 and machine.readers[n] & ~done
    ]
    waiting = [n for n in machine.sources if machine.readers[n] & ~done]
    if since > 1:
      return False
    if len(live) + len(waiting) <= 1:
      since = 0
  return len(rows) == len(set(rows))
