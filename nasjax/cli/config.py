"""One frozen dataclass a command: flags, a YAML file and --help from it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import yaml

from nasjax.errors import InputError, nearest
from nasjax.reader import number, read_yaml, whole

T = TypeVar("T")


MAX_SIDE = 4096  # pixels, and channels
MAX_SEED = 2**32 - 1  # jax.random.key takes no more bits


def option(
  default: Any,
  help: str,
  *,
  low: float = -math.inf,
  high: float = math.inf,
  choices=(),
) -> Any:
  """A field with its help, its range and known words."""
  metadata = dict(help=help, low=low, high=high, choices=tuple(choices))
  return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class SearchConfig:
  """What `nasjax search` is told."""

  space: str = option(
    "edge",
    "search space: edge, nasbench201, darts, mobilenet, tiny, fbnet, macro, or"
    " path/to/file.py:name",
  )
  strategy: str = option(
    "differentiable",
    "differentiable (gradient search), enas (a controller learns what to"
    " propose), hybrid (gradient search, then evolution and gradients in turn),"
    " or a supernet of single paths that is trained first and then searched by"
    " nsga2, random or staged (predictors learn from what was evaluated and say"
    " what to evaluate next)",
    choices=("differentiable", "enas", "hybrid", "nsga2", "random", "staged"),
  )
  population: int | None = option(
    None,
    "evolution: architectures evaluated a generation; default 50, hybrid 25,"
    " staged 15",
    low=4,
    high=10_000,
  )
  generations: int | None = option(
    None,
    "evolution: generations; default 20, staged 14 after the first predictors",
    low=1,
    high=10_000,
  )
  predictor_samples: int = option(
    150,
    "staged: random architectures that the first predictors learn from",
    low=10,
    high=10_000,
  )
  refine_every: int = option(
    2,
    "hybrid: of so many generations the last is refined by gradients",
    low=1,
    high=10_000,
  )
  measured: str | None = option(
    None,
    "evolution: what measures costs of each architecture that is"
    " evaluated, in place of the device's model: onnxruntime (on this machine),"
    " path/to/file.py:name or a command line with {onnx}",
  )
  data: str = option(
    "digits",
    "images: digits, fashion-mnist, FILE.npz, a CIFAR-10 (binary), IDX or"
    " image folder",
  )
  image_size: int | None = option(
    None,
    "pixels: images are resized to this square; tiny: default, what suits the"
    " limits",
    low=1,
    high=MAX_SIDE,
  )
  max_dataset_bytes: int = option(
    4 * 2**30, "most bytes that the decoded images and labels may have", low=1
  )
  augment: str = option(
    "auto",
    "augmentation of training images: auto (suits the data), none, or a list"
    " of flip, crop, cutout",
  )
  relaxation: str = option(
    "proxyless",
    "softmax, gumbel_softmax, gdas, proxyless, sparsemax, dirichlet, or"
    " path/to/file.py:name",
  )
  temperature: float | None = option(
    None,
    "of the relaxation at the start; default: its own",
    low=0.01,
    high=1e6,
  )
  temperature_end: float | None = option(
    None, "of the relaxation at the end, reached linearly", low=0.01, high=1e6
  )
  hypergradient: str = option(
    "first_order", "single_level, first_order, unrolled, finite_difference"
  )
  objective: tuple[str, ...] = option(
    ("cross_entropy",),
    "what is minimised, NAME or NAME=COEFFICIENT: cross_entropy (where no"
    " gradient is needed the error, 1 - accuracy), latency_ms,"
    " energy_mj, edp_mj_ms, cost, params, macs, flops, and what limits name, in"
    " bytes (metrics count over their median), efficiency, mnasnet_soft,"
    " mnasnet_hard (their target is the first limit), or a weighted sum,"
    " DEVICE:latency_ms+2*DEVICE:latency_ms",
  )
  weighting: str = option(
    "constant",
    "how objectives share a step: constant, chebyshev, mgda, pcgrad, upgrad,"
    " exact_pareto (coefficients times objectives become equal),"
    " epsilon_constraint (coefficients bound all but the first)",
  )
  normalization: str | None = option(
    None,
    "of gradients for mgda and epsilon_constraint: none (default), l2, loss,"
    " loss+",
    choices=("none", "l2", "loss", "loss+"),
  )
  penalty: str = option(
    "quadratic",
    "how a limit pushes back: quadratic, augmented_lagrangian, log_barrier,"
    " equality (the limit is also filled), or objective (it becomes one)",
  )
  tighten: float | None = option(
    None,
    "limits begin at so many times themselves and tighten exponentially;"
    " default: they hold from the start",
    low=1,
    high=1e6,
  )
  penalty_strength: float = option(
    30.0, "of the penalty, in loss units", low=0, high=1e9
  )
  epochs: int | None = option(
    None,
    "epochs; default: as many as make about 1800 steps",
    low=1,
    high=10**6,
  )
  warmup: float = option(
    0.5, "share of the steps that train weights alone", low=0, high=1
  )
  batch_size: int | None = option(
    None,
    "images a step; default 64, or all of a smaller half",
    low=1,
    high=10**6,
  )
  channels: int | None = option(
    None,
    "channels of the first stage; default 16, macro 32",
    low=1,
    high=MAX_SIDE,
  )
  width: int | None = option(
    None, "tiny: percent of all channels; default: what suits the limits", low=1
  )
  cells: int | None = option(
    None, "cells a stage; default: edge 1, nasbench201 5, fbnet 4", low=1
  )
  nodes: int | None = option(None, "nodes a cell; default 3, darts 4", low=1)
  links: str | None = option(
    None, "edge: residual (default), dense, linear_bottleneck"
  )
  activation: str | None = option(
    None, "relu6 (default of edge), relu (default of fbnet, macro), hswish"
  )
  channel_multiple: int | None = option(
    None,
    "fbnet, macro: all channels are multiples of it, such as a device's vectors"
    " of 4, 8 or 16; default 2 and 1",
    low=1,
    high=MAX_SIDE,
  )
  widths: tuple[int, ...] = option(
    (),
    "mobilenet: candidates of each stage in percent of its channels, such as 50"
    " 75 100 125; default: 100 alone",
    low=10,
    high=400,
  )
  shared_kernels: bool = option(
    False,
    "mobilenet: smaller kernels are the centres of the largest, a super-kernel"
    " for all, instead of having weights of their own",
  )
  partial_channels: int | None = option(
    None,
    "darts: the supernet's operations see one channel in so many and edges are"
    " weighed (PC-DARTS, 4); default 1",
    low=1,
    high=MAX_SIDE,
  )
  block: str | None = option(
    None,
    "edge: inverted_residual (default), separable_expansion_3,"
    " group_conv_3x3_groups_4, fused_inverted_residual_3, or device: what the"
    " first device prefers",
  )
  quantization_rule: tuple[str, ...] = option(
    (),
    "what quantises and vectorises well, in any space: bounded_activations,"
    " largest_expansion=N, symmetric_weights=STRENGTH (of a penalty),"
    " channel_multiple=N or =device (what fills its vectors)",
  )
  learning_rate: float = option(
    0.05, "of the weights (SGD, cosine to 0)", low=0, high=1e6
  )
  arch_learning_rate: float | None = option(
    None,
    "of the architecture parameters (Adam); default 0.02, enas 0.0035",
    low=0,
    high=1e6,
  )
  controller_samples: int = option(
    10, "enas: networks that a controller step rewards", low=1, high=1000
  )
  entropy_weight: float = option(
    1e-3, "enas: reward of a nat of the controller's entropy", low=0, high=1e6
  )
  device: tuple[str, ...] = option(
    (),
    "what it must run on: a name of `nasjax hw list`, TABLE.csv or"
    " PROFILE.toml; may be repeated; default:"
    " x86-server if a limit or objective needs one, or in the default run",
  )
  from_: str | None = option(
    None,
    "run folder whose trained supernet this search starts from; its options"
    " hold where no flag says otherwise, without warm-up. With a new --device"
    " its architecture parameters are taken too, and a quarter of its epochs",
  )
  limit: tuple[str, ...] = option(
    (),
    "upper bound, METRIC=VALUE: latency_ms (ms), energy_mj (mJ), params, macs,"
    " flops, skips, peak_sram_kib, flash_kib, working_set_kib (KiB), cost; with"
    " several devices DEVICE:METRIC=VALUE; LOW..HIGH with --front; may be"
    " repeated",
  )
  front: int | None = option(
    None,
    "architectures searched at once in one supernet, spread evenly over the"
    " limits that are given as LOW..HIGH",
    low=1,
    high=64,
  )
  check_ranking: int | None = option(
    None,
    "architectures trained alone at the end, to see how well the supernet"
    " ranks them",
    low=3,
    high=1000,
  )
  retrain: int | None = option(
    None,
    "epochs that the decided network is trained alone at the end, and tested"
    " then, as by nasjax retrain",
    low=1,
    high=10**6,
  )
  device_batch: int = option(
    1, "images in the call that device metrics count", low=1, high=10**9
  )
  device_bits: int = option(
    32, "bits of the network that device metrics count: 32 or 8", low=1, high=64
  )
  interpolate: bool = option(
    False, "device metrics: also between a table's measured shapes"
  )
  operation_dropout: float = option(
    0.0,
    "rate at which skips are dropped while sampling, falling to 0",
    low=0,
    high=1,
  )
  stop_on_skips: float | None = option(
    None, "share of edges led by skips at which the search stops", low=0, high=1
  )
  remat: str = option(
    "auto",
    "cells computed anew for gradients instead of kept: auto (where faster),"
    " on (least memory), off",
    choices=("auto", "on", "off"),
  )
  activations: str = option(
    "float32",
    "type of the network's values while searching: float32, bfloat16",
    choices=("float32", "bfloat16"),
  )
  checkpoint_minutes: float = option(
    5.0, "longest time between checkpoints; each epoch ends with one", low=0
  )
  skip_steps: int = option(
    3,
    "steps in a row that are left out when a number in them is not finite; one"
    " more and the search stops",
    low=0,
  )
  seed: int = option(0, "of everything random", low=0, high=MAX_SEED)
  out: str | None = option(
    None, "run folder; default runs/SPACE-DATA-DATE-TIME"
  )


def flag(name: str) -> str:
  """The flag of a field."""
  return "--" + name.rstrip("_").replace("_", "-")


def _kind(hint: Any) -> tuple[type, bool, bool]:
  """(basic type, optional, repeated) of a field's annotation."""
  if typing.get_origin(hint) is tuple:
    return typing.get_args(hint)[0], False, True
  if isinstance(hint, types.UnionType):
    basic = next(a for a in typing.get_args(hint) if a is not type(None))
    return basic, True, False
  return hint, False, False


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
  """Adds a flag for each field; values stay text until `convert`."""
  hints = typing.get_type_hints(config)
  for field in dataclasses.fields(config):
    basic, _, repeated = _kind(hints[field.name])
    default = field.default
    shown = (
      ""
      if default in (None, ()) or "default" in field.metadata["help"]
      else f" (default: {' '.join(default) if repeated else default})"
    )
    arguments: dict[str, Any] = {
      "dest": field.name,
      "default": argparse.SUPPRESS,
      "help": (field.metadata["help"] + shown).replace("%", "%%"),
    }
    if basic is bool:
      arguments["action"] = "store_true"
    elif repeated:
      arguments["action"], arguments["nargs"] = "extend", "+"
      arguments["metavar"] = field.name.upper()
    else:
      arguments["metavar"] = {int: "N", float: "X"}.get(basic, "NAME")
    parser.add_argument(flag(field.name), **arguments)


