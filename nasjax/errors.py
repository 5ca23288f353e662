"""What a user sees when something is wrong, and the exit codes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

DONE = 0
BAD_INPUT = 2
NUMBERS = 3
STORAGE = 4
IN_USE = 5

_LONGEST_LINE = 400
_LONGEST_PLACE = 150  # of the line: a long path must not hide what is wrong
_LONGEST_NAME = 100  # that is compared: the time goes with the square
_SHOWN = 12


class InputError(ValueError):
  """A user's mistake: where it is, what is wrong and what to do about it."""

  def __init__(self, where: str, what: str, fix: str = ""):
    """Makes the error and its message.

    Args:
      where: the file, file and line, flag or field at fault.
      what: what is wrong with it.
      fix: what to do, if there is something to say.
    """
    self.where, self.what, self.fix = str(where), what, fix
    place = self.where
    if len(place) > _LONGEST_PLACE:
      place = place[:40] + "..." + place[43 - _LONGEST_PLACE :]
    super().__init__(f"{place}: {what}" + (f"; {fix}" if fix else ""))


class NumbersError(RuntimeError):
  """The search met a number that is not finite; exit code 3."""


def nearest(name: str, known: Iterable[str]) -> str:
  """Says which known names are meant: the nearest one, or the first dozen."""
  known = sorted(known)
  near = [k for k in known if len(k) <= _LONGEST_NAME][:1000]
  close = difflib.get_close_matches(
    str(name)[:_LONGEST_NAME], near, n=1, cutoff=0.5
  )
  if close:
    return f"did you mean {close[0]}?"
  more = ", ..." if len(known) > _SHOWN else ""
  return "known: " + ", ".join(k[:_LONGEST_NAME] for k in known[:_SHOWN]) + more


def one_line(text: str) -> str:
  """Makes `text` safe for a terminal: one line, no control characters.

  It has at most 400 characters.
  """
  # The cut comes first too, so that a huge text costs nothing.
  text = " ".join(str(text)[: 4 * _LONGEST_LINE].split())
  text = "".join(
    c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
  )
  if len(text) > _LONGEST_LINE:
    text = text[: _LONGEST_LINE - 3] + "..."
  return text
