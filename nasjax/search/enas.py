"""ENAS: a controller proposes sub-networks of one shared supernet.

Pham et al. 2018 (arXiv:1802.03268), section 2.2, with both of its phases in
one compiled update: the supernet's weights take a step on the path of one
proposal, and the controller a REINFORCE step on N of them, whose rewards are
read off one validation batch,

    R(A) = -sum_i c_i f_i(accuracy(A), costs(A)) - sum_j mu_j (v_j(A) - E[v_j])

with objectives f, their coefficients c, relative violations v of the limits
and the constraints' multipliers mu at E[v_j]: the policy gradient of the last
sum is mu_j grad E[v_j], as gradient search has it. The expectation is over
more proposals than are rewarded, for costs need no network.

The search's member is the controller; `decide` takes the best of many
proposals that keep the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax import objectives as objective_parts
from nasjax.hardware.quantization import FLOAT, LowBits
from nasjax.search import genes as genetics
from nasjax.search.checks import check_limits, check_parts
from nasjax.search.controller import Controller, ControllerState, controller
from nasjax.search.differentiable import Info, report
from nasjax.search.shared import (
  all_finite,
  check_objectives,
  check_preference,
  default_optimizer,
  supernet,
)
from nasjax.search.warmup import or_wait
from nasjax.spaces.space import Architecture, Limit, is_connected
from nasjax.types import (
  Array,
  Batch,
  Constraint,
  Key,
  Objective,
  Relaxation,
  Sampled,
  Search,
  SearchState,
)

__all__ = ["EnasMember", "decide", "enas", "policy", "space_controller"]

_TASKS = ("accuracy", "cross_entropy")
_DRAWS = 128  # proposals behind expected weights and costs
_TRIED = 4096  # proposals among which `decide` looks for those in the limits


class EnasMember(NamedTuple):
  """The controller and all that belongs to it."""

  controller: ControllerState
  constraints: Any
  limits: Any  # f32[] a constraint
  key: Key  # of the paths that the weights are trained on

  @property
  def logits(self) -> Any:
    """What `policy` reads: the controller's weights."""
    return self.controller.params


def space_controller(
  space: Any,
  *,
  samples: int = 10,
  temperature: float = 5.0,
  tanh_constant: float | None = 2.5,
  entropy_weight: float = 1e-3,
  baseline_decay: float = 0.95,
  learning_rate: float = 3.5e-3,
) -> Controller:
  """A controller of a space's choices; see `controller` for the arguments."""
  return controller(
    genetics.cardinalities(space),
    kinds=genetics.kinds(space),
    samples=samples,
    temperature=temperature,
    tanh_constant=tanh_constant,
    entropy_weight=entropy_weight,
    baseline_decay=baseline_decay,
    optimizer=optax.adam(learning_rate),
  )


def _sampled(space, genes) -> Sampled:
  """One architecture's genes i32[G], traced, as `space.apply` takes it."""
  choices = genetics.to_choices(space, genes)
  return genetics.one_path(space.masks, choices)


def policy(space: Any, controller: Controller) -> Relaxation:
  """A controller as a relaxation whose logits are its weights.

  Args:
    space: the space.
    controller: of it.

  Returns:
    `sample` draws one architecture, without a gradient; `expect` gives how
    often a candidate was taken in 4096 draws, with a key of the step: off by
    less than .008 (one standard deviation).
  """

  def init(key, masks):
    del masks
    return controller.init(key).params

  def sample(key, params, masks, step):
    del masks, step
    return _sampled(space, controller.sample(params, key, 1).genes[0])

  def expect(params, masks, step):
    del masks
    key = jax.random.fold_in(jax.random.key(0), 0 if step is None else step)
    drawn = controller.sample(params, key, _TRIED).genes
    weights = jax.vmap(lambda genes: _sampled(space, genes).weights)(drawn)
    return {name: w.mean(0) for name, w in weights.items()}

  return Relaxation(init, sample, expect)


