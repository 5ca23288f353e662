"""Objectives and limits from their names on the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax.numpy as jnp

from nasjax import constraints, objectives, small_qp
from nasjax.cli import metrics, parts
from nasjax.cli.config import SearchConfig
from nasjax.cli.config import flag as flag_of
from nasjax.errors import InputError, nearest
from nasjax.reader import number
from nasjax.types import Array, Metric, Objective

COMPOSED = ("efficiency", "mnasnet_soft", "mnasnet_hard")
WORST = "worst_"
_WITH_ZERO = ("constant", "chebyshev")  # weightings that take coefficients of 0
_FEW = ("upgrad", "exact_pareto")


def _composed(name, known, medians, bounds, flag) -> Objective:
  """An objective that is made of several."""
  if name in ("mnasnet_soft", "mnasnet_hard"):
    if not bounds:
      raise InputError(flag, "needs a target", "add --limit METRIC=VALUE")
    return getattr(objectives, name)(*bounds[0])
  latency, energy = (
    metrics.find(m, known, flag) for m in ("latency_ms", "energy_mj")
  )
  middle = [max(medians[m.name], 1e-9) for m in (latency, energy)]
  return objectives.efficiency(
    latency, energy, latency_reference=middle[0], energy_reference=middle[1]
  )


def _weighted(name, known, medians, flag) -> Objective:
  """A weighted sum of metrics, each over its median."""
  terms = metrics.terms(name, flag)
  found = [metrics.find(metric, known, flag) for _, metric in terms]
  weights = [
    weight / max(medians[metric.name], 1e-9)
    for (weight, _), metric in zip(terms, found, strict=True)
  ]
  return objectives.weighted(found, weights, name=name)


def _worst(name, known, medians, flag) -> Objective:
  """The smooth worst case over the devices, `worst_METRIC`."""
  own = metrics.plain(name.removeprefix(WORST))
  found = [m for m in known.values() if metrics.plain(m.name) == own]
  if len(found) < 2:
    known_on = "one device" if found else "no device"
    raise InputError(
      flag,
      f"{known_on} has the metric {own!r}",
      "name several with --device, and METRIC of them in worst_METRIC",
    )
  middle = [max(medians[m.name], 1e-9) for m in found]
  return objectives.worst(found, middle, name=name)


def make_objectives(
  config: SearchConfig,
  known: Mapping[str, Metric],
  medians: Mapping[str, float],
  bounds: Sequence[tuple[Metric, float]] = (),
) -> tuple[list[Objective], list[float]]:
  """Objectives and their coefficients.

  A metric counts over its median of random architectures, so that
  coefficients compare with a cross entropy. With `--penalty objective` each of
  `bounds` is one more.
  """
  if not config.objective:
    raise InputError("--objective", "none is given", "leave it out")
  made: list[Objective] = []
  preference: list[float] = []
  for text in config.objective:
    name, value = metrics.split_assignment(text, "--objective")
    flag = f"--objective {name}"
    preference.append(
      1.0 if value is None else number(value, flag, low=0.0, high=1e30)
    )
    if preference[-1] == 0 and config.weighting not in _WITH_ZERO:
      raise InputError(flag, f"{config.weighting} needs it above 0")
    if name == "cross_entropy":
      # A reward needs no gradient, so it reads the accuracy itself.
      rewarded = config.strategy == "enas"
      made.append(
        objectives.error() if rewarded else objectives.cross_entropy()
      )
    elif name in COMPOSED:
      made.append(_composed(name, known, medians, bounds, flag))
    elif name not in known and ("+" in name or "*" in name):
      made.append(_weighted(name, known, medians, flag))
    elif name.startswith(WORST):
      made.append(_worst(name, known, medians, flag))
    else:
      names = ["cross_entropy", *COMPOSED, *known]
      if name not in known and ":" not in name:
        close = nearest(name, names)
        raise InputError(flag, "unknown objective", close)
      metric = metrics.find(name, known, flag)
      made.append(
        objectives.metric(metric, reference=max(medians[metric.name], 1e-9))
      )
  names = [o.name for o in made]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"--objective {name}", "is given twice")
  if config.penalty == "objective":
    made += [constraints.as_objective(m, bound) for m, bound in bounds]
    preference += [1.0] * len(bounds)
  lowest = parts.weighting(config).low
  for objective in made:
    if objective.low < lowest:
      raise InputError(
        f"--weighting {config.weighting}",
        f"needs objectives above {lowest:g}, {objective.name} may lie below",
        "take constant, mgda, pcgrad or upgrad",
      )
  if config.weighting in _FEW and len(made) > small_qp.MOST_ENUMERATED:
    raise InputError(
      f"--weighting {config.weighting}",
      f"takes at most {small_qp.MOST_ENUMERATED} objectives, not {len(made)}",
    )
  return made, preference


def make_constraints(
  config: SearchConfig,
  bounds: Sequence[tuple[Metric, float | Array]],
  steps: int | Array,
  begin: int | Array,
) -> list:
  """One constraint a limit.

  Args:
    config: what to do.
    bounds: the limits; they may be traced, as may be steps.
    steps: of the whole search; a fifth of those that move the architecture is
      the time constant of `--tighten`.
    begin: the first step that moves the architecture.

  Returns:
    The constraints; none with `--penalty objective`.
  """
  schedule = None
  if config.tighten is not None:
    tau = jnp.maximum((steps - begin) / 5.0, 1.0)
    schedule = constraints.tighten(start=config.tighten, tau=tau, begin=begin)
    if config.penalty == "objective" or not bounds:
      raise InputError("--tighten", "there is no limit that could", "leave it")
  plain = SearchConfig()
  for name in ("penalty", "penalty_strength") if not bounds else ():
    if getattr(config, name) != getattr(plain, name):
      raise InputError(flag_of(name), "there is no limit", "add --limit")
  if config.penalty == "objective":
    return []
  chosen = parts.penalty(config)
  return [
    constraints.at_most(metric, bound, penalty=chosen, schedule=schedule)
    for metric, bound in bounds
  ]
