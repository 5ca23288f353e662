"""Decided networks and single workloads as ONNX.

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

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from nasjax.errors import InputError
from nasjax.hardware.workload import JOINS, Workload
from nasjax.layers.blocks import Block
from nasjax.layers.normalization import EPSILON

__all__ = ["network", "parity", "workload"]

OPSET, IR_VERSION = 17, 8
INPUT, OUTPUT, BATCH = "images", "logits", "batch"

_block = jax.extend.core.Primitive("nasjax_block")
_block.def_abstract_eval(
  lambda x, *, number, output: jax.core.ShapedArray(
    (x.shape[0], *output), x.dtype
  )
)
# Traced with this batch, so that an axis of 1 is never taken for it.
_TRACED_BATCH = 2


def need(name: str) -> Any:
  """Imports an optional library of the extra [onnx].

  Raises:
    InputError: it is not installed; names the extra.
  """
  try:
    return importlib.import_module(name)
  except ModuleNotFoundError:
    raise InputError(
      name, "is not installed", "python -m pip install 'nasjax[onnx]'"
    ) from None


class _Zero(NamedTuple):
  """A value known to be 0, of this shape; nothing is emitted for it."""

  shape: tuple[int, ...]


class _Graph:
  """Nodes and constants of one ONNX graph under construction."""

  def __init__(self):
    self.onnx = need("onnx")
    self.helper = self.onnx.helper
    self.nodes: list[Any] = []
    self.constants: dict[str, np.ndarray] = {}

  def add(self, kind: str, inputs: Sequence[str], **attributes) -> str:
    """Appends a node and names its output."""
    name = f"{kind.lower()}_{len(self.nodes)}"
    self.nodes.append(
      self.helper.make_node(kind, list(inputs), [name], name, **attributes)
    )
    return name

  def constant(self, value) -> str:
    name = f"constant_{len(self.constants)}"
    self.constants[name] = np.asarray(value)
    return name

  def model(self, inputs, output: str, output_shape) -> Any:
    """The model; what its output does not need is left out.

    Args:
      inputs: shape of each input by name; the batch is a name or a number.
      output: name of the value to return, which becomes `OUTPUT`.
      output_shape: its shape.
    """
    helper, needed, kept = self.helper, {output}, []
    for node in reversed(self.nodes):
      if node.output[0] in needed:
        needed.update(node.input)
        kept.append(node)
    if not kept:
      kept = [helper.make_node("Identity", [output], [OUTPUT])]
    for node in kept:
      node.output[:] = [OUTPUT if n == output else n for n in node.output]
      node.input[:] = [
        OUTPUT if n == output and n not in inputs else n for n in node.input
      ]
    float32 = self.onnx.TensorProto.FLOAT
    graph = helper.make_graph(
      kept[::-1],
      "nasjax",
      [helper.make_tensor_value_info(n, float32, s) for n, s in inputs.items()],
      [helper.make_tensor_value_info(OUTPUT, float32, output_shape)],
      [
        self.onnx.numpy_helper.from_array(v, n)
        for n, v in self.constants.items()
        if n in needed
      ],
    )
    made = helper.make_model(
      graph,
      opset_imports=[helper.make_opsetid("", OPSET)],
      ir_version=IR_VERSION,
      producer_name="nasjax",
    )
    self.onnx.checker.check_model(made)
    return made


def _pads(work: Workload) -> list[int]:
  """Rows and columns added before and after, as ONNX orders them."""
  if work.kind != "average_pool":
    return [work.kernel // 2] * 4
  low = work.kernel // 2 if work.kernel % 2 else 0
  over = [
    max(0, (m - 1) * work.stride + work.kernel - n - low)
    for n, m in zip((work.height, work.width), work.outputs, strict=True)
  ]
  return [low, low, *over]


def _folded(work, kernel, norm):
  """(kernel HWIO, bias) with the normalisation after it folded in."""
  if norm is None:
    return kernel, None
  params, stats = norm
  scale = 1.0 / np.sqrt(np.asarray(stats["var"], np.float64) + EPSILON)
  scale = scale * np.asarray(params.get("scale", 1.0), np.float64)
  shift = np.asarray(params.get("bias", 0.0), np.float64)
  bias = shift - np.asarray(stats["mean"], np.float64) * scale
  return kernel * scale, np.broadcast_to(bias, (work.channels_out,))


def _convolution(graph, work, x, kernel, bias):
  """`kernel` is HWIO; ONNX takes OIHW."""
  weights = [np.transpose(kernel, (3, 2, 0, 1))]
  weights += [] if bias is None else [bias]
  names = [graph.constant(np.ascontiguousarray(w, np.float32)) for w in weights]
  size = 1 if work.kind == "linear" else work.kernel
  return graph.add(
    "Conv",
    [x, *names],
    kernel_shape=[size, size],
    strides=[work.stride] * 2,
    pads=_pads(work),
    group=work.groups,
  )


def _emit(graph, work: Workload, i: int, x: str, other: str, variables, size):
  """Emits one workload of a block; returns the name of its output."""
  kind = work.kind
  params, stats = variables["params"], variables["batch_stats"]
  norm = None
  if work.batch_norm or kind == "batch_norm":
    norm = (params.get(f"norm_{i}", {}), stats[f"norm_{i}"])
  if kind in ("convolution", "depthwise"):
    kernel = np.asarray(params[f"convolution_{i}"]["kernel"], np.float64)
    return _convolution(graph, work, x, *_folded(work, kernel, norm))
  if kind == "linear":
    own = params[f"linear_{i}"]
    kernel = np.asarray(own["kernel"])[None, None]
    return _convolution(graph, work, x, kernel, np.asarray(own["bias"]))
  if kind == "batch_norm":
    scale, shift = _folded(work, np.ones(work.channels_out), norm)
    shape = (1, -1, 1, 1)
    names = [
      graph.constant(np.float32(v).reshape(shape)) for v in (scale, shift)
    ]
    return graph.add("Add", [graph.add("Mul", [x, names[0]]), names[1]])
  if kind in ("average_pool", "max_pool"):
    window = dict(
      kernel_shape=[work.kernel] * 2,
      strides=[work.stride] * 2,
      pads=_pads(work),
    )
    if kind == "max_pool":
      return graph.add("MaxPool", [x], **window)
    return graph.add("AveragePool", [x], count_include_pad=0, **window)
  if kind == "broadcast":
    shape = graph.constant(np.array([1, 1, *size], np.int64))
    return graph.add("Expand", [x, shape])
  if kind == "relu6":
    low, high = (graph.constant(np.float32(v)) for v in (0.0, 6.0))
    return graph.add("Clip", [x, low, high])
  if kind == "hsigmoid":
    return graph.add("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
  if kind == "concat":
    return graph.add("Concat", [other, x], axis=1)
  if kind in JOINS:
    return graph.add({"add": "Add", "multiply": "Mul"}[kind], [x, other])
  known = {
    "relu": "Relu",
    "hswish": "HardSwish",
    "global_average_pool": "GlobalAveragePool",
  }
  if kind not in known:
    raise InputError(str(work), "has no form in ONNX")
  return graph.add(known[kind], [x])


def _emit_block(graph, workloads, saved, variables, x: str) -> str:
  other, size = x, (workloads[0].height, workloads[0].width)
  for i, work in enumerate(workloads):
    other = x if i == saved else other
    x = _emit(graph, work, i, x, other, variables, size)
  return x


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
      return _emit_block(self.graph, block.workloads, block.saved, variables, x)
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
) -> Any:
  """A decided network as an ONNX model.

  Args:
    module: a flax module made of `Block`s, called with (images, train), such
      as `space.build` makes.
    variables: its {"params", "batch_stats"}.
    image_shape: height, width, channels.

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
  graph = _Graph()
  x = graph.add("Transpose", [INPUT], perm=[0, 3, 1, 2])
  lowering = _Lowering(graph, blocks, INPUT)
  output = lowering._named(lowering.run(traced, [x])[0])
  classes = traced.outvars[0].aval.shape[1:]
  return graph.model({INPUT: (BATCH, *image_shape)}, output, (BATCH, *classes))


