"""Costs between measured shapes."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, spaces
from nasjax.errors import InputError
from nasjax.hardware import interpolate, table
from nasjax.hardware.device import Device
from nasjax.hardware.workload import Workload


def power_law(work):
  """A cost whose logarithm is linear in the logarithms of the sizes."""
  return 1e-6 * (
    work.height**1.1 * work.width**0.9 * work.channels_in * work.channels_out
  )


def measured(sizes, channels, batch=1, kind="convolution"):
  rows = {}
  for size, c, d in itertools.product(sizes, channels, channels):
    groups = c if kind == "depthwise" else 1
    if kind == "depthwise" and c != d:
      continue
    work = Workload(kind, size, size, c, d, 3, 1, groups)
    rows[work, batch] = {"latency_ms": power_law(work)}
  return table.Table("t.csv", {}, rows)


@given(size=st.integers(4, 64), c=st.integers(8, 128), d=st.integers(8, 128))
def test_a_power_law_is_interpolated_exactly(size, c, d):
  found = measured((4, 16, 64), (8, 32, 128))
  work = Workload("convolution", size, size, c, d, 3)
  assert interpolate.cost(found, work, "latency_ms") == pytest.approx(
    power_law(work), rel=1e-6
  )


@given(c=st.integers(8, 128))
def test_depthwise_convolutions_of_other_channels_are_of_one_family(c):
  found = measured((8,), (8, 32, 128), kind="depthwise")
  work = Workload("depthwise", 8, 8, c, c, 3, 1, c)
  assert interpolate.cost(found, work, "latency_ms") == pytest.approx(
    power_law(work), rel=1e-6
  )


def test_it_is_local_and_between_the_neighbours():
  """A kink at 16 is kept: points far away do not smooth it."""
  rows = {}
  for size, value in ((4, 1.0), (16, 1.0), (64, 16.0), (256, 256.0)):
    rows[Workload("relu", size, 4, 4, 4), 1] = {"latency_ms": value}
  found = table.Table("t.csv", {}, rows)
  for size, wanted in ((8, 1.0), (16, 1.0), (32, 4.0), (128, 64.0)):
    work = Workload("relu", size, 4, 4, 4)
    cost = interpolate.cost(found, work, "latency_ms")
    assert cost == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(
  "change",
  [
    {"height": 65, "width": 65},
    {"channels_in": 7},
    {"channels_out": 129},
    {"kernel": 5},
    {"stride": 2},
    {"groups": 2},
    {"bits": 8},
    {"kind": "linear"},
  ],
)
def test_nothing_is_extrapolated(change):
  found = measured((4, 16, 64), (8, 32, 128))
  work = Workload("convolution", 16, 16, 32, 32, 3)._replace(**change)
  with pytest.raises(InputError, match=r"t.csv: has no row for .* around it"):
    interpolate.cost(found, work, "latency_ms")


def test_batches_are_not_interpolated():
  found = measured((4, 64), (8,))
  work = Workload("convolution", 16, 16, 8, 8, 3)
  assert interpolate.cost(found, work, "latency_ms", 1) > 0
  with pytest.raises(InputError, match="at batch 2"):
    interpolate.cost(found, work, "latency_ms", 2)


def test_coverage_counts_every_workload_once():
  found = measured((4, 64), (8, 32))
  works = [
    Workload("convolution", n, n, 8, 8, 3, batch_norm=True)
    for n in (4, 20, 64, 65)
  ]
  made = interpolate.coverage(found, works, "latency_ms")
  assert [len(part) for part in made] == [2, 1, 1]
  assert made.missing[0].height == 65
  assert str(made) == "2 exact, 1 interpolated, 1 missing"


def test_a_device_interpolates_only_where_asked_and_says_so():
  space = spaces.edge(image_shape=(9, 9, 1))
  device = hardware.device("x86-server")
  with pytest.raises(InputError, match="no row for .* 9x9"):
    device.latency(space)
  metric = device.latency(space, interpolate=True)
  assert "workloads interpolated" in metric.source
  low, high = (
    device.latency(spaces.edge(image_shape=(n, n, 1))) for n in (8, 28)
  )
  rng = np.random.default_rng(0)
  for _ in range(5):
    row = rng.integers(12, size=9)
    one = spaces.architecture(space, {"nodes": row})
    assert 0.5 * low.exact(one) < metric.exact(one) < high.exact(one)
  with pytest.raises(InputError, match="no row .* 64x64"):
    device.latency(spaces.edge(image_shape=(64, 64, 1)), interpolate=True)


def test_batch_and_bits_choose_their_rows():
  space = spaces.nasbench201(cells=1)
  works = space.workloads().distinct()
  rows = {
    (w._replace(bits=bits), batch): {"latency_ms": batch / 4 * bits}
    for w in works
    for bits, batch in ((32, 1), (32, 8), (32, 64), (8, 8))
  }
  device = Device("d", table.Table("t.csv", {}, rows))
  one = spaces.architecture(space, {"cell": [3] * 6})
  plain = device.latency(space).exact(one)
  assert device.latency(space, batch=64).exact(one) == 64 * plain
  metric = device.latency(space, batch=8, bits=8)
  assert metric.exact(one) == 2 * plain
  assert "batch 8, 8 bits" in metric.source
  with pytest.raises(InputError, match="bits=8 at batch 64"):
    device.latency(space, batch=64, bits=8)
  with pytest.raises(InputError, match="at batch 2"):
    device.latency(space, batch=2)
