"""`nasjax search --from RUN`: a trained supernet for other limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nasjax import checkpoint, run_folder
from nasjax.cli import config as configs
from nasjax.cli import training
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError
from nasjax.manifests import Damaged


def _config_path(run: str) -> Path:
  path = Path(run) / run_folder.CONFIG
  if not path.is_file():
    raise InputError(f"--from {run}", f"is no run folder: no {path.name}")
  return path


def config(flags: Mapping[str, Any]) -> SearchConfig:
  """A run's options with flags over them, and without its warm-up.

  Args:
    flags: as the command line has them, `from_` among them.

  Returns:
    The configuration: the epochs of the run that moved its architecture, a new
    run folder, and no warm-up, unless flags say so.

  Raises:
    InputError: `from_` is no run folder, or a flag is wrong.
  """
  path = str(_config_path(flags["from_"]))
  made = configs.from_flags(SearchConfig, flags, path)
  fresh: dict[str, Any] = {"out": None, "warmup": 0.0, "front": None}
  if made.epochs is not None:
    old = configs.from_flags(SearchConfig, {}, path)
    fresh["epochs"] = max(1, round(made.epochs * (1.0 - old.warmup)))
  changes = {k: v for k, v in fresh.items() if k not in flags}
  return dataclasses.replace(made, **changes)


def _variables(run: str) -> Any:
  """The supernet's variables in a run's newest sound checkpoint."""
  # Imported late: search imports this module.
  from nasjax.cli import search

  path = _config_path(run)
  problem = search.prepare(configs.from_flags(SearchConfig, {}, str(path)))
  made, _ = search.build(problem)
  folder = Path(run) / checkpoint.FOLDER
  for step in reversed(checkpoint.steps(folder)):
    try:
      saved = checkpoint.verify(folder, step)
    except Damaged:
      continue  # it is not ours to put aside
    where = f"{folder}/{step}"
    carried = training.restore(saved, problem, made, where)
    return carried.progress.state.shared.variables
  raise InputError(f"--from {run}", "has no sound checkpoint")


def check(problem, made) -> None:
  """Refuses a run that cannot be reused, before anything is written.

  Raises:
    InputError: no sound checkpoint, or one of another network.
  """
  run = problem.config.from_
  if run is None:
    return
  variables = _variables(run)
  state = jax.eval_shape(made.init, jax.random.key(0))
  ours = jax.tree.map(lambda v: (v.shape, v.dtype), state.shared.variables)
  theirs = jax.tree.map(lambda v: (v.shape, v.dtype), variables)
  if ours != theirs:
    raise InputError(
      f"--from {run}", "its network is another one", "keep its space and data"
    )


def carried(problem, made) -> training.Carried | None:
  """What a new search starts from; None: from random weights.

  Raises:
    InputError: as `check`.
  """
  config = problem.config
  if config.from_ is None:
    return None
  variables = _variables(config.from_)
  start = training.starting(problem, made)
  key = jax.random.fold_in(jax.random.key(config.seed), 0)
  begun = jax.jit(start)(key)
  progress = begun.progress
  state = progress.state
  shared = state.shared._replace(variables=jax.tree.map(jnp.asarray, variables))
  progress = progress._replace(state=state._replace(shared=shared))
  return begun._replace(progress=progress)
