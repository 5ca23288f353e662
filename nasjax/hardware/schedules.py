"""A decided network's execution schedule on a device, to read and to export.

The order of least memory (`memory.schedule`), with depthwise convolutions in
place and a patch-based first stage as options, and the frequency of least
energy-delay product within a deadline (`energy.best_frequency`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nasjax.errors import InputError
from nasjax.hardware import memory
from nasjax.hardware.graph import network

__all__ = ["Plan", "as_json", "plan"]

FORMAT = "nasjax.schedule/1"


class Plan(NamedTuple):
  """An execution schedule, and how it was made."""

  schedule: memory.Schedule
  bits: int  # of the activations
  in_place: tuple[str, ...]
  patches: int  # on a side; 1: none
  patched_operations: int  # how many run patch by patch
  # Computing of those with their halos over that without; 1.0 without patches.
  patched_computing: float


def plan(
  architecture: Any,
  bits: int,
  *,
  in_place: Sequence[str] = (),
  patches: int = 1,
  patched_operations: int = 0,
) -> Plan:
  """The execution order of a decided network with the least peak.

  Args:
    architecture: decided; of a space with a plan or a chain.
    bits: of the activations.
    in_place: as `memory.schedule` takes it.
    patches: on a side, of the first stage (MCUNetV2): 2 makes 4.
    patched_operations: how many of the network's first operations they are.

  Returns:
    The schedule.

  Raises:
    InputError: the space has neither plan nor chain, patches without
      operations or the other way round, or operations that are no chain.
  """
  space = architecture.space
  if not (hasattr(space, "plan") or hasattr(space, "chain")):
    raise InputError(
      f"space {space.name}", "has no plan: its execution order is unknown"
    )
  if (patches > 1) != (patched_operations > 0):
    raise InputError(
      "schedule",
      f"{patches} patches of {patched_operations} operations",
      "give both, at least 2 patches and 1 operation",
    )
  operations, share = network(space, architecture.choices, bits), 1.0
  try:
    if patched_operations:
      operations, share = memory.patched(
        operations, patches, patched_operations
      )
    found = memory.schedule(operations, in_place=in_place)
  except ValueError as error:
    raise InputError("schedule", str(error)) from None
  return Plan(found, bits, tuple(in_place), patches, patched_operations, share)


def as_json(plan: Plan, source: str) -> Mapping[str, Any]:
  """A schedule as JSON values; `source` says where its numbers come from."""
  return {
    "format": FORMAT,
    "source": source,
    "bits": plan.bits,
    "in_place": list(plan.in_place),
    "patches": plan.patches,
    "patched_operations": plan.patched_operations,
    "patched_computing": plan.patched_computing,
    "peak_bytes": plan.schedule.peak_bytes,
    "order": list(plan.schedule.order),
    "live_bytes": list(plan.schedule.live_bytes),
  }