def _random_variables(work: Workload) -> dict:
  """Variables of one workload's block, He-normal (He et al. 2015)."""
  rng, inputs = np.random.default_rng(0), work.channels_in // work.groups
  own: dict[str, Any] = {}
  if work.kind in ("convolution", "depthwise"):
    shape = (work.kernel, work.kernel, inputs, work.channels_out)
    draw = rng.normal(size=shape) * np.sqrt(2 / (inputs * work.kernel**2))
    own["convolution_0"] = {"kernel": draw}
  if work.kind == "linear":
    draw = rng.normal(size=(inputs, work.channels_out)) / np.sqrt(inputs)
    own["linear_0"] = {"kernel": draw, "bias": np.zeros(work.channels_out)}
  channels = work.channels_out
  stats = {"norm_0": {"mean": np.zeros(channels), "var": np.ones(channels)}}
  return {"params": own, "batch_stats": stats}


def input_shapes(work: Workload) -> list[tuple[int, int, int]]:
  """Channels, height and width of each input of `workload`'s model."""
  height, width, channels = work.height, work.width, work.channels_in
  if work.kind == "linear" or work.kind == "broadcast":
    height = width = 1
  if work.kind == "concat":
    half = channels // 2
    return [(half, height, width), (channels - half, height, width)]
  return [(channels, height, width)] * (2 if work.kind in JOINS else 1)


def workload(work: Workload) -> Any:
  """One workload as an ONNX model, with random weights.

  Args:
    work: the workload; a normalisation after it is folded in (its bias stays).

  Returns:
    An `onnx.ModelProto` that works NCHW throughout: x_0 (and x_1 of a join)
    f32[batch, C, H, W] -> f32[batch, C', H', W'].

  Raises:
    InputError: onnx is not installed.
  """
  graph, shapes = _Graph(), input_shapes(work)
  # In a network every convolution has its folded normalisation's bias.
  wide = work._replace(batch_norm=work.kind in ("convolution", "depthwise"))
  inputs = {f"x_{n}": (BATCH, *shape) for n, shape in enumerate(shapes)}
  names, size = list(inputs), (work.height, work.width)
  output = _emit(
    graph, wide, 0, names[-1], names[0], _random_variables(work), size
  )
  outputs = size if work.kind == "broadcast" else work.outputs
  return graph.model(inputs, output, (BATCH, work.channels_out, *outputs))


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
