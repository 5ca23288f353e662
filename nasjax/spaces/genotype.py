"""genotype.json: a decided architecture as a file."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.reader import number, read_json, whole
from nasjax.spaces import space as spaces

FORMAT = "nasjax.genotype/1"


def to_json(
  architecture: spaces.Architecture,
  *,
  metrics: Mapping[str, Mapping[str, Any]],
  limits: Mapping[str, float],
  seed: int,
  classes: Sequence[str] = (),
) -> dict[str, Any]:
  """The content of genotype.json.

  Args:
    architecture: what was decided.
    metrics: name -> {"value", "unit", "source"}.
    limits: metric name -> upper bound.
    seed: of the search.
    classes: names of the classes in the order of the outputs; () for none.

  Returns:
    A JSON value.
  """
  space = architecture.space
  arguments = {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in space.arguments.items()
  }
  return {
    "format": FORMAT,
    "space": {"name": space.name, "arguments": arguments},
    "choices": architecture.names(),
    "metrics": {k: dict(v) for k, v in metrics.items()},
    "limits": dict(limits),
    "classes": list(classes),
    "seed": seed,
  }


def _field(value: Any, name: str, kind: type, where: str) -> Any:
  if not isinstance(value, dict) or name not in value:
    raise InputError(where, f"field {name!r} is missing")
  if not isinstance(value[name], kind) or isinstance(value[name], bool):
    raise InputError(f"{where} {name}", f"must be a JSON {kind.__name__}")
  return value[name]


class Stated(NamedTuple):
  """What a genotype.json states, whether or not its space is known here."""

  space: str
  arguments: dict[str, Any]
  choices: dict[str, list[str]]


def stated(value: Any, where: str) -> Stated:
  """Checks the form of a genotype.json's content, not its space.

  Args:
    value: the JSON value.
    where: what messages call it.

  Returns:
    The space's name, its arguments and the choices.

  Raises:
    InputError: names the field that is wrong.
  """
  found = _field(value, "format", str, where)
  if found != FORMAT:
    raise InputError(
      f"{where} format",
      f"{found[:40]!r} is not {FORMAT!r}",
      "this version reads no other",
    )
  described = _field(value, "space", dict, where)
  name = _field(described, "name", str, f"{where} space")
  arguments = _field(described, "arguments", dict, f"{where} space")
  choices = _field(value, "choices", dict, where)
  for group, row in choices.items():
    if not isinstance(row, list) or not all(isinstance(c, str) for c in row):
      raise InputError(
        f"{where} choices.{group[:40]}", "must be a list of candidate names"
      )
  return Stated(name, arguments, choices)


def from_json(
  value: Any, where: str, constructors: Mapping[str, Any]
) -> spaces.Architecture:
  """Reads the content of a genotype.json.

  Args:
    value: the JSON value.
    where: what messages call it.
    constructors: space name -> constructor.

  Returns:
    The architecture, in its space.

  Raises:
    InputError: names the field that is wrong.
  """
  name, given, choices = stated(value, where)
  if name not in constructors and ":" in name:
    raise InputError(
      f"{where} space.name",
      f"{name[:60]} is a user's own, which only its run folder may name",
      "read it from the run folder it was made in",
    )
  if name not in constructors:
    raise InputError(
      f"{where} space.name",
      f"unknown space {name[:40]!r}",
      nearest(name, constructors),
    )
  arguments = _arguments(
    given,
    constructors[name],
    f"{where} space.arguments",
  )
  try:
    space = constructors[name](**arguments)
  except (ValueError, TypeError) as error:
    raise InputError(f"{where} space.arguments", str(error)) from None
  try:
    found = spaces.architecture(space, choices)
    spaces.check_connected(found)
  except InputError as error:
    raise InputError(f"{where} {error.where}", error.what, error.fix) from None
  return found


def _arguments(given, constructor, where):
  known = inspect.signature(constructor).parameters
  arguments = {}
  for name, value in given.items():
    place = f"{where}.{name[:40]}"
    if name not in known:
      raise InputError(place, "unknown argument", nearest(name, known))
    default = known[name].default
    if isinstance(default, str):
      if not isinstance(value, str):
        raise InputError(place, "must be a name")
    elif isinstance(default, bool):
      if not isinstance(value, bool):
        raise InputError(place, "must be true or false")
    elif isinstance(default, tuple) and default and isinstance(default[0], str):
      names = isinstance(value, list) and len(value) <= 8
      if not names or not all(isinstance(v, str) for v in value):
        raise InputError(place, "must be a list of names")
      value = tuple(value)
    elif isinstance(default, tuple):
      if not isinstance(value, list) or len(value) > 8:
        raise InputError(place, "must be a list of whole numbers")
      value = tuple(_size(v, place) for v in value)
    else:
      value = _size(value, place)
    arguments[name] = value
  return arguments


def _size(value, where):
  if not isinstance(value, int) or isinstance(value, bool):
    raise InputError(where, f"{str(value)[:40]!r} is not a whole number")
  if not 1 <= value <= 100_000:
    raise InputError(where, f"{value} is not between 1 and 100000")
  return value


def read(
  path: str | Path, constructors: Mapping[str, Any]
) -> tuple[spaces.Architecture, dict[str, Any]]:
  """Reads genotype.json, or the one of a run folder.

  Args:
    path: of the file or the folder.
    constructors: space name -> constructor.

  Returns:
    (architecture, the whole JSON value).

  Raises:
    InputError: names the file and the field that is wrong.
  """
  path, value = _read(path)
  architecture = from_json(value, str(path), constructors)
  _check_numbers(value, str(path))
  return architecture, value


def read_stated(path: str | Path) -> tuple[Stated, dict[str, Any]]:
  """Reads what genotype.json, or the one of a run folder, states.

  Its space is not made: choices are not checked against it.

  Args:
    path: of the file or the folder.

  Returns:
    (what it states, the whole JSON value).

  Raises:
    InputError: names the file and the field that is wrong.
  """
  path, value = _read(path)
  found = stated(value, str(path))
  _check_numbers(value, str(path))
  return found, value


def _read(path: str | Path) -> tuple[Path, Any]:
  path = Path(path)
  path = path / "genotype.json" if path.is_dir() else path
  return path, read_json(path)


def _check_numbers(value, where):
  """Checks what stands beside the choices, where it is given."""
  for name in ("metrics", "limits", "expected"):
    found = value.get(name, {})
    if not isinstance(found, dict):
      raise InputError(f"{where} {name}", "must be a JSON object")
    for metric, item in found.items():
      place = f"{where} {name}.{metric[:40]}"
      if name == "metrics":
        for field in ("unit", "source"):
          _field(item, field, str, place)
        item = item.get("value")
      number(item, place)
  whole(value.get("seed", 0), f"{where} seed", low=0)
  classes = value.get("classes", [])
  if not isinstance(classes, list) or not all(
    isinstance(name, str) for name in classes
  ):
    raise InputError(f"{where} classes", "must be a list of names")
