"""Users' own search spaces that are none, given as FILE.py:NAME."""

from __future__ import annotations

import json
from pathlib import Path

from fault_runs.cases import Case, search, write

_HEAD = """
import sys
from nasjax import spaces
from nasjax.spaces import staged

"""
_TAKES = "channels=4, cells=1, image_shape=(8, 8, 3), num_classes=3"
_GOOD = "spaces.nasbench201(channels=4, cells=1, image_shape=image_shape"

# The body of mine(channels, cells, image_shape, num_classes).
_BODIES: list[tuple[str, str, str]] = [
  ("nothing", "return None", "not a search space"),
  ("a class", "return spaces.Architecture", "without name"),
  ("raises", "raise KeyError('lost')", "raised KeyError"),
  ("exits", "sys.exit(0)", "raised SystemExit"),
  ("for ever deeper", "return mine()", "RecursionError"),
  ("raises two lines", "raise ValueError('a\\nb\\x1b[2J')", "mine"),
  ("other classes", f"return {_GOOD})", "another num_classes"),
  (
    "other arguments",
    f"s = {_GOOD}, num_classes=num_classes); return staged.StagedSpace("
    "'x', {**s.arguments, 'depth': 3}, s.plan)",
    "'depth', which it does not take",
  ),
  (
    "arguments that no file holds",
    f"s = {_GOOD}, num_classes=num_classes); return staged.StagedSpace("
    "'x', {**s.arguments, 'cells': s}, s.plan)",
    "argument cells is no word",
  ),
]
# Whole modules with a space `mine`.
_MODULES: list[tuple[str, str, str]] = [
  ("no space of that name", "def mien(): pass", "did you mean mien?"),
  ("a number", "mine = 3", "is a int, not a function"),
  ("a space", "mine = spaces.edge()", "is a StagedSpace, not a function"),
  ("no defaults", "def mine(channels): pass", "needs a default"),
  ("any arguments", "def mine(**more): pass", "needs a default"),
  (
    "no image shape",
    "def mine(num_classes=3): pass",
    "no argument image_shape",
  ),
  (
    "no channels",
    "def mine(image_shape=(8, 8, 3), num_classes=3): pass",
    "--channels: the space",
  ),
  ("bad syntax", "def mine(:", "SyntaxError"),
  ("raises at import", "raise ValueError('no\\x1b[2J')", "ValueError"),
]


def _module(name: str, text: str, said: str) -> Case:
  def make(folder):
    path = write(folder / "mine.py", _HEAD + text + "\n")
    return search(folder, "--space", f"{path}:mine")

  return Case("user spaces", name, make, said)


def _reference(name: str, reference: str, said: str) -> Case:
  return Case(
    "user spaces",
    name,
    lambda folder: search(folder, "--space", reference),
    said,
  )


def _alone(folder: Path):
  """A genotype that names code, beside which no run says so too."""
  path = write(folder / "mine.py", "open('imported', 'w')\n")
  value = {
    "format": "nasjax.genotype/1",
    "space": {"name": f"{path}:mine", "arguments": {}},
    "choices": {"cell": ["none"]},
  }
  genotype = write(folder / "genotype.json", json.dumps(value))
  return ["hw", "time", str(genotype), "--measure", "true {onnx}"]


CASES = [
  *(
    _module(name, f"def mine({_TAKES}):\n  {body}\n", said)
    for name, body, said in _BODIES
  ),
  *(_module(*case) for case in _MODULES),
  _reference("no file", "nowhere.py:mine", "cannot be read"),
  _reference("no name", "nowhere.py:", "names no part"),
  _reference("code as a name", "a.py:__import__('os')", "names no part"),
  _reference("a device file", "/dev/zero:mine", "not a regular file"),
  Case("user spaces", "a genotype alone", _alone, "only its run folder"),
]
