"""The PyTorch side of the benchmarks, a process that speaks JSON lines.

Reads one command a line from stdin and answers each with one line on stdout;
a failure ends it with a traceback on stderr. Its argument is the device, cpu or
cuda. Commands are the functions below that `COMMANDS` names, their fields the
arguments:

    {"do": "build", "name": "nasbench201", "arguments": {"channels": 16,
     "cells": 1, "batch": 64}, "data": "data.npz", "layout": "channels_last"}
    {"do": "step", "id": 0, "relaxation": "gdas", "steps": 5, "seed": 0}
"""

import json
import os
import resource
import statistics
import sys
import time
import warnings

import cells
import numpy as np
import steps as search
import torch
from torch.nn import functional

_LAYOUTS = {
  "channels_last": torch.channels_last,
  "contiguous": torch.contiguous_format,
}
_searches = []


def _arrays(path):
  with np.load(path) as arrays:
    return dict(arrays)


def _wait():
  if torch.get_default_device().type == "cuda":
    torch.cuda.synchronize()


def _permuted(array, axes, layout):
  array = np.array(np.transpose(array, axes), np.float32)
  tensor = torch.from_numpy(array)
  tensor = tensor.to(torch.get_default_device())
  return tensor.contiguous(memory_format=_LAYOUTS[layout])


def _images(array, layout):
  """NHWC to NCHW."""
  return _permuted(array, (0, 3, 1, 2), layout)


def _kernel(array, layout):
  """HWIO to OIHW."""
  return _permuted(array, (3, 2, 0, 1), layout)


def build(name, arguments, data, weights=None, layout="contiguous", **options):
  """Makes a supernet and its search state.

  Args:
    name: nasbench201, darts or edge.
    arguments: of the network, and `batch`: images of a batch. Training takes
      the first ones, validation those after them, or the same if there are no
      more. Without it training takes all.
    data: npz with images f32[B, H, W, C] and labels i[B].
    weights: npz of nasjax's flattened variables; else PyTorch's own.
    layout: channels_last or contiguous.
    **options: compile: True for torch.compile.

  Returns:
    Its id, and how many parameters it has.
  """
  arguments = dict(arguments)
  batch = arguments.pop("batch", None)
  network = cells.NETWORKS[name](**arguments).train()
  if weights:
    cells.load(network, _arrays(weights))
  network = network.to(memory_format=_LAYOUTS[layout])
  arrays = _arrays(data)
  images, labels = arrays["images"], arrays["labels"]
  batch = batch or len(images)
  starts = (0, batch if len(images) >= 2 * batch else 0)
  training, validation = (
    (
      _images(images[s : s + batch], layout),
      torch.tensor(labels[s : s + batch].astype(np.int64)),
    )
    for s in starts
  )
  compiled = options.pop("compile", False)
  if options:
    raise TypeError(f"unknown options {sorted(options)}")
  _searches.append(search.Search(network, training, validation, compiled))
  count = sum(p.numel() for p in network.parameters())
  return {"id": len(_searches) - 1, "parameters": count}


def outputs(id, logits, out, indices=None):
  """Writes the class logits of the training batch, with batch statistics."""
  own = _searches[id]
  soft = {
    n: functional.softmax(torch.tensor(np.float32(a)), dim=-1)
    for n, a in _arrays(logits).items()
  }
  picked = None
  if indices:
    arrays = _arrays(indices)
    hard = {n: search.hard(soft[n], arrays[n]) for n in soft}
    soft, picked = ({n: h[i] for n, h in hard.items()} for i in (0, 1))
  with torch.no_grad():
    found = own.run(own.training[0], soft, picked)
  np.savez(out, outputs=found.cpu().numpy())
  return {"shape": list(found.shape)}


def step(id, relaxation, steps, seed=0, second_order=False):
  """Runs search steps: seconds of them all, and the last training loss."""
  torch.manual_seed(seed)
  own = _searches[id]
  start = time.perf_counter()
  for _ in range(steps):
    loss = own.step(relaxation, second_order)
  loss = loss.item()
  return {"seconds": time.perf_counter() - start, "loss": loss}


