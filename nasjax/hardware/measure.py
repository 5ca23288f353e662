"""Measures workloads on this machine: each one's compiled layer, repeated.

A loop inside one compiled program runs the layer again and again, each time on
an input that depends on the last output, so neither dispatch nor a clever
compiler falsifies the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.hardware.workload import JOINS, Workload
from nasjax.layers.blocks import Block


class Measured(NamedTuple):
  """One workload's times, in ms."""

  workload: Workload
  batch: int
  median: float
  minimum: float
  spread: float  # (90th - 10th percentile) / median


def _layer(workload: Workload, batch: int):
  """(function, input) of one workload at inference."""
  channels = workload.channels_in
  if workload.kind == "concat":
    # A block's concat joins two halves into the whole.
    left, channels = channels // 2, channels - channels // 2
    shape = (batch, workload.height, workload.width, channels)
    other = jnp.ones((*shape[:3], left), jnp.float32)
    return lambda x: jnp.concatenate([other, x], axis=-1), jnp.ones(shape)
  height, width = workload.height, workload.width
  if workload.kind == "broadcast":
    x = jnp.ones((batch, 1, 1, channels))
    shape = (batch, height, width, channels)
    return lambda x: jnp.broadcast_to(x, shape), x
  if workload.kind in JOINS:
    x = jnp.ones((batch, height, width, channels))
    other = jnp.full_like(x, 0.5)
    if workload.kind == "add":
      return lambda x: x + other, x
    return lambda x: x * other, x
  x = jax.random.normal(jax.random.key(0), (batch, height, width, channels))
  block = Block((workload,))
  variables = block.init(jax.random.key(1), x, False)
  return lambda x: block.apply(variables, x, False), x


def _repeat(layer: Callable, x: jax.Array) -> Callable[[jax.Array, int], float]:
  @jax.jit
  def run(x, times):
    def body(_, x):
      # The barrier keeps the whole output alive, though one number is read.
      y = lax.optimization_barrier(layer(x))
      return x.at[0, 0, 0, 0].add(1e-12 * y[0, 0, 0, 0])

    return lax.fori_loop(0, times, body, x)

  return run


def measure(
  workloads: Iterable[Workload],
  *,
  batch: int = 1,
  repeats: int = 15,
  seconds: float = 0.02,
  progress: Callable[[int], None] = lambda done: None,
) -> list[Measured]:
  """Times workloads with the compiled layers of this package.

  Args:
    workloads: what to time; normalisation counts as folded in.
    batch: images at once.
    repeats: timed runs of each, interleaved over all workloads so that a
      disturbance does not fall on one alone.
    seconds: how long one timed run takes, about.
    progress: called with the number of workloads prepared, after each and
      after each run; what it raises ends the measurement.

  Returns:
    One entry a workload, per call of the layer.
  """
  prepared = []
  for count, workload in enumerate(workloads):
    layer, x = _layer(workload.key, batch)
    run, times = _repeat(layer, x), 16
    while True:
      jax.block_until_ready(run(x, times))
      start = time.perf_counter()
      jax.block_until_ready(run(x, times))
      taken = time.perf_counter() - start
      if taken >= seconds / 2:
        break
      times = int(times * min(8.0, 1.2 * seconds / max(taken, 1e-6))) + 1
    prepared.append((workload.key, run, x, times))
    progress(count + 1)
  samples: list[list[float]] = [[] for _ in prepared]
  for _ in range(repeats):
    for found, (_, run, x, times) in zip(samples, prepared, strict=True):
      start = time.perf_counter()
      jax.block_until_ready(run(x, times))
      found.append(1e3 * (time.perf_counter() - start) / times)
      progress(len(prepared))
  return [
    _summary(work, batch, found)
    for (work, *_), found in zip(prepared, samples, strict=True)
  ]


def _summary(workload: Workload, batch: int, found: Sequence[float]):
  low, median, high = np.percentile(found, [10, 50, 90])
  return Measured(
    workload,
    batch,
    float(median),
    float(min(found)),
    float((high - low) / median),
  )
