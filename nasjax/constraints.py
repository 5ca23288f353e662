"""Constraints: how a limit on a metric pushes back.

A limit's violation is relative, v = metric / limit - 1, and a penalty turns it
into a multiplier >= 0 for the gradient of v. None of them goes on rewarding
what was asked for: below the limit the multiplier is 0 (`quadratic`), falls to
0 as far below as it had to push (`augmented_lagrangian`), or is 0 beyond a
given width (`log_barrier`). `equality` also pulls up to the limit: its
multiplier is below 0 there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp

from nasjax.tracing import is_traced
from nasjax.types import (
  Array,
  Constraint,
  Metric,
  Objective,
  Penalty,
  Scalar,
  Step,
)

__all__ = [
  "as_objective",
  "at_most",
  "augmented_lagrangian",
  "equality",
  "log_barrier",
  "quadratic",
  "tighten",
]


class Schedule(NamedTuple):
  """A limit that moves: at step t it is `limit * factor`. A pytree."""

  start: float | Array  # the factor at step 0 of the schedule
  tau: float | Array  # steps in which what is left falls to 1 / e
  begin: int | Array  # the step from which on time counts

  def factor(self, step: Step) -> Scalar:
    """f32[]: of the limit, 1 in the end."""
    time = jnp.maximum(step - self.begin, 0).astype(jnp.float32)
    return 1.0 + (self.start - 1.0) * jnp.exp(-time / self.tau)


class LogBarrierState(NamedTuple):
  """What `log_barrier` carries."""

  room: Array  # f32[]: by how much the limit is still widened; < 0: not begun


def _check_strength(name: str, strength: float) -> None:
  if not strength > 0:
    raise ValueError(f"{name}: strength={strength} must be above 0")


def quadratic(*, strength: float = 30.0) -> Penalty:
  """The gradient of `strength * max(0, violation)^2`.

  Below the limit it is exactly 0: nothing rewards more than was asked.

  Args:
    strength: of the penalty, in units of the loss.

  Returns:
    A penalty without state.

  Raises:
    ValueError: `strength` is not above 0.
  """
  _check_strength("quadratic", strength)

  def init(limit):
    del limit
    return ()

  def update(violation, state, step):
    del step
    return 2.0 * strength * jnp.maximum(violation, 0.0), state

  return Penalty(init, update)


def augmented_lagrangian(
  *, strength: float = 30.0, rate: float = 0.02, clip: float = 0.03
) -> Penalty:
  """Hestenes' and Powell's multiplier method for an inequality.

  With rho = 2 strength (the quadratic penalty's slope) the multiplier is
  max(0, mu + rho v), and each step mu becomes max(0, mu + rate rho v)
  (Rockafellar 1973; Nocedal and Wright 2006, equation 17.65, one inner step
  an outer one). In the end mu alone balances the loss at v = 0, whatever the
  strength; where v < 0 lasts, mu and the multiplier fall to exactly 0.

  Args:
    strength: of the quadratic part, in units of the loss.
    rate: how much of the multiplier is learned in a step.
    clip: |v| counts as at most this for mu, so that the way down to the limit
      does not wind it up.

  Returns:
    A penalty whose state is mu, f32[].

  Raises:
    ValueError: an argument is not above 0.
  """
  return _lagrangian("augmented_lagrangian", strength, rate, clip, 0.0)


def equality(
  *,
  strength: float = 30.0,
  rate: float = 0.02,
  clip: float = 0.03,
  pull: float = 3.0,
) -> Penalty:
  """The multiplier method for `metric == limit`: the budget is used whole.

  Above the limit it is `augmented_lagrangian`. Below it pulls the metric up,
  as TuNAS' absolute reward does (Bender et al. 2020, section 4.2): a supernet
  that is trained for a short time undervalues its larger networks, and a
  search that only stays below a limit then leaves much of it unused.

  Args:
    strength: see `augmented_lagrangian`, as are `rate` and `clip`.
    rate: how much of the multiplier is learned in a step.
    clip: |v| counts as at most this for mu.
    pull: the multiplier is at least -pull, in units of the loss, so that a
      limit which no network reaches does not drown the loss.

  Returns:
    A penalty whose state is mu, f32[], with multipliers >= -pull.

  Raises:
    ValueError: an argument is not above 0.
  """
  if not pull > 0:
    raise ValueError(f"equality: pull={pull} must be above 0")
  return _lagrangian("equality", strength, rate, clip, -pull)


def _lagrangian(name, strength, rate, clip, least) -> Penalty:
  """The multiplier method with a multiplier that is at least `least`."""
  _check_strength(name, strength)
  if not (rate > 0 and clip > 0):
    raise ValueError(f"{name}: rate and clip must be above 0")
  rho = 2.0 * strength

  def init(limit):
    del limit
    return jnp.float32(0.0)

  def update(violation, state, step):
    del step
    learned = rate * rho * jnp.clip(violation, -clip, clip)
    return (
      jnp.maximum(state + rho * violation, least),
      jnp.maximum(state + learned, least),
    )

  return Penalty(init, update)


def log_barrier(
  *, strength: float = 30.0, width: float = 0.05, tau: float = 100.0
) -> Penalty:
  """A logarithmic barrier on a strip below the limit, with a feasible start.

  The barrier -width log(-v) needs v < 0. At the first step the limit is
  widened until the start is one width inside, and what it was widened by falls
  to 0 with exp(-t / tau). The multiplier is strength width (width / -v - 1)
  within `width` of the limit, 0 below: there is no reward for more. Beyond a
  tenth of the width it goes on as a straight line (the extension of Kervadec et
  al. 2022, equation 4), so that a noisy step over the limit comes back.

  Args:
    strength: in units of the loss.
    width: of the strip, relative to the limit.
    tau: steps in which the widening falls to 1 / e.

  Returns:
    A penalty with the state `LogBarrierState`.

  Raises:
    ValueError: an argument is not above 0.
  """
  _check_strength("log_barrier", strength)
  if not (width > 0 and tau > 0):
    raise ValueError("log_barrier: width and tau must be above 0")
  scale, nearest = 2.0 * strength * width, 0.1

  def init(limit):
    del limit
    return LogBarrierState(jnp.float32(-1.0))

  def update(violation, state, step):
    del step
    first = jnp.maximum(violation + width, 0.0)
    room = jnp.where(state.room < 0, first, state.room)
    # In units of the width: 1 at the strip's inner end, 0 at the limit.
    inside = (room - violation) / width
    curve = 1.0 / jnp.maximum(inside, nearest) - 1.0
    line = jnp.maximum(nearest - inside, 0.0) / nearest**2
    left = room * jnp.exp(-1.0 / jnp.float32(tau))
    return scale * jnp.maximum(curve + line, 0.0), LogBarrierState(left)

  return Penalty(init, update)


def tighten(*, start: float, tau: float, begin: int = 0) -> Schedule:
  """A limit that tightens: eps_t = eps + (start eps - eps) exp(-t / tau).

  Args:
    start: the limit at first, relative to the final one.
    tau: in steps; may be traced.
    begin: the step from which on t counts, as `arch_start`; may be traced.

  Returns:
    A schedule for `at_most`.

  Raises:
    ValueError: `start` or `tau` is not above 0, or `begin` below 0.
  """
  known = not (is_traced(tau) or is_traced(begin))
  if not start > 0 or (known and not (tau > 0 and begin >= 0)):
    raise ValueError(
      f"tighten: start={start} and tau={tau} must be above 0, begin={begin} 0"
      " or more"
    )
  return Schedule(start, tau, begin)


def at_most(
  metric: Metric,
  limit: float,
  *,
  penalty: Penalty | None = None,
  schedule: Schedule | None = None,
) -> Constraint:
  """An upper bound on a metric.

  Args:
    metric: of the space.
    limit: the bound, in the metric's unit; may be traced. A search carries it
      in its state.
    penalty: how it pushes back; default `quadratic()`.
    schedule: how the bound moves to `limit`, see `tighten`; default: it is
      held from the start.

  Returns:
    The constraint; its violation is metric / limit - 1.

  Raises:
    ValueError: `limit` is not a finite number above 0.
  """
  _check_limit(metric, limit)
  penalty = quadratic() if penalty is None else penalty
  if schedule is None:
    return Constraint(metric, limit, penalty.init, penalty.update)
  # Limit and schedule are part of the state: a compiled step serves them all.
  moving = Schedule(
    jnp.float32(schedule.start),
    jnp.float32(schedule.tau),
    jnp.int32(schedule.begin),
  )

  def init(limit):
    return moving, penalty.init(limit)

  def update(violation, state, step):
    moving, state = state
    # Relative to the bound of now, and so is the gradient it multiplies.
    factor = moving.factor(step)
    multiplier, state = penalty.update(
      (violation + 1.0) / factor - 1.0, state, step
    )
    return multiplier / factor, (moving, state)

  return Constraint(metric, limit, init, update)


def _check_limit(metric: Metric, limit: float | Array) -> None:
  if is_traced(limit):
    return
  if not (math.isfinite(limit) and limit > 0):
    raise ValueError(f"limit {metric.name}={limit} must be finite and above 0")


def as_objective(metric: Metric, limit: float) -> Objective:
  """A limit as one of the objectives: max(0, violation).

  Within the limit its value and gradient are 0; `weightings.mgda` then leaves
  it out.

  Args:
    metric: of the space.
    limit: the bound, in the metric's unit.

  Returns:
    The objective, named over_METRIC.

  Raises:
    ValueError: `limit` is not a finite number above 0.
  """
  _check_limit(metric, limit)

  def value(task, costs):
    del task
    violation = costs[metric.name] / limit - 1.0
    return jnp.where(violation > 0, violation, 0.0)

  return Objective(f"over_{metric.name}", (), value, (metric,))
