"""The argument parser of all commands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from nasjax.errors import InputError, nearest


class Parser(argparse.ArgumentParser):
  """An argument parser whose errors are ours: one line, exit code 2."""

  def error(self, message: str) -> NoReturn:
    """Raises InputError in place of argparse's own exit."""
    raise InputError("command line", message, f"see {self.prog} --help")

  def print_help(self, file: Any = None) -> None:
    """Prints the help; argparse's own hides that nobody reads it."""
    file = sys.stdout if file is None else file
    if file is not None:
      file.write(self.format_help())


def check_known_flags(parser: Parser, unknown: Sequence[str]) -> None:
  """Refuses what the parser did not know, naming the nearest flag."""
  if not unknown:
    return
  flags = [s for a in parser._actions for s in a.option_strings]
  first = unknown[0]
  if first.startswith("-"):
    name = first.partition("=")[0]
    raise InputError(name, "unknown flag", nearest(name, flags))
  raise InputError("command line", f"unexpected {first!r}")
