"""MobileNet: what its networks cost, and decisions within limits."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mobilenet import (
  SMALL,
  drawn,
  module_parameters,
  small,
  uniform,
  wide,
)

from nasjax import hardware, spaces
from nasjax.errors import InputError
from nasjax.hardware import memory, products
from nasjax.search import genes
from nasjax.spaces import costs as cost_tables

__all__ = ["small", "wide"]  # fixtures


@pytest.fixture(scope="module")
def tiny():
  """Two searched layers: 16 x 32 networks."""
  return spaces.mobilenet(
    **{
      **SMALL,
      "stage_channels": (16, 24),
      "stage_depths": (1, 2),
      "stage_strides": (1, 1, 2),
    }
  )


def everything(space):
  """All architectures."""
  counts = genes.cardinalities(space)
  for row in itertools.product(*(range(n) for n in counts)):
    yield genes.architecture(space, np.array(row, np.int32))


def metrics_of(space):
  device = hardware.device("cortex-a76")
  return [
    device.latency(space),
    device.peak_sram(space),
    device.working_set(space),
    hardware.params(space),
  ]


def test_expected_costs_are_the_mean_over_all_networks(tiny):
  """Multilinear forms, and the mean of a largest layer."""
  rng = np.random.default_rng(0)
  weights = {
    n: rng.dirichlet(np.ones(len(g.candidates)), g.edges)
    for n, g in tiny.groups.items()
  }
  found = metrics_of(tiny)
  mean = np.zeros(len(found))
  for one in everything(tiny):
    chance = np.prod(
      [w[np.arange(len(w)), one.choices[n]].prod() for n, w in weights.items()]
    )
    mean += chance * np.array([m.exact(one) for m in found])
  weights = {n: jnp.asarray(w, jnp.float32) for n, w in weights.items()}
  for metric, wanted in zip(found, mean, strict=True):
    assert float(metric.expected(weights)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["small", "wide"])
def test_costs_of_a_network_are_its_own(name, request):
  """Against the module, the workloads in order, and the best schedule."""
  space = request.getfixturevalue(name)
  device = hardware.device("cortex-a76")
  bits = device.profile.bits
  latency, peak = device.latency(space), device.peak_sram(space)
  parameters = hardware.params(space)
  costs = {m: cost_tables.costs(space, m) for m in (latency, peak)}
  for seed in range(8):
    one = drawn(space, seed)
    assert parameters.exact(one) == module_parameters(one)
    assert peak.exact(one) == memory.peak_bytes(one, bits).peak_bytes
    for metric in (latency, peak, parameters):
      assert float(metric.expected(one.one_hot())) == pytest.approx(
        metric.exact(one), rel=1e-5
      )
    for metric, read in costs.items():
      value = read.of({n: r[None] for n, r in one.choices.items()})
      np.testing.assert_allclose(value, [metric.exact(one)])


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.9))
def test_decisions_are_exact(tiny, seed, share):
  """The most probable of all 512 networks within two limits."""
  latency, peak, *_ = metrics_of(tiny)
  rng = np.random.default_rng(seed)
  weights = {
    n: rng.dirichlet(np.ones(len(g.candidates)), g.edges)
    for n, g in tiny.groups.items()
  }
  rows = list(everything(tiny))
  times = np.array([latency.exact(a) for a in rows])
  sizes = np.array([peak.exact(a) for a in rows])
  bounds = float(np.quantile(times, share)), float(np.quantile(sizes, 0.8))
  good = (times <= bounds[0]) & (sizes <= bounds[1])
  if not good.any():
    return
  logs = np.array(
    [
      sum(
        np.log(w[np.arange(len(w)), a.choices[n]]).sum()
        for n, w in weights.items()
      )
      for a in rows
    ]
  )
  found = tiny.decide(weights, [(latency, bounds[0]), (peak, bounds[1])])
  assert latency.exact(found) <= bounds[0] and peak.exact(found) <= bounds[1]
  score = sum(
    np.log(w[np.arange(len(w)), found.choices[n]]).sum()
    for n, w in weights.items()
  )
  assert score == pytest.approx(logs[good].max())


def test_limits_that_nothing_keeps_name_the_smallest_value(wide):
  latency = hardware.device("cortex-a76").latency(wide)
  low, high = cost_tables.costs(wide, latency).extremes(wide.masks)
  assert low < high
  with pytest.raises(InputError, match=f"smallest reachable.*{low:.6g}"):
    wide.decide(uniform(wide), [(latency, 0.9 * low)])
  found = wide.decide(uniform(wide), [(latency, low * (1 + 1e-6))])
  assert latency.exact(found) == pytest.approx(low)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10)
def test_least_and_largest_sums_of_tables_that_share_choices(seed):
  rng = np.random.default_rng(seed)
  places = [(("w", 0), ("a", 0)), (("w", 0), ("w", 1)), (("a", 1), ("w", 1))]
  sizes = {"w": 3, "a": 2}
  tables = [
    products.ProductTable(p, rng.normal(size=[sizes[g] for g, _ in p]))
    for p in places
  ]
  masks = {"w": np.ones((2, 3), bool), "a": np.ones((2, 2), bool)}
  masks["w"][1, rng.integers(3)] = False
  sums = [
    sum(products.one(t, {"w": w, "a": a}) for t in tables)
    for w in itertools.product(range(3), repeat=2)
    for a in itertools.product(range(2), repeat=2)
    if masks["w"][1, w[1]]
  ]
  assert products.least(tables, masks) == pytest.approx(min(sums))
  assert products.largest(tables, masks) == pytest.approx(max(sums))


def test_rules_of_a_device_close_factors(small):
  """An activation that a device lacks is closed; the rest stays open."""
  dsp = hardware.device("hexagon-hvx")
  masks = hardware.closed([dsp], small)
  hswish = small.groups["activation"].candidates.index("hswish")
  assert not masks["activation"][:, hswish].any()
  assert masks["activation"][:, 1 - hswish].all()
  assert masks["expansion"].all() and masks["kernel"].all()
  assert any("activation hswish" in line for line in dsp.warnings(small))
