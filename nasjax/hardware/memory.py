"""Memory: the peak of the activations under the best order, and flash.

A decided network is a graph of tensors. What it needs at its worst moment
depends on the order in which its operations run. `schedule` finds the order
with the least peak, exactly: memory after a set of operations depends on the
set alone, so a shortest path over sets (the longest step counts, not the sum)
is enough, and an operation that frees as much as it takes can always go first.

Elementwise operations write over an operand that nobody needs any more; a
depthwise convolution does too where `in_place` allows it, with one channel
aside (MCUNetV2's TinyEngine). `patched` runs the first operations patch by
patch (MCUNetV2, Lin et al., NeurIPS 2021, section 3).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from nasjax.hardware.graph import Operation, network
from nasjax.hardware.workload import Workload

_ELEMENTWISE = (
  "add",
  "multiply",
  "relu",
  "relu6",
  "hswish",
  "hsigmoid",
  "batch_norm",
  "normalize",
)
_MOST_STATES = 200_000


class Schedule(NamedTuple):
  """An execution order and the memory at each of its steps."""

  order: tuple[str, ...]  # names of the operations
  live_bytes: tuple[float, ...]  # while each of them runs
  peak_bytes: float


def flash_bytes(work: Workload, profile) -> float:
  """Bytes of a workload's weights, biases included, in a device's bits.

  Biases and folded normalisations are one number of 32 bits an output channel.
  """
  bits = min(work.bits, profile.bits)
  kernels = work._replace(batch_norm=False).params
  if work.kind == "linear":
    return (kernels - work.channels_out) * bits / 8 + 4 * work.channels_out
  biases = 4 * work.channels_out if work.batch_norm else 0
  return kernels * bits / 8 + biases


class Machine:
  """The memory of a graph's sets of executed operations."""

  def __init__(self, operations: Sequence[Operation], in_place):
    """Of operations in any order; `in_place` as `schedule` takes it."""
    self.operations = operations
    self.sizes: dict[str, float] = {}
    self.readers: dict[str, int] = {}
    self.makers: dict[str, int] = {}
    for i, op in enumerate(operations):
      self.sizes[op.name] = op.output_bytes
      self.makers[op.name] = i
      self.readers.setdefault(op.name, 0)
      for name in op.inputs:
        self.readers[name] = self.readers.get(name, 0) | 1 << i
    self.sources = {
      name: size for op in operations for name, size in op.source_bytes.items()
    }
    self.sizes |= self.sources
    self._in_place = in_place
    self.needs = [
      sum({1 << self.makers[n] for n in op.inputs if n in self.makers})
      for op in operations
    ]

  def ready(self, done: int) -> list[int]:
    """The operations that can run once those in the bit set `done` have."""
    return [
      i
      for i, need in enumerate(self.needs)
      if not done >> i & 1 and need & ~done == 0
    ]

  def dies(self, name: str, done: int) -> bool:
    """Whether nobody reads a tensor any more."""
    return self.readers[name] & ~done == 0

  def step(self, done: int, live: float, i: int) -> tuple[float, float]:
    """(memory while operation `i` runs, memory after it)."""
    op = self.operations[i]
    after_set = done | 1 << i
    freed = [n for n in set(op.inputs) if self.dies(n, after_set)]
    freed_bytes = sum(self.sizes[n] for n in freed)
    # The network's output is read by nobody and stays.
    after = live + op.output_bytes - freed_bytes
    elementwise = op.kind in _ELEMENTWISE
    if elementwise or (op.kind == "depthwise" and op.kind in self._in_place):
      if any(self.sizes[n] >= op.output_bytes for n in freed):
        # Never more than a place of its own: else more freed could cost more.
        aside = 0.0 if elementwise else min(op.channel_bytes, op.output_bytes)
        return live + aside + op.workspace_bytes, after
    return live + op.output_bytes + op.workspace_bytes, after


