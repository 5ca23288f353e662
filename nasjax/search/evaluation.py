"""Accuracy of decided architectures at a supernet's weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from nasjax import data
from nasjax.errors import InputError
from nasjax.hardware import quantization
from nasjax.hardware.quantization import LowBits
from nasjax.layers.normalization import MOMENTUM
from nasjax.search import genes
from nasjax.search.epochs import on_device
from nasjax.spaces import plan as plans
from nasjax.spaces import supernet
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Choices, Metric, Sampled

_TINY = 1e-12


def supernet_accuracy(
  space: Any,
  variables: Any,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  most: int = 5120,
) -> Callable[[Architecture], float]:
  """Makes a function from architectures to accuracy with shared weights.

  Normalisation uses each batch's own statistics: the supernet's running ones
  mix those of all paths.

  Args:
    space: the space.
    variables: of its supernet.
    images: to score on; at most the first `most`.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    most: how many images are used.

  Returns:
    architecture -> accuracy in 0..1; compiled once for all architectures.
  """
  rows = _rows(images, batch_size, most)
  pool = on_device(images)

  @jax.jit
  def accuracy(variables, sampled):
    return _accuracy(space, variables, sampled, pool, rows, statistics, True)

  def of(architecture: Architecture) -> float:
    return float(accuracy(variables, architecture.sampled()))

  return of


def population_accuracy(
  space: Any,
  calibration: data.Images,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
  calibration_batches: int = 4,
  most: int = 5120,
) -> Callable[[Any, Choices], Array]:
  """Makes a function from a population to its accuracies, for use in jit.

  Each sub-network gets batch statistics of its own, the mean over some batches
  of training images (Yu and Huang 2019, "Universally slimmable networks",
  section 3.2; Guo et al. 2020, section 3.4); then every image is scored as the
  decided network would score it alone.

  Args:
    space: the space.
    calibration: training images; the first `calibration_batches` are used.
    images: to score on; at most the first `most`.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    calibration_batches: as many at most.
    most: how many images are scored.

  Returns:
    (variables of the supernet, choices i32[N, E] a group) -> f32[N] in 0..1.
    Architectures are scored one after another: each runs one path an edge.
  """
  rows = _rows(images, batch_size, most)
  pool = on_device(images)
  own = with_own_statistics(
    space, calibration, statistics, batch_size, calibration_batches
  )

  def score(mine, sampled):
    return _accuracy(space, mine, sampled, pool, rows, statistics, False)

  return _one_after_another(space, own, score)


def population_quantization_error(
  space: Any,
  calibration: data.Images,
  statistics: tuple,
  *,
  bits: int = 8,
  per_channel: bool = False,
  loss: Callable[[Array, Array], Array] | None = None,
  batch_size: int = 256,
  calibration_batches: int = 4,
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
    calibration: training images; the first `calibration_batches` are used for
      statistics.
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
  pool, rows = on_device(calibration), _rows(calibration, batch_size, most)
  own = with_own_statistics(
    space, calibration, statistics, batch_size, calibration_batches
  )

  def cost(mine, sampled):
    stored = {
      **mine,
      "params": quantization.deployed_params(
        mine["params"], mine["batch_stats"], bits, per_channel=per_channel
      ),
    }

    def add(sums, row):
      found = data.gather(pool, row, *statistics)
      right, _ = space.apply(mine, sampled, found.images, False)
      seen, _ = supernet.apply(few, stored, sampled, found.images, False)
      if loss is None:
        lost, whole = jnp.square(right - seen), jnp.square(right)
      else:
        lost = loss(seen, found.labels) - loss(right, found.labels)
        whole = jnp.ones_like(lost)
      return (sums[0] + jnp.sum(lost), sums[1] + jnp.sum(whole)), None

    zero = jnp.float32(0)
    (lost, whole), _ = lax.scan(add, (zero, zero), rows)
    share = lost / jnp.maximum(whole, _TINY)
    return jnp.sqrt(share) if loss is None else share

  return _one_after_another(space, own, cost)


def _one_after_another(space, own, score):
  """(variables, choices) -> f32[N], `score(variables, path)` of each network.

  `own` gives the variables of each the statistics of its path.
  """

  def of(variables, choices):
    def one(row):
      sampled = genes.one_path(space.masks, row)
      return score(own(variables, sampled), sampled)

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
    return float(errors(variables, genes.to_choices(space.masks, point))[0])

  def exact(architecture: Architecture) -> float:
    point = genes.from_choices(space.masks, architecture.choices)
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


def with_own_statistics(
  space: Any,
  calibration: data.Images,
  statistics: tuple,
  batch_size: int = 256,
  batches: int = 4,
) -> Callable[[Any, Sampled], Any]:
  """Makes a function that gives a sub-network batch statistics of its own.

  Args:
    space: the space.
    calibration: training images; the first `batches` batches are used.
    statistics: (mean, std) that the images were trained with.
    batch_size: images at once.
    batches: as many at most.

  Returns:
    (variables of the supernet, one path) -> the variables with the mean of the
    batches' statistics on that path; for use in jit.
  """
  shown = _rows(calibration, batch_size, batches * batch_size)
  seen = on_device(calibration)

  def of(variables, sampled):
    zero = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    fresh = {**variables, "batch_stats": zero}

    def add(total, batch):
      found = data.gather(seen, batch, *statistics)
      _, new = space.apply(fresh, sampled, found.images, True)
      return jax.tree.map(jnp.add, total, new), None

    total, _ = lax.scan(add, zero, shown)
    # From 0 a running statistic moves by 1 - momentum of the batch's.
    scale = 1.0 / ((1.0 - MOMENTUM) * len(shown))
    return {
      **variables,
      "batch_stats": jax.tree.map(lambda v: v * scale, total),
    }

  return of


def _rows(images, batch_size, most) -> Array:
  """i32[batches, size]: whole batches of the first `most` images."""
  size = min(len(images.labels), most)
  batch = min(batch_size, size)
  return jnp.arange(size // batch * batch).reshape(-1, batch)


def _accuracy(space, variables, sampled, pool, rows, statistics, train):
  """f32[]; `train`: with each batch's own statistics."""

  def score(hits, row):
    found = data.gather(pool, row, *statistics)
    outputs, _ = space.apply(variables, sampled, found.images, train)
    return hits + jnp.sum(jnp.argmax(outputs, -1) == found.labels), None

  hits, _ = lax.scan(score, jnp.int32(0), rows)
  return hits / rows.size
