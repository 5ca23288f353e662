"""Bundles: a space's workloads as ONNX files, with the script that times them.

`make` writes the files, `timer.py` (copied as measure.py) times them on the
device, `read` takes its CSV back. `nasjax hw measure --runtime onnxruntime` is
the three in a row on this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nasjax import export
from nasjax.errors import InputError
from nasjax.hardware import calibrate as calibration
from nasjax.hardware import table as tables
from nasjax.hardware.workload import Workload
from nasjax.layers import blocks, onnx_nodes
from nasjax.reader import parse_json, read_csv
from nasjax.run_folder import write_atomic
from nasjax.spaces import space as spaces

FORMAT = "nasjax.measurements/1"
MANIFEST, SCRIPT = "manifest.json", "measure.py"
NETWORK = "network"  # the kind of a row that times a whole network
BITS = (32, 8)
# Of a table's row, beside its workload and batch.
VALUES = ("latency_ms", "minimum_ms", "median_ms", "spread", "noisy")
_OWN = ("format", "bundle", "space")  # lines that a table has no use for
_ANCHOR_SHAPE = (16, 16, 16)  # of an inverted residual's input


class Measurements(NamedTuple):
  """What a device measured."""

  header: Mapping[str, str]
  workloads: list[tuple[Workload, int, dict[str, str]]]  # (work, batch, cells)
  networks: list[tuple[dict[str, np.ndarray], int, int, float]]
  # of the last: (choices, bits, batch, latency in ms)


def empty() -> Any:
  """The ONNX model of the empty call: one number in, the same out."""
  onnx = onnx_nodes.need("onnx")
  float32, helper = onnx.TensorProto.FLOAT, onnx.helper
  shape = [onnx_nodes.BATCH, 1]
  graph = helper.make_graph(
    [helper.make_node("Identity", ["x_0"], [onnx_nodes.OUTPUT])],
    "nasjax",
    [helper.make_tensor_value_info("x_0", float32, shape)],
    [helper.make_tensor_value_info(onnx_nodes.OUTPUT, float32, shape)],
  )
  return helper.make_model(
    graph,
    opset_imports=[helper.make_opsetid("", onnx_nodes.OPSET)],
    ir_version=onnx_nodes.IR_VERSION,
  )


def anchor() -> tuple[Any, list[int]]:
  """The ONNX model that never changes, and its input without the batch."""
  # Of all that networks are made of, so that what slows them slows it alike.
  parts = blocks.inverted_residual(_ANCHOR_SHAPE, "relu6", 6, residual=True)
  height, width, channels = _ANCHOR_SHAPE
  return onnx_nodes.block(parts.workloads), [channels, height, width]


class _Random:
  """Batches of random inputs, as onnxruntime's calibration asks for them."""

  def __init__(self, shapes: Mapping[str, Sequence[int]], count: int = 4):
    rng = np.random.default_rng(0)
    self._left = [
      {
        n: rng.normal(size=(1, *s)).astype(np.float32)
        for n, s in shapes.items()
      }
      for _ in range(count)
    ]

  def get_next(self):
    return self._left.pop() if self._left else None


def quantized(model: Any, shapes: Mapping[str, Sequence[int]], path: Path):
  """Writes the static int8 (QDQ, per channel) form of a model.

  Ranges come from random inputs: right for time, not for accuracy.

  Args:
    model: an `onnx.ModelProto`.
    shapes: of each input, without the batch.
    path: where to.

  Raises:
    InputError: onnxruntime is not installed.
  """
  tools = onnx_nodes.need("onnxruntime.quantization")
  onnx_nodes.need("onnxruntime").set_default_logger_severity(3)
  logger = logging.getLogger()
  level, _ = logger.level, logger.setLevel(logging.ERROR)
  try:
    tools.quantize_static(
      model,
      str(path),
      _Random(shapes),
      quant_format=tools.QuantFormat.QDQ,
      per_channel=True,
    )
  finally:
    logger.setLevel(level)


def random_networks(
  space: Any, count: int, seed: int
) -> list[spaces.Architecture]:
  """Different random networks of a space whose output sees their input."""
  rng, found = np.random.default_rng(seed), {}
  for _ in range(100 * count + 100):
    if len(found) == count:
      break
    drawn = spaces.random_choices(space, rng, 1)
    one = spaces.Architecture(space, {n: rows[0] for n, rows in drawn.items()})
    try:
      spaces.check_connected(one)
    except InputError:
      continue
    found.setdefault(choices_text(one.choices), one)
  return list(found.values())


