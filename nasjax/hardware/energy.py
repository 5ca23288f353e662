"""Energy: dynamic and static, energy-delay product, and the best frequency.

An operation's dynamic power is C V^2 f a (Chandrakasan et al., JSSC 1992) with
the capacitance C its kind switches in a cycle and the activity a, the share of
its time in which it computes. Over its time T this is

    E_dynamic = C V^2 f a T,   a = T_compute / T

so that computing costs the same charge at every frequency, and V^2 each time.
Bytes cost what their memory's profile says; static power runs all the time.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.hardware import roofline
from nasjax.hardware.profile import Profile
from nasjax.hardware.workload import Workload
from nasjax.types import Array, Metric

_GRID = 64  # frequencies that the search for the best one starts from
_ROUNDS = 40  # golden section: the bracket shrinks by 0.618 each


class Energies(NamedTuple):
  """Where an operation's energy goes, in mJ for one image."""

  dynamic_mj: float
  memory_mj: float
  static_mj: float

  @property
  def total_mj(self) -> float:
    """All of it."""
    return self.dynamic_mj + self.memory_mj + self.static_mj


def voltage(profile: Profile, frequency_hz: Array | float) -> Array:
  """Volts at a frequency, between operating points linearly."""
  hertz, volts = (
    np.array(v, np.float32) for v in zip(*profile.points, strict=True)
  )
  return jnp.interp(jnp.asarray(frequency_hz, jnp.float32), hertz, volts)


def energies(
  work: Workload,
  profile: Profile,
  frequency_hz: float | None = None,
  *,
  batch: int = 1,
) -> Energies:
  """The parts of a workload's energy on a device.

  Args:
    work: the workload, of one image.
    profile: the device.
    frequency_hz: default: the profile's own.
    batch: images at once, which share the control overhead.

  Returns:
    mJ for one image.
  """
  frequency = profile.frequency_hz if frequency_hz is None else frequency_hz
  took = roofline.times(work, profile, frequency_hz=frequency, batch=batch)
  hertz, volts = (np.array(v) for v in zip(*profile.points, strict=True))
  volt = float(np.interp(frequency, hertz, volts))
  farads = 1e-9 * profile.by_kind(profile.capacitance_nf, work.kind)
  power_w = farads * volt**2 * frequency  # while it computes
  return Energies(
    1e3 * power_w * took.compute_s * took.slowdown,
    1e3 * memory_j(work, profile),
    1e3 * profile.static_w * took.total_s,
  )


def memory_j(work: Workload, profile: Profile) -> float:
  """Energy of the bytes that a workload moves, in J."""
  if work.kind in profile.fused:
    return 0.0
  size = roofline.working_set_bytes(work, roofline.bits_of(work, profile))
  held = roofline.level(profile, size)
  return 1e-12 * held.energy_pj_per_byte * roofline.moved_bytes(work, profile)


def energy_mj(work: Workload, profile: Profile, *, batch: int = 1) -> float:
  """A workload's energy for one image at the profile's frequency, in mJ."""
  return energies(work, profile, batch=batch).total_mj


def busy_mj(work: Workload, profile: Profile) -> float:
  """What computing and moving takes of it: all but static power, in mJ."""
  found = energies(work, profile)
  return found.dynamic_mj + found.memory_mj


def edp(energy_mj: Array, latency_ms: Array) -> Array:
  """Energy-delay product E T, in mJ ms (Gonzalez and Horowitz, JSSC 1996)."""
  return energy_mj * latency_ms


