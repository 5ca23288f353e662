"""From names on the command line to the parts of a search."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import optax

from nasjax import (
  constraints,
  data,
  hardware,
  hypergradients,
  objectives,
  relaxations,
  spaces,
  testing,
  weightings,
)
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError, nearest
from nasjax.reader import RAISED, load_part, number, one_problem
from nasjax.types import Metric, Objective, Relaxation

COUNTED = {
  "params": hardware.params,
  "macs": hardware.macs,
  "flops": hardware.flops,
}
MEASURED = ("latency_ms", "energy_mj")
DEFAULT_DEVICE = "x86-server"
# The default run: edge on digits, near the 40th percentile of its networks.
DEFAULT_LIMIT = "latency_ms=0.03"


def _needs_nothing(part: Any) -> bool:
  """Whether a function can be called without arguments."""
  return inspect.isfunction(part) and all(
    p.default is not inspect.Parameter.empty
    for p in inspect.signature(part).parameters.values()
  )


def built_ins(module: ModuleType) -> dict[str, Any]:
  """The parts of a module: what `__all__` names that needs no argument."""
  parts = {name: getattr(module, name) for name in module.__all__}
  return {name: part for name, part in parts.items() if _needs_nothing(part)}


def choose(module: ModuleType, name: str, flag: str) -> Any:
  """A built-in's constructor by name; raises InputError."""
  known = built_ins(module)
  if name not in known:
    raise InputError(flag, f"unknown name {name!r}", nearest(name, known))
  return known[name]


def make_space(name: str, arguments: Mapping[str, Any], flag="--space") -> Any:
  """A space by name; arguments it does not have are refused.

  Args:
    name: of a constructor in `nasjax.spaces`.
    arguments: those that are None are left to the space.
    flag: what a message calls it.

  Returns:
    The space.

  Raises:
    InputError: an unknown name or argument, or one out of range.
  """
  constructor = choose(spaces, name, flag)
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
  except ValueError as error:
    raise InputError(f"{flag} {name}", str(error)) from None


def search_space(config: SearchConfig, dataset: data.Dataset) -> Any:
  """The space that a search over `dataset` is asked for."""
  return make_space(
    config.space,
    dict(
      channels=config.channels,
      cells=config.cells,
      nodes=config.nodes,
      links=config.links,
      activation=config.activation,
      image_shape=data.shape(dataset.train),
      num_classes=dataset.num_classes,
    ),
  )