def primitive(
  kind,
  kernel=None,
  shape=None,
  stride=1,
  dilation=1,
  groups=1,
  channels_out=None,
  layout="contiguous",
  weights=None,
  repeats=10,
  out=None,
):
  """Times one layer: forward, gradients of sum(y * g) by input and kernels.

  Args:
    kind: depthwise, dense, or separable (ReLU, depthwise, 1x1, normalisation).
    kernel: its size.
    shape: N, H, W, C of the input.
    stride: of the convolution.
    dilation: of the convolution.
    groups: of a dense convolution; the others have one a channel.
    channels_out: of a dense convolution and of separable's 1x1.
    layout: channels_last or contiguous.
    weights: npz with x (NHWC), w (HWIO), g (NHWC) and for separable p; what it
      lacks is drawn.
    repeats: timings, after 3 that do not count.
    out: npz to write y, dx, dw and dp to, NHWC and HWIO.

  Returns:
    The median and all timings.
  """
  if kind not in ("depthwise", "dense", "separable"):
    raise ValueError(f"kind {kind!r}: depthwise, dense or separable")
  given = _arrays(weights) if weights else {}
  rng = np.random.default_rng(0)
  if "x" not in given:
    given["x"] = rng.normal(size=shape)
  c = given["x"].shape[3]
  wide = channels_out or c
  if kind != "dense":
    groups = c
  if "w" not in given:
    last = wide if kind != "separable" else c
    given["w"] = rng.normal(size=(kernel, kernel, c // groups, last))
  if kind == "separable" and "p" not in given:
    given["p"] = rng.normal(size=(1, 1, c, wide))
  x = _images(given["x"], layout).requires_grad_()
  kernels = [
    _kernel(given[n], layout).requires_grad_() for n in "wp" if n in given
  ]
  padding = dilation * (kernels[0].shape[2] // 2)

  def forward():
    y = functional.relu(x) if kind == "separable" else x
    y = functional.conv2d(
      y, kernels[0], None, stride, padding, dilation, groups
    )
    if kind == "separable":
      y = functional.conv2d(y, kernels[1])
      y = functional.batch_norm(y, None, None, training=True, eps=1e-5)
    return y

  with torch.no_grad():
    like = forward().permute(0, 2, 3, 1).shape
  g = _images(given.get("g", rng.normal(size=like)), layout)
  seconds = []
  for _ in range(3 + repeats):
    _wait()
    start = time.perf_counter()
    y = forward()
    gradients = torch.autograd.grad(y, [x, *kernels], g)
    _wait()
    seconds.append(time.perf_counter() - start)
  if out:
    found = {"y": y.detach().permute(0, 2, 3, 1)}
    found["dx"] = gradients[0].permute(0, 2, 3, 1)
    for name, d in zip(("dw", "dp"), gradients[1:], strict=False):
      found[name] = d.permute(2, 3, 1, 0)
    arrays = {n: np.ascontiguousarray(v.cpu()) for n, v in found.items()}
    np.savez(out, **arrays)
  return {"seconds": statistics.median(seconds[3:]), "all": seconds[3:]}


def peak():
  """GFLOP/s of a 2048x2048 float32 matrix product, the best of 5."""
  a, seconds = torch.randn(2048, 2048), []
  for _ in range(6):
    _wait()
    start = time.perf_counter()
    a @ a
    _wait()
    seconds.append(time.perf_counter() - start)
  return {"gflops": 2 * 2048**3 / min(seconds[1:]) / 1e9}


def memory():
  """The process's largest resident size."""
  scale = 1 if sys.platform == "darwin" else 1024
  used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {"peak_bytes": used * scale}


def version():
  """PyTorch's version and its threads."""
  return {"version": torch.__version__, "threads": torch.get_num_threads()}


COMMANDS = {
  f.__name__: f
  for f in (build, outputs, step, primitive, peak, memory, version)
}


def main():
  """Answers commands until stdin ends."""
  warnings.filterwarnings("ignore")
  torch.set_default_device(sys.argv[1])
  torch.backends.cudnn.allow_tf32 = False
  # Whatever else prints to stdout, in C too, goes to stderr.
  replies = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)
  for line in sys.stdin:
    if not line.strip():
      continue
    command = json.loads(line)
    reply = COMMANDS[command.pop("do")](**command)
    replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
  main()
