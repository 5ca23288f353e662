"""Profiles: what a datasheet says of a device, as TOML.

A profile is read once, strictly, into numbers with units. The models
(`roofline.py`, `energy.py`, `memory.py`) are pure functions of it. Its numbers
are `UNVERIFIED` until something was measured; `roofline.calibrate` fits the
two that matter most to measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.hardware.workload import KINDS
from nasjax.reader import number, read_toml, whole

UNVERIFIED = "datasheet, unverified"
PLATFORMS = ("cpu", "gpu", "dsp", "npu", "mcu")


class Level(NamedTuple):
  """A memory, with what it holds and how fast it is read."""

  name: str
  size_bytes: float
  bandwidth_bytes_per_s: float
  energy_pj_per_byte: float


class Rule(NamedTuple):
  """What a device does badly or not at all.

  It matches workloads of `kinds` whose channels are no multiple of
  `channels_multiple` (1: whatever their channels) and whose kernel is at least
  `kernel`. Each match is warned of, takes `slowdown` times as long, and, where
  `closes`, is no choice on this device.
  """

  name: str
  kinds: tuple[str, ...]
  channels_multiple: int = 1
  kernel: int = 1
  slowdown: float = 1.0
  closes: bool = False


class Profile(NamedTuple):
  """A device by its datasheet."""

  name: str
  description: str
  platform: str
  bits: int  # of its usual arithmetic; workloads of more bits are run in these
  frequency_hz: float
  cores: int
  simd_bits: int
  flops_per_lane: float  # a cycle; 2 for one fused multiply-add
  # By kind, and "default"; "grouped": convolutions of several groups.
  utilisation: Mapping[str, float]
  overhead_us: float  # of each operation
  control_us: float  # of each operation, once a batch
  fused: tuple[str, ...]  # kinds that cost nothing: done with the one before
  efficiency: float  # of the bandwidths below
  memory: tuple[Level, ...]  # nearest first; the last holds everything
  capacitance_nf: Mapping[str, float]  # switched a cycle, by kind, "default"
  static_w: float
  points: tuple[tuple[float, float], ...]  # (Hz, V), rising
  sram_bytes: int
  flash_bytes: int
  cost: tuple[float, float, float]  # of a FLOP, of a byte, of a ms
  rules: tuple[Rule, ...]
  substitutes: Mapping[str, str]  # candidate -> the block this device prefers
  source: str = UNVERIFIED

  def by_kind(self, values: Mapping[str, float], kind: str) -> float:
    """An entry of `utilisation` or `capacitance_nf`."""
    return values.get(kind, values["default"])


class _Table:
  """A TOML table that is taken apart; what is left at the end is unknown."""

  def __init__(self, value: Any, where: str):
    if not isinstance(value, dict):
      raise InputError(where, "is not a table")
    self._left, self._where = dict(value), where
    self._known: list[str] = []

  def take(self, key: str) -> Any:
    self._known.append(key)
    if key not in self._left:
      close = nearest(key, self._left) if self._left else ""
      raise InputError(self._where, f"{key!r} is missing", close)
    return self._left.pop(key)

  def maybe(self, key: str, default: Any) -> Any:
    self._known.append(key)
    return self._left.pop(key, default)

  def number(self, key, *, low=0.0, high=1e18, default=None) -> float:
    value = self.take(key) if default is None else self.maybe(key, default)
    return number(value, f"{self._where} {key}", low=low, high=high)

  def whole(self, key, *, low=0, high=10**12, default=None) -> int:
    value = self.take(key) if default is None else self.maybe(key, default)
    return whole(value, f"{self._where} {key}", low=low, high=high)

  def text(self, key: str, known: Sequence[str] = ()) -> str:
    return self._word(self.take(key), key, known)

  def _word(self, value, key, known):
    if not isinstance(value, str) or not value:
      raise InputError(f"{self._where} {key}", f"{value!r} is not text")
    if known and value not in known:
      raise InputError(
        f"{self._where} {key}",
        f"unknown name {value[:40]!r}",
        nearest(value, known),
      )
    return value

  def words(self, key, known, default=None) -> tuple[str, ...]:
    value = self.take(key) if default is None else self.maybe(key, default)
    if not isinstance(value, (list, tuple)):
      raise InputError(f"{self._where} {key}", "is not a list of names")
    return tuple(self._word(v, key, known) for v in value)

  def table(self, key: str, default=None) -> _Table:
    value = self.take(key) if default is None else self.maybe(key, default)
    return _Table(value, f"{self._where} [{key}]")

  def tables(self, key: str) -> list[_Table]:
    value = self.maybe(key, [])
    if not isinstance(value, list):
      raise InputError(f"{self._where} {key}", "is not a list of tables")
    return [
      _Table(v, f"{self._where} [[{key}]] {i}")
      for i, v in enumerate(value, start=1)
    ]

  def kinds(
    self, *, low: float, high: float, more: tuple[str, ...] = ()
  ) -> dict[str, float]:
    """Numbers by workload kind or `more`; `default` must be among them."""
    found = {"default": self.number("default", low=low, high=high)}
    for kind in (*KINDS, *more):
      if kind in self._left:
        found[kind] = self.number(kind, low=low, high=high)
    self._known += (*KINDS, *more)
    self.end()
    return found

  def end(self) -> None:
    for key in self._left:
      raise InputError(
        f"{self._where} {key[:40]}", "unknown key", nearest(key, self._known)
      )


def read(path: str | Path) -> Profile:
  """Reads a profile; its name is the file's.

  Args:
    path: of a TOML file.

  Returns:
    The profile.

  Raises:
    InputError: names the table and key that is wrong: missing, unknown, out of
      range, memories that do not grow, operating points that do not rise.
  """
  top = _Table(read_toml(path), str(path))
  compute, energy = top.table("compute"), top.table("energy")
  holds, cost = top.table("holds"), top.table("cost")
  memory = tuple(_level(t) for t in top.tables("memory"))
  if not memory:
    raise InputError(str(path), "has no [[memory]]")
  for before, after in zip(memory, memory[1:], strict=False):
    if after.size_bytes <= before.size_bytes:
      raise InputError(
        f"{path} [[memory]]", f"{after.name} holds no more than {before.name}"
      )
  points = tuple(_point(t) for t in energy.tables("point"))
  if not points:
    raise InputError(f"{path} [energy]", "has no [[energy.point]]")
  if any(a[0] >= b[0] for a, b in zip(points, points[1:], strict=False)):
    raise InputError(f"{path} [[energy.point]]", "frequencies do not rise")
  frequency_hz = compute.number("frequency_hz", low=1e3)
  if not points[0][0] <= frequency_hz <= points[-1][0]:
    raise InputError(
      f"{path} [compute] frequency_hz",
      f"{frequency_hz:g} lies outside the operating points",
    )
  words = top.maybe("substitute", {})
  if not isinstance(words, dict) or not all(
    isinstance(v, str) for v in words.values()
  ):
    raise InputError(f"{path} [substitute]", "is not a table of names")
  made = Profile(
    name=Path(path).stem,
    description=top.text("description"),
    platform=top.text("platform", PLATFORMS),
    bits=top.whole("bits", low=1, high=64),
    frequency_hz=frequency_hz,
    cores=compute.whole("cores", low=1, high=10**6),
    simd_bits=compute.whole("simd_bits", low=1, high=10**6),
    flops_per_lane=compute.number("flops_per_lane", low=1e-3),
    utilisation=compute.table("utilisation").kinds(
      low=1e-6, high=1.0, more=("grouped",)
    ),
    overhead_us=compute.number("overhead_us"),
    control_us=compute.number("control_us", default=0.0),
    fused=compute.words("fused", KINDS, default=()),
    efficiency=top.number("bandwidth_efficiency", low=1e-6, high=1.0),
    memory=memory,
    capacitance_nf=energy.table("capacitance_nf").kinds(low=0.0, high=1e6),
    static_w=energy.number("static_w"),
    points=points,
    sram_bytes=holds.whole("sram_bytes", low=1),
    flash_bytes=holds.whole("flash_bytes", low=1),
    cost=(cost.number("flop"), cost.number("byte"), cost.number("ms")),
    rules=tuple(_rule(t) for t in top.tables("rule")),
    substitutes=dict(words),
  )
  for table in (top, compute, energy, holds, cost):
    table.end()
  return made


def _level(table: _Table) -> Level:
  made = Level(
    table.text("name"),
    table.number("size_bytes", low=1),
    1e9 * table.number("bandwidth_gb_per_s", low=1e-6),
    table.number("energy_pj_per_byte"),
  )
  table.end()
  return made


def _point(table: _Table) -> tuple[float, float]:
  made = (
    table.number("frequency_hz", low=1e3),
    table.number("voltage_v", low=1e-3, high=100.0),
  )
  table.end()
  return made


def _rule(table: _Table) -> Rule:
  closes = table.maybe("closes", False)
  if not isinstance(closes, bool):
    raise InputError("[[rule]] closes", f"{closes!r} is not true or false")
  made = Rule(
    table.text("name"),
    table.words("kinds", KINDS),
    table.whole("channels_multiple", low=1, default=1),
    table.whole("kernel", low=1, default=1),
    table.number("slowdown", low=1.0, default=1.0),
    closes,
  )
  table.end()
  return made
