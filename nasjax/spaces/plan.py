"""Plans: how the networks of a staged space are put together.

A space describes its networks once; from its plan come the supernet
(`supernet.py`), the decided network (`network.py`) and the workloads of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from nasjax.hardware.workload import SpaceWorkloads, Workload
from nasjax.layers.blocks import Block
from nasjax.layers.mixed import Candidates
from nasjax.types import Array


class Stage(NamedTuple):
  """`repeats` equal cells on one shape."""

  repeats: int
  edges: tuple[Candidates, ...]  # the candidates of each edge of a cell
  links: Mapping[str, Block]  # fixed blocks of each cell
  joins: tuple[Workload, ...]  # additions, concatenations of each cell


class Plan(NamedTuple):
  """How a space's networks are put together.

  Attributes:
    fixed: blocks that every network has once.
    joins: workloads between them.
    stages: the stages.
    trunk: (images, fixed, stage) -> logits, with fixed(name, x) and
      stage(number, x) running the parts.
    cell: (x, edge, link) -> x, with edge(number, x) and link(name, x).
    group: the choice group's name.
    place: (stage, repeat, edge) -> the edge's row in the group; may be the
      same for several where cells share their choices.
  """

  fixed: Mapping[str, Block]
  joins: tuple[Workload, ...]
  stages: tuple[Stage, ...]
  trunk: Callable[..., Array]
  cell: Callable[..., Array]
  group: str
  place: Callable[[int, int, int], int]

  def rows(self, stage: int) -> np.ndarray:
    """i32[repeats, edges]: where a stage's choices stand in the group."""
    s = self.stages[stage]
    return np.array(
      [
        [self.place(stage, r, e) for e in range(len(s.edges))]
        for r in range(s.repeats)
      ],
      np.int32,
    )

  @property
  def size(self) -> int:
    """How many choices the group has."""
    return 1 + max(int(self.rows(s).max()) for s in range(len(self.stages)))


def workloads(plan: Plan) -> SpaceWorkloads:
  """The workloads of a plan's networks, see `SpaceWorkloads`."""
  fixed = [*plan.joins]
  for block in plan.fixed.values():
    fixed += block.workloads
  cells: list[list[list[Workload]]] = [[] for _ in range(plan.size)]
  joins: list[list[list[Workload]]] = [[] for _ in range(plan.size)]
  for s, stage in enumerate(plan.stages):
    for row in plan.rows(s):
      fixed += stage.joins
      for block in stage.links.values():
        fixed += block.workloads
      for e, edge in zip(row, stage.edges, strict=True):
        if not cells[e]:
          cells[e] = [[] for _ in edge]
          joins[e] = [[] for _ in edge]
        adds = [w for w in stage.joins if w.kind == "add"]
        for k, block in enumerate(edge.values()):
          cells[e][k] += () if block is None else block.workloads
          joins[e][k] += [
            # A cell has fewer additions than edges into them, of one shape.
            work._replace(after=_last_kind(block))
            for work in adds[:1]
          ]

  def frozen(rows):
    return tuple(tuple(tuple(c) for c in row) for row in rows)

  return SpaceWorkloads(
    tuple(fixed), {plan.group: frozen(cells)}, {plan.group: frozen(joins)}
  )


def _last_kind(block: Block | None) -> str:
  if block is None:
    return "none"
  return block.workloads[-1].kind if block.workloads else "skip"
