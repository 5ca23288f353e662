"""Trains and scores a decided network, as it will be deployed.

The recipe is that of DARTS and MobileNet: SGD with momentum, a cosine schedule
(Loshchilov and Hutter 2017), label smoothing (Szegedy et al. 2016, section 7),
drop path (Larsson et al. 2017), an auxiliary head where the space has a place
for one, and cutout (DeVries and Taylor 2017, an option of the augmentation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nasjax import data
from nasjax.hardware import quantization
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search.epochs import epoch_steps, on_device
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Key

__all__ = ["Recipe", "State", "accuracy", "begin", "epochs"]


class Recipe(NamedTuple):
  """How a decided network is trained."""

  epochs: int
  batch_size: int = 64
  learning_rate: float = 0.05  # at the start; cosine to 0
  momentum: float = 0.9
  weight_decay: float = 3e-4
  label_smoothing: float = 0.1  # 0..1: the share spread over all classes
  drop_path: float = 0.0  # an edge's probability at the end; grows from 0
  augmentation: data.Augmentation = data.Augmentation()
  # The share of a second classifier's loss, DARTS has 0.4; 0: there is none.
  auxiliary: float = 0.0
  low_bits: LowBits = FLOAT  # kernels seen quantised, or kept symmetric


class State(NamedTuple):
  """What training carries. A pytree."""

  variables: Any  # {"params", "batch_stats"} of `space.build(architecture)`
  optimizer: Any
  step: Array  # i32[]


class Epoch(NamedTuple):
  """What an epoch gave; means over its steps."""

  number: int  # from 1
  state: State
  loss: float  # smoothed cross entropy
  accuracy: float  # on its augmented batches, 0..1
  finite: bool


def _check(recipe: Recipe) -> None:
  for name in ("label_smoothing", "drop_path"):
    if not 0.0 <= getattr(recipe, name) < 1.0:
      raise ValueError(f"{name}={getattr(recipe, name)} must be in [0, 1)")
  for name in ("epochs", "batch_size"):
    if getattr(recipe, name) < 1:
      raise ValueError(f"{name}={getattr(recipe, name)} must be at least 1")
  if not 0.0 <= recipe.auxiliary <= 10.0:
    raise ValueError(f"auxiliary={recipe.auxiliary} must be in [0, 10]")
  quantization.check_low_bits(recipe.low_bits, "low_bits")
  if not recipe.learning_rate > 0:
    raise ValueError(f"learning_rate={recipe.learning_rate} must be above 0")


def _optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
  rate = optax.cosine_decay_schedule(recipe.learning_rate, steps)
  return optax.chain(
    optax.clip_by_global_norm(5.0),
    optax.add_decayed_weights(recipe.weight_decay),
    optax.sgd(rate, momentum=recipe.momentum),
  )


def _network(architecture: Architecture, recipe: Recipe) -> Any:
  """The network as it is trained, with its second classifier if it has one."""
  space = architecture.space
  network = space.build(architecture)
  if not recipe.auxiliary:
    return network
  if getattr(getattr(space, "plan", None), "auxiliary", None) is None:
    raise ValueError(
      f"auxiliary={recipe.auxiliary}: the space {space.name} has no place for"
      " an auxiliary head"
    )
  return network.clone(auxiliary=True)


def begin(
  key: Key,
  architecture: Architecture,
  recipe: Recipe,
  size: int,
  variables: Any = None,
) -> State:
  """Where training starts.

  Args:
    key: of fresh weights.
    architecture: decided.
    recipe: of the training.
    size: training images.
    variables: to start from, such as `space.extract`; default fresh weights,
      which an auxiliary head always has.

  Returns:
    The state at step 0.

  Raises:
    ValueError: the recipe cannot be, also with this space, or there are fewer
      images than a batch.
  """
  _check(recipe)
  steps = recipe.epochs * epoch_steps(size, recipe.batch_size)
  network = _network(architecture, recipe)
  if variables is None or recipe.auxiliary:
    shape = (1, *architecture.space.arguments["image_shape"])
    fresh = jax.jit(network.init)(key, jnp.zeros(shape))
    given = {} if variables is None else variables
    variables = {
      part: {**v, **given.get(part, {})} for part, v in fresh.items()
    }
  optimizer = _optimizer(recipe, steps)
  return State(variables, optimizer.init(variables["params"]), jnp.int32(0))


def epochs(
  architecture: Architecture,
  recipe: Recipe,
  train: data.Images,
  state: State,
  *,
  key: Key,
) -> Iterator[Epoch]:
  """Trains epoch by epoch, each one compiled loop over data on the device.

  Args:
    architecture: decided.
    recipe: of the training.
    train: images.
    state: where it stands, at an epoch's end; donated.
    key: decides the order of the images, their augmentation and dropped paths.

  Yields:
    Each epoch that is left. Its state is donated when the next is asked for.
  """
  each = epoch_steps(len(train.labels), recipe.batch_size)
  run = _compiled(architecture, recipe, each, data.statistics(train))
  pool = on_device(train)
  for number in range(int(state.step) // each + 1, recipe.epochs + 1):
    own = jax.random.fold_in(key, number)
    order, chance = jax.random.split(own)
    rows = data.epoch_indices(order, len(train.labels), each, recipe.batch_size)
    state, (losses, hits, finite) = run(state, pool, rows, chance)
    yield Epoch(
      number,
      state,
      float(losses.mean()),
      float(hits.mean()),
      bool(finite.all()),
    )


def _compiled(architecture, recipe, each, statistics) -> Callable:
  network = _network(architecture, recipe)
  steps = recipe.epochs * each
  optimizer = _optimizer(recipe, steps)

  def loss(params, batch_stats, batch, rate, key):
    outputs, new = network.clone(drop_path=rate).apply(
      {
        "params": quantization.seen_weights(params, recipe.low_bits),
        "batch_stats": batch_stats,
      },
      batch.images,
      True,
      mutable=["batch_stats"],
      rngs={"drop_path": key},
    )
    outputs, *second = outputs if recipe.auxiliary else (outputs,)
    classes = outputs.shape[-1]
    targets = optax.losses.smooth_labels(
      jax.nn.one_hot(batch.labels, classes), recipe.label_smoothing
    )
    entropy = optax.losses.softmax_cross_entropy(outputs, targets).mean()
    for other in second:
      own = optax.losses.softmax_cross_entropy(other, targets).mean()
      entropy += recipe.auxiliary * own
    hits = (jnp.argmax(outputs, -1) == batch.labels).mean()
    more = quantization.weight_penalty(params, recipe.low_bits)
    stats = new.get("batch_stats", batch_stats)
    return entropy + more, (stats, entropy, hits)

  def epoch(state, pool, rows, key):
    def step(state, row):
      augmenting, dropping = jax.random.split(
        jax.random.fold_in(key, state.step)
      )
      batch = data.gather(pool, row, *statistics)
      images = data.augment(augmenting, batch.images, recipe.augmentation)
      # Linear in time, as DARTS has it; no operation at all where it is 0.
      rate = recipe.drop_path * state.step / steps if recipe.drop_path else 0.0
      (_, (stats, value, hits)), gradient = jax.value_and_grad(
        loss, has_aux=True
      )(
        state.variables["params"],
        state.variables.get("batch_stats", {}),
        batch._replace(images=images),
        rate,
        dropping,
      )
      updates, new = optimizer.update(
        gradient, state.optimizer, state.variables["params"]
      )
      params = optax.apply_updates(state.variables["params"], updates)
      finite = jnp.isfinite(value) & jnp.isfinite(optax.tree.norm(params))
      variables = {"params": params, "batch_stats": stats}
      return State(variables, new, state.step + 1), (value, hits, finite)

    return lax.scan(step, state, rows)

  return jax.jit(epoch, donate_argnums=0)


def accuracy(
  architecture: Architecture,
  variables: Any,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
) -> float:
  """The share of images that a decided network gets right.

  Args:
    architecture: decided.
    variables: of its network; running batch statistics are used.
    images: all are scored.
    statistics: (mean, std) of the images that it was trained on.
    batch_size: images at once.

  Returns:
    0..1.
  """
  network = architecture.space.build(architecture)
  pool, size = on_device(images), len(images.labels)

  @jax.jit
  def hits(variables, rows):
    batch = data.gather(pool, rows % size, *statistics)
    found = jnp.argmax(network.apply(variables, batch.images), -1)
    return jnp.sum((found == batch.labels) & (rows < size))

  total = sum(
    int(hits(variables, jnp.arange(start, start + batch_size)))
    for start in range(0, size, batch_size)
  )
  return float(np.float64(total) / size)
