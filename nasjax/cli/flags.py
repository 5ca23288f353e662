"""Flags, a YAML file and --help from a frozen dataclass of `option`s."""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import yaml

from nasjax.errors import InputError, nearest
from nasjax.reader import number, whole
from nasjax.strict_yaml import read_yaml

T = TypeVar("T")


def option(
  default: Any,
  help: str,
  *,
  low: float = -math.inf,
  high: float = math.inf,
  choices=(),
  fact: bool = False,
  check: Callable[[str, str], Any] | None = None,
) -> Any:
  """A field with its help, its range and known words.

  A `fact` is what a run found, which its file keeps and no flag says; its words
  may be any text. `check` is called with a text and what a message calls it,
  and raises InputError.
  """
  metadata = dict(
    help=help,
    low=low,
    high=high,
    choices=tuple(choices),
    fact=fact,
    check=check,
  )
  return dataclasses.field(default=default, metadata=metadata)


def flag(name: str) -> str:
  """The flag of a field."""
  return "--" + name.rstrip("_").replace("_", "-")


def _kind(hint: Any) -> tuple[type, bool, bool]:
  """(basic type, optional, repeated) of a field's annotation."""
  if typing.get_origin(hint) is tuple:
    return typing.get_args(hint)[0], False, True
  if isinstance(hint, types.UnionType):
    basic = next(a for a in typing.get_args(hint) if a is not type(None))
    return basic, True, False
  return hint, False, False


def add_flags(parser: argparse.ArgumentParser, config: type) -> None:
  """Adds a flag for each field; values stay text until `convert`."""
  hints = typing.get_type_hints(config)
  for field in dataclasses.fields(config):
    if field.metadata["fact"]:
      continue
    basic, _, repeated = _kind(hints[field.name])
    default = field.default
    shown = (
      ""
      if default in (None, ()) or "default" in field.metadata["help"]
      else f" (default: {' '.join(default) if repeated else default})"
    )
    arguments: dict[str, Any] = {
      "dest": field.name,
      "default": argparse.SUPPRESS,
      "help": (field.metadata["help"] + shown).replace("%", "%%"),
    }
    if basic is bool:
      arguments["action"] = "store_true"
    elif repeated:
      arguments["action"], arguments["nargs"] = "extend", "+"
      arguments["metavar"] = field.name.upper()
    else:
      arguments["metavar"] = {int: "N", float: "X"}.get(basic, "NAME")
    parser.add_argument(flag(field.name), **arguments)


def convert(config: type[T], values: Mapping[str, Any], where) -> T:
  """Makes a configuration of text or YAML values.

  Args:
    config: the dataclass.
    values: by field name.
    where: field name -> what a message calls it.

  Returns:
    The configuration.

  Raises:
    InputError: an unknown field, a wrong type or range.
  """
  fields = {f.name: f for f in dataclasses.fields(config)}
  hints = typing.get_type_hints(config)
  made = {}
  for name, value in values.items():
    if name not in fields:
      raise InputError(where(name), "unknown key", nearest(name, fields))
    basic, optional, repeated = _kind(hints[name])
    metadata, place = fields[name].metadata, where(name)
    if value is None and optional:
      made[name] = None
    elif repeated:
      items = value if isinstance(value, (list, tuple)) else [value]
      made[name] = tuple(_basic(v, basic, metadata, place) for v in items)
    else:
      made[name] = _basic(value, basic, metadata, place)
  return config(**made)


def _basic(value, basic, metadata, where):
  bounds = dict(low=metadata["low"], high=metadata["high"])
  if basic is bool:
    if not isinstance(value, bool):
      raise InputError(where, f"{value!r} is not true or false")
    return value
  if basic is int:
    return whole(value, where, **bounds)
  if basic is float:
    return number(value, where, **bounds)
  if isinstance(value, (dict, list)) or value is None:
    raise InputError(where, "must be one word")
  text = str(value)
  if not metadata["fact"] and not (text and text.isprintable()):
    raise InputError(where, f"{text[:40]!r} is empty or no plain text")
  if metadata["check"] is not None:
    metadata["check"](text, where)
  if metadata["choices"] and text not in metadata["choices"]:
    raise InputError(
      where, f"unknown name {text!r}", nearest(text, metadata["choices"])
    )
  return text


def from_flags(
  config: type[T], flags: Mapping[str, Any], path: str | None = None
) -> T:
  """A configuration from a YAML file, if any, overridden by flags."""
  values, lines = ({}, {}) if path is None else read_yaml(path)
  known = {f.name for f in dataclasses.fields(config)}
  values = {str(k): v for k, v in values.items()}

  def from_file(name):
    return f"{path}:{lines.get(name, 1)} {name[:40]}"

  base = convert(config, values, from_file)
  given = {k: v for k, v in flags.items() if k in known}
  made = convert(config, given, flag)
  return dataclasses.replace(base, **{k: getattr(made, k) for k in given})


def to_yaml(config: Any) -> str:
  """The configuration as YAML that reads back the same."""
  values = {
    k: list(v) if isinstance(v, tuple) else v
    for k, v in dataclasses.asdict(config).items()
  }
  return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
