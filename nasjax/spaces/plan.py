"""Plans: how the networks of a staged space are put together.

A space describes its networks once; from its plan come the supernet
(`supernet.py`), the decided network (`network.py`) and the workloads of both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from nasjax.hardware.workload import SpaceWorkloads, Workload
from nasjax.kept_edges import Kept
from nasjax.layers.barrier import computed_once
from nasjax.layers.blocks import Block
from nasjax.layers.mixed import Candidates
from nasjax.types import Array


class Uneven(NamedTuple):
  """Links that differ between the cells of a stage.

  The supernet runs them as the stage's `links`, which all cells have alike, so
  that cells can be scanned; networks have each cell's own. Like the edges they
  go without trained scale and shift in the supernet.

  Attributes:
    first: the number of the stage's first cell in the network.
    links: each cell's own blocks.
    enter: the stage's input -> the same as the even links read it.
    even: (own block, even block, own variables) -> the even link's variables.
    stats: (own block, even link's batch statistics) -> own ones.
  """

  first: int
  links: tuple[Mapping[str, Block], ...]
  enter: Callable[[Any], Any]
  even: Callable[[Block, Block, Mapping], Mapping]
  stats: Callable[[Block, Mapping], Mapping]

  def name(self, repeat: int, link: str) -> str:
    """What the variables of a cell's own link are called."""
    return f"{link}_{self.first + repeat}"


class Partial(NamedTuple):
  """What edges are in a supernet whose operations see few of the channels.

  The first C / `share` channels of what an edge reads go through its
  candidates, the others pass by (halved by a 2x2 maximum where the edge
  halves), weighted by the sum of the edge's weights; then the channels of both
  are shuffled (PC-DARTS, Xu et al. 2020, section 3.2). Unlike the paper's, what
  passes by is not weighted by `none`: an edge that is none brings nothing.

  Attributes:
    share: C over the channels that the operations see.
    edges: the candidates of each edge on so few channels.
  """

  share: int
  edges: tuple[Candidates, ...]


class Auxiliary(NamedTuple):
  """Where a second classifier reads while a network is trained.

  Attributes:
    stage: after this one.
    read: what the stage gave -> the map f32[B, H, W, C] that it reads.
  """

  stage: int
  read: Callable[[Any], Array]


class Stage(NamedTuple):
  """`repeats` cells with equal edges on one shape.

  Attributes:
    repeats: how many.
    edges: the candidates of each edge of a cell.
    links: fixed blocks of each cell.
    joins: additions, concatenations of each cell.
    group: the choice group of its edges; "": the plan's.
    sources: the node that each edge reads; edges of one node have the same
      candidates, and share what can be computed once. (): not known.
    uneven: where links differ between cells.
    partial: where the supernet's edges are not the networks'.
    targets: the node that each edge leads to; (): as the `Dag` has it, else not
      known.
  """

  repeats: int
  edges: tuple[Candidates, ...]
  links: Mapping[str, Block]
  joins: tuple[Workload, ...]
  group: str = ""
  sources: tuple[int, ...] = ()
  uneven: Uneven | None = None
  partial: Partial | None = None
  targets: tuple[int, ...] = ()

  def in_supernet(self) -> Stage:
    """The stage with the edges that its supernet has."""
    return self._replace(edges=self.partial.edges) if self.partial else self

  def link(self, repeat: int, name: str) -> Block:
    """A cell's link as networks have it."""
    return self.uneven.links[repeat][name] if self.uneven else self.links[name]

  def link_name(self, cell: str, repeat: int, name: str) -> str:
    """What a network calls a cell's link."""
    return self.uneven.name(repeat, name) if self.uneven else f"{cell}_{name}"


class Dag(NamedTuple):
  """A cell whose nodes each sum what edges from earlier nodes bring.

  Attributes:
    inputs: how many nodes come before its own.
    ends: (from, to) of each edge.
    enter: (x, link) -> the first nodes, all of one shape.
    leave: (x, the cell's own nodes) -> its output.
  """

  inputs: int
  ends: tuple[tuple[int, int], ...]
  enter: Callable[..., list[Array]]
  leave: Callable[[Any, list[Array]], Any]

  @property
  def nodes(self) -> int:
    """How many nodes are its own."""
    return 1 + max(to for _, to in self.ends) - self.inputs

  def __call__(self, x: Any, edge: Callable, link: Callable) -> Any:
    """Runs the cell, see `Plan.cell`."""
    found = self.enter(x, link)
    for node in range(self.inputs, self.inputs + self.nodes):
      into = [(e, i) for e, (i, to) in enumerate(self.ends) if to == node]
      found.append(computed_once(sum(edge(e, found[i]) for e, i in into)))
    return self.leave(x, found[self.inputs :])


class Plan(NamedTuple):
  """How a space's networks are put together.

  Attributes:
    fixed: blocks that every network has once.
    joins: workloads between them.
    stages: the stages.
    trunk: (images, fixed, stage) -> logits, with fixed(name, x) and
      stage(number, x) running the parts.
    cell: (x, edge, link) -> x, with edge(number, x) and link(name, x); x may
      be several arrays. Where cells repeat, x keeps its shapes. A `Dag` whose
      stages have `sources` compiles sampled paths once for all edges.
    group: the name of the choice group of stages that name none.
    place: (stage, repeat, edge) -> the edge's row in its group; may be the
      same for several where cells share their choices.
    kept: by group, sets of rows of which a fixed number is not `none`.
    auxiliary: where a second classifier may help training; None: nowhere.
  """

  fixed: Mapping[str, Block]
  joins: tuple[Workload, ...]
  stages: tuple[Stage, ...]
  trunk: Callable[..., Array]
  cell: Callable[..., Any]
  group: str
  place: Callable[[int, int, int], int]
  kept: Mapping[str, Kept] = {}
  auxiliary: Auxiliary | None = None

  def rows(self, stage: int) -> np.ndarray:
    """i32[repeats, edges]: where a stage's choices stand in their group."""
    s = self.stages[stage]
    return np.array(
      [
        [self.place(stage, r, e) for e in range(len(s.edges))]
        for r in range(s.repeats)
      ],
      np.int32,
    )

  def group_of(self, stage: int) -> str:
    """The choice group of a stage's edges."""
    return self.stages[stage].group or self.group

  @property
  def sizes(self) -> dict[str, int]:
    """How many choices each group has."""
    found: dict[str, int] = {}
    for s in range(len(self.stages)):
      group = self.group_of(s)
      found[group] = max(found.get(group, 0), 1 + int(self.rows(s).max()))
    return found


def with_blocks(plan: Plan, change: Callable[[Block], Block]) -> Plan:
  """The plan with every block changed, edges' and fixed ones."""

  def each(blocks):
    return {n: b if b is None else change(b) for n, b in blocks.items()}

  def of(stage):
    uneven, partial = stage.uneven, stage.partial
    return stage._replace(
      edges=tuple(map(each, stage.edges)),
      links=each(stage.links),
      uneven=uneven and uneven._replace(links=tuple(map(each, uneven.links))),
      partial=partial
      and partial._replace(edges=tuple(map(each, partial.edges))),
    )

  return plan._replace(
    fixed=each(plan.fixed), stages=tuple(map(of, plan.stages))
  )


def workloads(plan: Plan) -> SpaceWorkloads:
  """The workloads of a plan's networks, see `SpaceWorkloads`."""
  fixed = [*plan.joins]
  for block in plan.fixed.values():
    fixed += block.workloads
  cells: dict[str, list[list[list[Workload]]]] = {
    group: [[] for _ in range(size)] for group, size in plan.sizes.items()
  }
  joins: dict[str, list[list[list[Workload]]]] = {
    group: [[] for _ in range(size)] for group, size in plan.sizes.items()
  }
  shares = {group: [1.0] * size for group, size in plan.sizes.items()}
  for s, stage in enumerate(plan.stages):
    group = plan.group_of(s)
    own = _join_shares(plan, stage)
    for r, row in enumerate(plan.rows(s)):
      for e, share in zip(row, own, strict=True):
        shares[group][e] = share
      fixed += stage.joins
      for name in stage.links:
        fixed += stage.link(r, name).workloads
      adds = [w for w in stage.joins if w.kind == "add"]
      for e, edge in zip(row, stage.edges, strict=True):
        if not cells[group][e]:
          cells[group][e] = [[] for _ in edge]
          joins[group][e] = [[] for _ in edge]
        for k, block in enumerate(edge.values()):
          cells[group][e][k] += () if block is None else block.workloads
          if block is None and group in plan.kept:
            continue  # so many are `none` in every network: nothing is added
          joins[group][e][k] += [
            # They are of one shape; how many there are the shares say.
            work._replace(after=_last_kind(block))
            for work in adds[:1]
          ]

  def frozen(groups):
    return {
      group: tuple(tuple(tuple(c) for c in row) for row in rows)
      for group, rows in groups.items()
    }

  return SpaceWorkloads(
    tuple(fixed),
    frozen(cells),
    frozen(joins),
    join_shares={group: tuple(row) for group, row in shares.items()},
  )


def _join_shares(plan: Plan, stage: Stage) -> list[float]:
  """How much of an addition each edge brings: (n - 1) / n of n edges a node.

  Where a fixed number of edges is kept, n of them, this is of one that is kept.
  """
  edges = len(stage.edges)
  targets = stage.targets
  if not targets and isinstance(plan.cell, Dag):
    targets = tuple(to for _, to in plan.cell.ends)
  if not targets:  # additions over edges, where nodes are not known
    adds = sum(w.kind == "add" for w in stage.joins)
    return [min(adds / edges, 1.0)] * edges
  counts = {to: targets.count(to) for to in targets}
  for own, kept in plan.kept.get(stage.group or plan.group, ()):
    counts[targets[own[0]]] = kept
  return [1.0 - 1.0 / counts[to] for to in targets]


def _last_kind(block: Block | None) -> str:
  if block is None:
    return "none"
  return block.workloads[-1].kind if block.workloads else "skip"
