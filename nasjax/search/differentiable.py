"""Gradient search: one architecture step and one weight step, compiled.

Known methods are combinations of the parts:

* DARTS = softmax + unrolled + constant
* GDAS = gdas + first_order + constant
* ProxylessNAS = proxyless + first_order + [cross entropy, latency, params]
* DrNAS = dirichlet + first_order + constant
* FBNet = gumbel_softmax + single_level + [cross entropy, latency]

The direction of an architecture step is

    sum_i c_i grad f_i + sum_j mu_j grad v_j

with objectives f, coefficients c of the weighting, relative violations v and
multipliers mu of the constraints. Costs depend on the logits alone: their
gradients never touch the network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from nasjax import hypergradients, objectives, relaxations, weightings
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search.checks import check_limits, check_parts
from nasjax.search.shared import (
  TASKS,
  all_finite,
  check_objectives,
  check_preference,
  default_optimizer,
  supernet,
)
from nasjax.search.warmup import or_wait
from nasjax.types import (
  Array,
  Batch,
  Constraint,
  Hypergradient,
  Key,
  Objective,
  Relaxation,
  Sampled,
  Search,
  SearchState,
  Weighting,
)


class Member(NamedTuple):
  """The architecture and all that belongs to it."""

  logits: Any
  optimizer: Any
  weighting: Any
  constraints: Any
  limits: Any  # f32[] a constraint: traced, so that a front can differ in it
  key: Key


class Steps(NamedTuple):
  """The parts that searches are put together from, see `make_steps`."""

  init_shared: Callable  # key -> Shared
  init_member: Callable  # (3 keys, preference f32[M], limits) -> Member
  # (shared, member, step, train, valid, key) -> (member, Info's fields)
  arch_step: Callable
  # (shared, logits, step, train, key) -> (shared, loss, accuracy, sound)
  weight_step: Callable
  costs: Callable  # (logits, step) -> {metric: f32[]}
  masks: Any


class Info(NamedTuple):
  """What a step reports."""

  train_loss: Array  # cross entropy of the weight step's batch
  train_accuracy: Array  # of the relaxed network on it, 0..1
  # The architecture step's; NaN before `arch_start`, where there is none.
  valid_loss: Array  # cross entropy of its validation batch
  valid_accuracy: Array  # of the relaxed network on it, 0..1
  objectives: Any  # {name: f32[]}
  costs: Any  # {metric: f32[]}, expected
  violations: Any  # {metric: f32[]}, expected / limit - 1
  multipliers: Any  # {metric: f32[]}
  coefficients: Array  # f32[M]
  sound: Any  # {what: bool[]}: its value and gradient are finite
  finite: Array  # bool[]: all of that
  extra: Any = {}  # {name: f32[]}: what else a strategy has to say


def report(info, train_loss, train_accuracy, sound) -> Info:
  """What both halves of a step say: of the architecture, and of the weights.

  Args:
    info: the other fields of Info; flags may have an axis of members.
    train_loss: of the weight step.
    train_accuracy: of the weight step.
    sound: its flags.

  Returns:
    Info.
  """
  sound = {n: v.all() for n, v in (info["sound"] | sound).items()}
  finite = jnp.stack(list(sound.values())).all()
  fields = dict(train_loss=train_loss, train_accuracy=train_accuracy)
  return Info(**{**info, **fields, "sound": sound, "finite": finite})


def default_arch_optimizer(
  relaxation: Relaxation,
  learning_rate: optax.ScalarOrSchedule = 3e-4,
  weight_decay: float | None = None,
) -> optax.GradientTransformation:
  """The Adam of a relaxation's paper.

  Args:
    relaxation: has b1 (DARTS's is 0.5; ProxylessNAS's 0, so that candidates
      that were not sampled do not move) and the decay; b2 is 0.999.
    learning_rate: DARTS's is 3e-4.
    weight_decay: of the logits, added to their gradient as DARTS does (its is
      1e-3); None: the relaxation's own.

  Returns:
    The optimiser.
  """
  decay = relaxation.weight_decay if weight_decay is None else weight_decay
  adam = optax.adam(learning_rate, b1=relaxation.b1, b2=0.999)
  return optax.chain(optax.add_decayed_weights(decay), adam) if decay else adam


def make_steps(
  space: Any,
  *,
  relaxation: Relaxation,
  objectives: Sequence[Objective],
  weighting: Weighting,
  constraints: Sequence[Constraint],
  hypergradient: Hypergradient,
  optimizer: optax.GradientTransformation,
  arch_optimizer: optax.GradientTransformation,
  remat: bool | None,
  activations: jax.typing.DTypeLike,
  low_bits: LowBits,
) -> Steps:
  """What one search, or a whole front of them, is put together from.

  Arguments and errors are those of `differentiable`.
  """
  network = supernet(
    space,
    optimizer=optimizer,
    remat=remat,
    activations=activations,
    low_bits=low_bits,
    name="differentiable",
  )
  metrics = check_objectives(
    "differentiable", objectives, constraints, tuple(TASKS)
  )
  tasks = sorted({t for o in objectives for t in o.task})
  masks = space.masks
  check_parts(metrics, objectives, weighting, constraints, masks)
  check_limits(space, constraints)

  arch_sample = relaxation.arch_sample or relaxation.sample
  estimate = relaxation.estimate or relaxation.expect

  def loss_of(task, step):
    def loss(params, batch_stats, logits, batch, key):
      sampled = arch_sample(key, logits, masks, step)
      value, aux = network.loss(params, batch_stats, sampled, batch, task)
      return value, (*aux, sampled.paths)

    return loss

  def inner_of(step):
    def inner(params, batch_stats, logits, batch, key):
      sampled = relaxation.sample(key, logits, masks, step)
      return network.inner(params, batch_stats, sampled, batch)

    return inner

  def init_member(keys, preference, limits) -> Member:
    alpha = relaxation.init(keys[0], masks)
    return Member(
      alpha,
      arch_optimizer.init(alpha),
      weighting.init(keys[1], preference),
      tuple(c.init(v) for c, v in zip(constraints, limits, strict=True)),
      tuple(limits),
      keys[2],
    )

  def costs_of(logits, step):
    expected = estimate(logits, masks, step)
    return {m.name: m.expected(expected) for m in metrics}

  def arch_step(shared, member, step, train, valid, key):
    """The new member, and what Info says of it."""
    values, pulls, accuracy, paths = {}, {}, jnp.float32(0.0), None
    for task in tasks:
      values[task], gradient, (_, accuracy, paths) = hypergradient(
        inner_of(step),
        loss_of(task, step),
        optimizer,
        shared.optimizer,
        shared.variables["params"],
        shared.variables["batch_stats"],
        member.logits,
        train,
        valid,
        key,
      )
      pulls[task] = ravel_pytree(gradient)[0]
    flat, unravel = ravel_pytree(member.logits)
    costs = costs_of(member.logits, step)
    slopes = {}
    if metrics:
      slopes = jax.jacrev(lambda a: costs_of(unravel(a), step))(flat)

    rows, results, sound = [], [], {}
    for objective in objectives:
      value, (by_task, by_cost) = jax.value_and_grad(
        objective.value, argnums=(0, 1)
      )(values, costs)
      row = sum(by_task[t] * pulls[t] for t in values)
      row += sum(by_cost[m] * slopes[m] for m in costs)
      rows.append(row)
      results.append(value)
      sound[f"objective {objective.name}"] = all_finite((value, row))
    jacobian = jnp.stack(rows)
    coefficients, weighting_state = weighting.update(
      jnp.stack(results), jacobian @ jacobian.T, member.weighting
    )
    direction = coefficients @ jacobian
    violations, multipliers, states = {}, {}, []
    for constraint, state, limit in zip(
      constraints, member.constraints, member.limits, strict=True
    ):
      name = constraint.metric.name
      violations[name] = costs[name] / limit - 1.0
      multipliers[name], state = constraint.update(
        violations[name], state, step
      )
      push = multipliers[name] * slopes[name] / limit
      direction += push
      states.append(state)
      sound[f"limit {name}"] = all_finite((violations[name], push))

    updates, arch_state = arch_optimizer.update(
      unravel(direction), member.optimizer, member.logits
    )
    logits = optax.apply_updates(member.logits, updates)
    if relaxation.rescale is not None and paths is not None:
      logits = relaxation.rescale(member.logits, logits, masks, paths)
    moved = member._replace(
      logits=logits,
      optimizer=arch_state,
      weighting=weighting_state,
      constraints=tuple(states),
    )
    named = dict(zip((o.name for o in objectives), results, strict=True))
    info = dict(
      valid_loss=values.get("cross_entropy", jnp.float32(0.0)),
      valid_accuracy=accuracy,
      objectives=named,
      costs=costs,
      violations=violations,
      multipliers=multipliers,
      coefficients=coefficients,
      sound=sound | {"architecture": all_finite((direction, moved))},
    )
    return moved, info

  def weight_step(shared, logits, step, train, key):
    sampled = relaxation.sample(key, logits, masks, step)
    if sampled.paths is not None:
      # Other paths have weight 0; only logits need them.
      paths = {n: p[:, :1] for n, p in sampled.paths.items()}
      sampled = Sampled(sampled.weights, paths)
    return network.weight_step(shared, sampled, train)

  return Steps(
    network.init, init_member, arch_step, weight_step, costs_of, masks
  )


def differentiable(
  space: Any,
  *,
  relaxation: Relaxation | None = None,
  objectives: Sequence[Objective] = (objectives.cross_entropy(),),
  weighting: Weighting | None = None,
  preference: Sequence[float] | None = None,
  constraints: Sequence[Constraint] = (),
  hypergradient: Hypergradient | None = None,
  optimizer: optax.GradientTransformation | None = None,
  arch_optimizer: optax.GradientTransformation | None = None,
  arch_start: int | Array = 0,
  remat: bool | None = None,
  activations: jax.typing.DTypeLike = jnp.float32,
  low_bits: LowBits = FLOAT,
) -> Search:
  """A gradient search over `space`.

  Args:
    space: what can be built, see `nasjax.spaces`.
    relaxation: logits to weights; default `relaxations.softmax()`.
    objectives: what is minimised; at least one.
    weighting: how they share a step; default `weightings.constant()`.
    preference: f32[M], one number an objective; default all 1.
    constraints: limits, see `nasjax.constraints`.
    hypergradient: default `hypergradients.first_order()`.
    optimizer: of the network weights; default SGD.
    arch_optimizer: of the logits; default `default_arch_optimizer(relaxation)`.
    arch_start: the first step that moves the logits; before it the weights
      warm up.
    remat: gradients compute each cell anew instead of keeping its values;
      None: as the space has it.
    activations: floating type of the network's values; its parameters, batch
      statistics and losses stay float32.
    low_bits: kernels are seen quantised (straight through) in every forward
      pass, or kept symmetric by a penalty, see `hardware.quantization`.

  Returns:
    `init(key)` and `update(state, train_batch, valid_batch)`; both pure.

  Raises:
    ValueError: no objective, an unknown task scalar, two metrics of one name,
      a part that breaks its contract in `nasjax.types`, a preference of
      another length, activations that are no floating type, `low_bits` out of
      range, or `remat` for a space without it.
  """
  preference = [1.0] * len(objectives) if preference is None else preference
  check_preference("differentiable", objectives, preference)
  relaxation = relaxation or relaxations.softmax()
  steps = make_steps(
    space,
    relaxation=relaxation,
    objectives=objectives,
    weighting=weighting or weightings.constant(),
    constraints=constraints,
    hypergradient=hypergradient or hypergradients.first_order(),
    optimizer=optimizer or default_optimizer(),
    arch_optimizer=arch_optimizer or default_arch_optimizer(relaxation),
    remat=remat,
    activations=activations,
    low_bits=low_bits,
  )
  arch_step = or_wait(
    steps.arch_step,
    lambda member, step: steps.costs(member.logits, step),
    arch_start,
  )

  def init(key: Key) -> SearchState:
    network, *own = jax.random.split(key, 4)
    return SearchState(
      steps.init_shared(network),
      steps.init_member(
        own,
        jnp.asarray(preference, jnp.float32),
        [jnp.float32(c.limit) for c in constraints],
      ),
      jax.tree.map(jnp.asarray, steps.masks),
      jnp.int32(0),
    )

  def update(
    state: SearchState, train: Batch, valid: Batch
  ) -> tuple[SearchState, Info]:
    key = jax.random.fold_in(state.member.key, state.step)
    arch_key, weight_key = jax.random.split(key)
    member, info = arch_step(
      state.shared, state.member, state.step, train, valid, arch_key
    )
    shared, train_loss, train_accuracy, sound = steps.weight_step(
      state.shared, member.logits, state.step, train, weight_key
    )
    new = SearchState(shared, member, state.masks, state.step + 1)
    return new, report(info, train_loss, train_accuracy, sound)

  # Compiled or not, it is traced once for all who ask for its shapes or run it.
  return Search(init, jax.jit(update))
