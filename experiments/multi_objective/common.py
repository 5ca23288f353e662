"""What the studies share: the edge space on digits, small, and its limits."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import data, hardware, relaxations, search, spaces
from nasjax.hardware.peak_memory import peak_metric
from nasjax.hardware.workload import additive_metric
from nasjax.search import epochs as loops
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_tools

CHANNELS, BATCH = 16, 64
PICOJOULES_PER_MAC, PICOJOULES_PER_BYTE = 4.6, 20.0


class Setup(NamedTuple):
  space: object
  train: data.Images
  valid: data.Images
  augmentation: object
  metrics: dict
  costs: dict
  random: dict


def setup(**shape) -> Setup:
  """The edge space on digits; `shape` are arguments of the space."""
  dataset = data.load("digits")
  train, valid = data.split(dataset.train, seed=0)
  shape = {"channels": CHANNELS, **shape}
  space = spaces.edge(image_shape=data.shape(train), num_classes=10, **shape)
  metrics = {
    "latency_ms": latency(space),
    "energy_mj": energy(space),
    "params": hardware.params(space),
  }
  costs = {n: cost_tables.additive_costs(space, m) for n, m in metrics.items()}
  metrics["peak_sram_bytes"] = peak_metric(space, 8)
  random = space_tools.random_choices(space, np.random.default_rng(0), 20_000)
  return Setup(
    space, train, valid, dataset.augmentation, metrics, costs, random
  )


def latency(space):
  """A roofline of a small core: 2 GFLOP/s, 2 GB/s, 1 us an operation."""

  def cost(work):
    return 1e-3 + 1e3 * max(work.flops / 2e9, _bytes(work) / 2e9)

  return additive_metric(
    "latency_ms", "ms", space.workloads(), cost, source="roofline"
  )


def energy(space):
  """Multiply-adds and bytes at a fixed price each."""

  def cost(work):
    picojoules = work.macs * PICOJOULES_PER_MAC
    return 1e-9 * (picojoules + _bytes(work) * PICOJOULES_PER_BYTE)

  return additive_metric(
    "energy_mj", "mJ", space.workloads(), cost, source="pJ a MAC and a byte"
  )


def _bytes(work):
  height, width = work.outputs
  reads = work.height * work.width * work.channels_in
  return 4 * (reads + height * width * work.channels_out + work.params)


def limits_of(made: Setup, name: str, percentiles) -> np.ndarray:
  if name in made.costs:
    return np.percentile(made.costs[name].of(made.random), percentiles)
  group, rows = next(iter(made.random.items()))
  exact = made.metrics[name].exact
  values = [
    exact(spaces.architecture(made.space, {group: row})) for row in rows[:2000]
  ]
  return np.percentile(values, percentiles)


def options(epochs, steps_an_epoch, *, warmup=0.5, arch_rate=0.02, rate=0.05):
  steps = epochs * steps_an_epoch
  schedule = optax.cosine_decay_schedule(rate, steps)
  return dict(
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0),
      optax.add_decayed_weights(3e-4),
      optax.sgd(schedule, momentum=0.9),
    ),
    arch_optimizer=optax.adam(arch_rate, b1=0.5, b2=0.999),
    arch_start=round(warmup * steps),
  )


def runner(made: Setup, searcher, epochs: int):
  """A function that runs a search, compiled once for all seeds and limits.

  Args:
    made: what is searched.
    searcher: the search.
    epochs: how many.

  Returns:
    `run(seed, limits=None, between=None)` -> (the state at the end, its seconds
    of CPU without compilation). `limits` take the place of the constraints'
    own, one each; `between` is called with each epoch's end and ends the
    search where it returns True.
  """
  init = jax.jit(searcher.init)
  loop = loops.prepare(
    lambda _: searcher,
    (),
    made.train,
    made.valid,
    batch_size=BATCH,
    augmentation=made.augmentation,
  )
  compiled = []

  def run(seed, limits=None, between=None):
    key = jax.random.key(seed)
    state = init(jax.random.fold_in(key, 0))
    if limits is not None:
      bounds = tuple(jnp.float32(v) for v in limits)
      state = state._replace(member=state.member._replace(limits=bounds))
    state = jax.tree.map(
      lambda v: jax.lax.convert_element_type(v, v.dtype), state
    )
    progress, key = loops.begin(loop, state), jax.random.fold_in(key, 1)
    if not compiled:
      progress = loops.advance(loop, progress, key, 0)
      compiled.append(True)
    start = time.process_time()
    for _ in range(epochs):
      while (left := loop.steps - int(progress.done)) > 0:
        count = min(left, loops.CHUNK)
        progress = loops.advance(loop, progress, key, count)
        loops.check_numbers(progress, 0)
      if between is not None and between(loops.summary(progress)):
        break
      progress = loops.next_epoch(progress)
    jax.block_until_ready(progress)
    return progress.state, time.process_time() - start

  return run


def expected(state, relaxation=None):
  relaxation = relaxation or relaxations.proxyless()
  weights = relaxation.expect(state.member.logits, state.masks, state.step)
  return {n: np.asarray(w) for n, w in weights.items()}


def accuracy(made: Setup, state):
  return search.supernet_accuracy(
    made.space,
    state.shared.variables,
    made.train,
    made.valid,
    data.statistics(made.train),
  )


def steps_an_epoch(made: Setup) -> int:
  return len(made.train.labels) // BATCH
