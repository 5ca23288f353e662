"""A whole front from one program: one supernet, many architectures.

Members share the network's weights and its batches; each has its own logits,
limits, preference and key. An architecture step moves every member, a weight
step follows the members in turn: in P steps each has trained the weights once.
Until `arch_start` all are alike and the weights are trained for all of them at
the price of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import hypergradients, relaxations, weightings
from nasjax import objectives as objective_parts
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search.differentiable import (
  Info,
  default_arch_optimizer,
  make_steps,
  report,
)
from nasjax.search.shared import default_optimizer
from nasjax.search.warmup import or_wait
from nasjax.tracing import is_traced
from nasjax.types import (
  Array,
  Batch,
  Constraint,
  Hypergradient,
  Key,
  Objective,
  Relaxation,
  Search,
  SearchState,
  Weighting,
)


def differentiable_front(
  space: Any,
  *,
  members: int,
  limits: Mapping[str, Sequence[float | Array]] | None = None,
  preferences: Sequence[Sequence[float]] | None = None,
  relaxation: Relaxation | None = None,
  objectives: Sequence[Objective] = (objective_parts.cross_entropy(),),
  weighting: Weighting | None = None,
  constraints: Sequence[Constraint] = (),
  hypergradient: Hypergradient | None = None,
  optimizer: optax.GradientTransformation | None = None,
  arch_optimizer: optax.GradientTransformation | None = None,
  arch_start: int | Array = 0,
  remat: bool | None = None,
  activations: jax.typing.DTypeLike = jnp.float32,
  low_bits: LowBits = FLOAT,
) -> Search:
  """A gradient search for many architectures at once.

  Dense relaxations are mapped over the members by `vmap`; where paths are
  sampled by `lax.map`, since `vmap` would execute every path.

  Args:
    space: see `differentiable`, as for all that is not named here.
    members: P, how many.
    limits: P upper bounds by the name of a constraint's metric, which may be
      traced; the others have their constraint's own limit.
    preferences: f32[P, M]; default all 1.
    relaxation: logits to weights; default `relaxations.softmax()`.
    objectives: what is minimised.
    weighting: how they share a step.
    constraints: limits, and how they push back.
    hypergradient: default `hypergradients.first_order()`.
    optimizer: of the network weights.
    arch_optimizer: of the logits; default `default_arch_optimizer`.
    arch_start: the first step that moves the logits.
    remat: gradients compute each cell anew.
    activations: floating type of the network's values.
    low_bits: kernels are seen quantised, or kept symmetric.

  Returns:
    A search whose state's `member` has a leading axis P, see `members`; so do
    the Info fields of the architecture step.

  Raises:
    ValueError: as `differentiable`; also fewer than one member, limits of a
      metric without constraint, of another number than P, or not finite and
      above 0, or preferences of another shape.
  """
  if members < 1:
    raise ValueError(f"differentiable_front: members={members} must be >= 1")
  bounds = _bounds(members, limits or {}, constraints)
  shape = (members, len(objectives))
  given = np.ones(shape) if preferences is None else np.asarray(preferences)
  if given.shape != shape:
    raise ValueError(
      f"differentiable_front: preferences {given.shape} must be {shape}"
    )
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
  mapped = _mapping(relaxation, steps.masks)

  def arch_steps(shared, member, step, train, valid, keys):
    def one(member_key):
      own, key = member_key
      return steps.arch_step(shared, own, step, train, valid, key)

    return mapped(one, (member, keys))

  def costs(member, step):
    return jax.vmap(lambda own: steps.costs(own, step))(member.logits)

  arch_step = or_wait(arch_steps, costs, arch_start)

  def init(key: Key) -> SearchState:
    network, *own = jax.random.split(key, 4)
    keys = [jax.random.split(k, members) for k in own]
    return SearchState(
      steps.init_shared(network),
      jax.vmap(steps.init_member)(
        keys,
        jnp.asarray(given, jnp.float32),
        [jnp.asarray(b, jnp.float32) for b in bounds],
      ),
      jax.tree.map(jnp.asarray, steps.masks),
      jnp.int32(0),
    )

  def update(
    state: SearchState, train: Batch, valid: Batch
  ) -> tuple[SearchState, Info]:
    def split(key):
      return jax.random.split(jax.random.fold_in(key, state.step))

    keys = jax.vmap(split)(state.member.key)
    member, info = arch_step(
      state.shared, state.member, state.step, train, valid, keys[:, 0]
    )
    turn = state.step % members
    shared, train_loss, train_accuracy, sound = steps.weight_step(
      state.shared,
      jax.tree.map(lambda v: v[turn], member.logits),
      state.step,
      train,
      keys[turn, 1],
    )
    new = SearchState(shared, member, state.masks, state.step + 1)
    return new, report(info, train_loss, train_accuracy, sound)

  return Search(init, jax.jit(update))


def _bounds(members, limits, constraints) -> list[Sequence[float | Array]]:
  """P limits a constraint."""
  names = [c.metric.name for c in constraints]
  for name, values in limits.items():
    if name not in names:
      raise ValueError(
        f"differentiable_front: limits of {name}, which has no constraint"
      )
    if np.shape(values) != (members,):
      raise ValueError(
        f"differentiable_front: limits of {name} {np.shape(values)} must be"
        f" {(members,)}"
      )
    if not all(is_traced(v) or (np.isfinite(v) and v > 0) for v in values):
      raise ValueError(
        f"differentiable_front: limits of {name} must be finite and above 0"
      )
  return [
    limits.get(n, [c.limit] * members)
    for n, c in zip(names, constraints, strict=True)
  ]


def _mapping(relaxation: Relaxation, masks) -> Callable:
  """How members are mapped over, see `differentiable_front`."""

  def sample(key):
    logits = relaxation.init(key, masks)
    return relaxation.sample(key, logits, masks, jnp.int32(0))

  sampled = jax.eval_shape(sample, jax.random.key(0))
  if sampled.paths is not None:
    return jax.lax.map
  return lambda function, arguments: jax.vmap(function)(arguments)


def members(state: SearchState) -> list[SearchState]:
  """The members of a front's state, each as a search of its own has it."""
  size = state.member.key.shape[0]
  return [
    state._replace(member=jax.tree.map(lambda v, i=i: v[i], state.member))
    for i in range(size)
  ]