def augmentation(config: SearchConfig, dataset: data.Dataset):
  """The augmentation asked for; `auto` is the data's own."""
  if config.augment == "auto":
    return dataset.augmentation
  height = data.shape(dataset.train)[0]
  sizes = {"flip": True, "crop": max(1, height // 8), "cutout": height // 4}
  chosen = {}
  for name in config.augment.replace(",", " ").split():
    if name == "none":
      continue
    if name not in sizes:
      raise InputError(
        "--augment", f"unknown name {name!r}", nearest(name, [*sizes, "none"])
      )
    chosen[name] = sizes[name]
  return data.Augmentation(**chosen)


def _made(constructor, name):
  try:
    return constructor()
  except RAISED as error:
    raise InputError(
      "--relaxation",
      f"{name} raised {type(error).__name__}: {one_problem(error)}",
    ) from error


def relaxation(config: SearchConfig, space: Any, steps: int) -> Relaxation:
  """The relaxation asked for, its temperature and operation dropout."""
  flag = f"--relaxation {config.relaxation}"
  if ":" in config.relaxation:
    made = load_part(config.relaxation, "--relaxation")
    if _needs_nothing(made):
      made = _made(made, config.relaxation)
    try:
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
    schedule = optax.linear_schedule(
      start, start if end is None else end, max(steps, 1)
    )
    made = constructor(temperature=schedule)
  if config.operation_dropout > 1:
    raise InputError("--operation-dropout", "is a rate, at most 1")
  if config.operation_dropout:
    rate = optax.linear_schedule(config.operation_dropout, 0.0, max(steps, 1))
    made = relaxations.operation_dropout(made, space.skips, rate)
  return made


def hypergradient(config: SearchConfig) -> Any:
  """The hypergradient asked for."""
  return choose(hypergradients, config.hypergradient, "--hypergradient")()


def weighting(config: SearchConfig) -> Any:
  """The weighting asked for."""
  return choose(weightings, config.weighting, "--weighting")()


def penalty(config: SearchConfig) -> Any:
  """The penalty asked for."""
  constructor = choose(constraints, config.penalty, "--penalty")
  try:
    return constructor(strength=config.penalty_strength)
  except ValueError as error:
    raise InputError("--penalty-strength", str(error)) from None


def split_assignment(text: str, flag: str) -> tuple[str, str | None]:
  """`NAME=VALUE` -> (name, value); the value may be absent."""
  name, equals, value = text.partition("=")
  if not name or (equals and not value):
    raise InputError(flag, f"{text!r} is not NAME=VALUE")
  return name.strip(), value.strip() if equals else None


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
    "cells",
    "nodes",
    "links",
    "activation",
    "device",
    "limit",
    "objective",
    "image_size",
  )
  if all(getattr(config, f) == getattr(plain, f) for f in fields):
    return dataclasses.replace(
      config, device=(DEFAULT_DEVICE,), limit=(DEFAULT_LIMIT,)
    )
  named = [split_assignment(t, "")[0] for t in config.limit + config.objective]
  if not config.device and any(n in MEASURED for n in named):
    return dataclasses.replace(config, device=(DEFAULT_DEVICE,))
  return config


def metrics(config: SearchConfig, space: Any) -> dict[str, Metric]:
  """Every metric that the devices allow, by name.

  With several devices a measured metric is called METRIC__DEVICE.
  """
  found = {name: make(space) for name, make in COUNTED.items()}
  devices = [hardware.device(name) for name in config.device]
  names = [d.name for d in devices]
  for name in names:
    if names.count(name) > 1:
      raise InputError("--device", f"{name!r} is given twice")
  for device in devices:
    for column in device.table.costs:
      make = device.latency if column == "latency_ms" else device.energy
      metric = make(
        space,
        batch=config.device_batch,
        bits=config.device_bits,
        interpolate=config.interpolate,
      )
      if len(devices) > 1:
        metric = metric._replace(name=f"{column}__{device.name}")
      found[metric.name] = metric
  return found


def _find(name: str, known: Mapping[str, Metric], flag: str) -> Metric:
  device, colon, metric = name.partition(":")
  asked = f"{metric}__{device}" if colon else name
  if colon and asked not in known and metric in known:
    asked = metric if known[metric].device == device else asked
  if asked not in known:
    fix = nearest(asked, known)
    if any(asked.startswith(m) for m in MEASURED) and not any(
      k.startswith(asked) for k in known
    ):
      fix = "name a device that has it with --device; " + fix
    raise InputError(flag, f"no metric {name!r}", fix)
  return known[asked]


def limits(
  config: SearchConfig, known: Mapping[str, Metric]
) -> list[tuple[Metric, float]]:
  """(metric, upper bound) of each --limit; raises InputError."""
  found: list[tuple[Metric, float]] = []
  for text in config.limit:
    name, value = split_assignment(text, "--limit")
    flag = f"--limit {name}"
    if value is None:
      raise InputError(flag, "has no value", f"write {name}=VALUE")
    metric = _find(name, known, flag)
    bound = number(value, flag, high=1e30)
    if bound <= 0:
      raise InputError(flag, f"{value} must be above 0")
    if metric.name in [m.name for m, _ in found]:
      raise InputError(flag, "is given twice")
    found.append((metric, bound))
  return found


def make_objectives(
  config: SearchConfig,
  known: Mapping[str, Metric],
  medians: Mapping[str, float],
) -> tuple[list[Objective], list[float]]:
  """Objectives and their coefficients.

  A metric counts over its median of random architectures, so that
  coefficients compare with a cross entropy.
  """
  if not config.objective:
    raise InputError("--objective", "none is given", "leave it out")
  made: list[Objective] = []
  preference: list[float] = []
  for text in config.objective:
    name, value = split_assignment(text, "--objective")
    flag = f"--objective {name}"
    preference.append(
      1.0 if value is None else number(value, flag, low=0.0, high=1e30)
    )
    if name == "cross_entropy":
      made.append(objectives.cross_entropy())
    else:
      names = ["cross_entropy", *known]
      if name not in known and ":" not in name:
        close = nearest(name, names)
        raise InputError(flag, "unknown objective", close)
      metric = _find(name, known, flag)
      made.append(
        objectives.metric(metric, reference=max(medians[metric.name], 1e-9))
      )
  names = [o.name for o in made]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"--objective {name}", "is given twice")
  return made, preference


def make_constraints(
  config: SearchConfig, bounds: Sequence[tuple[Metric, float]]
) -> list:
  """One constraint a limit."""
  chosen = penalty(config)
  return [
    constraints.at_most(metric, bound, penalty=chosen)
    for metric, bound in bounds
  ]
