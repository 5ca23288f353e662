"""A decided network as a graph of operations and tensors.

The spaces say how their networks are put together as JAX functions. They are
traced once with each block as one opaque primitive; additions and
concatenations between blocks are read off the trace.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, Primitive

from nasjax.hardware.workload import Workload, output_shape
from nasjax.layers import barrier

if TYPE_CHECKING:  # blocks are made of workloads: they import this package
  from nasjax.layers.blocks import Block

# x -> y of `shape`; `call` says which block of the network runs.
_block = Primitive("nasjax_block")
_block.def_abstract_eval(
  lambda x, *, call, shape: jax.core.ShapedArray(shape, x.dtype)
)


class Operation(NamedTuple):
  """An operation that makes one tensor, called as the operation is."""

  name: str
  kind: str
  inputs: tuple[str, ...]  # names of the tensors it reads
  output_bytes: float
  channel_bytes: float  # of one channel of the output
  workspace_bytes: float  # needed while it runs, beside its operands
  source_bytes: Mapping[str, float]  # those of `inputs` that nobody makes
  work: Workload | None


class _Call(NamedTuple):
  """A block of the network: a fixed one, or the choice at a place."""

  name: str
  block: Any  # Block | None
  candidates: Any = None  # of an edge: its blocks
  place: tuple[str, int] = ("", -1)  # of the choice: group and row


def _traced(space):
  """The jaxpr of the network with one opaque call a block."""
  plan = space.plan
  calls: list[_Call] = []

  def bind(x, call, shape):
    calls.append(call)
    return _block.bind(x, call=len(calls) - 1, shape=(1, *shape))

  def fixed(name, x):
    block = plan.fixed[name]
    return bind(x, _Call(name, block), block.output)

  def stage(number, x):
    part, rows = plan.stages[number], plan.rows(number)
    group = plan.group_of(number)
    for r in range(part.repeats):
      cell = f"stage_{number}_cell_{r}"

      def edge(e, x, part=part, cell=cell, row=rows[r]):
        blocks = tuple(part.edges[e].values())
        place = group, int(row[e])
        call = _Call(f"{cell}_edge_{e}", None, blocks, place)
        return bind(x, call, output_shape(part.edges[e], x.shape)[1:])

      def link(name, x, part=part, cell=cell, r=r):
        block = part.link(r, name)
        call = _Call(part.link_name(cell, r, name), block)
        return bind(x, call, block.output)

      x = plan.cell(x, edge, link)
    return x

  image = jnp.zeros((1, *space.arguments["image_shape"]), jnp.float32)
  made = jax.make_jaxpr(lambda x: plan.trunk(x, fixed, stage))(image)
  return made.jaxpr, calls


@functools.lru_cache(maxsize=8)
def _trace(space):
  return _traced(space)


class _Builder:
  """Collects operations; a tensor that stands for nothing is None."""

  def __init__(self, bits: int):
    self.operations: list[Operation] = []
    self.sizes: dict[str, float] = {}
    self.made: set[str] = set()
    self._bytes = bits / 8

  def source(self, name: str, elements: int) -> str:
    self.sizes[name] = elements * self._bytes
    return name

  def add(self, name, kind, inputs, elements, channels, work=None) -> str:
    size = elements * self._bytes
    sources = {n: self.sizes[n] for n in inputs if n not in self.made}
    self.operations.append(
      Operation(
        name,
        kind,
        tuple(inputs),
        size,
        size / max(channels, 1),
        0.0,
        sources,
        work,
      )
    )
    self.sizes[name] = size
    self.made.add(name)
    return name

  def block(self, name: str, block: Block, x: str) -> str:
    other = x
    for i, work in enumerate(block.workloads):
      if i == block.saved:
        other = x
      inputs = (x,)
      if work.kind in ("add", "multiply", "concat") and other != x:
        inputs = (x, other)
      height, width = work.outputs
      called = f"{name}/{i}_{work.kind}"
      elements = height * width * work.channels_out
      x = self.add(called, work.kind, inputs, elements, work.channels_out, work)
    return x


def _run(space, bits: int, choose) -> list[Operation]:
  """The network's operations; `choose` makes the edges'."""
  jaxpr, calls = _trace(space)
  builder = _Builder(bits)
  (image,) = jaxpr.invars
  names: dict[Any, str | None] = {
    image: builder.source("image", image.aval.size)
  }

  def walk(equations, names):
    for number, equation in enumerate(equations):
      # A constant stands for nothing, as the zero that a sum starts from.
      inputs = [
        None if isinstance(v, Literal) else names.get(v)
        for v in equation.invars
      ]
      given = [n for n in inputs if n is not None]
      (out,) = equation.outvars[:1]
      kind = equation.primitive.name
      if kind == "nasjax_block":
        call = calls[equation.params["call"]]
        x = inputs[0]
        if x is None:
          # Nothing in: a constant out, which folds away.
          names[out] = None
        elif call.candidates is not None:
          names[out] = choose(builder, call, x, out.aval.size)
        else:
          names[out] = builder.block(call.name, call.block, x)
      elif kind in ("add", "add_any") and len(given) == 2:
        names[out] = builder.add(
          f"add_{len(builder.operations)}",
          "add",
          given,
          out.aval.size,
          out.aval.shape[-1],
        )
      elif kind == "concatenate":
        names[out] = builder.add(
          f"concat_{len(builder.operations)}",
          "concat",
          given,
          out.aval.size,
          out.aval.shape[-1],
        )
      elif kind in ("jit", "pjit"):
        inner = equation.params["jaxpr"].jaxpr
        own = dict(zip(inner.invars, inputs, strict=True))
        walk(inner.eqns, own)
        for v, name in zip(equation.outvars, inner.outvars, strict=True):
          names[v] = own.get(name)
      elif kind == "platform_index" or not given:
        names[out] = None
      elif kind in ("add", "add_any", "reshape", "squeeze", barrier.NAME):
        names[out] = given[0]
      else:
        raise ValueError(f"graph: {kind} (number {number}) is not understood")

  walk(jaxpr.eqns, names)
  return _used(builder.operations, names.get(jaxpr.outvars[0]))


def _used(operations, output) -> list[Operation]:
  """The operations that the output depends on."""
  needed, kept = {output}, []
  for op in reversed(operations):
    if op.name in needed:
      needed.update(op.inputs)
      kept.append(op)
  return kept[::-1]


def network(
  space: Any, choices: Mapping[str, Any], bits: int
) -> list[Operation]:
  """The operations of a decided network, in the order of its text.

  Args:
    space: a space with a plan or a chain.
    choices: i32[E] of each of its groups.
    bits: of each activation.

  Returns:
    The operations; `none` is left out with all that only it would feed.
  """
  if hasattr(space, "chain"):
    builder = _Builder(bits)
    x = builder.source("image", math.prod(space.arguments["image_shape"]))
    for link in space.chain:
      x = _link(builder, link, link.chosen(choices), x)
    return builder.operations

  def choose(builder, call, x, elements):
    del elements
    group, row = call.place
    block = call.candidates[int(choices[group][row])]
    return None if block is None else builder.block(call.name, block, x)

  return _run(space, bits, choose)


def _link(builder: _Builder, link: Any, block: Any, x: str) -> str:
  """A layer of a chain; returns its output, `x` where there is no block."""
  if block is None:
    return x
  y = builder.block(link.name, block, x)
  if not link.residual:
    return y
  *sides, channels = block.output
  elements = math.prod(sides) * channels
  return builder.add(f"{link.name}/add", "add", (y, x), elements, channels)


def of_link(link: Any, block: Any, bits: int) -> list[Operation]:
  """The operations of one layer of a chain, which reads "x"."""
  builder = _Builder(bits)
  if block is not None:
    first = block.workloads[0]
    elements = first.height * first.width * first.channels_in
    _link(builder, link, block, builder.source("x", elements))
  return builder.operations


def opaque(space: Any, bits: int):
  """The operations with each choice one opaque operation.

  Returns:
    (operations, {edge: (its group and row, whether its input is read later,
    each candidate's own operations, bytes of its input)}).
  """
  edges: dict[str, tuple] = {}

  def choose(builder, call, x, elements):
    size = builder.sizes[x]
    blocks = []
    for block in call.candidates:
      own = _Builder(bits)
      own.sizes["x"] = size
      if block is not None and block.workloads:
        own.block(call.name, block, "x")
      blocks.append(own.operations)
    edges[call.name] = (call.place, x, blocks, size)
    return builder.add(call.name, "choice", (x,), elements, 1)

  operations = _run(space, bits, choose)
  last = {n: i for i, op in enumerate(operations) for n in op.inputs}
  place = {op.name: i for i, op in enumerate(operations)}
  return operations, {
    name: (row, last[x] > place[name], blocks, size)
    for name, (row, x, blocks, size) in edges.items()
  }
