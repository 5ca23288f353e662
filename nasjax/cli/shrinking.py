"""Spaces with a width: fitted to the device before they are searched."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nasjax import data, hardware
from nasjax.cli import metrics, own_spaces, parts
from nasjax.cli.config import SearchConfig
from nasjax.spaces.tiny import WIDTHS, Configuration, resolutions, shrink

_SHOWN = 5
# What a microcontroller cannot exceed, and where its profile says so.
_BUDGETS = {"peak_sram_kib": "sram_bytes", "flash_kib": "flash_bytes"}


def fitted(
  config: SearchConfig,
  devices: Sequence[hardware.Device],
  dataset: data.Dataset,
) -> tuple[SearchConfig, data.Dataset, tuple[Configuration, ...]]:
  """Width and resolution of a space that has them, by its limits.

  Args:
    config: what to do.
    devices: what the network must run on.
    dataset: the images.

  Returns:
    (the configuration with `width` and `image_size`, and with the memories of
    microcontrollers as limits where it has none of its own; the data at that
    size; what was looked at, the chosen one first). All as they were for a
    space whose constructor takes no `width`; without limits it has its own.

  Raises:
    InputError: no network of any width and resolution keeps the limits.
  """
  constructor = own_spaces.constructor(config.space, "--space")
  if "width" not in inspect.signature(constructor).parameters:
    return config, dataset, ()
  config = _with_budgets(config, devices)
  if not config.limit or None not in (config.width, config.image_size):
    return config, dataset, ()
  height, width, channels = data.shape(dataset.train)
  longer = max(height, width)

  def size(side):
    """Height and width at a resolution, the length of the longer side."""
    return tuple(max(1, round(n * side / longer)) for n in (height, width))

  def make(width, side):
    asked = dataclasses.replace(config, width=width)
    space = parts.search_space(
      asked, (*size(side), channels), dataset.num_classes
    )
    return parts.on_devices(space, devices)

  # Of the metrics those that limits name.
  bare = dataclasses.replace(config, objective=())

  def limits(space):
    return metrics.limits(config, metrics.metrics(bare, space, devices))

  sides = (longer,)
  if config.image_size is None:
    sides = resolutions(longer)
  widths = WIDTHS if config.width is None else (config.width,)
  found = shrink(make, limits, sides=sides, widths=widths, seed=config.seed)
  best = found[0]
  best_size = size(best.resolution)
  config = dataclasses.replace(
    config, width=best.width, image_size="x".join(map(str, best_size))
  )
  if best_size != (height, width):
    # Read anew, as it will be when the run is resumed.
    dataset = parts.dataset(config)
  return config, dataset, found


def _with_budgets(config, devices) -> SearchConfig:
  """The configuration with the memories of microcontrollers as limits."""
  given = [metrics.split_assignment(t, "--limit")[0] for t in config.limit]
  added = []
  for device in devices:
    if device.profile is None or device.profile.platform != "mcu":
      continue
    for name, field in _BUDGETS.items():
      before = f"{device.name}:" if len(devices) > 1 else ""
      taken = [
        metrics.plain(g) == metrics.plain(name)
        and g.rpartition(":")[0] in ("", device.name)
        for g in given
      ]
      if not any(taken):
        kib = getattr(device.profile, field) / 1024
        added.append(f"{before}{name}={kib:g}")
  return dataclasses.replace(config, limit=(*config.limit, *added))


def show(found: Sequence[Configuration]) -> None:
  """The table of the best widths and resolutions; nothing of none."""
  if not found:
    return
  table = Table("width (%)", title="the space, fitted to the limits")
  for name in ("longer side (pixels)", "share within", "MFLOPs, mean"):
    table.add_column(name, justify="right")
  for one in found[:_SHOWN]:
    table.add_row(
      f"{one.width}",
      f"{one.resolution}",
      f"{one.share:.1%}",
      f"{one.mean_flops / 1e6:.3g}" if one.share else "",
    )
  console = Console()
  console.print(table)
  console.print(
    f"chosen of {len(found)} widths and resolutions: the first, whose networks"
    " within the limits compute the most",
    highlight=False,
  )
