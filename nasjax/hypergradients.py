"""Hypergradients: how the outer loss depends on the architecture parameters.

The outer loss is taken on validation batches, the inner one (which the network
weights follow) on training batches. `step(w, a)` below is one step of the given
weight optimiser on the inner loss.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.types import Hypergradient

__all__ = ["finite_difference", "first_order", "single_level", "unrolled"]


def _outer(outer, params, batch_stats, logits, batch, key):
  """Value, gradient for the logits alone, aux: no weight gradients."""
  (value, aux), gradient = jax.value_and_grad(outer, argnums=2, has_aux=True)(
    params, batch_stats, logits, batch, key
  )
  return value, gradient, aux


def single_level() -> Hypergradient:
  """The gradient on the training batch: one level, no validation set."""

  def hypergradient(
    inner,
    outer,
    optimizer,
    optimizer_state,
    params,
    batch_stats,
    logits,
    train,
    valid,
    key,
  ):
    del inner, optimizer, optimizer_state, valid
    return _outer(outer, params, batch_stats, logits, train, key)

  return hypergradient


def first_order() -> Hypergradient:
  """The partial derivative alone: weights taken as optimal (xi = 0)."""

  def hypergradient(
    inner,
    outer,
    optimizer,
    optimizer_state,
    params,
    batch_stats,
    logits,
    train,
    valid,
    key,
  ):
    del inner, optimizer, optimizer_state, train
    return _outer(outer, params, batch_stats, logits, valid, key)

  return hypergradient


def _check_optimizer(optimizer):
  """Refuses optimisers that cannot be differentiated at a zero gradient.

  Adam's square root at 0 is one; weights of unused candidates have exactly
  zero gradients.
  """
  with jax.ensure_compile_time_eval():
    params = {"used": jnp.ones(2), "unused": jnp.ones(2)}
    state = optimizer.init(params)

    def total(gradients):
      updates, _ = optimizer.update(gradients, state, params)
      return updates["used"].sum() + updates["unused"].sum()

    slopes = jax.grad(total)({"used": jnp.ones(2), "unused": jnp.zeros(2)})
    finite = all(
      bool(np.isfinite(np.asarray(s)).all()) for s in slopes.values()
    )
  if not finite:
    raise ValueError(
      "unrolled: the weight optimiser has no derivative where a gradient is"
      " zero; give Adam an eps_root, optax.adam(learning_rate, eps_root=1e-8)"
    )


def _inner_gradient(inner, params, batch_stats, logits, train, key):
  def loss(params):
    return inner(params, batch_stats, logits, train, key)[0]

  return jax.grad(loss)(params)


def unrolled() -> Hypergradient:
  """Second-order DARTS (section 2.3), exactly.

  The gradient of outer(step(w, a), a) through one step of the optimiser as it
  is, momentum and weight decay included: reverse over reverse, no finite
  differences.

  Returns:
    The hypergradient.

  Raises:
    ValueError: when first called, if the optimiser's update cannot be
      differentiated at a zero gradient (Adam without eps_root).
  """

  def hypergradient(
    inner,
    outer,
    optimizer,
    optimizer_state,
    params,
    batch_stats,
    logits,
    train,
    valid,
    key,
  ):
    _check_optimizer(optimizer)
    inner_key, outer_key = jax.random.split(key)

    def after_step(logits):
      gradient = _inner_gradient(
        inner, params, batch_stats, logits, train, inner_key
      )
      updates, _ = optimizer.update(gradient, optimizer_state, params)
      stepped = optax.apply_updates(params, updates)
      return outer(stepped, batch_stats, logits, valid, outer_key)

    (value, aux), gradient = jax.value_and_grad(after_step, has_aux=True)(
      logits
    )
    return value, gradient, aux

  return hypergradient


def finite_difference(*, radius: float = 0.01) -> Hypergradient:
  """DARTS's approximation of `unrolled` (equations 7 and 8).

  The mixed second derivative times a vector is the difference of two
  gradients, at weights moved by `radius` / |vector| along it. The vector is
  the outer gradient pulled back through the optimiser's update, so momentum
  and weight decay are exact here too.

  Args:
    radius: how far the weights are moved, in their Euclidean norm.

  Returns:
    The hypergradient.

  Raises:
    ValueError: `radius` is not above 0.
  """
  if not radius > 0:
    raise ValueError(f"finite_difference: radius={radius} must be above 0")

  def hypergradient(
    inner,
    outer,
    optimizer,
    optimizer_state,
    params,
    batch_stats,
    logits,
    train,
    valid,
    key,
  ):
    inner_key, outer_key = jax.random.split(key)

    def step(gradient):
      updates, _ = optimizer.update(gradient, optimizer_state, params)
      return optax.apply_updates(params, updates)

    gradient = _inner_gradient(
      inner, params, batch_stats, logits, train, inner_key
    )
    stepped, pull = jax.vjp(step, gradient)
    (value, aux), (outer_weights, outer_logits) = jax.value_and_grad(
      outer, argnums=(0, 2), has_aux=True
    )(stepped, batch_stats, logits, valid, outer_key)
    (vector,) = pull(outer_weights)
    norm = optax.tree.norm(vector)
    distance = radius / jnp.where(norm > 0, norm, 1.0)

    def moved(sign):
      weights = jax.tree.map(
        lambda w, v: w + sign * distance * v, params, vector
      )
      return jax.grad(
        lambda a: inner(weights, batch_stats, a, train, inner_key)[0]
      )(logits)

    mixed = jax.tree.map(
      lambda plus, minus: (plus - minus) / (2.0 * distance),
      moved(1.0),
      moved(-1.0),
    )
    total = jax.tree.map(jnp.add, outer_logits, mixed)
    return value, total, aux

  return hypergradient
