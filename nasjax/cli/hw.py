"""`nasjax hw`: describe a device by measuring it."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from rich import progress as bars

from nasjax import errors, signals
from nasjax.cli import config as configs
from nasjax.cli.hw_config import BundleConfig, ImportConfig, MeasureConfig
from nasjax.cli.parts import make_space
from nasjax.errors import InputError
from nasjax.hardware import bundle as bundles
from nasjax.hardware import measure as measuring
from nasjax.hardware import measured, meter, timer
from nasjax.hardware import table as tables
from nasjax.hardware.workload import Workload
from nasjax.layers import onnx_nodes
from nasjax.reader import RAISED, load_part, one_problem, read_csv, whole

_COLUMNS = (*bundles.VALUES, "energy_mj")
_CHUNK = 64  # workloads between two savings
_FOLDER = ".nasjax-bundle"  # ends the name of an unfinished measurement


def image_shape_of(text: str) -> tuple[int, int, int]:
  """(height, width, channels) of HEIGHTxWIDTHxCHANNELS; raises InputError."""
  sizes = text.lower().split("x")
  if len(sizes) != 3:
    raise InputError("--image-shape", f"{text!r} is not HEIGHTxWIDTHxCHANNELS")
  found = [
    whole(s, "--image-shape", low=1, high=configs.MAX_SIDE) for s in sizes
  ]
  return found[0], found[1], found[2]


def numbers(words: tuple[str, ...], flag: str) -> list[int]:
  """Whole numbers of words such as 1,8,64, each once, in order."""
  found = [
    whole(w, flag, low=1, high=configs.MAX_SIDE)
    for word in words
    for w in word.split(",")
  ]
  return list(dict.fromkeys(found))


def _bits(config) -> list[int]:
  found = numbers(config.bits, "--bits")
  for bits in found:
    if bits not in bundles.BITS:
      raise InputError("--bits", f"{bits} is not measured; 32 and 8 are")
  return found


def spaces_of(config) -> list[Any]:
  """The spaces that a command's flags mean, one a shape and width."""
  widths = [
    whole(channels, "--channels", low=1, high=configs.MAX_SIDE)
    for channels in config.channels
  ] or [None]  # the space's own
  return [
    make_space(
      config.space,
      dict(
        image_shape=image_shape_of(shape),
        channels=channels,
        num_classes=config.num_classes,
        cells=config.cells,
        nodes=config.nodes,
        links=config.links,
        activation=config.activation,
        channel_multiple=config.channel_multiple,
      ),
    )
    for shape in config.image_shape
    for channels in widths
  ]


def _one_space(config) -> Any:
  found = spaces_of(config)
  if len(found) != 1:
    raise InputError(
      "--calibrate",
      "whole networks are of one space",
      "give one --image-shape and one --channels",
    )
  return found[0]


def command(config, tool: str) -> str:
  """The command that makes this table, defaults left out."""
  plain, words = type(config)(), ["nasjax", "hw", tool]
  for name in vars(config):
    value = getattr(config, name)
    if value == getattr(plain, name) and name not in ("space", "runtime"):
      continue
    words.append(configs.flag(name))
    if value is not True:
      words += value if isinstance(value, tuple) else [str(value)]
  return shlex.join(words)


def _check_out(config) -> Path:
  out = Path(config.out)
  if out.suffix != ".csv":
    raise InputError("--out", f"{out} does not end in .csv")
  if not out.parent.is_dir():
    raise InputError("--out", f"the folder {out.parent} does not exist")
  if out.exists() and not (config.append or config.force):
    raise InputError(
      "--out", f"{out} exists", "name another, or add --append or --force"
    )
  return out


@contextlib.contextmanager
def progress_bar(text: str) -> Iterator[Callable[..., None]]:
  """A bar with the time left; called with (done, total, text).

  Ends the work where the user asked to stop.
  """
  columns = (
    bars.TextColumn("{task.description}"),
    bars.BarColumn(),
    bars.MofNCompleteColumn(),
    bars.TimeRemainingColumn(),
  )
  with signals.caught() as stop, bars.Progress(*columns) as bar:
    task = bar.add_task(text, total=None)

    def update(done: int, total: int, what: str = text):
      stop.check()
      bar.update(task, completed=done, total=total, description=what)

    yield update


