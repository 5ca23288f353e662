"""The metrics and limits of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax import data, hardware, search
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError, nearest
from nasjax.hardware import kernel_errors
from nasjax.reader import number
from nasjax.types import Metric

COUNTED = {
  "params": hardware.params,
  "macs": hardware.macs,
  "flops": hardware.flops,
}
OF_WEIGHTS = ("quantization_error", "weight_asymmetry")
# Strategies whose architectures follow gradients, or are learned at all.
GRADIENT = ("differentiable", "hybrid")
LEARNT = ("differentiable", "enas", "hybrid")
# Strategies that need no gradient of a metric, and no model of it.
ONE_BY_ONE = ("nsga2", "random")
FASTEST = "fastest_ms"  # the latency that --edp-deadline-ms bounds
MEASURED = tuple(hardware.METRICS)
# Of a device without a table; others where a limit or objective names them.
_SHOWN = (
  "latency_ms",
  "energy_mj",
  "peak_sram_bytes",
  "flash_bytes",
  "working_set_bytes",
)


def split_assignment(text: str, flag: str) -> tuple[str, str | None]:
  """`NAME=VALUE` -> (name, value); the value may be absent."""
  name, equals, value = text.partition("=")
  if not name or (equals and not value):
    raise InputError(flag, f"{text!r} is not NAME=VALUE")
  return name.strip(), value.strip() if equals else None


def terms(name: str, flag: str) -> list[tuple[float, str]]:
  """`NAME+2*NAME` -> [(weight, name)]; a name alone has weight 1."""
  found = []
  for term in name.split("+"):
    weight, star, metric = term.rpartition("*")
    if not metric.strip() or (star and not weight.strip()):
      raise InputError(flag, f"{name!r} is no sum NAME+WEIGHT*NAME")
    weight = number(weight, flag, low=0.0, high=1e30) if star else 1.0
    found.append((weight, metric.strip()))
  return found


def named(config: SearchConfig) -> list[str]:
  """The metrics that limits and objectives name, as they are written."""
  flags = {"--limit": config.limit, "--objective": config.objective}
  return [
    metric
    for flag, texts in flags.items()
    for text in texts
    for _, metric in terms(split_assignment(text, flag)[0], flag)
  ]


def _unit(name: str) -> int:
  """What one unit on the command line is in the metric's own."""
  return 1024 if name.endswith("_kib") else 1


def plain(name: str) -> str:
  """A metric's own name, without its device, in bytes."""
  name = name.partition("__")[0].rpartition(":")[2]
  name = name.removeprefix("worst_")
  if name.endswith("_kib"):
    name = name.removesuffix("_kib") + "_bytes"
  return name


def metrics(
  config: SearchConfig,
  space: Any,
  devices: Sequence[hardware.Device],
  images: data.Images | None = None,
) -> dict[str, Metric]:
  """Every metric that the devices allow, by name.

  With several devices a device's metric is called METRIC__DEVICE. What is
  computed of whole networks needs training `images`.
  """
  found = {name: make(space) for name, make in COUNTED.items()}
  asked = {plain(name) for name in named(config)}
  if "skips" in asked:
    found["skips"] = hardware.skips(space)
  found |= _of_weights(config, space, asked, images)
  _check_read(config, devices, asked)
  for device in devices:
    shown = _SHOWN if device.table is None else device.table.costs
    for name in device.metrics:
      if name not in shown and name not in asked:
        continue
      metric = device.metric(
        space,
        name,
        batch=config.device_batch,
        bits=config.device_bits,
        interpolate=config.interpolate,
        in_place=in_place(config),
        deadline_ms=config.edp_deadline_ms,
      )
      if len(devices) > 1:
        metric = metric._replace(name=f"{name}__{device.name}")
      found[metric.name] = metric
    if config.edp_deadline_ms is not None:
      fastest = device.fastest(space)
      if len(devices) > 1:
        fastest = fastest._replace(name=f"{FASTEST}__{device.name}")
      found[fastest.name] = fastest
  return found


