"""The roofline: an operation takes the longer of computing and moving bytes.

    T_compute = FLOPs / (f * cores * utilisation * width)
    T_memory  = bytes / (bandwidth * efficiency)
    T         = max(T_compute, T_memory) * slowdown + overhead + control / batch

(Williams, Waterman and Patterson, CACM 2009). `width` is FLOPs a core and
cycle; utilisation falls where channels do not fill the SIMD lanes; the
smallest memory that holds the working set sets the bandwidth.

Bytes are counted in two ways. `textbook` counts each access of the loop nest
to the maps (depthwise H W C K^2, pointwise H W C_in C_out), as if nothing
was ever kept; `tiled`, the default, what a blocked loop moves between cache
and memory: maps once, weights once or once a tile. `tiled` is the default as it
is what a memory sees: `textbook` charges a depthwise 3x3 nine reads of a map
that a cache holds. On the table of x86-server bytes alone rank the 22 depthwise
rows at Spearman 0.94 (tiled) and 0.91 (textbook), all 180 at 0.86 and 0.91;
on its 58 convolutions, which compute more than they move, textbook bytes rank
better (0.87 against 0.75) since they are its multiply-adds.
The model's times are the same there under both: computing bounds them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from nasjax.hardware.profile import Level, Profile, Rule
from nasjax.hardware.workload import Workload

COUNTINGS = ("tiled", "textbook")
_TWO_INPUTS = ("add",)


class Times(NamedTuple):
  """Where an operation's time goes, in seconds for one image."""

  compute_s: float
  memory_s: float
  overhead_s: float
  slowdown: float = 1.0

  @property
  def total_s(self) -> float:
    """The operation's time."""
    return max(self.compute_s, self.memory_s) * self.slowdown + self.overhead_s


class Traffic(NamedTuple):
  """Bytes of an operation's operands."""

  inputs: float
  outputs: float
  weights: float

  @property
  def total(self) -> float:
    """All of them: what must be held to touch each only once."""
    return self.inputs + self.outputs + self.weights


def bits_of(work: Workload, profile: Profile) -> int:
  """The bits that a workload is run in: the device's own, or fewer."""
  return min(work.bits, profile.bits)


def traffic(work: Workload, bits: int) -> Traffic:
  """Bytes of inputs, outputs and weights of one workload.

  Args:
    work: the workload.
    bits: of each number; biases and folded normalisation are left out.

  Returns:
    Bytes, each operand once.
  """
  height, width = work.outputs
  inputs = work.height * work.width * work.channels_in
  if work.kind in _TWO_INPUTS:
    inputs *= 2
  elif work.kind == "multiply":  # a gate of one value a channel
    inputs += work.channels_in
  elif work.kind == "broadcast":
    inputs = work.channels_in
  elif work.kind == "linear":
    inputs = work.channels_in
  weights = 0
  if work.kind in ("convolution", "depthwise", "linear"):
    weights = work._replace(batch_norm=False).params
  size = bits / 8
  return Traffic(
    inputs * size, height * width * work.channels_out * size, weights * size
  )


def working_set_bytes(work: Workload, bits: int) -> float:
  """Bytes that must be near to touch each operand only once."""
  return traffic(work, bits).total


def textbook_bytes(work: Workload, bits: int) -> float:
  """Accesses to the maps as the loop nest makes them, in bytes.

  Args:
    work: the workload.
    bits: of each number.

  Returns:
    Depthwise H W C K^2; pointwise H W C_in C_out; a convolution
    H W C_in C_out K^2 over its groups, with its output's H and W; a linear
    layer C_in C_out: an access of the input for each multiply-add. Else inputs
    and outputs.
  """
  if work.macs:
    return work.macs * bits / 8
  moved = traffic(work, bits)
  return moved.inputs + moved.outputs


def tiled_bytes(work: Workload, bits: int, cache_bytes: float) -> float:
  """What blocked loops move into a cache of `cache_bytes`, in bytes.

  Maps and weights move once where all fit. Else half of the cache holds a tile
  of one of them while the other streams past it: either the weights are read
  again for each tile of the maps, or the inputs for each tile of the weights;
  the cheaper is taken.
  """
  moved = traffic(work, bits)
  if moved.total <= cache_bytes or not moved.weights:
    return moved.total
  tile = cache_bytes / 2
  maps = moved.inputs + moved.outputs
  weights_again = maps + moved.weights * math.ceil(maps / tile)
  inputs_again = (
    moved.inputs * math.ceil(moved.weights / tile)
    + moved.outputs
    + moved.weights
  )
  return min(weights_again, inputs_again)


