"""`nasjax search --from RUN`: a trained supernet for new limits or devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nasjax import checkpoint, run_folder
from nasjax.cli import config as configs
from nasjax.cli import strategies, training
from nasjax.cli.config import SearchConfig
from nasjax.data import ROW_ORDER
from nasjax.errors import InputError
from nasjax.manifests import Damaged

_NEW_DEVICE = 0.25  # share of a run's epochs for another device


def config_path(run: str, where: str = "--from ") -> Path:
  """The configuration of a run; raises InputError if there is none."""
  path = Path(run) / run_folder.CONFIG
  if not path.is_file():
    raise InputError(f"{where}{run}", f"is no run folder: no {path.name}")
  return path


def check_row_order(config: SearchConfig, run: str) -> None:
  """Refuses a run whose images were in an order that cannot be made again.

  Args:
    config: the run's.
    run: its folder.

  Raises:
    InputError: its config.yaml has no row_order, or a later one.
  """
  if config.row_order == ROW_ORDER:
    return
  said = "no" if config.row_order is None else f"another ({config.row_order})"
  raise InputError(
    f"{run}/{run_folder.CONFIG}",
    f"has {said} row_order: its images were split in an order that this"
    " version does not make, so its halves cannot be told apart",
    "search anew; it can be shown, and retrained from fresh weights",
  )


def config(flags: Mapping[str, Any]) -> SearchConfig:
  """A run's options with flags over them, and without its warm-up.

  Args:
    flags: as the command line has them, `from_` among them.

  Returns:
    The configuration: the epochs of the run that moved its architecture (for
    another device a quarter of all and no limit), a new run folder, and no
    warm-up, unless flags say so.

  Raises:
    InputError: `from_` is no run folder, or a flag is wrong.
  """
  path = str(config_path(flags["from_"]))
  made = configs.from_flags(SearchConfig, flags, path)
  check_row_order(made, flags["from_"])
  fresh: dict[str, Any] = {"out": None, "front": None}
  if "data" in flags:
    fresh["background"] = None  # it was found for the run's own
  if _warms_up(made):
    fresh["warmup"] = 0.0
  old = configs.from_flags(SearchConfig, {}, path)
  if made.strategy != old.strategy:
    # What the run was told and this strategy does not read.
    plain = SearchConfig()
    fresh |= {n: getattr(plain, n) for n in strategies.foreign(made.strategy)}
    fresh |= {n: getattr(plain, n) for n in strategies.open_options()}
  share = 1.0 - old.warmup if _warms_up(old) else 1.0
  if made.device != old.device:
    share = _NEW_DEVICE
    fresh["limit"] = ()  # a limit of the old device says nothing of the new one
  if old.epochs is not None:
    fresh["epochs"] = max(1, round(old.epochs * share))
  changes = {k: v for k, v in fresh.items() if k not in flags}
  return dataclasses.replace(made, **changes)


def _warms_up(config: SearchConfig) -> bool:
  return "warmup" not in strategies.foreign(config.strategy)


def _base(run: str, where: str = "--from ") -> tuple[SearchConfig, Any]:
  """A run's configuration, and its state in the newest sound checkpoint."""
  # Imported late: search imports this module.
  from nasjax.cli import search

  path = config_path(run, where)
  old = configs.from_flags(SearchConfig, {}, str(path))
  check_row_order(old, run)
  problem = search.prepare(old)
  made = strategies.build(problem)
  loop = training.loop(problem, made)
  folder = Path(run) / checkpoint.FOLDER
  for step in reversed(checkpoint.steps(folder)):
    try:
      saved = checkpoint.verify(folder, step)
    except Damaged:
      continue  # it is not ours to put aside
    carried = training.restore(saved, problem, made, loop, f"{folder}/{step}")
    return old, carried.progress.state
  raise InputError(f"{where}{run}", "has no sound checkpoint")


def variables(run: str, where: str = "") -> Any:
  """The supernet's weights in a run's newest sound checkpoint.

  Args:
    run: its folder.
    where: what a message says before it.

  Returns:
    The variables.

  Raises:
    InputError: no run folder or no sound checkpoint.
  """
  return _base(run, where)[1].shared.variables


def check(problem, strategy) -> None:
  """Refuses a run that cannot be reused, before anything is written.

  Raises:
    InputError: no sound checkpoint, or one of another network.
  """
  run = problem.config.from_
  if run is None:
    return
  old, base = _base(run)
  if problem.config.split_seed != old.split_seed:
    raise InputError(
      "--split-seed",
      f"{run} was split by {old.split_seed}: images that score networks would"
      " be among those that trained its weights",
      "leave it out",
    )
  if problem.config.data_digest != old.data_digest:
    raise InputError(
      f"--from {run}",
      f"{problem.config.data} holds other images than it was searched on",
      "keep its data, or search anew",
    )
  variables = base.shared.variables
  state = jax.eval_shape(strategy.search.init, jax.random.key(0))
  ours = jax.tree.map(lambda v: (v.shape, v.dtype), state.shared.variables)
  theirs = jax.tree.map(lambda v: (v.shape, v.dtype), variables)
  if ours != theirs:
    raise InputError(
      f"--from {run}", "its network is another one", "keep its space and data"
    )


def carried(problem, strategy, loop) -> training.Carried | None:
  """What a new search starts from; None: from random weights.

  For another device the architecture parameters are taken too:
  alpha_new = alpha_base + delta, where delta starts at 0 with an optimiser of
  its own.

  Raises:
    InputError: as `check`.
  """
  config = problem.config
  if config.from_ is None:
    return None
  old, base = _base(config.from_)
  begun = training.start(problem, strategy, loop)
  state = begun.progress.state
  state = state._replace(
    shared=state.shared._replace(
      variables=jax.tree.map(jnp.asarray, base.shared.variables)
    )
  )
  same = config.strategy == old.strategy
  if same and config.device != old.device and old.front is config.front is None:
    member = strategy.inherit(state.member, base.member)
    state = state._replace(member=member)
  return begun._replace(progress=begun.progress._replace(state=state))
