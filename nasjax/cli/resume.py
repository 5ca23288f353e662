"""`nasjax resume` and `nasjax checkpoint`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import jax.numpy as jnp

from nasjax import checkpoint, errors, lock, run_folder, signals
from nasjax.cli import config as configs
from nasjax.cli import (
  fingerprint,
  parts,
  paths,
  retraining,
  reuse,
  search,
  strategies,
  training,
)
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError, one_line
from nasjax.manifests import Damaged


def _warn(text: str) -> None:
  print(one_line(text), file=sys.stderr, flush=True)


def _checked_folder(run: str) -> Path:
  folder = Path(run)
  if not folder.is_dir():
    raise InputError(run, "is not a run folder")
  if not (folder / run_folder.CONFIG).is_file():
    raise InputError(run, f"is not a run folder: no {run_folder.CONFIG}")
  return folder


def run(
  run: str, *, allow_changed: bool = False, data: str | None = None
) -> int:
  """Goes on with a search from its newest sound checkpoint.

  Args:
    run: its folder.
    allow_changed: also with another configuration, space, table or data.
    data: where the run's data was moved to; the run keeps it.

  Returns:
    The exit code.

  Raises:
    InputError: `data` holds other images, no run folder, or something changed
      that must not.
    InUseError: another process works in the folder.
  """
  folder = _checked_folder(run)
  with signals.caught() as stop, lock.hold(folder):
    config = configs.from_flags(
      SearchConfig, {}, str(folder / run_folder.CONFIG)
    )
    reuse.check_row_order(config, run)
    if data is not None:
      config = _moved(folder, config, data)
    if (folder / run_folder.GENOTYPE).exists():
      print(f"{folder}: is finished; see nasjax show {folder}")
    else:
      _search(run, folder, config, allow_changed, stop)
  return retraining.after_search(folder, config)


def _moved(folder: Path, config: SearchConfig, data: str) -> SearchConfig:
  """The run's configuration with its data elsewhere, written to its folder."""
  moved = paths.absolute(dataclasses.replace(config, data=data))
  if fingerprint.of_data(parts.dataset(moved)) != config.data_digest:
    raise InputError(
      f"--data {data}", f"holds other images than {folder} was searched on"
    )
  run_folder.write_atomic(folder / run_folder.CONFIG, configs.to_yaml(moved))
  return moved


def _search(run, folder, config, allow_changed, stop) -> None:
  run_folder.clean(folder)
  checkpoints = folder / checkpoint.FOLDER
  checkpoint.clean(checkpoints)
  problem = search.prepare(dataclasses.replace(config, out=run))
  strategy = strategies.build(problem)
  loop = training.loop(problem, strategy)
  saved = checkpoint.newest(checkpoints, _warn)
  if saved is None:
    carried = reuse.carried(problem, strategy, loop)
    _warn(f"{folder}: has no checkpoint; starting at step 0")
  else:
    where = f"{checkpoints}/{saved.step}"
    new = _compare(saved, problem, allow_changed, where)
    carried = training.restore(saved, problem, strategy, loop, where)
    if new:
      # What was changed may be why: it gets another try.
      fresh = carried.progress._replace(failed=jnp.int32(0))
      carried = carried._replace(progress=fresh)
  print(f"RESUMED {0 if saved is None else saved.step}", flush=True)
  search.carry_on(problem, strategy, folder, stop, loop, carried)


def _compare(saved, problem, allow_changed, where) -> list[str]:
  """What changed since; raises InputError unless that is allowed."""
  old, new = saved.manifest.fingerprint, fingerprint.of(problem)
  fixed = fingerprint.changed(old, new, "fixed")
  if fixed and not allow_changed:
    raise InputError(
      where,
      f"was made with another {', '.join(fixed)}",
      "add --allow-changed to go on all the same",
    )
  for name in fingerprint.changed(old, new, "machine"):
    before, now = (f["machine"].get(name) for f in (old, new))
    _warn(f"{name} was {before}, is {now}: results may differ in the last bits")
  return fixed


def show(run: str, *, recompute: bool) -> int:
  """Prints `ok STEP SHA256` or `damaged STEP REASON` for each checkpoint.

  Args:
    run: the run folder.
    recompute: read everything and compare with its digests, not only the
      manifests.

  Returns:
    The exit code; 4 if one is damaged.
  """
  folder = _checked_folder(run) / checkpoint.FOLDER
  code = errors.DONE
  for step in checkpoint.steps(folder):
    try:
      if recompute:
        digest = checkpoint.verify(folder, step).manifest.digest
      else:
        digest = checkpoint.manifest(folder, step).digest
      print(f"ok {step} {digest}")
    except Damaged as error:
      print(one_line(f"damaged {step} {error}"))
      code = errors.STORAGE
  return code