def schedule(
  operations: Sequence[Operation], *, in_place: Sequence[str] = ()
) -> Schedule:
  """The execution order with the least peak, exactly.

  Args:
    operations: of a network; each is named as its output tensor.
    in_place: `("depthwise",)` lets depthwise convolutions write over their
      input.

  Returns:
    The order. The network's input is there from the start, its output at the
    end; both count.

  Raises:
    ValueError: an unknown name in `in_place`, or more than 200,000 sets of
      operations to look at.
  """
  _check(in_place)
  machine = Machine(operations, in_place)
  start = float(sum(machine.sources.values()))
  everything = (1 << len(operations)) - 1
  queue: list[tuple[float, int, int, float]] = [(start, 0, 0, start)]
  came: dict[int, tuple[int, tuple[int, ...]]] = {}
  seen: set[int] = set()
  best = {0: start}
  while queue:
    peak, _, done, live = heapq.heappop(queue)
    if done in seen:
      continue
    seen.add(done)
    if len(seen) > _MOST_STATES:
      raise ValueError(
        f"schedule: {len(operations)} operations have more than"
        f" {_MOST_STATES} orders to look at"
      )
    if done == everything:
      return _replay(machine, _path(came, done), start)
    ready = machine.ready(done)
    steps = [(i, *machine.step(done, live, i)) for i in ready]
    # What frees as much as it takes, below the peak, never hurts by going
    # first: all that runs later finds less memory taken.
    free = [s for s in steps if s[2] <= live and s[1] <= peak]
    for i, during, after in free[:1] or steps:
      new, worst = done | 1 << i, max(peak, during, after)
      if worst < best.get(new, math.inf):
        best[new] = worst
        came[new] = (done, (i,))
        heapq.heappush(queue, (worst, -new.bit_count(), new, after))
  raise ValueError("schedule: an operation reads what nobody makes")


def _check(in_place):
  for name in in_place:
    if name != "depthwise":
      raise ValueError(f"in_place={name!r}; known: depthwise")


def _path(came, done):
  order: list[int] = []
  while done in came:
    done, steps = came[done]
    order += reversed(steps)
  return order[::-1]


def _replay(machine, order, start) -> Schedule:
  done, live, peak, lives = 0, start, start, []
  for i in order:
    during, after = machine.step(done, live, i)
    lives.append(max(during, after))
    done, live = done | 1 << i, after
    peak = max(peak, lives[-1])
  names = tuple(machine.operations[i].name for i in order)
  return Schedule(names, tuple(lives), peak)


def in_order(
  operations: Sequence[Operation], *, in_place: Sequence[str] = ()
) -> Schedule:
  """The memory of operations run in the order that they are given in."""
  _check(in_place)
  machine = Machine(operations, in_place)
  start = float(sum(machine.sources.values()))
  return _replay(machine, list(range(len(operations))), start)


def patched(
  operations: Sequence[Operation], patches: int, stage: int
) -> tuple[list[Operation], float]:
  """The network with its first operations run patch by patch.

  Args:
    operations: of a network.
    patches: on a side: 2 makes 4 patches.
    stage: how many of the first operations; they must be a chain.

  Returns:
    (operations, the first of which stands for the stage, and the stage's
    computing with the patches' halos over that without).

  Raises:
    ValueError: the operations are no chain of that length.
  """
  chain = operations[:stage]
  for before, op in zip(chain, chain[1:], strict=False):
    if op.inputs != (before.name,):
      raise ValueError(
        f"patched: {op.name} does not follow {before.name} alone"
      )
  if stage < 1 or stage > len(operations) or len(chain[0].inputs) != 1:
    raise ValueError(f"patched: no chain of {stage} operations at the start")
  later = {n for op in operations[stage:] for n in op.inputs}
  inner = {op.name for op in chain[:-1]} | set(chain[0].inputs)
  if later & inner:
    raise ValueError(f"patched: {sorted(later & inner)} are read later too")
  height, width = chain[-1].work.outputs
  side = [-(-height // patches), -(-width // patches)]
  workspace, computed, plain = 0.0, 0.0, 0.0
  made = 0.0  # the stage's own output goes where it stays
  for op in reversed(chain):
    work = op.work
    out_h, out_w = work.outputs
    share = side[0] * side[1] / (out_h * out_w)
    computed += patches**2 * work.flops * min(share, 1.0)
    plain += work.flops
    extent = work.dilation * (work.kernel - 1) + 1
    reach = [(n - 1) * work.stride + extent for n in side]
    side = [min(reach[0], work.height), min(reach[1], work.width)]
    first = op is chain[0]
    bits = op.output_bytes / (out_h * out_w * work.channels_out)
    read = 0.0 if first else side[0] * side[1] * work.channels_in * bits
    workspace = max(workspace, made + read)
    made = read
  whole = chain[-1]._replace(
    kind="patched",
    inputs=chain[0].inputs,
    source_bytes=chain[0].source_bytes,
    workspace_bytes=workspace,
  )
  return [whole, *operations[stage:]], computed / plain


def peak_bytes(
  architecture: Any, bits: int = 8, *, in_place: Sequence[str] = ()
) -> Schedule:
  """The best schedule of a decided network; `bits` of its activations."""
  operations = network(architecture.space, architecture.choices, min(bits, 64))
  return schedule(operations, in_place=in_place)
