"""Memory and computing of an exported network, from its ONNX file alone.

A second opinion on `nasjax.hardware`: nothing here knows spaces, workloads or
schedules. Shapes come from ONNX's own inference, the order is that of the
file's nodes, and a tensor is in memory from the node that makes it until the
last that reads it. What a runtime for microcontrollers does not execute on its
own takes no memory of its own: transpositions of the input's layout and flatten
are views, an activation is done with the convolution before it, and an addition
or multiplication writes over an operand that nobody reads any more. (The
exporter has folded batch normalisation already.) Activations and weights have
`bits` bits, biases 32.

    python experiments/onnx_peak.py RUN [--device stm32f746] [--bits 8]

reads a finished run, exports its network, writes, reads and counts the file,
and compares with what the run's genotype.json says.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import onnx

_VIEWS = ("Transpose", "Flatten", "Reshape", "Identity")
_OVER = ("Relu", "Clip", "HardSwish", "HardSigmoid", "Add", "Mul")


class Counted(NamedTuple):
  """What a network takes."""

  peak_sram_bytes: float
  node: str  # that runs at the peak
  flash_bytes: float
  macs: int


def _sizes(model: Any) -> dict[str, tuple[int, ...]]:
  """The shape of each tensor for a batch of 1."""
  fixed = onnx.ModelProto()
  fixed.CopyFrom(model)
  for value in (*fixed.graph.input, *fixed.graph.output):
    value.type.tensor_type.shape.dim[0].dim_value = 1
  graph = onnx.shape_inference.infer_shapes(fixed, strict_mode=True).graph
  return {
    value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    for value in (*graph.input, *graph.value_info, *graph.output)
  }


def count(model: Any, bits: int = 8) -> Counted:
  """Counts an `onnx.ModelProto`.

  Args:
    model: of one input and one output.
    bits: of activations and weights.

  Returns:
    The peak of the activations while the nodes run in the file's order, the
    bytes of all weights, and the multiply-adds.
  """
  graph, shapes = model.graph, _sizes(model)
  constants = {c.name: tuple(c.dims) for c in graph.initializer}
  size = {name: math.prod(s) * bits / 8 for name, s in shapes.items()}
  place = {v.name: v.name for v in graph.input}  # tensor -> its buffer
  bytes_of = {v.name: size[v.name] for v in graph.input}
  last = {
    name: i for i, node in enumerate(graph.node) for name in node.input
  } | {v.name: len(graph.node) for v in graph.output}

  def free_after(buffer: str, i: int) -> bool:
    """Whether no tensor in this buffer is read after node i."""
    return all(last[t] <= i for t, b in place.items() if b == buffer)

  live, peak, worst = set(bytes_of), sum(bytes_of.values()), "the input"
  flash, macs = 0.0, 0
  for i, node in enumerate(graph.node):
    output, inputs = node.output[0], [n for n in node.input if n in place]
    if node.op_type == "Conv":
      kernel = constants[node.input[1]]
      flash += math.prod(kernel) * bits / 8
      if len(node.input) > 2:
        flash += 4 * constants[node.input[2]][0]
      macs += math.prod(shapes[output]) * math.prod(kernel[1:])
    reused = None
    if node.op_type in _VIEWS:
      reused = place[inputs[0]]
    elif node.op_type in _OVER:
      reused = next(
        (
          place[n]
          for n in inputs
          if free_after(place[n], i) and bytes_of[place[n]] >= size[output]
        ),
        None,
      )
    place[output] = output if reused is None else reused
    if reused is None:
      bytes_of[output] = size[output]
      live.add(output)
    now = sum(bytes_of[b] for b in live)
    if now > peak:
      peak, worst = now, node.name
    live = {b for b in live if not free_after(b, i)}
  return Counted(peak, worst, flash, macs)


def of_network(architecture: Any, bits: int = 8) -> Counted:
  """Exports a decided network with fresh weights and counts its file."""
  import jax
  import jax.numpy as jnp

  from nasjax import export

  shape = architecture.space.arguments["image_shape"]
  network = architecture.space.build(architecture)
  shapes = jax.eval_shape(
    network.init, jax.random.key(0), jnp.zeros((1, *shape))
  )
  variables = jax.tree.map(lambda v: jnp.ones(v.shape), shapes)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "network.onnx"
    onnx.save(export.network(network, variables, shape), path)
    return count(onnx.load(path), bits)


def main() -> int:
  """Compares a run's metrics with the counts; 1 if one differs."""
  from nasjax import hardware
  from nasjax.cli import own_spaces

  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("run")
  parser.add_argument("--device", default="stm32f746")
  parser.add_argument("--bits", type=int, default=8)
  arguments = parser.parse_args()
  architecture, stated = own_spaces.read_genotype(arguments.run)
  counted = of_network(architecture, arguments.bits)
  device, space = hardware.device(arguments.device), architecture.space
  print(f"the peak is at {counted.node}")
  code = 0
  for name, metric in (
    ("peak_sram_bytes", device.peak_sram(space)),
    ("flash_bytes", device.flash(space)),
    ("macs", hardware.macs(space)),
  ):
    own, found = metric.exact(architecture), getattr(counted, name)
    written = stated["metrics"].get(name, {}).get("value", "not there")
    print(f"{name}: ONNX {found:g}, nasjax {own:g}, genotype.json {written}")
    code |= own != found
  return code


if __name__ == "__main__":
  raise SystemExit(main())
