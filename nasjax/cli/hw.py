"""`nasjax hw`: describe a device."""

from __future__ import annotations

import os
import platform
import shlex
import time
from pathlib import Path

import jax
from rich import progress as bars

from nasjax import errors, signals
from nasjax.cli import config as configs
from nasjax.cli.config import MeasureConfig
from nasjax.cli.parts import make_space
from nasjax.errors import InputError
from nasjax.hardware import measure as measuring
from nasjax.hardware import table as tables
from nasjax.reader import read_csv, whole

_VALUES = ("latency_ms", "minimum_ms", "spread")


def _shape(text: str) -> tuple[int, int, int]:
  sizes = text.lower().split("x")
  if len(sizes) != 3:
    raise InputError("--image-shape", f"{text!r} is not HEIGHTxWIDTHxCHANNELS")
  found = [
    whole(s, "--image-shape", low=1, high=configs.MAX_SIDE) for s in sizes
  ]
  return found[0], found[1], found[2]


def _command(config: MeasureConfig) -> str:
  """The command that makes this table, defaults left out."""
  plain, words = MeasureConfig(), ["nasjax", "hw", "measure"]
  for name in vars(config):
    value = getattr(config, name)
    if value == getattr(plain, name) and name not in ("space", "runtime"):
      continue
    words.append(configs.flag(name))
    if value is not True:
      words += value if isinstance(value, tuple) else [str(value)]
  return shlex.join(words)


def measure(config: MeasureConfig) -> int:
  """Times every workload of a space here and writes a table."""
  out = Path(config.out)
  if out.suffix != ".csv":
    raise InputError("--out", f"{out} does not end in .csv")
  if not out.parent.is_dir():
    raise InputError("--out", f"the folder {out.parent} does not exist")
  if out.exists() and not (config.append or config.force):
    raise InputError(
      "--out", f"{out} exists", "name another, or add --append or --force"
    )
  tables.check_device_name(config.device, "--device")
  kept, command = {}, _command(config)
  if config.append and out.exists():
    kept, before = _old_rows(out)
    command = f"{before} && {command}"
  found = set()
  for shape in config.image_shape:
    for channels in config.channels:
      space = make_space(
        config.space,
        dict(
          image_shape=_shape(shape),
          channels=whole(channels, "--channels", low=1, high=configs.MAX_SIDE),
          num_classes=config.num_classes,
          nodes=config.nodes,
          links=config.links,
          activation=config.activation,
        ),
      )
      found.update(space.workloads().distinct())
  with signals.caught() as stop, bars.Progress() as bar:
    task = bar.add_task("compiling and warming up", total=len(found))

    def progress(done):
      stop.check()
      bar.update(task, completed=done)

    measured = measuring.measure(
      sorted(found),
      batch=config.batch,
      repeats=config.repeats,
      progress=progress,
    )
  for item in measured:
    kept[item.workload, item.batch] = {
      "latency_ms": f"{item.median:.6g}",
      "minimum_ms": f"{item.minimum:.6g}",
      "spread": f"{item.spread:.3g}",
    }
  header = {
    "device": config.device,
    "processor": f"{_processor()}, {os.cpu_count()} cores",
    "runtime": f"jax {jax.__version__} on {jax.default_backend()}",
    "date": time.strftime("%Y-%m-%d"),
    "threads": str(os.cpu_count()),
    "versions": f"jax {jax.__version__}, python {platform.python_version()}",
    "latency_ms": f"median of {config.repeats} runs, per call",
    "command": command,
  }
  rows = [(*key, values) for key, values in sorted(kept.items())]
  tables.write(out, header, rows, _VALUES)
  print(f"{len(measured)} workloads measured, {len(rows)} rows in {out}")
  return errors.DONE


def _old_rows(path: Path):
  """An existing table's rows with all their columns, and its command."""
  table, lines = tables.read(path), read_csv(path).rows
  rows = {
    key: {c: cells.get(c, "") for c in _VALUES}
    for key, (_, cells) in zip(table.rows, lines, strict=True)
  }
  return rows, table.header.get("command", "unknown")


def _processor() -> str:
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    return platform.processor() or platform.machine()
  names = [n.partition(":")[2].strip() for n in lines if "model name" in n]
  return names[0] if names else platform.machine()
