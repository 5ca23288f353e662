"""Roofline and energy: hand-worked examples, brute force, differences."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax.hardware import energy, roofline
from nasjax.hardware.device import Device
from nasjax.hardware.profile import Level, Profile, Rule
from nasjax.hardware.workload import SpaceWorkloads, Workload

# 1 GHz, 2 cores, 4 lanes of float32, 2 FLOPs a lane and cycle, half of it
# reached: 1e9 * 2 * 4 * 2 * 0.5 = 8 GFLOP/s.
DEVICE = Profile(
  name="desk",
  description="a device for working by hand",
  platform="cpu",
  bits=32,
  frequency_hz=1e9,
  cores=2,
  simd_bits=128,
  flops_per_lane=2.0,
  utilisation={"default": 0.5, "depthwise": 0.25},
  overhead_us=3.0,
  control_us=8.0,
  fused=("relu6",),
  efficiency=0.5,
  memory=(
    Level("L1", 8192, 16e9, 1.0),
    Level("L2", 65536, 8e9, 4.0),
    Level("DRAM", 1e9, 2e9, 50.0),
  ),
  capacitance_nf={"default": 2.0},
  static_w=0.5,
  points=((0.5e9, 0.8), (1e9, 1.0), (2e9, 1.3)),
  sram_bytes=65536,
  flash_bytes=10**6,
  cost=(2e-9, 1e-6, 0.5),
  rules=(
    Rule("multiples of 4", ("convolution",), channels_multiple=4, slowdown=2.0),
  ),
  substitutes={},
)
POINTWISE = Workload("convolution", 8, 8, 16, 32)
DEPTHWISE = Workload("depthwise", 8, 8, 16, 16, 3, 1, 16)


def test_bytes_by_hand():
  # Pointwise: in 8*8*16*4 = 4096, out 8*8*32*4 = 8192, weights 16*32*4 = 2048.
  assert roofline.traffic(POINTWISE, 32) == (4096, 8192, 2048)
  assert roofline.working_set_bytes(POINTWISE, 32) == 14336
  # Textbook: H W C_in C_out = 64 * 512 numbers; depthwise H W C K^2.
  assert roofline.textbook_bytes(POINTWISE, 32) == 64 * 16 * 32 * 4
  assert roofline.textbook_bytes(DEPTHWISE, 8) == 64 * 16 * 9
  # Tiled, all fits: each once. With 4096 bytes of cache half of it, 2048, holds
  # all weights: the maps stream by, nothing is read twice.
  assert roofline.tiled_bytes(POINTWISE, 32, 1 << 20) == 14336
  assert roofline.tiled_bytes(POINTWISE, 32, 4096) == 14336
  # With 1024 bytes: weights again for each of 12288 / 512 = 24 tiles of maps,
  # 12288 + 24 * 2048; or inputs for each of 2048 / 512 = 4 tiles of weights,
  # 4 * 4096 + 8192 + 2048 = 26624, the cheaper.
  assert roofline.tiled_bytes(POINTWISE, 32, 1024) == 26624
  # An addition reads two maps.
  assert roofline.traffic(Workload("add", 4, 4, 8, 8), 8) == (256, 128, 0)


def test_times_by_hand():
  # FLOPs 2 * 64 * 16 * 32 = 65536 at 8 GFLOP/s: 8.192 us.
  # 14336 bytes do not fit L1, so L2: 8e9 * 0.5 B/s: 3.584 us.
  took = roofline.times(POINTWISE, DEVICE)
  assert took.compute_s == pytest.approx(8.192e-6)
  assert took.memory_s == pytest.approx(3.584e-6)
  # Overhead 3 us and the control of 8 us, or a quarter of it in a batch of 4.
  assert took.total_s == pytest.approx(19.192e-6)
  shared = roofline.latency_ms(POINTWISE, DEVICE, batch=4)
  assert shared == pytest.approx(13.192e-3)
  # Depthwise: 2 * 64 * 16 * 9 = 18432 FLOPs at half that speed, 4.608 us; maps
  # 4096 * 2 and 576 of weights lie in L2: 8768 / 4e9 = 2.192 us.
  took = roofline.times(DEPTHWISE, DEVICE)
  assert took.compute_s == pytest.approx(4.608e-6)
  assert took.memory_s == pytest.approx(2.192e-6)
  textbook = roofline.times(DEPTHWISE, DEVICE, counting="textbook")
  assert textbook.memory_s == pytest.approx(64 * 16 * 9 * 4 / 4e9)
  assert roofline.latency_ms(DEPTHWISE._replace(kind="relu6"), DEVICE) == 0
  with pytest.raises(ValueError, match="counting='tilled'"):
    roofline.times(POINTWISE, DEVICE, counting="tilled")


def test_lanes_that_channels_do_not_fill():
  # 30 channels on 4 lanes: 8 vectors of which 30/32 work; and the rule's 2.
  crooked = POINTWISE._replace(channels_out=30)
  assert roofline.alignment(crooked, 4) == 30 / 32
  # Per group: 32 channels in 16 groups are 2 a group, half of the lanes.
  assert roofline.alignment(POINTWISE._replace(groups=16), 4) == 0.5
  took = roofline.times(crooked, DEVICE)
  assert took.compute_s == pytest.approx(2 * 64 * 16 * 30 / (8e9 * 30 / 32))
  assert took.slowdown == 2.0
  # int8 on the same unit has 4 times the lanes.
  assert roofline.flops_per_s(POINTWISE, DEVICE._replace(bits=8)) == 32e9


def test_the_memory_that_holds_the_working_set():
  names = [
    roofline.level(DEVICE, n).name for n in (100, 8192, 8193, 65537, 1e12)
  ]
  assert names == ["L1", "L1", "L2", "DRAM", "DRAM"]


def test_cost_by_hand():
  # 2e-9 * 65536 + 1e-6 * 14336 + 0.5 * 0.019192
  space = SimpleNamespace(workloads=lambda: SpaceWorkloads((POINTWISE,), {}))
  metric = Device("d", None, DEVICE).cost(space)
  assert metric.exact(SimpleNamespace(choices={})) == pytest.approx(
    0.000131072 + 0.014336 + 0.009596
  )


def test_energy_by_hand():
  # C V^2 f a T = 2e-9 * 1 * 1e9 W for the 8.192 us it computes: 16.384 uJ.
  # 14336 bytes in L2 at 4 pJ: 57.344 nJ. Static: 0.5 W * 19.192 us = 9.596 uJ.
  found = energy.energies(POINTWISE, DEVICE)
  assert found.dynamic_mj == pytest.approx(16.384e-3)
  assert found.memory_mj == pytest.approx(57.344e-6)
  assert found.static_mj == pytest.approx(9.596e-3)
  # At 2 GHz and 1.3 V: 2e-9 * 1.69 * 2e9 W for 4.096 us: 1.69 times as much.
  fast = energy.energies(POINTWISE, DEVICE, 2e9)
  assert fast.dynamic_mj == pytest.approx(1.69 * 16.384e-3)
  # Halfway between 1 and 2 GHz the volts are halfway too.
  assert float(energy.voltage(DEVICE, 1.5e9)) == pytest.approx(1.15)
  assert energy.edp(2.0, 3.0) == 6.0
  # 0.9^2 / (4^1 * 2^0.5)
  assert energy.efficiency(0.9, 4.0, 2.0, (2, 1, 0.5)) == pytest.approx(
    0.81 / (4 * 2**0.5)
  )


WORKS = [POINTWISE, DEPTHWISE, Workload("add", 8, 8, 16, 16)]
DEMAND = energy.demand(WORKS, DEVICE)


@pytest.mark.parametrize("static_w", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("slack", [10.0, 1.02, 0.9])
def test_the_best_frequency_equals_a_brute_force_grid(static_w, slack):
  device = DEVICE._replace(static_w=static_w)
  counts = jnp.array([3.0, 5.0, 2.0])
  times = [
    sum(
      float(n) * roofline.times(w, device, frequency_hz=f).total_s
      for n, w in zip(counts, WORKS, strict=True)
    )
    for f in np.linspace(0.5e9, 2e9, 3001)
  ]
  joules = [
    1e-3
    * sum(
      float(n) * energy.energies(w, device, f).total_mj
      for n, w in zip(counts, WORKS, strict=True)
    )
    for f in np.linspace(0.5e9, 2e9, 3001)
  ]
  times, joules = np.array(times), np.array(joules)
  deadline = slack * times[1000]  # of 1 GHz
  products = np.where(times <= deadline, times * joules, np.inf)
  best = products.argmin()
  found = jax.jit(energy.best_frequency, static_argnums=2)(
    DEMAND, counts, Hashed(device), deadline
  )
  assert bool(found.kept)
  assert float(found.time_s) <= deadline * (1 + 1e-5)
  assert float(found.edp_js) == pytest.approx(products[best], rel=1e-3)
  assert float(found.edp_js) <= products[best] * (1 + 1e-4)


class Hashed(Profile):
  """A profile that jit can take as static."""

  __slots__ = ()

  def __new__(cls, profile):
    return super().__new__(cls, *profile)

  def __hash__(self):
    return hash((self.name, self.static_w))


def test_a_deadline_that_no_frequency_keeps():
  found = energy.best_frequency(DEMAND, jnp.ones(3), DEVICE, 1e-9)
  assert not bool(found.kept)
  assert float(found.frequency_hz) == pytest.approx(2e9)


@pytest.mark.parametrize("slack", [10.0, 0.9])
def test_gradients_of_the_best_frequency_are_finite_differences(slack):
  counts = np.array([3.0, 5.0, 2.0])
  at_one = float(energy.time_s(DEMAND, jnp.asarray(counts), 1e9))

  @jax.jit
  def edp(c):
    return 1e9 * energy.best_frequency(DEMAND, c, DEVICE, slack * at_one).edp_js

  gradient = jax.grad(edp)(jnp.asarray(counts, jnp.float32))
  for i in range(3):
    step = np.zeros(3)
    step[i] = 0.05
    up, down = (
      float(edp(jnp.asarray(counts + s * step, jnp.float32))) for s in (1, -1)
    )
    assert float(gradient[i]) == pytest.approx((up - down) / 0.1, rel=5e-3)
