"""Energy of workloads: the processor's own counter, or a user's meter."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nasjax.errors import InputError

_POWERCAP = Path("/sys/class/powercap")


def rapl_zones(folder: Path = _POWERCAP) -> list[Path]:
  """The counters of whole packages (RAPL, by Linux's powercap).

  Raises:
    InputError: there is none that can be read.
  """
  zones = [
    zone / "energy_uj"
    for zone in sorted(folder.glob("intel-rapl:*"))
    if zone.name.count(":") == 1  # those below are parts of the package
  ]
  if not zones:
    raise InputError(
      "--energy rapl",
      f"this system has no energy counter in {folder}",
      "give a power meter's path/to/file.py:name, or a column energy_mj of"
      " your own",
    )
  for zone in zones:
    try:
      zone.read_text()
    except OSError as error:
      raise InputError(
        "--energy rapl", f"{zone} cannot be read: {error.strerror}"
      ) from None
  return zones


def read_uj(zones: Sequence[Path]) -> list[int]:
  """The counters now, in microjoules."""
  return [int(zone.read_text()) for zone in zones]


def used_uj(
  before: Sequence[int], after: Sequence[int], ranges: Sequence[int]
) -> int:
  """Microjoules between two readings; a counter that ran over starts at 0."""
  return sum(
    (b - a) if b >= a else (b - a + top + 1)
    for a, b, top in zip(before, after, ranges, strict=True)
  )


def rapl_mj(
  call: Callable[[], None],
  zones: Sequence[Path],
  *,
  seconds: float = 0.5,
) -> float:
  """Energy of one call, in mJ: of the whole package, idle power included.

  Args:
    call: runs the workload once.
    zones: as `rapl_zones` found them.
    seconds: how long it is repeated; the counter moves once a millisecond.

  Returns:
    mJ a call.
  """
  ranges = [
    int(zone.with_name("max_energy_range_uj").read_text()) for zone in zones
  ]
  count, end = 0, time.perf_counter() + seconds
  before = read_uj(zones)
  while time.perf_counter() < end:
    call()
    count += 1
  return used_uj(before, read_uj(zones), ranges) / count / 1e3
