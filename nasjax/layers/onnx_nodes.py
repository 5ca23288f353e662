"""Workloads as ONNX nodes, beside the flax modules that they stand for.

Everything here is NCHW, as ONNX is.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from nasjax.errors import InputError
from nasjax.hardware.workload import JOINS, Workload
from nasjax.layers.normalization import CONSTANT_VARIANCE, EPSILON

OPSET, IR_VERSION = 17, 8
OUTPUT, BATCH = "logits", "batch"


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


class Graph:
  """Nodes and constants of one ONNX graph under construction."""

  def __init__(self):
    """Starts empty; raises InputError where onnx is not installed."""
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
    """Adds a constant and names it."""
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
    return [work.padding] * 4
  low = work.kernel // 2 if work.kernel % 2 else 0
  over = [
    max(0, (m - 1) * work.stride + work.kernel - n - low)
    for n, m in zip((work.height, work.width), work.outputs, strict=True)
  ]
  return [low, low, *over]


def _folded(work, kernel, norm):
  """(kernel HWIO, bias) with the normalisation after it folded in.

  A channel that was the same on all images (behind a saturated activation) is
  kept as that constant. Its kernel would be multiplied by up to 1 / sqrt(
  EPSILON) = 316, and with one int8 scale a tensor nothing would be left of the
  other channels (Sheng et al. 2018, section 3.2).
  """
  if norm is None:
    return kernel, None
  params, stats = norm
  var = np.asarray(stats["var"], np.float64)
  scale = np.where(var < CONSTANT_VARIANCE, 0.0, 1.0 / np.sqrt(var + EPSILON))
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
    dilations=[work.dilation] * 2,
    pads=_pads(work),
    group=work.groups,
  )


def _subsample(graph, work, x):
  """Even rows and columns beside odd ones, a missing last odd one 0."""
  if work.height % 2 or work.width % 2:
    over = [0, 0, 0, 0, 0, 0, work.height % 2, work.width % 2]
    x = graph.add("Pad", [x, graph.constant(np.array(over, np.int64))])
  ends, axes, steps = (
    graph.constant(np.array(v, np.int64))
    for v in ([2**31 - 1] * 2, [2, 3], [2, 2])
  )
  starts = [graph.constant(np.array([i, i], np.int64)) for i in (0, 1)]
  halves = [graph.add("Slice", [x, s, ends, axes, steps]) for s in starts]
  return graph.add("Concat", halves, axis=1)


def _channel_shuffle(graph, work, x):
  """NCHW: the channels as [groups, C / groups], with the two swapped."""
  size, groups = (work.height, work.width), work.groups
  apart = (groups, work.channels_in // groups)
  split, whole = (
    graph.constant(np.array(shape, np.int64))
    for shape in ([0, *apart, *size], [0, work.channels_in, *size])
  )
  x = graph.add("Reshape", [x, split])
  return graph.add(
    "Reshape", [graph.add("Transpose", [x], perm=[0, 2, 1, 3, 4]), whole]
  )


def _emit(graph, work: Workload, i: int, x: str, other: str, variables, size):
  """Emits one workload of a block; returns the name of its output."""
  kind = work.kind
  params, stats = variables["params"], variables["batch_stats"]
  norm = None
  if work.batch_norm or kind in ("batch_norm", "normalize"):
    norm = (params.get(f"norm_{i}", {}), stats[f"norm_{i}"])
  if kind in ("convolution", "depthwise"):
    kernel = np.asarray(params[f"convolution_{i}"]["kernel"], np.float64)
    return _convolution(graph, work, x, *_folded(work, kernel, norm))
  if kind == "linear":
    own = params[f"linear_{i}"]
    kernel = np.asarray(own["kernel"])[None, None]
    return _convolution(graph, work, x, kernel, np.asarray(own["bias"]))
  if kind in ("batch_norm", "normalize"):
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
  if kind == "subsample":
    return _subsample(graph, work, x)
  if kind == "channel_shuffle":
    return _channel_shuffle(graph, work, x)
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


def emit_block(graph, workloads, saved, variables, x: str) -> str:
  """Emits a block's workloads one after the other.

  Args:
    graph: where to.
    workloads: of the block.
    saved: before which of them a join's other operand is taken.
    variables: the block's {"params", "batch_stats"}.
    x: name of the block's input.

  Returns:
    The name of its output.
  """
  other, size = x, (workloads[0].height, workloads[0].width)
  for i, work in enumerate(workloads):
    other = x if i == saved else other
    x = _emit(graph, work, i, x, other, variables, size)
  return x


def _random_variables(workloads: Sequence[Workload]) -> dict:
  """Variables of a block, He-normal (He et al. 2015), means 0, variances 1."""
  rng, own, stats = np.random.default_rng(0), {}, {}
  for i, work in enumerate(workloads):
    inputs, channels = work.channels_in // work.groups, work.channels_out
    if work.kind in ("convolution", "depthwise"):
      shape = (work.kernel, work.kernel, inputs, channels)
      draw = rng.normal(size=shape) * np.sqrt(2 / (inputs * work.kernel**2))
      own[f"convolution_{i}"] = {"kernel": draw}
    if work.kind == "linear":
      draw = rng.normal(size=(inputs, channels)) / np.sqrt(inputs)
      own[f"linear_{i}"] = {"kernel": draw, "bias": np.zeros(channels)}
    stats[f"norm_{i}"] = {"mean": np.zeros(channels), "var": np.ones(channels)}
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
  graph, shapes = Graph(), input_shapes(work)
  # In a network every convolution has its folded normalisation's bias.
  wide = work._replace(batch_norm=work.kind in ("convolution", "depthwise"))
  inputs = {f"x_{n}": (BATCH, *shape) for n, shape in enumerate(shapes)}
  names, size = list(inputs), (work.height, work.width)
  output = _emit(
    graph, wide, 0, names[-1], names[0], _random_variables([work]), size
  )
  outputs = size if work.kind == "broadcast" else work.outputs
  return graph.model(inputs, output, (BATCH, work.channels_out, *outputs))


def block(workloads: Sequence[Workload], saved: int = 0) -> Any:
  """A block as an ONNX model with random weights, NCHW; see `workload`."""
  graph, first, last = Graph(), workloads[0], workloads[-1]
  output = emit_block(
    graph, workloads, saved, _random_variables(workloads), "x_0"
  )
  shape = (BATCH, first.channels_in, first.height, first.width)
  return graph.model(
    {"x_0": shape}, output, (BATCH, last.channels_out, *last.outputs)
  )
