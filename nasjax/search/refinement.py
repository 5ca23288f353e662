"""Refining a front's networks by gradients through the supernet's own loss.

What `hybrid.through_predictor` does through predictors of all objectives, with
nothing to fit: GDAS (Dong and Yang 2019) at fixed weights, from every survivor
in a direction of its own, and one executed path a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.search import genes as genetics
from nasjax.search.hybrid import AUGMENTED, SHARP, Propose, Told
from nasjax.types import Array, Key, Metric, Sampled

__all__ = ["through_supernet"]

_BEYOND = 10.0  # what a relative violation of a limit counts


def through_supernet(
  space: Any,
  loss: Callable[[Sampled, Key], Array],
  costs: Sequence[Metric],
  limits: Sequence[tuple[Metric, float]] = (),
  *,
  count: int = 50,
  members: int = 8,
  steps: int = 10,
  learning_rate: float = 0.3,
  temperature: float = 1.0,
) -> Propose:
  """Makes what refines by gradients through a supernet.

  Each member starts at a survivor, with a preference of its own over the loss
  and the costs, each over its range among the starts (augmented Chebyshev, as
  `through_predictor`). A step draws one-hot weights (Gumbel, straight-through),
  of which the supernet runs one path. Proposed are the networks that were drawn
  on the way and are new, those of the least scalarised value of each member
  first.

  Args:
    space: the space.
    loss: (sampled, key) -> f32[], of the supernet at its weights, on a batch
      that the key draws; traced.
    costs: the objectives beside the error, in their order.
    limits: pairs (metric, upper bound).
    count: proposals at most.
    members: P, at most the survivors.
    steps: of each member.
    learning_rate: of Adam, for the logits.
    temperature: of Gumbel-softmax.

  Returns:
    What `hybrid.hybrid` takes.

  Raises:
    ValueError: a number out of its range.
  """
  if not (temperature > 0 and min(count, members, steps) >= 1):
    raise ValueError(
      f"through_supernet: temperature={temperature} must be above 0, and"
      f" count={count}, members={members}, steps={steps} at least 1"
    )
  counts = genetics.cardinalities(space)
  optimizer = optax.adam(learning_rate)
  open_ = jnp.arange(int(counts.max()))[None] < counts[:, None]  # [G, C]

  def measured(hot, genes, key):
    """(loss and costs f32[M], violation f32[]) of relaxed genes f32[G, C]."""
    weights = genetics.to_weights(space, hot)
    choices = genetics.to_choices(space, genes)
    sampled = Sampled(weights, {n: row[:, None] for n, row in choices.items()})
    values = [loss(sampled, key), *(m.expected(weights) for m in costs)]
    over = [jax.nn.relu(m.expected(weights) / b - 1.0) for m, b in limits]
    return jnp.stack(values), sum(over, jnp.float32(0.0))

  @jax.jit
  def starting(genes, key):
    """f32[P, M] of genes i32[P, G]."""
    hot = genetics.one_hot(genes, counts)
    return jax.lax.map(lambda row: measured(*row, key)[0], (hot, genes))

  @jax.jit
  def descend(key, starts, ideal, span, preference):
    """(genes i32[P, steps, G], scalarised values f32[P, steps])."""

    def member(given):
      key, start, weight = given

      def scalarised(logits, noise, batch):
        noisy = jnp.where(open_, logits + noise, -jnp.inf)
        soft = jax.nn.softmax(noisy / temperature)
        drawn = jnp.argmax(noisy, -1).astype(jnp.int32)
        hard = genetics.one_hot(drawn, counts)
        hot = hard + soft - jax.lax.stop_gradient(soft)
        values, over = measured(hot, drawn, batch)
        scaled = weight * (values - ideal) / span
        total = scaled.max() + AUGMENTED * scaled.sum() + _BEYOND * over
        return total, drawn

      def step(carry, number):
        logits, state = carry
        first, batch = jax.random.split(jax.random.fold_in(key, number))
        noise = jax.random.gumbel(first, logits.shape)
        (value, drawn), slope = jax.value_and_grad(scalarised, has_aux=True)(
          logits, noise, batch
        )
        changes, state = optimizer.update(slope, state)
        return (optax.apply_updates(logits, changes), state), (drawn, value)

      logits = SHARP * genetics.one_hot(start[None], counts)[0]
      carry = (logits, optimizer.init(logits))
      return jax.lax.scan(step, carry, jnp.arange(steps))[1]

    keys = jax.random.split(key, len(starts))
    # Not vmap: it would execute every path.
    return jax.lax.map(member, (keys, starts, preference))

  def propose(key: Key, told: Told) -> np.ndarray:
    first, walk, direct = jax.random.split(key, 3)
    starts = told.genes[np.resize(told.survivors, members)]
    at = np.asarray(starting(jnp.asarray(starts), first))
    ideal, span = at.min(0), np.ptp(at, axis=0)
    span = np.where(span > 0, span, np.maximum(np.abs(ideal), 1.0))
    preference = jax.random.dirichlet(direct, jnp.ones(at.shape[1]), (members,))
    genes, values = map(
      np.asarray,
      descend(
        walk,
        jnp.asarray(starts),
        jnp.asarray(ideal),
        jnp.asarray(span, jnp.float32),
        preference,
      ),
    )
    known = {tuple(row) for row in told.genes.tolist()}
    # The best of each member, then the second of each, and so on.
    order = np.argsort(values, axis=1, kind="stable")
    found = []
    for place in range(steps):
      for own, row in zip(genes, order, strict=True):
        point = tuple(own[row[place]].tolist())
        if point not in known:
          known.add(point)
          found.append(point)
    size = len(counts)
    return np.array(found[:count], np.int32).reshape(-1, size)

  return propose
