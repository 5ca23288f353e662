"""Users' own objectives, weightings, limits and metrics that break promises."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import constraints, hardware, objectives, search, weightings


def run(toy, metric=None, objective=None, weighting=None, limit=None):
  """Builds a search from one part that is not sound."""
  cost = metric or hardware.macs(toy)
  made = objectives.metric(cost, reference=1e4)
  return search.differentiable(
    toy,
    objectives=[objectives.cross_entropy(), objective or made],
    weighting=weighting,
    constraints=[limit] if limit else [],
  )


OBJECTIVES = {
  "shape \\(2,\\)": lambda t, c: jnp.ones(2),
  "NoneType": lambda t, c: None,
  "int32": lambda t, c: jnp.int32(1),
  "is not finite": lambda t, c: t["cross_entropy"] * jnp.inf,
  "gradient is not finite": lambda t, c: jnp.sqrt(t["cross_entropy"] - 1.0),
  "raised KeyError": lambda t, c: t["latency"],
  "raised Tracer": lambda t, c: 1.0 if t["cross_entropy"] > 0 else 2.0,
  "not pure": lambda t, c: t["cross_entropy"] * random.random(),
}


@pytest.mark.parametrize("said", OBJECTIVES)
def test_objectives(said, toy):
  mine = objectives.cross_entropy()._replace(
    name="mine", value=OBJECTIVES[said]
  )
  with pytest.raises(ValueError, match=f"objective mine.*{said}"):
    run(toy, objective=mine)


def test_an_objective_may_be_a_plain_number(toy):
  mine = objectives.cross_entropy()._replace(
    name="mine", value=lambda t, c: 0.5
  )
  run(toy, objective=mine)


METRICS = {
  "shape": lambda w: w["layers"],
  "not finite": lambda w: jnp.log(w["layers"].sum() * 0.0),
  "gradient": lambda w: jnp.sqrt(jnp.var(w["layers"])),
  "raised": lambda w: w["nowhere"].sum(),
  "raised TypeError": lambda w: "12 ms",
}


@pytest.mark.parametrize("said", METRICS)
def test_metrics(said, toy):
  mine = hardware.macs(toy)._replace(name="mine", expected=METRICS[said])
  with pytest.raises(ValueError, match=f"metric mine.*{said}"):
    run(toy, metric=mine)


WEIGHTINGS = {
  "pair": lambda v, g, s: v,
  "shape": lambda v, g, s: (v[:1], s),
  "not finite": lambda v, g, s: (v / g[0, 0], s),
  "another structure": lambda v, g, s: (v, (s, s)),
  "raised": lambda v, g, s: (np.linalg.inv(np.asarray(g)) @ v, s),
}


@pytest.mark.parametrize("said", WEIGHTINGS)
def test_weightings(said, toy):
  mine = weightings.constant()._replace(update=WEIGHTINGS[said])
  with pytest.raises(ValueError, match=f"weighting.*{said}"):
    run(toy, weighting=mine)


LIMITS = {
  "pair": lambda v, s, step: v,
  "shape": lambda v, s, step: (jnp.stack([v, v]), s),
  "not finite": lambda v, s, step: (1.0 / v, s),
  "another structure": lambda v, s, step: (jnp.maximum(v, 0.0), step),
  "not pure": lambda v, s, step: (jnp.maximum(v, 0.0) + random.random(), s),
}


@pytest.mark.parametrize("said", LIMITS)
def test_limits(said, toy):
  limit = constraints.at_most(hardware.params(toy), 100.0)
  with pytest.raises(ValueError, match=f"limit on params.*{said}"):
    run(toy, limit=limit._replace(update=LIMITS[said]))


@pytest.mark.parametrize(
  "penalty", ["quadratic", "augmented_lagrangian", "equality", "log_barrier"]
)
def test_no_feasible_network_and_extreme_logits_have_no_nan(
  penalty, toy, batches
):
  """An empty feasible set, with logits that are equal or decided."""
  params = hardware.params(toy)
  penalty = getattr(constraints, penalty)()
  limit = constraints.at_most(params, 1.0, penalty=penalty)
  made = search.differentiable(
    toy,
    objectives=[objectives.cross_entropy(), objectives.metric(params)],
    weighting=weightings.mgda(),
    constraints=[limit],
  )
  train, valid = batches((8, 8, 1))
  first = made.init(jax.random.key(0))
  decided = 100.0 * jax.nn.one_hot(jnp.zeros(3, int), 4)
  for logits in (jnp.zeros((3, 4)), decided, -decided):
    member = first.member._replace(logits={"layers": logits})
    state = first._replace(member=member)
    for _ in range(2):
      state, info = made.update(state, train, valid)
      assert bool(info.finite), info.sound
      assert info.multipliers["params"] >= 0
    assert np.isfinite(state.member.logits["layers"]).all()
