"""Guesses of all objectives of a network, from those that were evaluated.

    errors   a Gaussian process of log(error - floor), on `features`
    costs    a per-choice table fitted to the networks, times 1 + a Gaussian
             process of what it is off by
    limits   a Gaussian process of whether a network keeps them

The means are differentiable in the relaxed weights, so that a gradient search
can go through them; deviations are for a search that measures where it knows
least. A fitted state is a pytree; `padded` to the same capacity, functions of
it compile once, however many networks it was fitted to.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features, gaussian_process
from nasjax.hardware import fit as fitting
from nasjax.hardware.gaussian_process import GaussianProcess
from nasjax.types import Choices, Group, Weights

__all__ = [
  "KINDS",
  "Prediction",
  "State",
  "Surrogate",
  "padded",
  "surrogate",
]

KINDS = ("error", "cost")
# Chosen on NAS-Bench-201 with seeds from 100 on: between how good networks
# differ little beside the range of bad ones.
_FLOOR = 0.8  # of the smallest error
_LENGTHS, _LINEAR = (1.0, 2.0), (0.3, 1.0)
_NOISES = (1e-3, 1e-2, 0.03, 0.1, 0.3)
# A rough prediction could always turn out well: hoping for luck takes
# evaluations from what is known to be good (raspi4's latencies deviate by 12%).
_MOST_NOISE = 0.03
# Networks whose cost over the table's is further than this from the median do
# not correct it: of those that lead nowhere and cost next to nothing the table
# may be off many times over, which would spoil what is said of all others.
_FAR = 0.5
_MAD = 1.4826  # standard deviations in a median absolute deviation


class Prediction(NamedTuple):
  """What N networks are expected to have, float64."""

  mean: np.ndarray  # [N, M]
  deviation: np.ndarray  # [N, M], see `surrogate`
  feasible: np.ndarray  # [N], the probability that all limits are kept


class State(NamedTuple):
  """A fitted surrogate."""

  processes: tuple[GaussianProcess, ...]  # one an objective
  scales: np.ndarray  # f64[M]: floors of errors; least costs
  noises: np.ndarray  # f64[M], standard deviation in the processes' units
  constants: np.ndarray  # f64[M], of the tables
  tables: tuple[dict[str, np.ndarray], ...]  # f64[E, K] a group
  reaching: np.ndarray  # f64[M], 1 where only edges that lead on count
  limits: GaussianProcess  # predicts 1 where they are kept


class Surrogate(NamedTuple):
  """How guesses are fitted and made."""

  # (choices i32[N, E] a group, values f64[N, M], violations f64[N]) -> State
  fit: Callable[[Choices, Any, Any], State]
  # (state, weights f[..., E, K] a group) -> (means f32[..., M], feasible
  # f32[...]); traced and differentiable
  expected: Callable[[State, Weights], tuple[jax.Array, jax.Array]]
  # (state, choices i32[N, E] a group) -> Prediction
  predict: Callable[[State, Choices], Prediction]


def surrogate(
  groups: Mapping[str, Group],
  kinds: Sequence[str],
  reference: Choices,
  *,
  ends: choice_tables.Ends | None = None,
  ties: Any = None,
  costs: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Surrogate:
  """Makes a surrogate of M objectives.

  Args:
    groups: of the space.
    kinds: "error" (above 0) or "cost" of each objective.
    reference: i32[R, E] a group, random networks, to standardise features.
    ends: see `choices.ends_of`.
    ties: see `fit.ties_of`.
    costs: see `features.costs_of`.

  Returns:
    fit, expected and predict. A predicted deviation says how far a search may
    hope: a cost's is what networks left out differ by, but 3% at most.

  Raises:
    ValueError: an unknown kind.
  """
  for kind in kinds:
    if kind not in KINDS:
      raise ValueError(f"kind {kind!r} must be one of {KINDS}")
  ends = ends or {}
  cells = bool(ends) and set(ends) == set(groups)
  described = features.make(groups, ends=ends, costs=costs)
  drawn = described(choice_tables.one_hot(reference, groups))

  def process(rows, values, **settings):
    settings = {"lengths": _LENGTHS, "linear": _LINEAR, **settings}
    return gaussian_process.fit(
      rows, values, reference=drawn, noises=_NOISES, **settings
    )

  def fit_error(rows, values):
    if values.min() <= 0:
      raise ValueError(f"an error is {values.min():g}, it must be above 0")
    floor = _FLOOR * values.min()
    found = process(rows, np.log(values - floor))
    return found, floor, np.sqrt(found.noise * found.variance) * found.deviation

  def base(state, index, weights):
    """The table's part of a cost."""
    library = np if isinstance(state.constants, np.ndarray) else jnp
    summed = functools.partial(library.einsum, "...ek,ek->...")
    total = state.constants[index]
    counted = {
      rule: choice_tables.counted_weights(weights, groups, rule, ends)
      for rule in choice_tables.COUNTED[: 1 + cells]
    }
    for name in groups:
      table = state.tables[index][name]
      every = summed(counted["every_edge"][name], table)
      if cells:
        on = state.reaching[index]
        reaching = summed(counted["reaching_output"][name], table)
        every = on * reaching + (1.0 - on) * every
      total = total + every
    return library.maximum(total, state.scales[index])

  def fit_cost(choices, rows, values):
    constant, table, on = float(np.median(values)), None, 0.0
    if values.min() >= 0 and _all_seen(choices, groups):
      found = fitting.fit(groups, choices, values, ends=ends, ties=ties)
      constant, table = found.constant, found.tables
      on = float(found.counted == "reaching_output")
    on_table = table is not None
    table = table or {
      n: np.zeros((g.edges, len(g.candidates))) for n, g in groups.items()
    }
    least = 0.01 * float(np.median(np.abs(values))) or 1.0
    one = State(
      (), np.array([least]), None, np.array([constant]), (table,), [on], None
    )
    table_says = base(one, 0, choice_tables.one_hot(choices, groups))
    off = values / table_says - 1.0
    near = np.abs(off - np.median(off)) <= _FAR
    if not on_table or near.sum() < max(3, len(off) / 2):
      near[:] = True
    found = process(rows[near], off[near], linear=(0.0, *_LINEAR))
    noise = _MAD * float(np.median(np.abs(off[near] - found.left_out)))
    noise = min(noise, _MOST_NOISE)
    return found, least, noise, constant, table, on

  def fit(choices: Choices, values: Any, violations: Any) -> State:
    values = np.asarray(values, np.float64)
    kept = np.asarray(violations) <= 0
    # What breaks a limit is no example of what keeps it, if there is enough.
    used = kept if kept.sum() >= 20 else np.ones(len(kept), bool)
    rows = described(choice_tables.one_hot(choices, groups))
    parts = []
    for index, kind in enumerate(kinds):
      if kind == "error":
        found = fit_error(rows[used], values[used, index])
        empty = {
          n: np.zeros((g.edges, len(g.candidates))) for n, g in groups.items()
        }
        parts.append((*found, 0.0, empty, 0.0))
      else:
        parts.append(fit_cost(choices, rows, values[:, index]))
    processes, scales, noises, constants, tables, on = zip(*parts, strict=True)
    limits = process(rows, kept.astype(float))
    return State(
      processes,
      np.array(scales),
      np.array(noises),
      np.array(constants),
      tables,
      np.array(on),
      limits,
    )

  def means(state, weights, predicted):
    found = []
    for index, kind in enumerate(kinds):
      value = predicted[index]
      if kind == "error":
        library = np if isinstance(value, np.ndarray) else jnp
        found.append(state.scales[index] + library.exp(value))
      else:
        found.append(base(state, index, weights) * (1.0 + value))
    return found

  def expected(state: State, weights: Weights):
    state = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), state)
    weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
    rows = described(weights)
    predicted = [p.predict(rows) for p in state.processes]
    feasible = jnp.clip(state.limits.predict(rows), 0.0, 1.0)
    return jnp.stack(means(state, weights, predicted), -1), feasible

  def predict(state: State, choices: Choices) -> Prediction:
    weights = choice_tables.one_hot(choices, groups)
    rows = described(weights)
    both = [p.predict_with_deviation(rows) for p in state.processes]
    mean = means(state, weights, [m for m, _ in both])
    spread = []
    for index, kind in enumerate(kinds):
      if kind == "error":
        own = np.sqrt(both[index][1] ** 2 + state.noises[index] ** 2)
        spread.append((mean[index] - state.scales[index]) * own)
      else:
        spread.append(np.abs(mean[index]) * state.noises[index])
    feasible = np.clip(state.limits.predict(rows), 0.0, 1.0)
    return Prediction(np.stack(mean, -1), np.stack(spread, -1), feasible)

  return Surrogate(fit, expected, predict)


def _all_seen(choices, groups):
  """Whether the networks hold every candidate of every edge."""
  hot = choice_tables.one_hot(choices, groups)
  return all(weights.any(0).all() for weights in hot.values())


def padded(state: State, capacity: int) -> State:
  """The same means from arrays of `capacity` samples; no deviations.

  Raises:
    ValueError: it was fitted to more.
  """

  def pad(process):
    more = capacity - len(process.solved)
    if more < 0:
      raise ValueError(
        f"{len(process.solved)} networks are more than capacity {capacity}"
      )
    return process._replace(
      inputs=np.pad(process.inputs, ((0, more), (0, 0))),
      solved=np.pad(process.solved, (0, more)),  # the added ones weigh 0
      factor=np.zeros((0, 0)),
      left_out=np.zeros(0),
    )

  return state._replace(
    processes=tuple(pad(p) for p in state.processes), limits=pad(state.limits)
  )
