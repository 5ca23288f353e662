"""What a search is given is looked at once, before anything is compiled.

A user's objective, weighting, constraint or metric that breaks its contract is
named in one line instead of failing somewhere inside the compiled step. Their
functions are called on numbers and traced, so one that is not traceable or not
pure is found too. A relaxation has `nasjax.testing.check_relaxation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.errors import one_line
from nasjax.reader import RAISED
from nasjax.spaces.space import Architecture, random_choices
from nasjax.tracing import in_trace
from nasjax.types import Array, Constraint, Metric, Objective, Weighting


def check_parts(
  metrics: Sequence[Metric],
  objectives: Sequence[Objective],
  weighting: Weighting | None,
  constraints: Sequence[Constraint],
  masks: Mapping[str, Array],
) -> None:
  """Checks the parts of a search against their contracts in `nasjax.types`.

  Args:
    metrics: all that are read.
    objectives: of the search.
    weighting: of the objectives; None for a search that has none.
    constraints: of the search.
    masks: bool[E, K] a group, the candidates of the space.

  Raises:
    ValueError: names the part and says what is wrong with it, in one line.
  """
  if in_trace():
    return  # whoever builds a search there has built and checked it before
  uniform = {
    n: jnp.asarray(m, jnp.float32) / jnp.asarray(m).sum(-1, keepdims=True)
    for n, m in masks.items()
  }
  costs = {}
  for metric in metrics:
    name = f"metric {metric.name}"
    costs[metric.name] = _number(name, metric.expected, uniform)
  for objective in objectives:
    tasks = {task: jnp.float32(1.0) for task in objective.task}
    read = {m.name: costs[m.name] for m in objective.metrics}
    name = f"objective {objective.name}"
    value = float(_number(name, objective.value, tasks, read))
    if value < objective.low:
      raise ValueError(
        f"{name} is {value:g}, below the low={objective.low:g} that it states"
      )
    if weighting is not None and objective.low < weighting.low:
      raise ValueError(
        f"{name} may lie below {weighting.low:g}, which the weighting needs all"
        " objectives to be above"
      )
  if weighting is not None:
    _check_weighting(weighting, len(objectives))
  for constraint in constraints:
    _check_constraint(constraint)


def check_limits(space: Any, constraints: Sequence[Constraint]) -> None:
  """Checks that what limits bound can be said of a decided network.

  Args:
    space: the space.
    constraints: of the search.

  Raises:
    ValueError: names a metric whose `exact` raises, is no finite number, or is
      not `expected` at the network's one-hot weights although it is `tight`.
  """
  if in_trace() or not constraints:
    return
  drawn = random_choices(space, np.random.default_rng(0), 1)
  one = Architecture(space, {n: row[0] for n, row in drawn.items()})
  for metric in (c.metric for c in constraints):
    name = f"metric {metric.name}: exact"
    try:
      value = metric.exact(one)
    except RAISED as error:
      said = one_line(f"{type(error).__name__}: {error}")[:200]
      raise ValueError(f"{name} raised {said}; a limit needs it") from error
    found = _check_array(name, value, ())
    expected = float(metric.expected(one.one_hot()))
    if metric.tight and not np.isclose(expected, found, rtol=1e-2, atol=1e-6):
      raise ValueError(
        f"{name} says {float(found):g} of a network, expected {expected:g} of"
        " its one-hot weights; where they may differ, tight=False"
      )


def _called(name: str, function: Callable, *arguments):
  """Its value; the same twice and when traced."""
  try:
    value, again = function(*arguments), function(*arguments)
    traced = jax.jit(function)(*arguments)
  except RAISED as error:
    said = one_line(f"{type(error).__name__}: {error}")[:200]
    raise ValueError(f"{name} raised {said}") from error
  for other, how in ((again, "when called again"), (traced, "under jit")):
    if jax.tree.structure(value) != jax.tree.structure(other) or any(
      jnp.shape(a) != jnp.shape(b)
      or not np.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True)
      for a, b in zip(_plain(value), _plain(other), strict=True)
    ):
      raise ValueError(f"{name} is not pure: it differs {how}")
  return value


def _plain(tree) -> list:
  """Its leaves; typed keys as their numbers."""
  return [
    jax.random.key_data(leaf)
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key)
    else leaf
    for leaf in jax.tree.leaves(tree)
  ]


def _check_array(name: str, value, shape: tuple[int, ...]) -> Array:
  """The value as an array, if it is one of finite floats of that shape."""
  # A plain number is one too: a constant is a fair objective.
  if not isinstance(value, (jax.Array, np.ndarray, np.generic, float, int)):
    raise ValueError(f"{name} returned {type(value).__name__}, not an array")
  if jnp.shape(value) != shape:
    raise ValueError(
      f"{name} returned shape {jnp.shape(value)}, {shape} is expected"
    )
  if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
    raise ValueError(
      f"{name} returned {jnp.result_type(value)}, float32 is expected"
    )
  if not np.isfinite(value).all():
    raise ValueError(f"{name} is not finite")
  return jnp.asarray(value)


def _number(name: str, function: Callable, *arguments) -> Array:
  """Its value, if that is one finite number with a finite gradient."""
  value = _check_array(name, _called(name, function, *arguments), ())
  places = tuple(range(len(arguments)))
  try:
    slopes = jax.jit(jax.grad(function, argnums=places))(*arguments)
  except RAISED as error:
    said = one_line(f"{type(error).__name__}: {error}")[:200]
    raise ValueError(f"{name}: its gradient raised {said}") from error
  if not all(np.isfinite(s).all() for s in jax.tree.leaves(slopes)):
    raise ValueError(f"{name}: its gradient is not finite")
  return value


def _check_state(name: str, before, after) -> None:
  """The state goes through a compiled loop: it must keep its types."""

  def types(tree):
    return jax.tree.map(lambda v: (jnp.shape(v), jnp.result_type(v)), tree)

  if types(before) != types(after):
    raise ValueError(
      f"{name}: the state it returns has another structure, shape or dtype"
      " than the one it was given"
    )


def _pair(name: str, value):
  if not isinstance(value, tuple) or len(value) != 2:
    raise ValueError(
      f"{name} returned {type(value).__name__}, a pair of result and state is"
      " expected"
    )
  return value


def _check_weighting(weighting: Weighting, objectives: int) -> None:
  name = "weighting"
  ones = jnp.ones(objectives, jnp.float32)
  key = jax.random.key(0)
  state = _called(f"{name}: init", weighting.init, key, ones)
  # Independent gradients, and none at all: the end of every search.
  for gramian in (jnp.eye(objectives), jnp.zeros((objectives, objectives))):
    made = _called(f"{name}: update", weighting.update, ones, gramian, state)
    coefficients, after = _pair(f"{name}: update", made)
    _check_array(f"{name}: update", coefficients, (objectives,))
    _check_state(name, state, after)


def _check_constraint(constraint: Constraint) -> None:
  name = f"limit on {constraint.metric.name}"
  limit = jnp.float32(constraint.limit)
  state = _called(f"{name}: init", constraint.init, limit)
  for violation in (0.5, 0.0, -0.5):
    made = _called(
      f"{name}: update",
      constraint.update,
      jnp.float32(violation),
      state,
      jnp.int32(0),
    )
    multiplier, after = _pair(f"{name}: update", made)
    _check_array(f"{name}: update", multiplier, ())
    _check_state(name, state, after)