def level(profile: Profile, size_bytes: float) -> Level:
  """The nearest memory that holds `size_bytes`; the last holds everything."""
  for found in profile.memory[:-1]:
    if size_bytes <= found.size_bytes:
      return found
  return profile.memory[-1]


def moved_bytes(
  work: Workload, profile: Profile, counting: str = "tiled"
) -> float:
  """Bytes that a workload moves on a device.

  Args:
    work: the workload.
    profile: the device.
    counting: `tiled` or `textbook`.

  Returns:
    Bytes.

  Raises:
    ValueError: an unknown counting.
  """
  bits = bits_of(work, profile)
  if counting == "textbook":
    return textbook_bytes(work, bits)
  if counting != "tiled":
    raise ValueError(f"counting={counting!r}; known: {', '.join(COUNTINGS)}")
  size = working_set_bytes(work, bits)
  held = [m.size_bytes for m in profile.memory if m.size_bytes < size]
  # Blocks are kept in the memory next to the one that holds everything.
  return tiled_bytes(work, bits, max(held, default=size))


def alignment(work: Workload, lanes: int) -> float:
  """Share of the SIMD lanes that do work, 0..1.

  Kernels vectorise over output channels (of one group): 5 channels on 4 lanes
  take two vectors of which 5/8 are used. Elementwise work fills its lanes.
  """
  if work.kind == "depthwise":
    channels = work.channels_out
  elif work.kind in ("convolution", "linear"):
    channels = work.channels_out // work.groups
  else:
    return 1.0
  return channels / (lanes * math.ceil(channels / lanes))


def matches(rule: Rule, work: Workload) -> bool:
  """Whether a rule speaks of a workload."""
  multiple = rule.channels_multiple
  crooked = work.channels_in % multiple or work.channels_out % multiple
  return (
    work.kind in rule.kinds
    and work.kernel >= rule.kernel
    and (multiple == 1 or bool(crooked))
  )


def utilisation_kind(work: Workload, profile: Profile) -> str:
  """Which entry of `profile.utilisation` holds for a workload."""
  grouped = work.kind == "convolution" and work.groups > 1
  kind = (
    "grouped" if grouped and "grouped" in profile.utilisation else work.kind
  )
  return kind if kind in profile.utilisation else "default"


def flops_per_s(
  work: Workload, profile: Profile, frequency_hz: float | None = None
) -> float:
  """The speed at which a device computes a workload, FLOPs a second."""
  lanes = max(1, profile.simd_bits // bits_of(work, profile))
  width = lanes * profile.flops_per_lane * alignment(work, lanes)
  frequency = profile.frequency_hz if frequency_hz is None else frequency_hz
  share = profile.utilisation[utilisation_kind(work, profile)]
  return frequency * profile.cores * share * width


def times(
  work: Workload,
  profile: Profile,
  *,
  frequency_hz: float | None = None,
  counting: str = "tiled",
  batch: int = 1,
) -> Times:
  """The parts of a workload's time on a device.

  Args:
    work: the workload, of one image.
    profile: the device.
    frequency_hz: default: the profile's own.
    counting: of the bytes, see the module.
    batch: images at once; they share the control overhead.

  Returns:
    Seconds for one image.
  """
  if work.kind in profile.fused:
    return Times(0.0, 0.0, 0.0)
  size = working_set_bytes(work, bits_of(work, profile))
  bandwidth = level(profile, size).bandwidth_bytes_per_s * profile.efficiency
  slowdown = math.prod(r.slowdown for r in profile.rules if matches(r, work))
  return Times(
    work.flops / flops_per_s(work, profile, frequency_hz),
    moved_bytes(work, profile, counting) / bandwidth,
    1e-6 * (profile.overhead_us + profile.control_us / batch),
    slowdown,
  )


def latency_ms(
  work: Workload, profile: Profile, *, counting: str = "tiled", batch: int = 1
) -> float:
  """The whole time of a workload in ms for one image, see `times`."""
  return 1e3 * times(work, profile, counting=counting, batch=batch).total_s