def enas(
  space: Any,
  *,
  controller: Controller | None = None,
  objectives: Sequence[Objective] = (objective_parts.error(),),
  preference: Sequence[float] | None = None,
  constraints: Sequence[Constraint] = (),
  optimizer: optax.GradientTransformation | None = None,
  arch_start: int | Array = 0,
  remat: bool | None = None,
  activations: jax.typing.DTypeLike = jnp.float32,
  low_bits: LowBits = FLOAT,
) -> Search:
  """ENAS with a shared supernet.

  Args:
    space: the space.
    controller: proposes; default `space_controller(space)`.
    objectives: what the reward is made of; the task scalars of a proposal are
      its `accuracy` and `cross_entropy` on the validation batch, normalised by
      the batch's own statistics, its costs are those of the one-hot choice.
    preference: c, one number an objective; default 1.
    constraints: limits, and how they push back.
    optimizer: of the network weights; default `default_optimizer()`.
    arch_start: the first step that moves the controller; until then the weights
      are trained on what it proposes at its start, which is nearly uniform.
    remat: gradients compute each cell anew; None: where that is faster.
    activations: floating type of the network's values.
    low_bits: kernels are seen quantised, or kept symmetric.

  Returns:
    `init(key)` and `update(state, train_batch, valid_batch)`; both pure. The
    Info's objectives, losses and accuracies are means over the proposals, its
    costs and violations over 128 others; `extra` has the reward, the entropy in
    nats and the baseline.

  Raises:
    ValueError: as `differentiable`.
  """
  given = [1.0] * len(objectives) if preference is None else preference
  check_preference("enas", objectives, given)
  metrics = check_objectives("enas", objectives, constraints, _TASKS)
  check_parts(metrics, objectives, None, constraints, space.masks)
  check_limits(space, constraints)
  network = supernet(
    space,
    optimizer=optimizer or default_optimizer(),
    remat=remat,
    activations=activations,
    low_bits=low_bits,
    name="enas",
  )
  made = space_controller(space) if controller is None else controller
  coefficients = jnp.asarray(given, jnp.float32)

  def costs_of(genes):
    """{metric: f32[N]} of proposals i32[N, G]."""
    weights = jax.vmap(lambda row: _sampled(space, row).weights)(genes)
    return {m.name: jax.vmap(m.expected)(weights) for m in metrics}

  def expected_costs(member, step):
    """{metric: f32[]}: means over draws of their own."""
    key = jax.random.fold_in(jax.random.fold_in(member.key, step), 1)
    drawn = made.sample(member.controller.params, key, _DRAWS).genes
    return {n: c.mean() for n, c in costs_of(drawn).items()}

  def evaluate(shared, genes, batch):
    """(cross entropies, accuracies) f32[N] of proposals i32[N, G]."""

    def one(row):
      loss, (_, accuracy) = network.loss(
        shared.variables["params"],
        shared.variables["batch_stats"],
        _sampled(space, row),
        batch,
        "cross_entropy",
      )
      return loss, accuracy

    # Not vmap: it would execute every path.
    return jax.lax.map(one, genes)

  def arch_step(shared, member, step, train, valid, key):
    """The new member, and what Info says of it."""
    del train, key
    expected = expected_costs(member, step)
    genes, state = made.ask(member.controller)
    losses, accuracies = evaluate(shared, genes, valid)
    costs = costs_of(genes)
    task = {"accuracy": accuracies, "cross_entropy": losses}
    values = [jax.vmap(o.value)(task, costs) for o in objectives]
    reward = -sum(c * v for c, v in zip(coefficients, values, strict=True))
    sound = {
      f"objective {o.name}": all_finite(v)
      for o, v in zip(objectives, values, strict=True)
    }
    violations, multipliers, states = {}, {}, []
    for constraint, own, limit in zip(
      constraints, member.constraints, member.limits, strict=True
    ):
      name = constraint.metric.name
      violations[name] = expected[name] / limit - 1.0
      multipliers[name], own = constraint.update(violations[name], own, step)
      push = multipliers[name] * (costs[name] - expected[name]) / limit
      reward -= push
      states.append(own)
      sound[f"limit {name}"] = all_finite(push)
    state, told = made.tell(state, genes, reward)
    moved = member._replace(controller=state, constraints=tuple(states))
    info = dict(
      valid_loss=losses.mean(),
      valid_accuracy=accuracies.mean(),
      objectives={
        o.name: v.mean() for o, v in zip(objectives, values, strict=True)
      },
      costs=expected,
      violations=violations,
      multipliers=multipliers,
      coefficients=coefficients,
      sound=sound | {"controller": told.finite},
      extra={
        "reward": told.reward,
        "entropy": told.entropy,
        "baseline": told.baseline,
      },
    )
    return moved, info

  step_or_wait = or_wait(arch_step, expected_costs, arch_start)

  def init(key: Key) -> SearchState:
    shared, controller_key, constraint_key, own = jax.random.split(key, 4)
    del constraint_key  # constraints need none
    limits = tuple(jnp.float32(c.limit) for c in constraints)
    member = EnasMember(
      made.init(controller_key),
      tuple(c.init(v) for c, v in zip(constraints, limits, strict=True)),
      limits,
      own,
    )
    return SearchState(
      network.init(shared),
      member,
      jax.tree.map(jnp.asarray, dict(space.masks)),
      jnp.int32(0),
    )

  def update(
    state: SearchState, train: Batch, valid: Batch
  ) -> tuple[SearchState, Info]:
    key = jax.random.fold_in(state.member.key, state.step)
    member, info = step_or_wait(
      state.shared, state.member, state.step, train, valid, key
    )
    path = made.sample(member.controller.params, key, 1).genes[0]
    shared, train_loss, train_accuracy, sound = network.weight_step(
      state.shared, _sampled(space, path), train
    )
    new = SearchState(shared, member, state.masks, state.step + 1)
    return new, report(info, train_loss, train_accuracy, sound)

  # Compiled or not, it is traced once for all who ask for its shapes or run it.
  return Search(init, jax.jit(update))


