"""What `--strategy staged` expects of architectures that it did not evaluate.

Only what an evaluation finds is predicted: the error, and costs that a device
measures in the loop. Other costs and limits are exact for every architecture.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features
from nasjax.hardware import fit as fitting
from nasjax.search import genes as genetics
from nasjax.search import staged
from nasjax.search import surrogate as surrogates
from nasjax.search.surrogate import Prediction


def fit(problem: Any, costs: list, measured: Collection[str]) -> staged.Fit:
  """What `staged.staged` takes.

  Args:
    problem: a `search.Problem`.
    costs: the metrics that are objectives beside the error.
    measured: names of metrics that are measured, not known.

  Returns:
    (genes i32[N, G], objectives f64[N, M], violations f64[N]) -> a function of
    genes i32[K, G] that gives a `Prediction` of M objectives.
  """
  space = problem.space
  # All of a finite number of images may be right: half of one is not.
  least = 0.5 / len(problem.valid.labels)
  learnt = [0] + [i + 1 for i, m in enumerate(costs) if m.name in measured]
  known = [i + 1 for i in range(len(costs)) if i + 1 not in learnt]
  bounds = [(m, b) for m, b in problem.limits if m.name not in measured]
  made = surrogates.surrogate(
    space.groups,
    ["error"] + ["cost"] * (len(learnt) - 1),
    problem.random,
    ends=choice_tables.ends_of(space),
    ties=fitting.ties_of(space),
    costs=features.costs_of(space),
  )

  def fitted(genes, objectives, violations):
    values = np.array(objectives[:, learnt], np.float64)
    values[:, 0] = np.maximum(values[:, 0], least)
    chosen = genetics.to_choices(space.masks, genes)
    state = made.fit(chosen, values, violations)

    def predict(genes):
      choices = genetics.to_choices(space.masks, genes)
      guess = made.predict(state, choices)
      mean = np.zeros((len(genes), 1 + len(costs)))
      deviation = np.zeros_like(mean)
      mean[:, learnt], deviation[:, learnt] = guess.mean, guess.deviation
      for i in known:
        mean[:, i] = problem.costs[costs[i - 1].name].of(choices)
      feasible = _connected(space, choices).astype(float)
      for metric, bound in bounds:
        feasible *= problem.costs[metric.name].of(choices) <= bound
      if len(bounds) < len(problem.limits):
        feasible *= guess.feasible
      return Prediction(mean, deviation, feasible)

    return predict

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
