"""Few-shot transfer: a new device from about ten networks and other devices.

Devices of one field share which operations are dear. Each source device gives
one point of a Gaussian prior on the costs of the target's choices (as a share
of its mean latency); the target's few networks update it. HELP (Lee et al.,
NeurIPS 2021), MultiPredict (Akhauri and Abdelfattah, AutoML 2023) and NASFLAT
(same, MLSys 2024) learn such a prior as a neural network's weights; here it is
hierarchical Bayesian linear regression in closed form (Gelman et al.,
"Bayesian Data Analysis", chapter 15), which a search can differentiate.

Whether edges that lead nowhere cost anything (`choices.COUNTED`) is a second
unknown: both rules are held, each weighed by its evidence.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy.optimize import nnls

from nasjax import kept_edges
from nasjax.hardware import choices as choice_tables
from nasjax.types import Choices, Group, Metric

__all__ = ["Samples", "Transferred", "transfer"]

# Grids over which the evidence averages. Costs are shares of the device's
# mean, so a cost of 0.3 is a dear operation.
SPREADS = (1e-4, 1e-3, 1e-2, 0.1, 1.0)  # variances beside the sources'
NOISES = (1e-4, 3e-3, 0.01, 0.03, 0.1, 0.2)  # standard deviations
SCALES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 1.6, 2.0)


class Samples(NamedTuple):
  """Networks that were measured on a device."""

  choices: Choices  # i32[N, E] a group
  values: Any  # f[N]


class Transferred(NamedTuple):
  """A target's costs: one table f64[E, K] a group for each rule, weighed."""

  groups: Mapping[str, Group]
  ends: Mapping[str, Sequence[tuple[int, int]]]
  tables: Mapping[str, tuple[float, Mapping[str, np.ndarray]]]
  evidence: Mapping[str, float]  # of each rule, sums to 1
  kept: Mapping[str, kept_edges.KeptSets] = {}  # of the space

  def value(self, weights):
    """The cost f[...] of weights f[..., E, K]; differentiable with JAX."""
    total = 0.0
    for rule, (constant, tables) in self.tables.items():
      counted = choice_tables.counted_weights(
        weights, self.groups, rule, self.ends
      )
      part = constant
      for name, table in tables.items():
        counts = counted[name]
        part = part + (counts * table.astype(counts.dtype)).sum((-2, -1))
      total = total + self.evidence[rule] * part
    return total

  def of(self, choices: Choices) -> np.ndarray:
    """Costs f64[N] of choices i32[N, E] a group."""
    return self.value(choice_tables.one_hot(choices, self.groups))

  def metric(self, name: str, unit: str, *, device: str | None = None):
    """The metric that a search uses."""

    def expected(weights):
      weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
      weights = kept_edges.probabilities(weights, self.kept)
      return jnp.float32(self.value(weights))

    def exact(architecture):
      weights = {
        n: w.astype(np.float64) for n, w in architecture.one_hot().items()
      }
      return float(self.value(weights))

    return Metric(
      name,
      unit,
      device,
      expected,
      exact,
      True,
      "transferred from other devices",
      "sum" if set(self.tables) == {choice_tables.COUNTED[0]} else "other",
    )


class _Classes(NamedTuple):
  """Entries of the table by what they stand for."""

  members: list[list[tuple[str, int, int]]]


def _classes(groups, ties, gauge):
  found: dict[Any, list] = {}
  for name, group in groups.items():
    for edge, k in itertools.product(
      range(group.edges), range(len(group.candidates))
    ):
      if k != gauge[name]:
        tie = (name, ties[name][edge][k]) if ties else (name, edge, k)
        found.setdefault(tie, []).append((name, edge, k))
  return _Classes(list(found.values()))


def _design(classes, groups, choices, rule, ends):
  """f64[N, classes + 1]: how often each stands in each network, and 1."""
  weights = choice_tables.counted_weights(
    choice_tables.one_hot(choices, groups), groups, rule, ends
  )
  columns = [
    sum(weights[name][:, edge, k] for name, edge, k in members)
    for members in classes.members
  ]
  return np.stack([*columns, np.ones(len(columns[0]))], axis=1)


def _alike(points: np.ndarray) -> float:
  """How many independent devices the sources f64[D, P] are worth.

  The participation ratio of their correlations' eigenvalues: 1 where all are
  alike, D where none tells of another.
  """
  if len(points) < 2:
    return float(len(points))
  values = np.linalg.eigvalsh(np.corrcoef(points))
  return float(values.sum() ** 2 / (values**2).sum())