def choices_text(choices: Mapping[str, np.ndarray]) -> str:
  """Choices as one word: group=1-0-3, groups separated by a space."""
  return " ".join(
    f"{group}={'-'.join(str(int(k)) for k in row)}"
    for group, row in sorted(choices.items())
  )


def _choices(space, text, where):
  found = {}
  for part in text.split():
    group, _, row = part.partition("=")
    words = row.split("-")
    if not all(w.isascii() and w.isdigit() and len(w) < 6 for w in words):
      raise InputError(where, f"{part[:40]!r} is not GROUP=1-0-3")
    found[group] = [int(w) for w in words]
  return spaces.architecture(space, found).choices


def decided_model(architecture: spaces.Architecture) -> Any:
  """A decided network with random weights as ONNX, for timing."""
  space = architecture.space
  module, shape = space.build(architecture), space.arguments["image_shape"]
  x = jax.ShapeDtypeStruct((1, *shape), np.float32)
  shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == "kernel":
      scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
      return np.float32(rng.normal(size=leaf.shape) * scale)
    return np.full(leaf.shape, path[-1].key in ("var", "scale"), np.float32)

  variables = jax.tree_util.tree_map_with_path(draw, shapes)
  return export.network(module, variables, shape)


def make(
  folder: str | Path,
  space: Any,
  *,
  workloads: Sequence[Workload] | None = None,
  networks: Sequence[spaces.Architecture] = (),
  batches: Sequence[int] = (1,),
  bits: Sequence[int] = (32,),
  header: Mapping[str, str] | None = None,
  progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
  """Writes a bundle.

  Args:
    folder: an existing empty folder.
    space: whose workloads to time.
    workloads: others than the space's own, or none.
    networks: decided networks of it to time whole, for calibration.
    batches: batch sizes to time each at.
    bits: of 32 (float32) and 8 (static int8).
    header: what the CSV's header shall say besides.
    progress: called with (done, total) files.

  Returns:
    How many files there are to time.

  Raises:
    InputError: onnx or, for int8, onnxruntime is missing.
  """
  onnx = onnx_nodes.need("onnx")
  folder = Path(folder)
  works = space.workloads().distinct() if workloads is None else workloads
  shape = space.arguments["image_shape"]
  items, total = [], len(bits) * (len(works) + len(networks))
  columns = tables.workload_columns(works)

  def put(model, inputs, row):
    name = f"{len(items):04d}"
    path = folder / f"{name}.onnx"
    if row["bits"] == "8":
      names = [node.name for node in model.graph.input]
      quantized(model, dict(zip(names, inputs, strict=True)), path)
    else:
      onnx.save(model, str(path))
    row = {"item": name, **row}
    items.append({"file": path.name, "inputs": inputs, "row": row})
    progress(len(items), total)

  for number in bits:
    for work in works:
      key = work.key._replace(bits=number)
      row = {c: str(getattr(key, c)) for c in columns}
      inputs = [list(s) for s in onnx_nodes.input_shapes(key)]
      put(onnx_nodes.workload(key), inputs, {**row, NETWORK: ""})
    for one in networks:
      whole = Workload(NETWORK, *shape, 1, bits=number)
      row = {c: str(getattr(whole, c)) for c in columns}
      row[NETWORK] = choices_text(one.choices)
      put(decided_model(one), [list(shape)], row)
  block, anchor_inputs = anchor()
  fixed = {"anchor.onnx": block, "empty.onnx": empty()}
  for name, model in fixed.items():
    onnx.save(model, str(folder / name))
  arguments = {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in space.arguments.items()
  }
  about = {"name": space.name, "arguments": arguments}
  content = json.dumps([items, about], sort_keys=True)
  manifest = {
    "header": {
      "bundle": hashlib.sha256(content.encode()).hexdigest()[:16],
      "space": json.dumps(about),
      **(header or {}),
    },
    "batches": list(batches),
    "items": items,
    "anchor": {
      "file": "anchor.onnx",
      "inputs": [anchor_inputs],
    },
    "empty": {"file": "empty.onnx", "inputs": [[1]]},
  }
  script = Path(__file__).with_name("timer.py").read_text(encoding="utf-8")
  write_atomic(folder / SCRIPT, script)
  write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1))
  return len(items)


