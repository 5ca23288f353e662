"""Convolution primitives against PyTorch's, and inside scan and switch.

Forward and both gradients of each layer on the same numbers as PyTorch, whose
faster memory format counts; outputs and gradients are compared first. `scan`
and `switch` are the layer's time in a loop of 8 and in a branch over its time
at top level. Temporary memory over 32 MB is faulted in anew in every call of a
program, so a loop can be faster than the top level.

Measured on 2 cores (x86-64 with AVX-512, shared with other machines), JAX
0.10.2, PyTorch 2.13, 7 runs; an earlier run in brackets:

                   64x32x32x16      64x16x16x96
    depthwise3     1.19 (0.95)      0.74 (1.14)
    depthwise5     1.95 (2.00)      1.28 (1.34)
    depthwise7     1.06 (1.09)      0.92 (1.04)
    separable3     1.63 (1.36)      1.01 (1.19)
    separable5     1.91 (1.74)      1.37 (1.19)

                64x32x32x16   64x16x16x32   64x8x8x64
    dense1      0.97 (0.91)   1.01 (1.01)   1.07 (0.62)
    dense3      0.52 (0.45)   0.99 (0.92)   0.78 (0.70)
    grouped3    0.66 (0.60)   0.68 (0.45)   0.57 (0.44)

In a second run of the same code, row by row, 0.67 1.83 1.04 1.17 1.99 and 0.72
1.27 1.05 1.19 1.42. `scan` was at most 0.79 and `switch` 1.11. In three more
runs depthwise3 on 64x16x16x96 was 0.67 to 0.75, and 0.92 to 1.15 before its
gradient was stored padded (in a loop 1.2 and 1.6 ms, 0.8 and 1.1 before): the
copy is larger, and at top level faulted in anew in every call. In blocks, where
what makes the gradient pads it as well, a step of the edge supernet is 4 to 8%
faster for it; separable3 on this shape was 1.10 and 1.34, 1.12 and 1.13 before.

Where it went before (in a loop, ms, both shapes): a copy 0.4 and 0.5,
the padded copy that a depthwise pass stores first 0.5 and 0.5; 3x3: forward 0.7
and 1.1, the input's gradient the same, the kernel's 1.0 and 1.6; 7x7: 3.4, 3.4,
5.7 and 5.1, 5.2, 6.8. PyTorch's 3x3 takes 1.5 to 2.7 in all three: it pads in
registers. Tried and no faster: rows and channels as one axis with the kernel
repeated along it (from 5x5 on it outgrows the first cache), padding rows alone
with zero columns in the kernel, sums over rows or over images by dot products,
2 or 8 images in one operation. Vectors of 512 bits
(XLA_FLAGS=--xla_cpu_prefer_vector_width=512) halve the forward pass alone, and
change nothing of the edge supernet's step. A dense kernel's gradient takes
twice its forward pass: a product of shifted copies, at 100 to 170 GFLOP/s;
all shifts on one side took 1.2 to 3.5 times as long, one product a row 0.9 to
2.5 times.

    python experiments/benchmarks/convolution.py [--json] [--only KEY]
        [--runs 7] [--pytorch PYTHON]
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from harness import LAYOUTS, Peer, alternate, arguments, medians, report, timed

from nasjax.layers.barrier import computed_once
from nasjax.layers.convolution import conv
from nasjax.layers.normalization import standardize

_SHAPES = ((64, 32, 32, 16), (64, 16, 16, 96))
_LOOP = 8


def _layers():
  """{key: (kind, kernel, shape of x, groups, channels out)}."""
  found = {}
  for shape in _SHAPES:
    name = "x".join(map(str, shape))
    for kernel in (3, 5, 7):
      found[f"depthwise{kernel}/{name}"] = (
        "depthwise",
        kernel,
        shape,
        None,
        None,
      )
    for kernel in (3, 5):
      found[f"separable{kernel}/{name}"] = (
        "separable",
        kernel,
        shape,
        None,
        None,
      )
  for channels, size in ((16, 32), (32, 16), (64, 8)):
    shape = (64, size, size, channels)
    name = "x".join(map(str, shape))
    found[f"dense1/{name}"] = ("dense", 1, shape, 1, channels)
    found[f"dense3/{name}"] = ("dense", 3, shape, 1, channels)
    found[f"grouped3/{name}"] = ("dense", 3, shape, 4, channels)
  return found


LAYERS = _layers()


def _draw(kind, kernel, shape, groups, channels):
  """The arrays by the names that the peer knows."""
  rng = np.random.default_rng(0)
  c = shape[3]
  groups = c if kind != "dense" else groups
  arrays = {
    "x": shape,
    "w": (kernel, kernel, c // groups, channels or c),
    "g": (*shape[:3], channels or c),
  }
  if kind == "separable":
    arrays["p"] = (1, 1, c, c)
  scale = {"w": 1 / kernel, "p": c**-0.5}
  return groups, {
    n: np.float32(scale.get(n, 1.0) * rng.normal(size=s))
    for n, s in arrays.items()
  }


def _layer(kind, kernel, groups):
  """(x, kernels) -> y."""
  padding = [(kernel // 2, kernel // 2)] * 2
  own = partial(
    conv, window_strides=(1, 1), padding=padding, feature_group_count=groups
  )

  def layer(x, kernels):
    if kind != "separable":
      return own(x, kernels[0])
    y = own(jax.nn.relu(x), kernels[0])
    y = conv(y, kernels[1], (1, 1), "VALID")
    return computed_once(standardize(y)[0])

  return layer


def _programs(layer, x, kernels, g):
  """Compiled: at top level, in a loop, in a branch; each returns seconds."""

  def work(x, kernels, g):
    y, pull = jax.vjp(layer, x, kernels)
    return y, pull(g)

  def loop(x, kernels, g):
    def body(x, _):
      y, (dx, dk) = work(x, kernels, g)
      # The next round waits for all of this one's results.
      nothing = 0 * (y[0, 0, 0, 0] + dx[0, 0, 0, 0] + sum(k.sum() for k in dk))
      return computed_once(x + nothing), None

    return jax.lax.scan(body, x, length=_LOOP)[0]

  def branch(index, x, kernels, g):
    def nothing(x, kernels, g):
      return jax.tree.map(jnp.zeros_like, (g, (x, kernels)))

    return jax.lax.switch(index, [work, nothing], x, kernels, g)

  def run(function, count, *operands):
    program = jax.jit(function)
    jax.block_until_ready(program(*operands))
    return lambda: (
      timed(lambda: jax.block_until_ready(program(*operands))) / count
    )

  results = jax.jit(work)(x, kernels, g)
  return results, {
    "top": run(work, 1, x, kernels, g),
    "scan": run(loop, _LOOP, x, kernels, g),
    "switch": run(branch, 1, jnp.int32(0), x, kernels, g),
  }


def measure(key, peer, runs):
  kind, kernel, shape, groups, channels = LAYERS[key]
  groups, arrays = _draw(kind, kernel, shape, groups, channels)
  weights = peer.save("weights", **arrays)
  x, g = (jnp.asarray(arrays[n]) for n in "xg")
  kernels = tuple(jnp.asarray(arrays[n]) for n in "wp" if n in arrays)
  (y, (dx, dk)), sides = _programs(_layer(kind, kernel, groups), x, kernels, g)
  ours = dict(y=y, dx=dx, **dict(zip(("dw", "dp"), dk, strict=False)))
  out = str(peer.folder / "out.npz")

  def theirs(layout, **more):
    answer = peer.ask(
      "primitive",
      kind=kind,
      groups=groups,
      channels_out=channels,
      layout=layout,
      weights=weights,
      **more,
    )
    return answer["seconds"]

  difference = 0.0
  for layout in LAYOUTS:
    theirs(layout, out=out, repeats=1)
    for name, want in np.load(out).items():
      gap = np.abs(want - ours[name]).max() / np.abs(want).max()
      difference = max(difference, float(gap))
  if not difference < 1e-4:
    raise SystemExit(f"{key}: results differ by {difference}")
  sides |= {x: lambda x=x: theirs(x, repeats=3) for x in LAYOUTS}
  found = medians(alternate(sides, runs))
  best = min(LAYOUTS, key=found.get)
  own = min(found["top"], found["scan"])
  return {
    "ratio": found[best] / own,
    "nasjax_s": own,
    "pytorch_s": found[best],
    "layout": best,
    "difference": difference,
    "scan": found["scan"] / found["top"],
    "switch": found["switch"] / found["top"],
  }


def main():
  found = arguments(__doc__, tuple(LAYERS))
  peer = Peer(found.pytorch)
  figures = {}
  for key in [found.only] if found.only else LAYERS:
    figures[key] = measure(key, peer, found.runs)
    report({key: figures[key]}, False)
  peer.close()
  if found.json:
    report(figures, True)


if __name__ == "__main__":
  main()