def convert(config: type[T], values: Mapping[str, Any], where) -> T:
  """Makes a configuration of text or YAML values.

  Args:
    config: the dataclass.
    values: by field name.
    where: field name -> what a message calls it.

  Returns:
    The configuration.

  Raises:
    InputError: an unknown field, a wrong type or range.
  """
  fields = {f.name: f for f in dataclasses.fields(config)}
  hints = typing.get_type_hints(config)
  made = {}
  for name, value in values.items():
    if name not in fields:
      raise InputError(where(name), "unknown key", nearest(name, fields))
    basic, optional, repeated = _kind(hints[name])
    metadata, place = fields[name].metadata, where(name)
    if value is None and optional:
      made[name] = None
    elif repeated:
      items = value if isinstance(value, (list, tuple)) else [value]
      made[name] = tuple(_basic(v, basic, metadata, place) for v in items)
    else:
      made[name] = _basic(value, basic, metadata, place)
  return config(**made)


def _basic(value, basic, metadata, where):
  bounds = dict(low=metadata["low"], high=metadata["high"])
  if basic is bool:
    if not isinstance(value, bool):
      raise InputError(where, f"{value!r} is not true or false")
    return value
  if basic is int:
    return whole(value, where, **bounds)
  if basic is float:
    return number(value, where, **bounds)
  if isinstance(value, (dict, list)) or value is None:
    raise InputError(where, "must be one word")
  text = str(value)
  if not text or not text.isprintable():
    raise InputError(where, f"{text[:40]!r} is empty or no plain text")
  if metadata["choices"] and text not in metadata["choices"]:
    raise InputError(
      where, f"unknown name {text!r}", nearest(text, metadata["choices"])
    )
  return text


def from_flags(
  config: type[T], flags: Mapping[str, Any], path: str | None = None
) -> T:
  """A configuration from a YAML file, if any, overridden by flags."""
  values, lines = ({}, {}) if path is None else read_yaml(path)
  known = {f.name for f in dataclasses.fields(config)}
  values = {str(k): v for k, v in values.items()}

  def from_file(name):
    return f"{path}:{lines.get(name, 1)} {name[:40]}"

  base = convert(config, values, from_file)
  given = {k: v for k, v in flags.items() if k in known}
  made = convert(config, given, flag)
  return dataclasses.replace(base, **{k: getattr(made, k) for k in given})


def to_yaml(config: Any) -> str:
  """The configuration as YAML that reads back the same."""
  values = {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in dataclasses.asdict(config).items()
  }
  return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
