"""Latencies of decided networks on this machine, in the loop of a search.

ONNX Runtime runs each network with random weights, against the anchor and the
empty call of `timer.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from nasjax.hardware import bundle, timer
from nasjax.layers import onnx_nodes
from nasjax.spaces.space import Architecture

__all__ = ["onnxruntime_latency"]


def onnxruntime_latency(
  *, batch: int = 1, threads: int = 1, repeats: int = 15
) -> Callable[[Architecture], dict[str, float]]:
  """Makes a measurement for `measured.function`.

  Args:
    batch: images in a call.
    threads: of one operation.
    repeats: samples of each network.

  Returns:
    architecture -> {"latency_ms": value}, a call without the empty call.

  Raises:
    InputError: onnx or onnxruntime is not installed.
  """
  onnx_nodes.need("onnx")
  onnx_nodes.need("onnxruntime")

  def load(model, shape, batch):
    return timer.Call(model.SerializeToString(), [shape], batch, threads)

  block, shape = bundle.anchor()
  anchor, empty = load(block, shape, 1), load(bundle.empty(), [1], 1)
  unit = timer.quiet(anchor)

  def measure(architecture):
    model = bundle.decided_model(architecture)
    call = load(model, architecture.space.arguments["image_shape"], batch)
    rows, _, _ = timer.time_group([call], anchor, empty, repeats, unit)
    return {"latency_ms": rows[0][0]}

  return measure