def efficiency(
  accuracy: Array,
  energy_mj: Array,
  latency_ms: Array,
  powers: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Array:
  """Accuracy^a / (Energy^b Latency^c); more is better."""
  a, b, c = powers
  return accuracy**a / (energy_mj**b * latency_ms**c)


class Demand(NamedTuple):
  """What operations ask of a device at any frequency; arrays f32[N].

  Time at f is `max(cycles / f, memory_s) * slowdown + overhead_s`, dynamic
  energy `charge V(f)^2 + memory_j`. Where `counts` are architecture weights a
  relaxed network has the mean time and energy of its choices.
  """

  cycles: Array  # of computing: T_compute f
  memory_s: Array
  slowdown: Array
  overhead_s: Array
  charge: Array  # C f T_compute: J a V^2
  memory_j: Array


def demand(works: list[Workload], profile: Profile) -> Demand:
  """The demand of workloads, arrays f32[N], N = len(works)."""
  took = [roofline.times(w, profile) for w in works]
  farads = [
    1e-9 * profile.by_kind(profile.capacitance_nf, w.kind) for w in works
  ]
  cycles = [profile.frequency_hz * t.compute_s for t in took]
  rows = (
    cycles,
    [t.memory_s for t in took],
    [t.slowdown for t in took],
    [t.overhead_s for t in took],
    [c * n * t.slowdown for c, n, t in zip(farads, cycles, took, strict=True)],
    [memory_j(w, profile) for w in works],
  )
  return Demand(*(jnp.asarray(row, jnp.float32) for row in rows))


def time_s(demand: Demand, counts: Array, frequency_hz: Array) -> Array:
  """Seconds of operations done `counts` f32[N] times at a frequency."""
  busy = jnp.maximum(demand.cycles / frequency_hz, demand.memory_s)
  return jnp.sum(counts * (busy * demand.slowdown + demand.overhead_s))


def energy_j(
  demand: Demand, counts: Array, frequency_hz: Array, profile: Profile
) -> Array:
  """Joules of operations done `counts` f32[N] times at a frequency."""
  squared = voltage(profile, frequency_hz) ** 2
  moving = jnp.sum(counts * (demand.charge * squared + demand.memory_j))
  return moving + profile.static_w * time_s(demand, counts, frequency_hz)


class Dvfs(NamedTuple):
  """The best frequency and what it gives; f32[] each."""

  frequency_hz: Array
  time_s: Array
  energy_j: Array
  kept: Array  # bool[]: the deadline

  @property
  def edp_js(self) -> Array:
    """Energy times delay, in J s."""
    return self.energy_j * self.time_s


def best_frequency(
  demand: Demand, counts: Array, profile: Profile, deadline_s: Array | float
) -> Dvfs:
  """The frequency that minimises E(f) T(f) under T(f) <= deadline.

  A grid finds the valley, golden section its bottom. Gradients hold the
  frequency still where it is free (there E T has no slope) and move it along
  T(f) = deadline where that binds.

  Args:
    demand: of the operations, f32[N].
    counts: how often each is done, f32[N]; may be architecture weights.
    profile: its first and last operating point bound the frequency.
    deadline_s: f32[].

  Returns:
    The optimum; the highest frequency and `kept` False where none is fast
    enough. Pure: jit it, differentiate it in `counts`.
  """
  low, high = profile.points[0][0], profile.points[-1][0]
  deadline_s = jnp.asarray(deadline_s, jnp.float32)
  still = lax.stop_gradient(counts)

  def product(frequency):
    took = time_s(demand, still, frequency)
    return took * energy_j(demand, still, frequency, profile)

  def slowest(_, bounds):  # T falls with f: bisection for T(f) = deadline
    left, right = bounds
    middle = 0.5 * (left + right)
    late = time_s(demand, still, middle) > deadline_s
    return jnp.where(late, middle, left), jnp.where(late, right, middle)

  start = (jnp.float32(low), jnp.float32(high))
  _, floor = lax.fori_loop(0, _ROUNDS, slowest, start)
  free = time_s(demand, still, jnp.float32(low)) <= deadline_s
  floor = jnp.where(free, low, floor)
  grid = floor + (high - floor) * jnp.linspace(0.0, 1.0, _GRID)
  best = jnp.argmin(lax.map(product, grid))
  bracket = (
    grid[jnp.maximum(best - 1, 0)],
    grid[jnp.minimum(best + 1, _GRID - 1)],
  )

  def narrow(_, bounds):
    left, right = bounds
    gap = 0.618034 * (right - left)
    inner, outer = right - gap, left + gap
    lower = product(inner) < product(outer)
    return jnp.where(lower, left, inner), jnp.where(lower, outer, right)

  found = sum(lax.fori_loop(0, _ROUNDS, narrow, bracket)) / 2
  found = jnp.where(product(grid[best]) <= product(found), grid[best], found)
  binds = ~free & (found <= floor * (1 + 1e-5))
  found = lax.stop_gradient(jnp.where(binds, floor, found))
  slope = jax.grad(lambda f: time_s(demand, still, f))(found)
  took = time_s(demand, counts, found)
  # 0 in value; its gradient is that of the frequency that keeps the deadline.
  shift = -(took - lax.stop_gradient(took)) / jnp.where(slope < 0, slope, -1.0)
  found = found + jnp.where(binds & (slope < 0), shift, 0.0)
  took = time_s(demand, counts, found)
  return Dvfs(
    found,
    took,
    energy_j(demand, counts, found, profile),
    took <= deadline_s * (1 + 1e-5),
  )


def energy_delay_product(latency: Metric, energy: Metric) -> Metric:
  """The energy-delay product (Horowitz et al. 1994), latency x energy.

  Args:
    latency: of a space, in ms.
    energy: of the same, in mJ.

  Returns:
    The metric `edp_mj_ms`; before deciding the product of the expectations.
  """
  return Metric(
    "edp_mj_ms",
    "mJ ms",
    latency.device,
    lambda weights: energy.expected(weights) * latency.expected(weights),
    lambda found: energy.exact(found) * latency.exact(found),
    True,
    f"energy ({energy.source}) x latency ({latency.source})",
    "other",
  )