def measure(config: MeasureConfig) -> int:
  """Times every workload of a space here and writes a table."""
  out = _check_out(config)
  tables.check_device_name(config.device, "--device")
  batches, bits = numbers(config.batch, "--batch"), _bits(config)
  if config.append and out.exists():
    _old_rows(out)  # refused before anything is measured
  if config.energy == "rapl":
    meter.rapl_zones()
  if config.runtime == "jax":
    plain = MeasureConfig()
    for name in ("bits", "calibrate", "energy", "threads", "optimization"):
      if getattr(config, name) != getattr(plain, name):
        raise InputError(
          configs.flag(name), "is for --runtime onnxruntime", "leave it out"
        )
    header, rows = _with_jax(config, batches)
  else:
    header, rows = _with_onnx(config, out, batches, bits)
  header["command"] = command(config, "measure")
  _finish(config, out, header, rows)
  return errors.DONE


def _finish(config, out: Path, header: Mapping[str, str], rows) -> None:
  """Writes the table, with what --append keeps of the old one."""
  kept, header, count = {}, dict(header), len(rows)
  if config.append and out.exists():
    kept, before = _old_rows(out)
    for key, value in before.items():
      if key.startswith(("rules ", "calibration ")):
        header.setdefault(key, value)
    if "command" in before:
      header["command"] = f"{before['command']} && {header['command']}"
  kept.update({(work, batch): cells for work, batch, cells in rows})
  columns = [
    c for c in _COLUMNS if any(cells.get(c) for cells in kept.values())
  ]
  if "energy_mj" in columns and not all(
    cells.get("energy_mj") for cells in kept.values()
  ):
    raise InputError(
      "--append", f"{out} has rows with and without energy_mj", "use --force"
    )
  tables.write(
    out,
    header,
    [
      (*key, {c: cells.get(c, "") for c in columns})
      for key, cells in sorted(kept.items())
    ],
    columns,
  )
  noisy = sum(cells.get("noisy") == "1" for _, _, cells in rows)
  said = f", {noisy} noisy" if noisy else ""
  print(f"{count} rows measured{said}, {len(kept)} rows in {out}")
  for key, value in header.items():
    if key.startswith("calibration "):
      print(f"{key}: {value}")


def _with_jax(config: MeasureConfig, batches):
  """(header, rows) of the compiled layers."""
  found = sorted(
    {w for space in spaces_of(config) for w in space.workloads().distinct()}
  )
  rows: list[tuple[Workload, int, dict[str, str]]] = []
  total = len(found) * len(batches)
  with progress_bar("compiling and timing") as update:
    for batch in batches:
      for start in range(0, len(found), _CHUNK):
        done = len(rows)
        for item in measuring.measure(
          found[start : start + _CHUNK],
          batch=batch,
          repeats=config.repeats,
          progress=lambda n, done=done: update(done + n, total),
        ):
          values = {
            "latency_ms": f"{item.median:.6g}",
            "minimum_ms": f"{item.minimum:.6g}",
            "spread": f"{item.spread:.3g}",
          }
          rows.append((item.workload, item.batch, values))
  return {
    "device": config.device,
    "processor": f"{timer.processor()}, {os.cpu_count()} cores",
    "runtime": f"jax {jax.__version__} on {jax.default_backend()}",
    "date": time.strftime("%Y-%m-%d"),
    "threads": str(os.cpu_count()),
    "versions": f"jax {jax.__version__}, python {platform.python_version()}",
    "latency_ms": f"median of {config.repeats} runs, per call",
  }, rows


def _make_bundle(config, folder: Path, said: str, update) -> None:
  """Writes the bundle that a configuration asks for."""
  found = spaces_of(config)
  space = _one_space(config) if config.calibrate else found[0]
  works = sorted({w for s in found for w in s.workloads().distinct()})
  networks = bundles.random_networks(space, config.calibrate, config.seed)
  bundles.make(
    folder,
    space,
    workloads=works,
    networks=networks,
    batches=numbers(config.batch, "--batch"),
    bits=_bits(config),
    header={"device": config.device, "command": said},
    progress=lambda done, total: update(done, total, "writing ONNX files"),
  )