def _check_read(config, devices, asked) -> None:
  """Refuses options of metrics that no device has or nobody asks for."""
  if config.in_place_depthwise and all(d.profile is None for d in devices):
    raise InputError(
      "--in-place-depthwise", "no device counts its memory", "add --device"
    )
  if config.edp_deadline_ms is not None and "edp_mj_ms" not in asked:
    raise InputError(
      "--edp-deadline-ms",
      "the energy-delay product is not asked for",
      "add --objective cross_entropy edp_mj_ms",
    )
  rounded = config.quantize_bits is not None or "quantization_error" in asked
  if config.quantize_scale == "tensor" and not rounded:
    raise InputError(
      "--quantize-scale", "nothing is quantised", "add --quantize-bits"
    )


def in_place(config: SearchConfig) -> tuple[str, ...]:
  """The kinds of operations that may write over their input."""
  return ("depthwise",) if config.in_place_depthwise else ()


def _of_weights(config, space, asked, images) -> dict[str, Metric]:
  """The metrics of a trained supernet's weights that are asked for."""
  wanted = [name for name in OF_WEIGHTS if name in asked]
  if not wanted:
    return {}
  if config.from_ is None:
    raise InputError(
      wanted[0],
      "is computed from a trained supernet's weights",
      "name its run with --from RUN",
    )
  # Imported late: it prepares a search, and so this module.
  from nasjax.cli import reuse

  variables = reuse.variables(config.from_, "--from ")
  params, bits = variables["params"], config.quantize_bits or 8
  per_channel = config.quantize_scale == "channel"

  def error():
    if config.strategy in ONE_BY_ONE:
      return search.quantization_error_metric(
        space, variables, images, bits=bits, per_channel=per_channel
      )
    return kernel_errors.error_metric(
      space,
      params,
      bits,
      per_channel=per_channel,
      batch_stats=variables["batch_stats"],
    )

  made = {
    "quantization_error": error,
    "weight_asymmetry": lambda: kernel_errors.asymmetry_metric(space, params),
  }
  return {name: made[name]() for name in wanted}


def find(name: str, known: Mapping[str, Metric], flag: str) -> Metric:
  """The metric that a flag names; raises InputError with the nearest one."""
  device, colon, metric = name.partition(":")
  if "_kib" in name:
    metric = plain(name)
    name = f"{device}:{metric}" if colon else metric
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
  """(metric, upper bound) of each --limit; raises InputError.

  Of a range LOW..HIGH the bound is HIGH, see `front_limits`.
  """
  found: list[tuple[Metric, float]] = []
  for text in config.limit:
    name, value = split_assignment(text, "--limit")
    flag = f"--limit {name}"
    if value is None:
      raise InputError(flag, "has no value", f"write {name}=VALUE")
    metric = find(name, known, flag)
    low, dots, high = value.partition("..")
    if dots and config.front is None:
      raise InputError(flag, f"{value} is a range", "add --front N")
    ends = [
      number(v, flag, high=1e30) for v in ([low, high] if dots else [low])
    ]
    bound = ends[-1]
    if ends[0] <= 0:
      raise InputError(flag, f"{value} must be above 0")
    if ends[0] > bound:
      raise InputError(flag, f"{value} falls, a range is LOW..HIGH")
    bound *= _unit(name)
    if metric.name in [m.name for m, _ in found]:
      raise InputError(flag, "is given twice")
    found.append((metric, bound))
  return found + _deadlines(config, known)


def _deadlines(config, known) -> list[tuple[Metric, float]]:
  """A deadline is a limit: at its highest frequency a device must keep it."""
  if config.edp_deadline_ms is None:
    return []
  return [
    (metric, config.edp_deadline_ms)
    for name, metric in known.items()
    if plain(name) == FASTEST
  ]


def front_limits(
  config: SearchConfig, bounds: Sequence[tuple[Metric, float]]
) -> list[list[tuple[Metric, float]]]:
  """The limits of each member of a front, evenly spread; [] without one."""
  if config.front is None:
    return []
  given = len(config.limit)
  spread = [
    (metric, np.full(config.front, high)) for metric, high in bounds[given:]
  ]
  for (metric, high), text in zip(bounds[:given], config.limit, strict=True):
    name, value = split_assignment(text, "--limit")
    low, dots, _ = (value or "").partition("..")
    first = float(low) * _unit(name) if dots else high
    spread.append((metric, np.linspace(first, high, config.front)))
  return [
    [(metric, float(values[i])) for metric, values in spread]
    for i in range(config.front)
  ]
