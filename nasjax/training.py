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
from nasjax.data import pool as pools
from nasjax.hardware import quantization
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search import evaluation, rates
from nasjax.search.epochs import CHUNK, epoch_steps, next_rows
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Key

__all__ = [
  "Recipe",
  "State",
  "accuracy",
  "begin",
  "class_accuracies",
  "epochs",
  "recalibrate",
]


class Recipe(NamedTuple):
  """How a decided network is trained; `nasjax retrain` has these defaults."""

  epochs: int
  batch_size: int = 64
  learning_rate: float = 0.05  # at the start; cosine to 0
  momentum: float = 0.9
  weight_decay: float = 3e-4
  label_smoothing: float = 0.1  # 0..1: the share spread over all classes
  drop_path: float = 0.0  # an edge's probability at the end; grows from 0
  # "auto" suits any images, see `data.resolve_augmentation`.
  augmentation: str | data.Augmentation = data.AUTO
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


def _optimizer(recipe: Recipe, settings) -> optax.GradientTransformation:
  rate = rates.cosine(settings.learning_rate, settings.steps)
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
  optimizer = _optimizer(recipe, _Settings(recipe.learning_rate, steps))
  return State(variables, optimizer.init(variables["params"]), jnp.int32(0))


def epochs(
  architecture: Architecture,
  recipe: Recipe,
  train: data.Images,
  state: State,
  *,
  key: Key,
) -> Iterator[Epoch]:
  """Trains epoch by epoch, in compiled loops over data on the device.

  Rates, epochs, the number of images, their mean and deviation are arguments of
  the compiled program: it serves every set of images of one shape.

  Args:
    architecture: decided.
    recipe: of the training.
    train: images.
    state: where it stands, at an epoch's end; donated.
    key: decides the order of the images, their augmentation and dropped paths.

  Yields:
    Each epoch that is left. Its state is donated when the next is asked for.
  """
  size, batch = len(train.labels), recipe.batch_size
  each = epoch_steps(size, batch)
  augmentation = data.resolve_augmentation(
    recipe.augmentation, data.shape(train)
  )
  chunk = _compiled(architecture, recipe, augmentation)
  settings = _Settings(
    jnp.float32(recipe.learning_rate), jnp.float32(recipe.epochs * each)
  )
  pool = pools.make_pool(train, data.statistics(train))
  for number in range(int(state.step) // each + 1, recipe.epochs + 1):
    order, chance = jax.random.split(jax.random.fold_in(key, number))
    rows = pools.epoch_rows(order, size, each, batch)
    parts = []
    for start in range(0, each, CHUNK):
      stop = min(each - start, CHUNK)
      state, *said = chunk(
        settings, state, pool, next_rows(rows, start), chance, jnp.int32(stop)
      )
      parts.append([np.asarray(v)[:stop] for v in said])
    losses, hits, finite = map(np.concatenate, zip(*parts, strict=True))
    yield Epoch(
      number,
      state,
      float(losses.mean(dtype=np.float64)),
      float(hits.mean(dtype=np.float64)),
      bool(finite.all()),
    )


def finished(state: State, recipe: Recipe) -> State:
  """The state with its kernels as the network's forward pass sees them.

  Where a recipe trains for few bits, gradients move weights that are rounded
  in each pass; what is kept of a training are the rounded ones.
  """
  params = quantization.seen_weights(state.variables["params"], recipe.low_bits)
  return state._replace(variables={**state.variables, "params": params})


class _Settings(NamedTuple):
  """The numbers in which trainings of one compiled program differ."""

  learning_rate: Array  # f32[], at the start
  steps: Array  # f32[], of the whole training


def _compiled(architecture, recipe, augmentation) -> Callable:
  """One compiled call: the first `stop` of up to CHUNK steps.

  (settings, state, pool, rows i32[CHUNK, B], key, stop i32[]) -> (state, and of
  each step loss, accuracy and whether all is finite, [CHUNK]).
  """
  network = _network(architecture, recipe)

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

  def chunk(settings, state, pool, rows, key, stop):
    optimizer = _optimizer(recipe, settings)

    def step(now):
      done, state, said = now
      augmenting, dropping = jax.random.split(
        jax.random.fold_in(key, state.step)
      )
      batch = pools.gather(pool, rows[done])
      images = data.augment(augmenting, batch.images, augmentation)
      # Linear in time, as DARTS has it; no operation at all where it is 0.
      rate = 0.0
      if recipe.drop_path:
        rate = recipe.drop_path * state.step / settings.steps
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
      said = tuple(
        a.at[done].set(v)
        for a, v in zip(said, (value, hits, finite), strict=True)
      )
      return done + 1, State(variables, new, state.step + 1), said

    empty = jnp.zeros(CHUNK), jnp.zeros(CHUNK), jnp.ones(CHUNK, bool)
    _, state, said = lax.while_loop(
      lambda now: now[0] < stop, step, (jnp.int32(0), state, empty)
    )
    return state, *said

  return jax.jit(chunk, donate_argnums=1)


def recalibrate(
  architecture: Architecture,
  variables: Any,
  train: data.Images,
  *,
  batch_size: int = 256,
) -> Any:
  """Gives a decided network batch statistics of its own.

  A supernet's running statistics mix those of all paths: what `space.extract`
  takes out of it predicts nearly at random until this was done. It is how a
  search scores its networks.

  Args:
    architecture: decided.
    variables: of its network, such as `space.extract` gives.
    train: images that the weights were trained on; at most 1024 are used, each
      class by its share.
    batch_size: images at once.

  Returns:
    The variables with the mean of the batches' statistics.
  """
  if not variables.get("batch_stats"):
    return variables
  network = architecture.space.build(architecture)

  def seen(variables, images):
    _, new = network.apply(variables, images, True, mutable=["batch_stats"])
    return new["batch_stats"]

  pool = evaluation.calibration_pool(
    train, data.statistics(train), batch_size=batch_size
  )
  return jax.jit(
    lambda variables, pool: evaluation.own_statistics(
      seen, variables, pool, batch_size
    )
  )(variables, pool)


def class_accuracies(
  architecture: Architecture,
  variables: Any,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
) -> np.ndarray:
  """The share of each class's images that a decided network gets right.

  Args:
    architecture: decided.
    variables: of its network; running batch statistics are used.
    images: all are scored.
    statistics: (mean, std) of the images that it was trained on.
    batch_size: images at once.

  Returns:
    f64[classes] in 0..1; NaN for a class without images.
  """
  hits, counts = _hits(architecture, variables, images, statistics, batch_size)
  return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)


def accuracy(
  architecture: Architecture,
  variables: Any,
  images: data.Images,
  statistics: tuple,
  *,
  batch_size: int = 256,
) -> float:
  """The share of images that a decided network gets right, in 0..1.

  Arguments are those of `class_accuracies`.
  """
  hits, counts = _hits(architecture, variables, images, statistics, batch_size)
  return float(hits.sum() / counts.sum())


def _hits(architecture, variables, images, statistics, batch_size):
  """By class: images that are right, and images; i64[classes] each."""
  network = architecture.space.build(architecture)
  hits = jax.jit(
    lambda variables, pool: evaluation.hits_by_class(
      lambda images: network.apply(variables, images), pool, batch_size
    )
  )(variables, pools.make_pool(images, statistics))
  counts = np.bincount(images.labels, minlength=len(hits))
  return np.asarray(hits, np.int64), counts
