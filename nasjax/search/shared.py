"""The supernet that a search trains: its loss on a batch, and a weight step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nasjax.hardware import quantization
from nasjax.hardware.quantization import LowBits
from nasjax.types import (
  Array,
  Batch,
  Constraint,
  Key,
  Metric,
  Objective,
  Sampled,
)

# Task scalars: (network outputs f32[B, classes], labels i32[B]) -> f32[].
TASKS: dict[str, Callable[[Array, Array], Array]] = {
  "cross_entropy": lambda outputs, labels: (
    optax.losses.softmax_cross_entropy_with_integer_labels(
      outputs, labels
    ).mean()
  ),
}


class Shared(NamedTuple):
  """The supernet: what several searches could share."""

  variables: Any  # {"params", "batch_stats"}
  optimizer: Any


class Supernet(NamedTuple):
  """What can be done with a supernet, see `supernet`."""

  init: Callable[[Key], Shared]
  # (params, batch stats, sampled, batch, task) ->
  # (value f32[], (batch stats, accuracy f32[]))
  loss: Callable
  # The weights' own: (params, batch stats, sampled, batch) -> (value f32[] with
  # its penalty, (cross entropy f32[], batch stats, accuracy f32[]))
  inner: Callable
  # (shared, sampled, batch) -> (shared, loss, accuracy, sound)
  weight_step: Callable


def default_optimizer(
  learning_rate: optax.ScalarOrSchedule = 0.025,
) -> optax.GradientTransformation:
  """SGD with momentum 0.9, weight decay 3e-4 and clipping at norm 5."""
  return optax.chain(
    optax.clip_by_global_norm(5.0),
    optax.add_decayed_weights(3e-4),
    optax.sgd(learning_rate, momentum=0.9),
  )


def supernet(
  space: Any,
  *,
  optimizer: optax.GradientTransformation,
  remat: bool | None,
  activations: jax.typing.DTypeLike,
  low_bits: LowBits,
  name: str,
) -> Supernet:
  """The supernet of a space.

  Args:
    space: the space.
    optimizer: of the network weights.
    remat: gradients compute each cell anew; None: where that is faster.
    activations: floating type of the network's values.
    low_bits: weights are seen quantised, or kept symmetric.
    name: of the search, for messages.

  Returns:
    Pure functions. All normalise by each batch's own statistics.

  Raises:
    ValueError: activations that are no floating type, `low_bits` out of range,
      or `remat` for a space without it.
  """
  quantization.check_low_bits(low_bits, name)
  if remat is not None:
    if not hasattr(space, "remat"):
      raise ValueError(f"{name}: remat is no option of this space")
    space = dataclasses.replace(space, remat=remat)
  if not jnp.issubdtype(activations, jnp.floating):
    raise ValueError(
      f"{name}: activations={activations} must be a floating type"
    )

  def init(key: Key) -> Shared:
    variables = space.init(key)
    return Shared(variables, optimizer.init(variables["params"]))

  def loss(params, batch_stats, sampled: Sampled, batch: Batch, task: str):
    params = quantization.seen_weights(params, low_bits)
    params = jax.tree.map(lambda p: p.astype(activations), params)
    outputs, new_stats = space.apply(
      {"params": params, "batch_stats": batch_stats},
      sampled,
      batch.images.astype(activations),
      True,
    )
    outputs = outputs.astype(jnp.float32)
    hits = jnp.argmax(outputs, -1) == batch.labels
    return TASKS[task](outputs, batch.labels), (new_stats, hits.mean())

  def inner(params, batch_stats, sampled: Sampled, batch: Batch):
    value, aux = loss(params, batch_stats, sampled, batch, "cross_entropy")
    more = quantization.weight_penalty(params, low_bits)
    return value + more, (value, *aux)

  def weight_step(shared: Shared, sampled: Sampled, batch: Batch):
    variables = shared.variables
    (_, (value, new_stats, accuracy)), gradient = jax.value_and_grad(
      inner, has_aux=True
    )(variables["params"], variables["batch_stats"], sampled, batch)
    updates, state = optimizer.update(
      gradient, shared.optimizer, variables["params"]
    )
    new = optax.apply_updates(variables["params"], updates)
    shared = Shared({"params": new, "batch_stats": new_stats}, state)
    sound = {
      "training cross_entropy": all_finite((value, gradient)),
      "weights": all_finite(shared),
    }
    return shared, value, accuracy, sound

  return Supernet(init, loss, inner, weight_step)


def check_preference(
  name: str, objectives: Sequence[Objective], preference: Sequence[float]
) -> None:
  """Raises ValueError unless it has one number an objective."""
  if len(preference) != len(objectives):
    raise ValueError(
      f"{name}: preference has {len(preference)} numbers for"
      f" {len(objectives)} objectives"
    )


def check_objectives(
  name: str,
  objectives: Sequence[Objective],
  constraints: Sequence[Constraint],
  tasks: Sequence[str],
) -> list[Metric]:
  """The metrics that objectives and constraints read, each once.

  Args:
    name: of the search, for messages.
    objectives: of the search.
    constraints: of the search.
    tasks: the task scalars that it knows.

  Returns:
    The metrics.

  Raises:
    ValueError: no objective, an unknown task scalar, or two different metrics
      of one name.
  """
  if not objectives:
    raise ValueError(f"{name}: at least one objective is needed")
  for objective in objectives:
    for task in objective.task:
      if task not in tasks:
        raise ValueError(
          f"objective {objective.name} reads task scalar {task!r}; known:"
          f" {', '.join(tasks)}"
        )
  found: dict[str, Metric] = {}
  read = [m for o in objectives for m in o.metrics]
  for metric in [*read, *(c.metric for c in constraints)]:
    if found.setdefault(metric.name, metric) is not metric:
      raise ValueError(
        f"{name}: two different metrics are named {metric.name!r}"
      )
  return list(found.values())


def all_finite(tree: Any) -> Array:
  """bool[]: whether every float of `tree` is finite; keys have none."""
  flags = [
    jnp.isfinite(leaf).all()
    for leaf in jax.tree.leaves(tree)
    if jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
  ]
  return jnp.stack(flags).all() if flags else jnp.bool_(True)
