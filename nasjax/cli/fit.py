"""`nasjax hw fit`: a table of choices from networks measured whole."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from nasjax import errors
from nasjax.cli.hw import image_shape_of
from nasjax.cli.hw_config import FitConfig
from nasjax.cli.parts import make_space
from nasjax.errors import InputError
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import fit as fitting
from nasjax.hardware import networks
from nasjax.hardware import table as tables

_NAMED = 6  # entries that a warning names


def run(config: FitConfig) -> int:
  """Fits a table to measured networks and writes it.

  Returns:
    The exit code.

  Raises:
    InputError: anything wrong with what is named; nothing is written then.
  """
  out = Path(config.out)
  if out.suffix != ".csv":
    raise InputError("--out", f"{out} does not end in .csv")
  if not out.parent.is_dir():
    raise InputError("--out", f"the folder {out.parent} does not exist")
  if out.exists() and not config.force:
    raise InputError("--out", f"{out} exists", "name another, or add --force")
  tables.check_device_name(config.device, "--device")
  cost = next((c for c in tables.COSTS if _is(config.column, c)), None)
  if cost is None:
    raise InputError(
      "--column",
      f"{config.column[:40]!r} has no unit that is read",
      f"{' or '.join(tables.COSTS)}, or one of these and __DEVICE",
    )
  space = make_space(
    config.space,
    dict(
      image_shape=image_shape_of(config.image_shape),
      channels=config.channels,
      cells=config.cells,
      num_classes=config.num_classes,
      nodes=config.nodes,
      links=config.links,
    ),
  )
  ends = choice_tables.ends_of(space)
  if config.counted == "reaching_output" and not ends:
    raise InputError(
      "--counted",
      f"{config.counted} needs cells of edges between nodes",
      f"the space {space.name} has none",
    )
  measured = networks.read(config.measurements, space.groups, config.column)
  try:
    fitted = fitting.fit(
      space.groups,
      measured.choices,
      measured.values,
      ends=ends,
      ties=fitting.ties_of(space),
      counted=None if config.counted == "auto" else (config.counted,),
      seed=config.seed,
    )
  except ValueError as error:
    raise InputError(
      config.measurements, str(error), "measure more networks"
    ) from None
  header = {
    "device": config.device,
    "space": space.name,
    "runtime": f"fitted to {len(measured.values)} networks",
    "date": time.strftime("%Y-%m-%d"),
    "cross_validated": str(fitted.errors),
    "pull_towards_equal_workloads": f"{fitted.strength:g} networks",
  }
  table = choice_tables.ChoiceTable(
    str(out),
    header,
    cost,
    fitted.constant,
    fitted.tables,
    space.groups,
    fitted.counted,
  )
  choice_tables.write(out, table)
  if fitted.collinear:
    shown = ", ".join(fitted.collinear[:_NAMED])
    more = len(fitted.collinear) - _NAMED
    print(
      f"warning: the networks do not tell apart what these cost, it is split"
      f" among them: {shown}{f' and {more} more' if more > 0 else ''}; measure"
      " networks in which they differ",
      file=sys.stderr,
    )
  print(
    f"{len(measured.values)} networks, {fitted.counted}; cross-validated:"
    f" {fitted.errors}\nwritten to {out}"
  )
  return errors.DONE


def _is(column: str, cost: str) -> bool:
  return column == cost or column.startswith(cost + "__")
