"""The options of `nasjax hw`, one frozen dataclass a command."""

from __future__ import annotations

import dataclasses

from nasjax.cli.config import MAX_SEED, MAX_SIDE, option


@dataclasses.dataclass(frozen=True)
class HardwareSpaceConfig:
  """Which space the tools of `nasjax hw` mean."""

  space: str = option("edge", "search space whose workloads are measured")
  image_shape: tuple[str, ...] = option(
    ("28x28x1",), "HEIGHTxWIDTHxCHANNELS; may be repeated"
  )
  channels: tuple[str, ...] = option(
    (),
    "channels of the first stage; may be repeated; default: the space's own",
  )
  num_classes: int = option(10, "classes", low=2, high=100_000)
  cells: int | None = option(
    None, "cells a stage; default: edge 1, nasbench201 5, fbnet 4", low=1
  )
  nodes: int | None = option(None, "edge: nodes a cell; default 3", low=1)
  links: str | None = option(
    None, "edge: residual (default), dense, linear_bottleneck"
  )
  activation: str | None = option(
    None, "relu6 (default of edge), relu (default of fbnet, macro), hswish"
  )
  channel_multiple: int | None = option(
    None,
    "fbnet, macro: all channels are multiples of it; default 2 and 1",
    low=1,
    high=MAX_SIDE,
  )
  batch: tuple[str, ...] = option(
    ("1",), "images at once, 1,8,64: the table has rows of each"
  )
  bits: tuple[str, ...] = option(
    ("32",), "32 (float32) and 8 (static int8, onnxruntime only)"
  )
  device: str = option("this-machine", "the name the table gives its device")


@dataclasses.dataclass(frozen=True)
class MeasureConfig(HardwareSpaceConfig):
  """What `nasjax hw measure` is told."""

  out: str = option("table.csv", "the table to write")
  runtime: str = option(
    "jax",
    "what runs them: jax (compiled layers), onnxruntime",
    choices=("jax", "onnxruntime"),
  )
  threads: int = option(
    1, "onnxruntime: threads of an operation, pinned", low=1, high=1024
  )
  optimization: str = option(
    "all",
    "onnxruntime: of the graph: all, extended (no layouts of its own), none",
    choices=("all", "extended", "none"),
  )
  rounds: int = option(
    9, "onnxruntime: passes over all, whose median counts", low=1, high=1000
  )
  calibrate: int = option(
    0,
    "onnxruntime: random whole networks timed for the table's constant and"
    " fusion rules; 30 do",
    low=0,
    high=10_000,
  )
  seed: int = option(0, "of the random networks", low=0, high=MAX_SEED)
  repeats: int = option(15, "timed runs of each workload", low=3, high=10_000)
  energy: str | None = option(
    None,
    "also energy_mj: rapl (the processor's own counter), or"
    " path/to/file.py:name, called with an ONNX file's path",
  )
  append: bool = option(
    False, "keep the rows of an existing table that are not measured again"
  )
  force: bool = option(False, "replace an existing table")


@dataclasses.dataclass(frozen=True)
class BundleConfig(HardwareSpaceConfig):
  """What `nasjax hw bundle` is told."""

  out: str = option("bundle", "the folder to write, new or empty")
  calibrate: int = option(
    30,
    "random whole networks to time for the table's constant and fusion rules",
    low=0,
    high=10_000,
  )
  seed: int = option(0, "of the random networks", low=0, high=MAX_SEED)


@dataclasses.dataclass(frozen=True)
class ImportConfig:
  """What `nasjax hw import` is told."""

  out: str = option("table.csv", "the table to write")
  device: str | None = option(
    None, "the name the table gives its device; default: the measurements' own"
  )
  append: bool = option(
    False, "keep the rows of an existing table that are not in the file"
  )
  force: bool = option(False, "replace an existing table")


@dataclasses.dataclass(frozen=True)
class CoverageConfig(HardwareSpaceConfig):
  """What `nasjax hw coverage` is told."""

  device: str = option("x86-server", "x86-server or TABLE.csv")


@dataclasses.dataclass(frozen=True)
class TimeConfig:
  """What `nasjax hw time` is told."""

  measure: str = option(
    "",
    "a command line with {onnx} for the network's file, whose last line is JSON"
    ' {"latency_ms": 1.5}, or path/to/file.py:name, called with the'
    " architecture",
  )
  timeout_seconds: float = option(600.0, "of one measurement", low=0, high=1e6)
  retries: int = option(1, "after a measurement that failed", low=0, high=100)
  cache: str | None = option(
    None, "a JSON file that keeps what was measured; default: none"
  )


@dataclasses.dataclass(frozen=True)
class ScheduleConfig:
  """What `nasjax hw schedule` is told."""

  device: str = option(
    "stm32f746", "what it runs on: a name of `nasjax hw list` or PROFILE.toml"
  )
  in_place_depthwise: bool = option(
    False, "depthwise convolutions write over their input, one channel aside"
  )
  patches: int = option(
    1,
    "on a side: the first operations run in so many times so many patches",
    low=1,
    high=64,
  )
  patched_operations: int = option(
    0, "how many operations run patch by patch", low=0, high=10_000
  )
  deadline_ms: float | None = option(
    None,
    "also the frequency of the least energy-delay product within this time",
    low=1e-6,
    high=1e9,
  )
  out: str | None = option(None, "a JSON file to write; default: none")
  force: bool = option(False, "replace an existing file")


@dataclasses.dataclass(frozen=True)
class FitConfig:
  """What `nasjax hw fit` is told."""

  measurements: str = option(
    "networks.csv",
    "measured networks: a column `arch` (NAS-Bench-201's string, a digit an"
    " edge, or candidates' names with spaces) and one of costs",
  )
  column: str = option("latency_ms", "the column of costs")
  space: str = option("edge", "search space of the networks")
  out: str = option("table.csv", "the table of choices to write")
  counted: str = option(
    "auto",
    "which edges cost something: every_edge, reaching_output (those that lead"
    " to the output), or auto, by cross-validation",
    choices=("auto", "every_edge", "reaching_output"),
  )
  image_shape: str = option("28x28x1", "HEIGHTxWIDTHxCHANNELS")
  channels: int | None = option(
    None, "channels of the first stage", low=1, high=MAX_SIDE
  )
  cells: int | None = option(None, "cells a stage", low=1)
  num_classes: int = option(10, "classes", low=2, high=100_000)
  nodes: int | None = option(None, "edge: nodes a cell; default 3", low=1)
  links: str | None = option(
    None, "edge: residual (default), dense, linear_bottleneck"
  )
  device: str = option("this-machine", "the name the table gives its device")
  seed: int = option(0, "of the cross-validation", low=0, high=MAX_SEED)
  force: bool = option(False, "replace an existing table")
