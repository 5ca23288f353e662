"""Decided networks as ONNX.

A network's graph is found by tracing it with every `Block` left whole, as one
primitive: a block's workloads say what to emit, batch normalisation folded
into the convolution before it, and what stands between blocks is a handful of
primitives (add, concatenate, reshape). So any flax module made of blocks can
be exported, with no description of its own.

Files take images NHWC, as the rest of the package does, and work NCHW inside,
as ONNX does. The batch is dynamic. Opset 17, IR version 8: ONNX Runtime 1.14
and later read them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from nasjax.errors import InputError
from nasjax.layers import barrier
from nasjax.layers.blocks import Block
from nasjax.layers.onnx_nodes import BATCH, OUTPUT, Graph, emit_block, need

__all__ = ["network", "parity"]

INPUT = "images"
SCHEDULE = "nasjax.schedule"  # the key of the execution schedule

_block = jax.extend.core.Primitive("nasjax_block")
_block.def_abstract_eval(
  lambda x, *, number, output: jax.core.ShapedArray(
    (x.shape[0], *output), x.dtype
  )
)
# Traced with this batch, so that an axis of 1 is never taken for it.
_TRACED_BATCH = 2


class _Zero(NamedTuple):
  """A value known to be 0, of this shape; nothing is emitted for it."""

  shape: tuple[int, ...]


def _channels_first(shape):
  return (shape[0], shape[3], *shape[1:3]) if len(shape) == 4 else shape


class _Lowering:
  """Walks a traced network and emits its graph; values are NCHW."""

  def __init__(self, graph, blocks, source: str):
    self.graph, self.blocks, self.source = graph, blocks, source

  def _named(self, value) -> str:
    """A value's name in the graph; a zero gets made here, of any batch."""
    if isinstance(value, str):
      return value
    graph = self.graph
    shape = graph.add("Shape", [self.source], start=0, end=1)
    rest = graph.constant(np.array(_channels_first(value.shape)[1:], np.int64))
    whole = graph.add("Concat", [shape, rest], axis=0)
    return graph.add("Expand", [graph.constant(np.float32(0.0)), whole])

  def run(self, jaxpr, values):
    """Emits `jaxpr` applied to `values`; returns its outputs."""
    known = dict(zip(jaxpr.invars, values, strict=True))

    def read(variable):
      if not hasattr(variable, "val"):
        return known.get(variable)
      if np.ndim(variable.val) == 0 and variable.val == 0:
        return _Zero(())
      return None

    for equation in jaxpr.eqns:
      ins = [read(v) for v in equation.invars]
      outs = self._equation(equation, ins)
      known.update(zip(equation.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def _equation(self, equation, ins):
    name, params = equation.primitive.name, equation.params
    if name == barrier.NAME:
      return ins[:1]
    if name == "platform_index":
      return [None]
    # Only what runs when no platform is special is emitted.
    if name == "cond" and params.get("branches_platforms"):
      return self.run(params["branches"][-1].jaxpr, ins[1:])
    for inner in ("jaxpr", "call_jaxpr"):
      if inner in params:
        return self.run(getattr(params[inner], "jaxpr", params[inner]), ins)
    shape = equation.outvars[0].aval.shape
    made = None if any(i is None for i in ins) else self._one(name, ins, params)
    if made == "zero":
      return [_Zero(shape)]
    if name == "reshape" and made is None and len(shape) == 2:
      wide = equation.invars[0].aval.shape
      if wide == (shape[0], 1, 1, shape[1]):
        made = self.graph.add("Flatten", [self._named(ins[0])], axis=1)
    if made is None:
      raise InputError(
        "ONNX export",
        f"the network has {name} of shape {shape} outside its blocks",
        "only add, concatenate over channels and the last reshape are known",
      )
    return [made]

  def _one(self, name, ins, params):
    if name == _block.name:
      block, variables = self.blocks[params["number"]]
      x = self._named(ins[0])
      return emit_block(self.graph, block.workloads, block.saved, variables, x)
    if all(isinstance(i, _Zero) for i in ins) and name in (
      "add",
      "broadcast_in_dim",
      "concatenate",
    ):
      return "zero"
    if name == "add":
      parts = [i for i in ins if isinstance(i, str)]
      return parts[0] if len(parts) == 1 else self.graph.add("Add", parts)
    if name == "concatenate" and params["dimension"] == 3:
      return self.graph.add("Concat", [self._named(i) for i in ins], axis=1)
    return None


def _own(variables: Mapping, path: Sequence[str]) -> dict:
  """One module's part of a network's variables."""
  found = {}
  for part in ("params", "batch_stats"):
    tree = variables.get(part, {})
    for name in path:
      tree = tree.get(name, {})
    found[part] = tree
  return found


def network(
  module: nn.Module,
  variables: Mapping,
  image_shape: tuple[int, int, int],
  *,
  schedule: Mapping[str, Any] | None = None,
) -> Any:
  """A decided network as an ONNX model.

  Args:
    module: a flax module made of `Block`s, called with (images, train), such
      as `space.build` makes.
    variables: its {"params", "batch_stats"}.
    image_shape: height, width, channels.
    schedule: in which order to run it, `hardware.schedules.as_json`; it goes
      into the model's metadata as JSON text, under "nasjax.schedule".

  Returns:
    An `onnx.ModelProto`: images f32[batch, H, W, C] -> logits
    f32[batch, classes], at inference. Save it with `onnx.save`.

  Raises:
    InputError: onnx is not installed, or the module computes something
      outside its blocks that is not known here; names the primitive.
  """
  blocks: list[tuple[Block, dict]] = []

  def leave_whole(call, args, kwargs, context):
    block = context.module
    if not isinstance(block, Block) or context.method_name != "__call__":
      return call(*args, **kwargs)
    blocks.append((block, _own(variables, block.scope.path)))
    return _block.bind(args[0], number=len(blocks) - 1, output=block.output)

  def run(images):
    with nn.intercept_methods(leave_whole):
      return module.apply(variables, images, False)

  images = jax.ShapeDtypeStruct((_TRACED_BATCH, *image_shape), jnp.float32)
  traced = jax.make_jaxpr(run)(images).jaxpr
  graph = Graph()
  x = graph.add("Transpose", [INPUT], perm=[0, 3, 1, 2])
  lowering = _Lowering(graph, blocks, INPUT)
  output = lowering._named(lowering.run(traced, [x])[0])
  classes = traced.outvars[0].aval.shape[1:]
  model = graph.model({INPUT: (BATCH, *image_shape)}, output, (BATCH, *classes))
  if schedule is not None:
    need("onnx").helper.set_model_props(model, {SCHEDULE: json.dumps(schedule)})
  return model


def session(model: Any, threads: int = 1) -> Any:
  """An `onnxruntime.InferenceSession` on the CPU; raises InputError."""
  runtime = need("onnxruntime")
  options = runtime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  return runtime.InferenceSession(
    model.SerializeToString(), options, providers=["CPUExecutionProvider"]
  )


def parity(
  model: Any, module: nn.Module, variables: Mapping, images: np.ndarray
) -> float:
  """The largest difference between an exported network and JAX's.

  Args:
    model: what `network` made.
    module: the flax module.
    variables: its variables.
    images: f32[B, H, W, C].

  Returns:
    max |ONNX - JAX| over max(1, max |JAX|).

  Raises:
    InputError: onnxruntime is not installed.
  """
  found = session(model).run([OUTPUT], {INPUT: np.asarray(images, np.float32)})
  run = jax.jit(lambda v, x: module.apply(v, x, False))
  wanted = np.asarray(run(variables, jnp.asarray(images)))
  return float(np.abs(found[0] - wanted).max() / max(1.0, np.abs(wanted).max()))
