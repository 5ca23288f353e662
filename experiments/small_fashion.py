"""A small search whose cost is an argument, and images that studies share.

The edge space, 8 choices of 12 operations on Fashion-MNIST averaged to 14x14:
at 28x28 supernets take four times as long, and on scikit-learn's digits
accuracy hardly depends on the network. The cost's table rides along with the
logits, so that one compiled program serves every device, limit and seed:
compiling it takes longer than a search.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import (
  constraints,
  data,
  objectives,
  relaxations,
  search,
  spaces,
)
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_tools
from nasjax.types import Metric

BATCH, IMAGES = 64, 6000
WARM, EPOCHS = 15, 20
OFF = 1e6  # a limit that binds nothing
_TABLE = "cost"


class Setup(NamedTuple):
  space: object
  images: data.Images  # to train on
  test: data.Images
  random: dict  # choices of random networks
  search: object


class Cost(NamedTuple):
  """What a search minimises beside cross entropy, and its limit."""

  costs: cost_tables.AdditiveCosts
  limit: float
  coefficient: float  # of the cost over the limit
  binds: bool


def smaller(images: data.Images, count: int) -> data.Images:
  """The first images, 2x2 pixels averaged."""
  chosen = images.images[:count].astype(np.float32)
  size, height, width, channels = chosen.shape
  pixels = chosen.reshape(size, height // 2, 2, width // 2, 2, channels)
  return data.Images(
    pixels.mean((2, 4)).round().astype(np.uint8), images.labels[:count]
  )


def setup(penalty=None) -> Setup:
  """`penalty` keeps the limits; default: augmented Lagrangian."""
  dataset = data.load("fashion-mnist")
  images = smaller(dataset.train, IMAGES)
  space = spaces.edge(
    image_shape=data.shape(images),
    channels=8,
    stages=2,
    nodes=4,
    num_classes=10,
  )
  return Setup(
    space,
    images,
    smaller(dataset.test, 10_000),
    space_tools.random_choices(space, np.random.default_rng(0), 5000),
    _search(space, penalty or constraints.augmented_lagrangian()),
  )


def _search(space, penalty):
  """Proxyless; its logits hold the table, its preference the coefficient."""
  inner = relaxations.proxyless()

  def own(logits):
    return {n: logits[n] for n in space.masks}

  def init(key, masks):
    zeros = {n: jnp.zeros(m.shape, jnp.float32) for n, m in masks.items()}
    return {**inner.init(key, masks), _TABLE: (jnp.float32(0), zeros)}

  def expect(logits, masks, step):
    weights = inner.expect(own(logits), masks, step)
    return {**weights, _TABLE: jax.lax.stop_gradient(logits[_TABLE])}

  def expected(weights):
    if _TABLE not in weights:  # as the search's own checks ask
      return sum(jnp.sum(w) for w in weights.values())
    constant, tables = weights[_TABLE]
    return constant + sum(jnp.sum(weights[n] * t) for n, t in tables.items())

  metric = Metric("cost", "", None, expected, lambda architecture: 0.0)
  steps = IMAGES // 2 // BATCH
  return search.differentiable(
    space,
    relaxation=inner._replace(
      init=init,
      sample=lambda key, logits, masks, step: inner.sample(
        key, own(logits), masks, step
      ),
      expect=expect,
    ),
    objectives=[objectives.cross_entropy(), objectives.metric(metric)],
    constraints=[constraints.at_most(metric, 1.0, penalty=penalty)],
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0),
      optax.add_decayed_weights(3e-4),
      optax.sgd(
        optax.cosine_decay_schedule(0.05, (WARM + EPOCHS) * steps),
        momentum=0.9,
      ),
    ),
    arch_optimizer=optax.adam(0.02, b1=0.5, b2=0.999),
    arch_start=WARM * steps,
  )


def _ran(made: Setup, state, train, valid, epochs, key):
  for epoch in search.run_epochs(
    made.search,
    state,
    train,
    valid,
    epochs=epochs,
    batch_size=BATCH,
    augmentation=data.Augmentation(),
    key=key,
  ):
    state = epoch.state
  return state


def warm(made: Setup, seed: int):
  """(state of a supernet trained on single paths, its images in halves)."""
  halves = data.split(made.images, seed=seed)
  key = jax.random.key(seed)
  state = jax.jit(made.search.init)(jax.random.fold_in(key, 0))
  return _ran(made, state, *halves, WARM, jax.random.fold_in(key, 1)), halves


def searched(made: Setup, state, halves, cost: Cost, seed: int):
  """Goes on from a warm supernet.

  Args:
    made: what is searched.
    state: of `warm`; stays as it is.
    halves: of the images.
    cost: what to minimise.
    seed: of the batches.

  Returns:
    Weights f32[E, K] a group.
  """
  state = jax.tree.map(lambda v: v.copy(), state)  # what runs is donated
  scale = 1.0 / cost.limit
  tables = {
    n: jnp.asarray(scale * t, jnp.float32) for n, t in cost.costs.tables.items()
  }
  member = state.member
  logits = dict(member.logits)
  logits[_TABLE] = (jnp.float32(scale * cost.costs.constant), tables)
  preference = jnp.asarray([1.0, cost.coefficient], jnp.float32)
  member = member._replace(
    logits=logits,
    weighting=preference,
    limits=(jnp.float32(1.0 if cost.binds else OFF),),
  )
  key = jax.random.fold_in(jax.random.key(seed), 2)
  end = _ran(made, state._replace(member=member), *halves, EPOCHS, key)
  weights = relaxations.proxyless().expect(
    {n: end.member.logits[n] for n in end.masks}, end.masks, end.step
  )
  return {n: np.asarray(w) for n, w in weights.items()}
