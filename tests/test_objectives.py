"""Objectives against their published formulas and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import objectives
from nasjax.types import Metric


def metric(name, device=None):
  return Metric(name, "", device, lambda w: w, lambda a: 0.0)


LATENCY, ENERGY = metric("latency_ms"), metric("energy_mj")
PLACES = [(0.3, 2.0, 5.0), (1.2, 10.0, 3.0), (2.3, 40.0, 0.5)]


def numbers(objective, entropy, latency, energy):
  """The value and a check of its gradients by central differences."""

  def value(x):
    task = {"cross_entropy": x[0]}
    return objective.value(task, {"latency_ms": x[1], "energy_mj": x[2]})

  with jax.enable_x64(True):
    at = jnp.array([entropy, latency, energy], jnp.float64)
    slope, eps = np.asarray(jax.grad(value)(at)), 1e-6
    for i in range(3):
      step = eps * jnp.eye(3)[i]
      want = (value(at + step) - value(at - step)) / (2 * eps)
      assert slope[i] == pytest.approx(float(want), abs=1e-6)
    return float(value(at))


@pytest.mark.parametrize("entropy, latency, energy", PLACES)
def test_values_are_the_published_ones(entropy, latency, energy):
  accuracy = np.exp(-entropy)
  soft = objectives.mnasnet_soft(LATENCY, 12.0)
  assert numbers(soft, entropy, latency, energy) == pytest.approx(
    -accuracy * (latency / 12.0) ** -0.07
  )
  hard = objectives.mnasnet_hard(LATENCY, 12.0)
  want = accuracy if latency <= 12 else accuracy * 12.0 / latency
  assert numbers(hard, entropy, latency, energy) == pytest.approx(-want)
  ratio = objectives.efficiency(
    LATENCY,
    ENERGY,
    accuracy_exponent=2.0,
    energy_exponent=0.5,
    latency_exponent=0.25,
  )
  assert numbers(ratio, entropy, latency, energy) == pytest.approx(
    -(accuracy**2) / (energy**0.5 * latency**0.25)
  )
  both = objectives.weighted([LATENCY, ENERGY], [0.5, 2.0], name="both")
  assert numbers(both, entropy, latency, energy) == pytest.approx(
    0.5 * latency + 2.0 * energy
  )


def test_doubled_latency_costs_five_percent():
  """Tan et al. 2019, section 3.1: what w = -0.07 was chosen for."""
  soft = objectives.mnasnet_soft(LATENCY, 10.0)
  one = soft.value({"cross_entropy": 0.5}, {"latency_ms": 10.0})
  two = soft.value({"cross_entropy": 0.5}, {"latency_ms": 20.0})
  assert 1 - two / one == pytest.approx(0.05, abs=0.005)


def test_hard_rewards_nothing_within_the_target():
  hard = objectives.mnasnet_hard(LATENCY, 10.0)
  slope = jax.grad(
    lambda x: hard.value({"cross_entropy": 0.5}, {"latency_ms": x})
  )
  assert slope(9.0) == 0.0 and slope(11.0) > 0.0


def test_out_of_range_is_refused():
  for wrong in (
    lambda: objectives.metric(LATENCY, reference=0.0),
    lambda: objectives.mnasnet_soft(LATENCY, 0.0),
    lambda: objectives.mnasnet_soft(LATENCY, 1.0, exponent=0.07),
    lambda: objectives.mnasnet_hard(LATENCY, 1.0, exponent=0.0),
    lambda: objectives.efficiency(LATENCY, ENERGY, energy_exponent=-1.0),
    lambda: objectives.efficiency(LATENCY, ENERGY, latency_reference=0.0),
    lambda: objectives.weighted([LATENCY], [1.0, 2.0], name="w"),
    lambda: objectives.weighted([LATENCY], [-1.0], name="w"),
    lambda: objectives.worst([LATENCY], [1.0, 2.0], name="w"),
    lambda: objectives.worst([LATENCY], [0.0], name="w"),
    lambda: objectives.worst([LATENCY], [1.0], name="w", temperature=0.0),
  ):
    with pytest.raises(ValueError, match="objective|mnasnet"):
      wrong()


@pytest.mark.parametrize("entropy, latency, energy", PLACES)
def test_the_smooth_worst_is_near_the_worst_from_above(
  entropy, latency, energy
):
  for temperature in (0.02, 0.1, 1.0):
    smooth = objectives.worst(
      [LATENCY, ENERGY], [8.0, 4.0], name="worst", temperature=temperature
    )
    found = numbers(smooth, entropy, latency, energy)
    largest = max(latency / 8.0, energy / 4.0)
    assert largest - 1e-9 <= found <= largest + temperature * np.log(2) + 1e-9


def test_the_smooth_worst_moves_the_worst_device():
  """By hand: ratios 1 and 2 at t = 0.5 share the gradient as e^2 and e^4."""
  smooth = objectives.worst(
    [LATENCY, ENERGY], [10.0, 5.0], name="worst", temperature=0.5
  )
  slopes = jax.grad(lambda costs: smooth.value({}, costs))(
    {"latency_ms": 10.0, "energy_mj": 10.0}
  )
  share = np.exp(4) / (np.exp(2) + np.exp(4))
  assert slopes["energy_mj"] == pytest.approx(share / 5.0, rel=1e-5)
  assert slopes["latency_ms"] == pytest.approx((1 - share) / 10.0, rel=1e-5)
