"""What an evolution expects of architectures that it did not evaluate.

Only what an evaluation finds is predicted: the error, and costs that a device
measures in the loop. Other costs and limits are exact for every architecture.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features
from nasjax.hardware import fit as fitting
from nasjax.search import genes as genetics
from nasjax.search import staged
from nasjax.search import surrogate as surrogates
from nasjax.search.surrogate import Prediction, Surrogate

_SOFT = 0.05  # relative violation over which a limit is softened for gradients


def surrogate(
  problem: Any, costs: list, measured: Collection[str]
) -> Surrogate:
  """Predictions of the error and all costs.

  Args:
    problem: a `search.Problem`.
    costs: the metrics that are objectives beside the error.
    measured: names of metrics that are measured, not known.

  Returns:
    fit, expected and predict. Predictions of what is known deviate by 0, and
    `predict` says 0 or 1 of limits that are known.
  """
  space = problem.space
  learnt = [0] + [i + 1 for i, m in enumerate(costs) if m.name in measured]
  known = [i + 1 for i in range(len(costs)) if i + 1 not in learnt]
  bounds = [(m, b) for m, b in problem.limits if m.name not in measured]
  unknown = len(bounds) < len(problem.limits)
  # All of a finite number of images may be right: half of one is not.
  least = 0.5 / len(problem.valid.labels)
  made = surrogates.surrogate(
    space.groups,
    ["error"] + ["cost"] * (len(learnt) - 1),
    problem.random,
    ends=choice_tables.ends_of(space),
    ties=fitting.ties_of(space),
    costs=features.costs_of(space),
  )

  def fit(choices, values, violations):
    values = np.array(np.asarray(values)[:, learnt], np.float64)
    values[:, 0] = np.maximum(values[:, 0], least)
    return made.fit(choices, values, violations)

  def each(metric, weights):
    """A metric f32[...] of weights f32[..., E, K]."""
    lead = next(iter(weights.values())).shape[:-2]
    flat = {n: w.reshape(-1, *w.shape[-2:]) for n, w in weights.items()}
    return jax.vmap(metric.expected)(flat).reshape(lead)

  def expected(state, weights):
    means, sure = made.expected(state, weights)
    columns = {c: means[..., i] for i, c in enumerate(learnt)}
    columns |= {c: each(costs[c - 1], weights) for c in known}
    feasible = sure if unknown else jnp.ones_like(sure)
    for metric, bound in bounds:
      over = each(metric, weights) / bound - 1.0
      feasible = jnp.minimum(feasible, jax.nn.sigmoid(-over / _SOFT))
    return jnp.stack([columns[c] for c in range(1 + len(costs))], -1), feasible

  def predict(state, choices):
    guess = made.predict(state, choices)
    feasible = _connected(space, choices).astype(float)
    mean = np.zeros((len(feasible), 1 + len(costs)))
    deviation = np.zeros_like(mean)
    mean[:, learnt], deviation[:, learnt] = guess.mean, guess.deviation
    for column in known:
      mean[:, column] = problem.costs[costs[column - 1].name].of(choices)
    for metric, bound in bounds:
      feasible *= problem.costs[metric.name].of(choices) <= bound
    if unknown:
      feasible *= guess.feasible
    return Prediction(mean, deviation, feasible)

  return Surrogate(fit, expected, predict)


def fit(problem: Any, made: Surrogate) -> staged.Fit:
  """A surrogate as `staged.staged` takes it, on genes."""
  space = problem.space

  def fitted(genes, objectives, violations):
    choices = genetics.to_choices(space, genes)
    state = made.fit(choices, objectives, violations)
    return lambda genes: made.predict(state, genetics.to_choices(space, genes))

  return fitted


def _connected(space, choices) -> np.ndarray:
  """bool[N]: networks whose output sees their input, see `space.cuts`."""
  size = len(next(iter(choices.values())))
  found = np.ones(size, bool)
  for group, cuts in space.cuts.items():
    none = space.groups[group].candidates.index("none")
    for cut in cuts:
      found &= (choices[group][:, list(cut)] != none).any(-1)
  return found
