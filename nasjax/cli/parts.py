"""From names on the command line to the parts of a search."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from nasjax import (
  constraints,
  data,
  hardware,
  hypergradients,
  relaxations,
  testing,
  weightings,
)
from nasjax.cli import metrics, own_spaces, quantization_rules
from nasjax.cli.config import SearchConfig, height_and_width
from nasjax.cli.retrain_config import RetrainConfig
from nasjax.errors import InputError, nearest
from nasjax.hardware.quantization import LowBits
from nasjax.reader import RAISED, load_part, one_problem
from nasjax.search import rates
from nasjax.spaces import space as spaces
from nasjax.tracing import in_trace
from nasjax.types import Array, Relaxation

DEFAULT_DEVICE = "x86-server"
# The default run: edge on digits, near the 40th percentile of its networks.
DEFAULT_LIMIT = "latency_ms=0.03"


def built_ins(module: ModuleType) -> dict[str, Any]:
  """The parts of a module: what `__all__` names that needs no argument."""
  parts = {name: getattr(module, name) for name in module.__all__}
  return {
    n: part for n, part in parts.items() if own_spaces.needs_nothing(part)
  }


def choose(module: ModuleType, name: str, flag: str) -> Any:
  """A built-in's constructor by name; raises InputError."""
  known = built_ins(module)
  if name not in known:
    raise InputError(flag, f"unknown name {name!r}", nearest(name, known))
  return known[name]


def make_space(name: str, arguments: Mapping[str, Any], flag="--space") -> Any:
  """A space by name; arguments it does not have are refused.

  Args:
    name: of a constructor in `nasjax.spaces`, or `path/to/file.py:name`.
    arguments: those that are None are left to the space.
    flag: what a message calls it.

  Returns:
    The space.

  Raises:
    InputError: an unknown name or argument, one out of range, or a user's own
      space that breaks its contract.
  """
  constructor = own_spaces.constructor(name, flag)
  known = inspect.signature(constructor).parameters
  given = {k: v for k, v in arguments.items() if v is not None}
  for argument in given:
    if argument not in known:
      raise InputError(
        f"--{argument.replace('_', '-')}",
        f"the space {name} has none",
        "leave it out",
      )
  try:
    return constructor(**given)
  except InputError:
    raise
  except ValueError as error:
    raise InputError(f"{flag} {name}", str(error)) from None


def _block(config: SearchConfig) -> str | None:
  """The block asked for; `device` is the first device's substitute."""
  if config.block != "device":
    return config.block
  if not config.device:
    raise InputError("--block device", "no device is given", "add --device")
  own = hardware.device(config.device[0]).profile
  block = None if own is None else own.substitutes.get("inverted_residual")
  if block is None:
    raise InputError("--block device", f"{config.device[0]} prefers none")
  return block


def search_space(
  config: SearchConfig, image_shape: tuple[int, int, int], num_classes: int
) -> Any:
  """The space that a search over such images is asked for."""
  given = dict(
    channels=config.channels,
    width=config.width,
    cells=config.cells,
    nodes=config.nodes,
    links=config.links,
    activation=config.activation,
    channel_multiple=config.channel_multiple,
    widths=config.widths or None,
    shared_kernels=config.shared_kernels or None,
    partial_channels=config.partial_channels,
    block=_block(config),
    image_shape=image_shape,
    num_classes=num_classes,
  )
  if not config.quantization_rule:
    return make_space(config.space, given)
  rules = quantization_rules.read(config)
  constructor = own_spaces.constructor(config.space, "--space")
  known = list(inspect.signature(constructor).parameters)
  given = quantization_rules.arguments(rules, given, known)
  return quantization_rules.restricted(rules, make_space(config.space, given))


def dataset(config: SearchConfig) -> data.Dataset:
  """The data that a configuration names; raises InputError."""
  size = config.image_size
  if size is not None:
    size = height_and_width(size, "--image-size")
  return data.load(
    config.data,
    image_size=size,
    resize_mode=config.resize,
    background=config.background,
    channels_in=config.channels_in,
    group_by=config.group_by,
    skip_broken=config.skip_broken,
    keep_duplicates=config.keep_duplicates,
    max_bytes=config.max_dataset_bytes,
  )


def classes(dataset: data.Dataset) -> tuple[str, ...]:
  """The names of the classes as text that files and terminals can hold."""
  return tuple(
    "".join(c if c.isprintable() else "?" for c in name)
    for name in dataset.class_names
  )


def augmentation(asked: str, dataset: data.Dataset) -> data.Augmentation:
  """The augmentation that `--augment` asks for; `auto` is the data's own."""
  return data.resolve_augmentation(
    asked, data.shape(dataset.train), dataset.augmentation
  )


def _made(constructor, name):
  try:
    return constructor()
  except RAISED as error:
    raise InputError(
      "--relaxation",
      f"{name} raised {type(error).__name__}: {one_problem(error)}",
    ) from error