def transfer(
  groups: Mapping[str, Group],
  target: Samples,
  sources: Sequence[Samples] = (),
  *,
  ends: Mapping[str, Sequence[tuple[int, int]]] | None = None,
  ties: Mapping[str, Sequence[Sequence[Any]]] | None = None,
  gauge: Mapping[str, int],
  kept: Mapping[str, kept_edges.KeptSets] | None = None,
) -> Transferred:
  """Learns a target device's costs from few networks.

  Args:
    groups: of the space.
    target: the few networks that were measured on it.
    sources: other devices; none: the same method with a prior that knows
      nothing.
    ends: nodes of the edges, see `choices.ends_of`.
    ties: entries that stand for the same workloads, see `fit.ties_of`.
    gauge: the candidate of each group with entries 0, see `fit.gauge_of`.
    kept: edges of which a network keeps a fixed number, see
      `kept_edges.kept_sets`.

  Returns:
    The target's costs.

  Raises:
    ValueError: fewer than 2 networks, or a value that is not above 0.
  """
  values = np.asarray(target.values, np.float64)
  if len(values) < 2 or not (np.isfinite(values) & (values > 0)).all():
    raise ValueError("at least 2 networks with latencies above 0 are needed")
  cells = bool(ends) and all("none" in g.candidates for g in groups.values())
  rules = choice_tables.COUNTED if cells else choice_tables.COUNTED[:1]
  classes, ends = _classes(groups, ties, gauge), ends or {}
  known, votes = _sources(classes, groups, sources, rules, ends)
  found = []  # (log evidence, coefficients in ms, rule)
  for rule in rules:
    design = _design(classes, groups, target.choices, rule, ends)
    prior = np.log(votes[rule])
    found += [
      (evidence + prior, coefficients, rule)
      for evidence, coefficients in _posteriors(design, values, known)
    ]
  logs = np.array([evidence for evidence, _, _ in found])
  shares = np.exp(logs - logs.max())
  shares /= shares.sum()
  tables, evidence = {}, {}
  for rule in rules:
    mine = [i for i, item in enumerate(found) if item[2] == rule]
    evidence[rule] = float(shares[mine].sum())
    weight = shares[mine] / max(evidence[rule], 1e-300)
    mean = sum(w * found[i][1] for w, i in zip(weight, mine, strict=True))
    tables[rule] = _tables(mean, classes, groups)
  return Transferred(groups, ends, tables, evidence, kept or {})


def _sources(classes, groups, sources, rules, ends):
  """Each source's costs f64[D, P] as shares of its mean; rules' prior."""
  points, wins = [], dict.fromkeys(rules, 0.0)
  for source in sources:
    values = np.asarray(source.values, np.float64)
    scale, best = values.mean(), None
    for rule in rules:
      design = _design(classes, groups, source.choices, rule, ends)
      solved = nnls(design, values / scale)[0]
      loss = np.abs(design @ solved - values / scale).mean()
      if best is None or loss < best[0]:
        best = loss, rule, solved
    wins[best[1]] += 1.0
    points.append(best[2])
  points = np.array(points)
  # Laplace's rule of succession, with devices that are alike counted once.
  worth = _alike(points) / len(points) if len(points) else 0.0
  total = worth * len(points) + len(rules)
  return points, {r: (worth * w + 1.0) / total for r, w in wins.items()}


def _posteriors(design, values, points):
  """(log evidence, posterior mean in ms) at each point of the grids."""
  size = design.shape[1]
  mean, spread = np.zeros(size), np.zeros((size, size))
  if len(points):
    mean = points.mean(0)
    off = points - mean
    spread = off.T @ off / len(points)
  for own, noise in itertools.product(SPREADS, NOISES):
    covariance = spread + own * np.eye(size)
    across = design @ covariance
    factor = np.linalg.cholesky(
      across @ design.T + noise**2 * np.eye(len(values))
    )
    logs = np.log(np.diag(factor)).sum()
    for share in SCALES:
      scale = share * values.mean()
      white = np.linalg.solve(factor, values / scale - design @ mean)
      evidence = -0.5 * white @ white - logs - len(values) * np.log(scale)
      update = across.T @ np.linalg.solve(factor.T, white)
      yield evidence, scale * (mean + update)


def _tables(coefficients, classes, groups):
  made = {n: np.zeros((g.edges, len(g.candidates))) for n, g in groups.items()}
  for value, members in zip(coefficients[:-1], classes.members, strict=True):
    for name, edge, k in members:
      made[name][edge, k] = value
  return float(coefficients[-1]), made
