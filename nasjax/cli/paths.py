"""Where the files that a configuration names are, from any folder."""

from __future__ import annotations

import dataclasses
import os

from nasjax import data
from nasjax.cli.config import SearchConfig
from nasjax.hardware import measured

_FILES = (".csv", ".toml")  # of devices


def absolute(config: SearchConfig) -> SearchConfig:
  """The configuration with every path absolute.

  So a run can be read from any folder. Names of what nasjax comes with stay.
  """
  return dataclasses.replace(
    config,
    data=config.data if config.data in data.NAMES else _existing(config.data),
    from_=None if config.from_ is None else os.path.abspath(config.from_),
    device=tuple(
      _existing(name) if name.endswith(_FILES) or "/" in name else name
      for name in config.device
    ),
    space=_part(config.space),
    relaxation=None if config.relaxation is None else _part(config.relaxation),
    measured=None if config.measured is None else _part(config.measured),
  )


def _existing(text: str) -> str:
  """A path that leads somewhere, absolute; other text as it is."""
  return os.path.abspath(text) if os.path.exists(text) else text


def _part(text: str) -> str:
  """`path/to/file.py:name` with the path absolute; other text as it is."""
  path, colon, name = text.rpartition(":")
  if not colon or measured.PLACE in text:
    return text
  return f"{_existing(path)}:{name}"
