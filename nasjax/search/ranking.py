"""How well a supernet ranks: against the same networks trained alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from scipy import stats

from nasjax import data
from nasjax.data import pool as pools
from nasjax.hardware import quantization
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search import rates
from nasjax.search.evaluation import SCORED, supernet_accuracy
from nasjax.search.shared import default_optimizer
from nasjax.spaces.space import Architecture


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
  """Spearman's rank correlation.

  Args:
    first: N numbers.
    second: N numbers.

  Returns:
    -1..1; 0 where one of them is constant, which ranks nothing.
  """
  first, second = np.asarray(first, float), np.asarray(second, float)
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return 0.0
  return float(stats.spearmanr(first, second).statistic)


def trainer(
  space: Any,
  train: data.Images,
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
  seed: int,
  low_bits: LowBits = FLOAT,
) -> Callable[[Architecture], Any]:
  """Makes a function that trains an architecture alone, from fresh weights.

  It is the supernet with this one path, so that one compiled program serves
  every architecture: nothing else touches the weights on it.

  Args:
    space: the space.
    train: images to train on.
    steps: how long.
    batch_size: images a step.
    learning_rate: of SGD with momentum 0.9, cosine to 0.
    seed: of the weights and batches, the same for all.
    low_bits: how weights are seen; those returned are not rounded.

  Returns:
    architecture -> the supernet's variables; `space.extract` takes the
    architecture's own out of them.

  Raises:
    ValueError: fewer images than one batch.
  """
  if batch_size > len(train.labels):
    raise ValueError(
      f"batch size {batch_size} is over the {len(train.labels)} images"
    )
  pool = pools.make_pool(train, data.statistics(train))
  numbers = jnp.float32(learning_rate), jnp.int32(steps)

  @jax.jit
  def fit(sampled, key, pool, numbers):
    rate, steps = numbers
    optimizer = default_optimizer(rates.cosine(rate, steps))
    start, draws = jax.random.split(key)
    variables = space.init(start)
    real = jnp.arange(len(pool.labels)) < pool.size

    def loss(params, batch_stats, batch):
      outputs, stats = space.apply(
        {
          "params": quantization.seen_weights(params, low_bits),
          "batch_stats": batch_stats,
        },
        sampled,
        batch.images,
        True,
      )
      entropy = optax.losses.softmax_cross_entropy_with_integer_labels(
        outputs, batch.labels
      )
      more = quantization.weight_penalty(params, low_bits)
      return entropy.mean() + more, stats

    def step(number, carry):
      variables, state = carry
      # The largest of random numbers: a batch without an image twice.
      key = jax.random.fold_in(draws, number)
      drawn = jnp.where(real, jax.random.uniform(key, real.shape), -1.0)
      batch = pools.gather(pool, lax.top_k(drawn, batch_size)[1])
      gradient, stats = jax.grad(loss, has_aux=True)(
        variables["params"], variables["batch_stats"], batch
      )
      updates, state = optimizer.update(gradient, state, variables["params"])
      params = optax.apply_updates(variables["params"], updates)
      return {"params": params, "batch_stats": stats}, state

    carry = (variables, optimizer.init(variables["params"]))
    return lax.fori_loop(0, steps, step, carry)[0]

  # One compiled program serves every architecture, seed and set of images.
  return lambda architecture: fit(
    architecture.sampled(), jax.random.key(seed), pool, numbers
  )


def standalone(
  space: Any,
  train: data.Images,
  valid: data.Images,
  *,
  steps: int,
  batch_size: int,
  learning_rate: float,
  seed: int,
  most: int | None = SCORED,
  low_bits: LowBits = FLOAT,
) -> Callable[[Architecture], float]:
  """Makes a function that scores architectures trained alone, see `trainer`.

  Args:
    space: the space.
    train: images to train on.
    valid: images to score on.
    steps: how long.
    batch_size: images a step.
    learning_rate: of SGD with momentum 0.9, cosine to 0.
    seed: of the weights and batches, the same for all.
    most: images that are scored.
    low_bits: how weights are seen in training and scoring.

  Returns:
    architecture -> accuracy on `valid` in 0..1.
  """
  trained = trainer(
    space,
    train,
    steps=steps,
    batch_size=batch_size,
    learning_rate=learning_rate,
    seed=seed,
    low_bits=low_bits,
  )
  statistics = data.statistics(train)

  def of(architecture: Architecture) -> float:
    variables = trained(architecture)
    params = quantization.seen_weights(variables["params"], low_bits)
    variables = {**variables, "params": params}
    return supernet_accuracy(
      space, variables, train, valid, statistics, most=most
    )(architecture)

  return of