def relaxation(
  config: SearchConfig, space: Any, steps: int | Array
) -> Relaxation:
  """The relaxation asked for, its temperature and operation dropout.

  Args:
    config: what to do.
    space: what is searched.
    steps: of the whole search; may be traced.
  """
  flag = f"--relaxation {config.relaxation}"
  if ":" in config.relaxation:
    made = load_part(config.relaxation, "--relaxation")
    if own_spaces.needs_nothing(made):
      made = _made(made, config.relaxation)
    try:
      if not in_trace():  # it was checked before
        testing.check_relaxation(made, config.relaxation, space.masks)
    except ValueError as error:
      raise InputError("--relaxation", str(error)) from None
    tempered = False
  else:
    constructor = choose(relaxations, config.relaxation, "--relaxation")
    tempered = "temperature" in inspect.signature(constructor).parameters
    made = constructor()
  start, end = config.temperature, config.temperature_end
  if not tempered and not start is end is None:
    raise InputError("--temperature", f"{flag} has none", "leave it out")
  if config.relaxation == "gdas" and start is end is None:
    start, end = 10.0, 0.1  # GDAS, section 4.1
  if start is not None or end is not None:
    start = 1.0 if start is None else start
    schedule = rates.linear(start, start if end is None else end, steps)
    made = constructor(temperature=schedule)
  if config.operation_dropout > 1:
    raise InputError("--operation-dropout", "is a rate, at most 1")
  if config.operation_dropout:
    rate = rates.linear(config.operation_dropout, 0.0, steps)
    made = relaxations.operation_dropout(made, space.skips, rate)
  if space.arguments.get("partial_channels", 1) > 1:
    if config.relaxation == "dirichlet":
      raise InputError(
        flag, "cannot weigh edges, as partial channels need it", "take softmax"
      )
    made = relaxations.edge_normalized(made, spaces.kept_of(space))
  return made


def low_bits(config: SearchConfig | RetrainConfig) -> LowBits:
  """How the weights are made fit for few bits."""
  return LowBits(
    config.quantize_bits,
    config.quantize_scale == "channel",
    config.asymmetry_penalty,
  )


def hypergradient(config: SearchConfig) -> Any:
  """The hypergradient asked for."""
  return choose(hypergradients, config.hypergradient, "--hypergradient")()


def weighting(config: SearchConfig) -> Any:
  """The weighting asked for."""
  constructor = choose(weightings, config.weighting, "--weighting")
  if config.normalization is None:
    return constructor()
  if "normalization" not in inspect.signature(constructor).parameters:
    raise InputError(
      "--normalization", f"{config.weighting} has none", "leave it out"
    )
  return constructor(normalization=config.normalization)


def penalty(config: SearchConfig) -> Any:
  """The penalty asked for."""
  known = built_ins(constraints)
  if config.penalty not in known:
    fix = nearest(config.penalty, [*known, "objective"])
    raise InputError("--penalty", f"unknown name {config.penalty!r}", fix)
  constructor = known[config.penalty]
  try:
    return constructor(strength=config.penalty_strength)
  except ValueError as error:
    raise InputError("--penalty-strength", str(error)) from None


def resolve_devices(config: SearchConfig) -> SearchConfig:
  """Fills in device and limit where the rules of --device say so.

  The default run (space, data and shape untouched) is held to a limit on
  x86-server; a limit or objective on a measured metric takes the same device;
  otherwise there is no cost term.
  """
  plain = SearchConfig()
  fields = (
    "space",
    "data",
    "channels",
    "width",
    "cells",
    "nodes",
    "links",
    "activation",
    "channel_multiple",
    "block",
    "quantization_rule",
    "device",
    "limit",
    "objective",
    "image_size",
    "channels_in",
  )
  if all(getattr(config, f) == getattr(plain, f) for f in fields):
    return dataclasses.replace(
      config, device=(DEFAULT_DEVICE,), limit=(DEFAULT_LIMIT,)
    )
  names = metrics.named(config)
  # DEVICE:METRIC asks for a device of its own.
  names = [metrics.plain(n) for n in names if ":" not in n]
  if not config.device and any(n in metrics.MEASURED for n in names):
    return dataclasses.replace(config, device=(DEFAULT_DEVICE,))
  return config


def devices(config: SearchConfig) -> list[hardware.Device]:
  """The devices asked for; raises InputError if one is given twice."""
  found = [hardware.device(name) for name in config.device]
  names = [d.name for d in found]
  for name in names:
    if names.count(name) > 1:
      raise InputError("--device", f"{name!r} is given twice")
  return found


def on_devices(space: Any, devices: Sequence[hardware.Device]) -> Any:
  """The space without the candidates that the devices' rules close."""
  allowed = hardware.closed(list(devices), space)
  if all(np.array_equal(allowed[n], m) for n, m in space.masks.items()):
    return space
  if not hasattr(space, "allowed"):
    raise InputError("--device", f"the space {space.name} cannot close choices")
  return dataclasses.replace(space, allowed=allowed)
