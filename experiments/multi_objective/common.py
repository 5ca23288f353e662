"""What the studies share: the edge space on digits, small, and its limits."""

from __future__ import annotations

import time
from typing import NamedTuple

import jax
import numpy as np
import optax

from nasjax import data, hardware, relaxations, search, spaces
from nasjax.hardware.memory import peak_metric
from nasjax.hardware.workload import additive_metric
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


def setup() -> Setup:
  dataset = data.load("digits")
  train, valid = data.split(dataset.train, seed=0)
  space = spaces.edge(
    image_shape=data.shape(train), num_classes=10, channels=CHANNELS
  )
  metrics = {
    "latency_ms": latency(space),
    "energy_mj": energy(space),
    "params": hardware.params(space),
  }
  costs = {n: space_tools.additive_costs(space, m) for n, m in metrics.items()}
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


def run(made: Setup, searcher, seed: int, epochs: int, between=None):
  """The state at the end, and its seconds, compilation left out.

  Args:
    made: what is searched.
    searcher: the search.
    seed: of everything random.
    epochs: how many.
    between: called with each epoch.
  """
  state = jax.jit(searcher.init)(jax.random.fold_in(jax.random.key(seed), 0))
  start = None
  for epoch in search.run_epochs(
    searcher,
    state,
    made.train,
    made.valid,
    epochs=epochs,
    batch_size=BATCH,
    augmentation=made.augmentation,
    key=jax.random.fold_in(jax.random.key(seed), 1),
  ):
    state = epoch.state
    # The first epoch compiles; the others are timed.
    start = start or time.process_time()
    if between is not None:
      between(epoch)
  spent = (time.process_time() - start) * epochs / max(epochs - 1, 1)
  return state, spent


def expected(state, relaxation=None):
  relaxation = relaxation or relaxations.proxyless()
  weights = relaxation.expect(state.member.logits, state.masks, state.step)
  return {n: np.asarray(w) for n, w in weights.items()}


def accuracy(made: Setup, state):
  return search.supernet_accuracy(
    made.space,
    state.shared.variables,
    made.valid,
    data.statistics(made.train),
  )


def steps_an_epoch(made: Setup) -> int:
  return min(len(made.train.labels), len(made.valid.labels)) // BATCH
