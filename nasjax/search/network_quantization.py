"""What few bits cost whole networks of a supernet."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax import data
from nasjax.data import pool as pools
from nasjax.errors import InputError
from nasjax.hardware import quantization
from nasjax.hardware.quantization import LowBits
from nasjax.search import genes
from nasjax.search.evaluation import (
  CALIBRATION_BATCHES,
  scoring,
  with_own_statistics,
)
from nasjax.spaces import plan as plans
from nasjax.spaces import supernet
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Choices, Metric

_TINY = 1e-12


def population_quantization_error(
  space: Any,
  calibration: data.Images,
  statistics: tuple,
  *,
  bits: int = 8,
  per_channel: bool = False,
  loss: Callable[[Array, Array], Array] | None = None,
  batch_size: int = 256,
  calibration_batches: int = CALIBRATION_BATCHES,
  most: int = 1024,
) -> Callable[[Any, Choices], Array]:
  """Makes a function from a population to what few bits cost its outputs.

  The error of a whole network, ||f(x) - f_Q(x)|| / ||f(x)|| over the logits of
  some images, or what f_Q adds to their loss: f_Q has kernels, with
  normalisation folded in, and what blocks read and compute at `bits`, in
  symmetric steps, activations in one a tensor over the range of the images at
  hand. Statistics are as `population_accuracy` takes them. With one step a
  kernel the first is within a third of what ONNX Runtime's static int8 form
  loses; the second says better what accuracy that costs, as much of the error
  is the same for all images.

  Args:
    space: a space with a plan.
    calibration: training images, see `scoring`, also to compare on.
    statistics: (mean, std) that the images were trained with.
    bits: 2 to 16.
    per_channel: a step for each output channel of a kernel, not one for all.
    loss: (logits f32[B, classes], labels i32[B]) -> f32[B]; None: the error of
      the logits.
    batch_size: images at once.
    calibration_batches: as many at most.
    most: on how many images the two networks are compared.

  Returns:
    (variables of the supernet, choices i32[N, E] a group) -> f32[N], for use in
    jit. Errors of logits are 0 or more, what is added to a loss may be less.

  Raises:
    InputError: the space has no plan.
    ValueError: `bits` out of range.
  """
  _check_roundable(space, bits)
  rounded = partial(quantization.quantize, bits=bits, per_channel=False)
  few = plans.with_blocks(space.plan, lambda b: b.clone(seen_as=rounded))
  shown = scoring(
    calibration,
    calibration,
    statistics,
    most=most,
    batch_size=batch_size,
    calibration_batches=calibration_batches,
  )
  pool, size = shown.images, min(most, len(calibration.labels))
  batch = min(batch_size, size)
  rows = jnp.arange(-(-size // batch) * batch).reshape(-1, batch)

  def cost(variables, sampled):
    mine = with_own_statistics(
      space, variables, sampled, shown.calibration, batch_size
    )
    stored = {
      **mine,
      "params": quantization.deployed_params(
        mine["params"], mine["batch_stats"], bits, per_channel=per_channel
      ),
    }

    def add(sums, row):
      # What fills up the last batch is shown again, and counts nothing.
      found = pools.gather(pool, row % size)
      counts = (row < size).astype(jnp.float32)
      right, _ = space.apply(mine, sampled, found.images, False)
      seen, _ = supernet.apply(few, stored, sampled, found.images, False)
      if loss is None:
        lost = jnp.square(right - seen).sum(-1)
        whole = jnp.square(right).sum(-1)
      else:
        lost = loss(seen, found.labels) - loss(right, found.labels)
        whole = jnp.ones_like(lost)
      lost, whole = jnp.sum(lost * counts), jnp.sum(whole * counts)
      return (sums[0] + lost, sums[1] + whole), None

    zero = jnp.float32(0)
    (lost, whole), _ = lax.scan(add, (zero, zero), rows)
    share = lost / jnp.maximum(whole, _TINY)
    return jnp.sqrt(share) if loss is None else share

  def of(variables, choices):
    def one(row):
      return cost(variables, genes.one_path(space.masks, row))

    return lax.map(one, choices)

  return of


def _check_roundable(space, bits):
  if not hasattr(space, "plan"):
    raise InputError(
      f"space {space.name}", "has no plan: its blocks cannot be rounded"
    )
  quantization.check_low_bits(LowBits(bits), "quantization error")


def quantization_error_metric(
  space: Any,
  variables: Any,
  calibration: data.Images,
  *,
  bits: int = 8,
  per_channel: bool = False,
) -> Metric:
  """`quantization_error` of whole networks, see the function above.

  Where architectures are evaluated one by one; it has no gradient. For one see
  `hardware.kernel_errors.error_metric`, which knows kernels alone.

  Args:
    space: a space with a plan.
    variables: of its supernet, after it was trained for a while.
    calibration: training images.
    bits: 2 to 16.
    per_channel: a step for each output channel of a kernel, not one for all.

  Returns:
    A metric without unit, an objective or a limit; of one network it is
    computed once.

  Raises:
    InputError: the space has no plan.
    ValueError: `bits` out of range.
  """
  _check_roundable(space, bits)  # before anything is read off the images
  name = "quantization_error"
  errors = jax.jit(
    population_quantization_error(
      space,
      calibration,
      data.statistics(calibration),
      bits=bits,
      per_channel=per_channel,
    )
  )

  @lru_cache(maxsize=4096)
  def of(row: tuple[int, ...]) -> float:
    point = jnp.asarray(row, jnp.int32)[None]
    return float(errors(variables, genes.to_choices(space, point))[0])

  def exact(architecture: Architecture) -> float:
    point = genes.from_choices(space, architecture.choices)
    return of(tuple(point.tolist()))

  def expected(weights):
    raise ValueError(f"{name} of whole networks has no expected value")

  return Metric(
    name,
    "",
    None,
    expected,
    exact,
    source=f"computed with the supernet's weights and {bits}-bit networks, a"
    f" step for each {'channel' if per_channel else 'tensor'}",
    form="other",
  )