def _with_onnx(config: MeasureConfig, out: Path, batches, bits):
  """(header, rows) of ONNX Runtime; the folder beside `out` lets it go on."""
  onnx_nodes.need("onnxruntime")
  folder = out.with_name(f".{out.name}{_FOLDER}")
  said, manifest = command(config, "measure"), folder / bundles.MANIFEST
  with progress_bar("writing ONNX files") as update:
    # The manifest is written last: without it the folder is half a bundle.
    if not manifest.exists() or said not in _said(folder):
      shutil.rmtree(folder, ignore_errors=True)
      folder.mkdir()
      _make_bundle(config, folder, said, update)
    results = folder / timer.RESULTS
    if results.exists():
      update(0, 1, f"going on with {results}")
    cores = getattr(os, "sched_getaffinity", lambda pid: None)(0)
    try:
      timer.run(
        str(folder),
        str(results),
        threads=config.threads,
        repeats=config.repeats,
        rounds=config.rounds,
        device=config.device,
        optimization=config.optimization,
        progress=update,
      )
    except ValueError as error:
      raise InputError(str(results), str(error), f"remove {folder}") from None
    finally:
      if cores:
        os.sched_setaffinity(0, cores)
    found, space = bundles.read(results, make_space)
    header, rows = bundles.table(found, space, str(out))
    if config.energy:
      rows = [
        (work, batch, {**cells, "energy_mj": f"{value:.6g}"})
        for (work, batch, cells), value in zip(
          rows, _energies(config, folder, rows, update), strict=True
        )
      ]
      header["energy_mj"] = f"per call, by {config.energy}"
  shutil.rmtree(folder)
  return header, rows


def _said(folder: Path) -> str:
  """The command that made an unfinished bundle, as its manifest holds it."""
  return (folder / bundles.MANIFEST).read_text().replace('\\"', '"')


def _energies(config, folder, rows, update) -> list[float]:
  """The energy of each row's call, in mJ."""
  onnx, found = onnx_nodes.need("onnx"), []
  part = zones = None
  if config.energy == "rapl":
    zones = meter.rapl_zones()
  else:
    part = load_part(config.energy, "--energy")
  for work, batch, _ in rows:
    update(len(found), len(rows), "measuring energy")
    path = folder / "meter.onnx"
    if work.bits == 8:
      shapes = onnx_nodes.input_shapes(work)
      named = {f"x_{n}": shape for n, shape in enumerate(shapes)}
      bundles.quantized(onnx_nodes.workload(work), named, path)
    else:
      onnx.save(onnx_nodes.workload(work), str(path))
    if zones:
      shapes = onnx_nodes.input_shapes(work)
      call = timer.Call(
        str(path), shapes, batch, config.threads, config.optimization
      )
      found.append(meter.rapl_mj(call.sample, zones) / call.times)
      continue
    try:
      value = part(str(path), batch)
    except RAISED as error:
      raise InputError(
        config.energy, f"{type(error).__name__}: {one_problem(error)}"
      ) from error
    values = measured.check_values(value, config.energy)
    if "energy_mj" not in values:
      raise InputError(config.energy, "gave no energy_mj")
    found.append(values["energy_mj"])
  return found


def bundle(config: BundleConfig) -> int:
  """Writes ONNX files and a script that times them anywhere."""
  out = Path(config.out)
  tables.check_device_name(config.device, "--device")
  numbers(config.batch, "--batch"), _bits(config)
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise InputError("--out", f"{out} exists and is not an empty folder")
  if not out.parent.is_dir():
    raise InputError("--out", f"the folder {out.parent} does not exist")
  # Beside its place, then renamed: half a bundle is never there.
  with tempfile.TemporaryDirectory(
    prefix=f".{out.name}.", dir=out.parent
  ) as temporary:
    folder = Path(temporary) / "bundle"
    folder.mkdir()
    with progress_bar("writing ONNX files") as update:
      _make_bundle(config, folder, command(config, "bundle"), update)
    os.replace(folder, out)
  print(
    f"copy {out} to the device (it needs onnxruntime and numpy), run"
    f" `python {bundles.SCRIPT}` there, and bring {timer.RESULTS} to"
    " `nasjax hw import`"
  )
  return errors.DONE


def take(path: str, config: ImportConfig) -> int:
  """Makes a table of what a bundle's script measured."""
  out = _check_out(config)
  found, space = bundles.read(path, make_space)
  header, rows = bundles.table(found, space, path)
  if config.device is not None:
    header["device"] = config.device
  tables.check_device_name(header.get("device", ""), f"{path} # device")
  _finish(config, out, header, rows)
  return errors.DONE


def _old_rows(path: Path):
  """An existing table's rows with all their columns, and its header."""
  table, lines = tables.read(path), read_csv(path).rows
  rows = {
    key: {c: cells.get(c, "") for c in _COLUMNS}
    for key, (_, cells) in zip(table.rows, lines, strict=True)
  }
  return rows, table.header