def read(path: str | Path, make_space: Callable[[str, Mapping], Any]):
  """Reads the CSV of a bundle's script.

  Args:
    path: of the CSV.
    make_space: (name, arguments) -> the space.

  Returns:
    (Measurements, the space).

  Raises:
    InputError: names the line and column that is wrong.
  """
  found = read_csv(path, ("item", *tables.COLUMNS, *VALUES, NETWORK))
  if found.header.get("format") != FORMAT:
    raise InputError(
      str(path),
      f"has no line `# format: {FORMAT}`",
      "it must come from a bundle's measure.py",
    )
  about = parse_json(found.header.get("space", ""), f"{path} # space")
  if not isinstance(about, dict) or not (
    isinstance(about.get("name"), str)
    and isinstance(about.get("arguments"), dict)
  ):
    raise InputError(f"{path} # space", 'needs "name" and "arguments"')
  arguments = {
    k: tuple(v) if isinstance(v, list) else v
    for k, v in about["arguments"].items()
  }
  space = make_space(about["name"], arguments)
  rounds: dict[tuple, list[dict[str, str]]] = {}
  networks: dict[tuple, list[float]] = {}
  for line, cells in found.rows:
    where = f"{path}:{line}"
    latency = tables.cost(cells["latency_ms"], f"{where} latency_ms")
    if cells["kind"] == NETWORK:
      bits, batch = (
        tables.whole_cell(cells[c], f"{where} {c}") for c in ("bits", "batch")
      )
      _choices(space, cells[NETWORK], f"{where} {NETWORK}")
      # In the bundle's order, whichever was measured again.
      key = (cells["item"], cells[NETWORK], bits, batch)
      networks.setdefault(key, []).append(latency)
    else:
      for column in VALUES[1:]:
        tables.cost(cells[column], f"{where} {column}")
      rounds.setdefault(tables.key(cells, where), []).append(cells)
  return Measurements(
    found.header,
    [(*key, _merged(cells)) for key, cells in sorted(rounds.items())],
    [
      (_choices(space, text, str(path)), bits, batch, float(np.median(times)))
      for (_, text, bits, batch), times in sorted(networks.items())
    ],
  ), space


def _merged(cells: Sequence[Mapping[str, str]]) -> dict[str, str]:
  """One row of several rounds' rows: medians, and how far they lie apart."""
  times = [float(c["latency_ms"]) for c in cells]
  middle = float(np.median(times))
  medians, spreads = (
    float(np.median([float(c[k]) for c in cells])) for k in VALUES[2:4]
  )
  apart = (max(times) - min(times)) / middle if middle > 0 else 0.0
  return {
    "latency_ms": f"{middle:.6g}",
    "minimum_ms": f"{min(float(c['minimum_ms']) for c in cells):.6g}",
    "median_ms": f"{medians:.6g}",
    "spread": f"{max(apart, spreads):.3g}",
    "noisy": str(int(sum(c["noisy"] == "1" for c in cells) * 2 > len(cells))),
  }


def table(
  measured: Measurements, space: Any, source: str
) -> tuple[dict[str, str], list[tuple[Workload, int, dict[str, str]]]]:
  """A table's header and rows; whole networks give its rules.

  Args:
    measured: as `read` found it.
    space: of the networks.
    source: what a message calls it.

  Returns:
    (header, rows) as `tables.write` takes them. Bits and batch sizes of which
    whole networks were timed have a line of rules and one that says how well
    these predict.

  Raises:
    InputError: too few networks, or a workload of theirs was not timed.
  """
  header = {k: v for k, v in measured.header.items() if k not in _OWN}
  if not measured.workloads:
    raise InputError(source, "has no workloads, only networks")
  found = tables.Table(
    source,
    header,
    {
      (work, batch): {"latency_ms": float(cells["latency_ms"])}
      for work, batch, cells in measured.workloads
    },
  )
  settings = sorted({(bits, batch) for _, bits, batch, _ in measured.networks})
  for bits, batch in settings:
    made = calibration.calibrate(
      found,
      space.workloads(),
      [
        (choices, time)
        for choices, b, n, time in measured.networks
        if (b, n) == (bits, batch)
      ],
      bits=bits,
      batch=batch,
    )
    header[tables.rules_key(bits, batch)] = made.rules.text()
    header[f"calibration bits={bits} batch={batch}"] = str(made)
  noisy = sum(cells["noisy"] == "1" for _, _, cells in measured.workloads)
  header["noisy"] = f"{noisy} of {len(measured.workloads)} rows"
  return header, measured.workloads
