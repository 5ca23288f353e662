"""Learned predictors of costs and accuracies, as metrics of the search.

* `architecture_predictor`: a Gaussian process on features of the relaxed
  weights, so that what does not add up over the choices (edges that lead
  nowhere, fusion) is differentiable inside the search. BRP-NAS (Dudziak et
  al., NeurIPS 2020) learns the same from whole networks with a graph network.
* `accuracy_predictor`: the same with the noise of a cheap signal, and its
  standard deviation.

Costs of one workload: see `workload_predictor.py`. New devices from few
networks: see `transfer.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features, gaussian_process
from nasjax.hardware.scores import Errors, prediction_errors
from nasjax.hardware.workload_predictor import (
  WorkloadPredictor,
  workload_predictor,
)
from nasjax.spaces.space import random_choices
from nasjax.types import Choices, Group, Metric, Weights

__all__ = [
  "ArchitecturePredictor",
  "WorkloadPredictor",
  "accuracy_predictor",
  "architecture_predictor",
  "workload_predictor",
]

_REFERENCE = 2000  # random architectures by which features are standardised
# A signal such as the accuracy after 12 epochs is far from the score that is
# meant, and leaving samples out cannot tell how far: the noise is given, as
# much as there is signal. Both were chosen on NAS-Bench-201.
ACCURACY_NOISE = 1.0
ACCURACY_LENGTH = 2.0


class ArchitecturePredictor(NamedTuple):
  """Predicts one number of an architecture."""

  features: Callable[[Weights], Any]
  process: gaussian_process.GaussianProcess
  groups: Mapping[str, Group]
  errors: Errors  # each sample predicted from all others
  kept: Mapping[str, kept_edges.KeptSets] = {}  # of the space

  def expected(self, weights: Weights) -> jax.Array:
    """The mean f32[] of weights f[E, K] a group; differentiable."""
    return self.process.predict(self.features(self._relaxed(weights)))

  def _relaxed(self, weights: Weights) -> Weights:
    """Weights as f32, and as networks keep edges."""
    weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
    return kept_edges.probabilities(weights, self.kept)

  def of(self, choices: Choices) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation f64[N] of choices i32[N, E] a group."""
    weights = choice_tables.one_hot(choices, self.groups)
    return self.process.predict_with_deviation(self.features(weights))

  def metric(
    self,
    name: str,
    unit: str,
    *,
    device: str | None = None,
    deviations: float = 0.0,
  ) -> Metric:
    """The metric of mean + `deviations` standard deviations.

    Args:
      name: of the metric, with its unit.
      unit: of the values that were learned.
      device: they belong to, if any.
      deviations: 0 the mean; above 0 careful of what is unknown, as a limit
        wants it; below 0 curious.
    """

    def value(weights):
      found = self.features(weights)
      if not deviations:
        return self.process.predict(found)
      mean, spread = self.process.predict_with_deviation(found)
      return mean + deviations * spread

    def expected(weights):
      return value(self._relaxed(weights))

    def exact(architecture):
      hot = architecture.one_hot()
      return float(
        value({n: np.asarray(w, np.float64) for n, w in hot.items()})
      )

    samples = len(self.process.inputs)
    source = f"predicted from {samples} networks: {self.errors}"
    return Metric(name, unit, device, expected, exact, True, source, "other")


def architecture_predictor(
  space: Any, choices: Choices, values: Any, **settings: Any
) -> ArchitecturePredictor:
  """Learns a cost from measured networks.

  Args:
    space: the space.
    choices: i32[N, E] a group, the networks.
    values: f[N], what was measured.
    **settings: `lengths`, `linear`, `noises` of `gaussian_process.fit`.

  Returns:
    The predictor; its `errors` are of each network predicted from the others.

  Raises:
    ValueError: see `gaussian_process.fit`.
  """
  made = features.make(
    space.groups,
    ends=choice_tables.ends_of(space),
    costs=features.costs_of(space),
  )
  drawn = random_choices(space, np.random.default_rng(0), _REFERENCE)
  one_hot = choice_tables.one_hot
  process = gaussian_process.fit(
    made(one_hot(choices, space.groups)),
    values,
    reference=made(one_hot(drawn, space.groups)),
    **settings,
  )
  errors = prediction_errors(process.left_out, values)
  kept = kept_edges.kept_sets(space)
  return ArchitecturePredictor(made, process, space.groups, errors, kept)


def accuracy_predictor(
  space: Any, choices: Choices, values: Any, *, noise: float = ACCURACY_NOISE
) -> ArchitecturePredictor:
  """Learns an accuracy (or error) from networks that were trained a little.

  Args:
    space: the space.
    choices: i32[N, E] a group, the networks.
    values: f[N], accuracy or error of each.
    noise: variance of what the values say beside what is meant, over the
      variance of the values.

  Returns:
    The predictor, with standard deviations.
  """
  return architecture_predictor(
    space,
    choices,
    values,
    lengths=(ACCURACY_LENGTH,),
    linear=(0.0,),
    noises=(noise,),
  )