def proposals(
  space: Any,
  controller: Controller,
  params: Any,
  key: Key,
  limits: Sequence[Limit] = (),
  *,
  most: int = 50,
) -> list[Architecture]:
  """Different architectures that a controller proposes within limits.

  Args:
    space: the space.
    controller: of it.
    params: its weights.
    key: consumed.
    limits: constraints, or pairs (metric, upper bound), kept exactly.
    most: how many at most.

  Returns:
    The greedy decode, if it keeps the limits, then draws; connected, none
    twice; maybe none.
  """
  bounds = [
    (v.metric, v.limit) if isinstance(v, Constraint) else v for v in limits
  ]
  drawn = controller.sample(params, key, _TRIED).genes
  greedy = controller.greedy(params)
  rows = np.concatenate([np.asarray(greedy)[None], np.asarray(drawn)])
  found = []
  for row in dict.fromkeys(map(tuple, rows.tolist())):
    one = genetics.architecture(space, np.array(row, np.int32))
    if is_connected(one) and all(m.exact(one) <= b for m, b in bounds):
      found.append(one)
      if len(found) == most:
        break
  return found


def decide(
  space: Any,
  controller: Controller,
  params: Any,
  key: Key,
  score: Callable[[Architecture], float],
  limits: Sequence[Limit] = (),
  *,
  most: int = 50,
  say: Callable[[str], None] | None = None,
) -> Architecture:
  """The best of a controller's proposals that keep the limits.

  Pham et al., section 2.2: several are drawn, and the one with the highest
  reward is kept. Where none keeps the limits it is the most probable
  architecture that does, by how often each candidate is drawn.

  Args:
    space: the space.
    controller: of it.
    params: its weights.
    key: consumed.
    score: the larger the better; called for `most` architectures at most.
    limits: constraints, or pairs (metric, upper bound).
    most: the greedy decode and so many draws less one.
    say: told in one line where no proposal keeps the limits.

  Returns:
    The architecture; every limit is kept.

  Raises:
    InputError: no architecture of the space keeps the limits.
  """
  found = proposals(space, controller, params, key, limits, most=most)
  if not found:
    if say is not None:
      say(
        f"none of {_TRIED} proposals of the controller keeps the limits; the"
        " most probable network that does is decided instead"
      )
    weights = policy(space, controller).expect(params, None, None)
    weights = {name: np.asarray(w) for name, w in weights.items()}
    return space.decide(weights, limits)
  return max(found, key=score)


def reward(
  objectives: Sequence[Objective],
  preference: Sequence[float],
  accuracy: float,
  costs: dict[str, float],
) -> Array:
  """The reward of a decided architecture.

  Args:
    objectives: of the search.
    preference: one number an objective.
    accuracy: on validation images, 0..1; where an objective reads the cross
      entropy its negative logarithm stands for it, 1e-6 at least.
    costs: exact values of the metrics by name.

  Returns:
    f32[], the larger the better.
  """
  task = {
    "accuracy": jnp.float32(accuracy),
    "cross_entropy": -jnp.log(jnp.float32(max(accuracy, 1e-6))),
  }
  named = {name: jnp.float32(value) for name, value in costs.items()}
  return -sum(
    c * o.value(task, named)
    for c, o in zip(preference, objectives, strict=True)
  )
