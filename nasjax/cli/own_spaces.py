"""Spaces by name: those of nasjax, and a user's own, `path/to/file.py:name`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nasjax import run_folder, spaces, testing
from nasjax.cli import config as configs
from nasjax.cli.config import SearchConfig
from nasjax.errors import InputError, nearest
from nasjax.reader import RAISED, load_part, one_problem
from nasjax.spaces import genotype
from nasjax.spaces.space import Architecture

NEEDED = ("image_shape", "num_classes")


def known() -> dict[str, Callable[..., Any]]:
  """The constructors of `nasjax.spaces` by name."""
  parts = {name: getattr(spaces, name) for name in spaces.__all__}
  return {n: p for n, p in parts.items() if needs_nothing(p)}


def needs_nothing(part: Any) -> bool:
  """Whether a part is a function that can be called without arguments."""
  return inspect.isfunction(part) and all(
    p.default is not inspect.Parameter.empty
    for p in inspect.signature(part).parameters.values()
  )


def constructor(name: str, where: str) -> Callable[..., Any]:
  """The constructor of a space.

  Args:
    name: one of `nasjax.spaces`, or `path/to/file.py:name`, a function with
      defaults for all its arguments, `image_shape` and `num_classes` among
      them, that returns a space. Its file is run: it is the user's program.
    where: what a message calls it.

  Returns:
    The constructor. What a user's own returns is called `name` and has passed
    `testing.check_space`.

  Raises:
    InputError: no such space, a file that is missing or cannot be imported, or
      a name in it that is no such function.
  """
  if ":" not in name:
    built_in = known()
    if name not in built_in:
      raise InputError(where, f"unknown name {name!r}", nearest(name, built_in))
    return built_in[name]
  part = load_part(name, where)
  if not inspect.isfunction(part):
    raise InputError(
      where, f"{name} is a {type(part).__name__}, not a function"
    )
  if not needs_nothing(part):
    raise InputError(where, f"{name}: every argument needs a default")
  missing = [n for n in NEEDED if n not in inspect.signature(part).parameters]
  if missing:
    raise InputError(where, f"{name} has no argument {missing[0]}", "add it")

  @functools.wraps(part)
  def make(**arguments):
    try:
      space = part(**arguments)
    except ValueError:
      raise  # of an argument: it says itself what is wrong
    except RAISED as error:
      raise InputError(
        where, f"{name} raised {type(error).__name__}: {one_problem(error)}"
      ) from error
    return _checked(space, name, where, part, arguments)

  return make


def _checked(space, name, where, part, arguments):
  """A user's space under the name that the command line gives it."""
  try:
    testing.check_space(space, name)
  except ValueError as error:
    raise InputError(where, str(error)) from None
  taken = inspect.signature(part).parameters
  for argument, value in space.arguments.items():
    if argument not in taken:
      raise InputError(
        where,
        f"{name}: its arguments name {argument!r}, which it does not take",
      )
    if argument in arguments and _plain(arguments[argument]) != _plain(value):
      raise InputError(
        where, f"{name}: was asked for another {argument} than {value!r}"
      )
  return dataclasses.replace(space, name=name)


def _plain(value):
  return tuple(value) if isinstance(value, (list, tuple)) else value


def read_genotype(
  path: str | Path,
) -> tuple[Architecture, dict[str, Any]]:
  """Reads genotype.json, or the one of a run folder, in its space.

  A user's own space is run only where the run's `config.yaml` names it: a
  genotype alone, which may be anybody's, never says which code is run.

  Args:
    path: of the file or the run folder.

  Returns:
    (architecture, the whole JSON value).

  Raises:
    InputError: names the file and the field that is wrong.
  """
  return genotype.read(path, {**known(), **_of_run(Path(path))})


def _of_run(path: Path) -> Mapping[str, Callable[..., Any]]:
  """The user's own space that a run was searched in; {} where there is none."""
  folder = path if path.is_dir() else path.parent
  # The members of a front lie two below.
  for run in (folder, folder.parent.parent):
    file = run / run_folder.CONFIG
    if file.is_file():
      name = configs.from_flags(SearchConfig, {}, str(file)).space
      return {name: constructor(name, f"{file} space")} if ":" in name else {}
  return {}
