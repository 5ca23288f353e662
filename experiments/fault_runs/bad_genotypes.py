"""Malformed genotypes: genotype.json files and NAS-Bench-201 strings."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from typing import Any

from fault_runs.cases import Case, write

GOOD: dict[str, Any] = {
  "format": "nasjax.genotype/1",
  "space": {
    "name": "nasbench201",
    "arguments": {
      "channels": 4,
      "cells": 1,
      "image_shape": [8, 8, 3],
      "num_classes": 3,
    },
  },
  "choices": {"cell": ["nor_conv_3x3", "skip_connect", *["none"] * 4]},
  "metrics": {"macs": {"value": 1.0, "unit": "", "source": "counted"}},
  "limits": {"macs": 3.0},
  "seed": 0,
}
GOOD["choices"]["cell"][3] = "nor_conv_1x1"
EDGE: dict[str, Any] = GOOD | {
  "space": {"name": "edge", "arguments": {"channels": 4, "nodes": 1}},
  "choices": {"nodes": ["none", "skip_connect", "none"]},
}
CODE = "__import__('os').system('touch broken')"


def _changed(*path: str | int, value: Any, good=None) -> str:
  """The good genotype with one field replaced, or removed (value ...)."""
  whole = copy.deepcopy(GOOD if good is None else good)
  at: Any = whole
  for step in path[:-1]:
    at = at[step]
  if value is ...:
    del at[path[-1]]
  else:
    at[path[-1]] = value
  return json.dumps(whole)


def _field(name: str, *path, value, said: str, good=None) -> tuple:
  return name, lambda: _changed(*path, value=value, good=good), said


_ARGUMENTS = ("space", "arguments")
_TEXTS: list[tuple[str, Callable[[], str | bytes], str]] = [
  ("empty", lambda: "", "g.json"),
  ("not JSON", lambda: "genotype", "g.json:1"),
  ("a Python expression", lambda: CODE, "g.json:1"),
  ("a Python literal", lambda: repr(GOOD), "g.json:1"),
  ("a list", lambda: "[]", "'format' is missing"),
  ("a number", lambda: "1", "'format' is missing"),
  ("null", lambda: "null", "'format' is missing"),
  ("truncated", lambda: json.dumps(GOOD)[:-20], "g.json"),
  ("two values", lambda: json.dumps(GOOD) + "{}", "g.json:1"),
  ("trailing comma", lambda: json.dumps(GOOD)[:-1] + ",}", "g.json:1"),
  ("a comment", lambda: "// hi\n" + json.dumps(GOOD), "g.json:1"),
  ("key twice", lambda: '{"format": 1, "format": 2}', "stands there twice"),
  ("NaN", lambda: '{"seed": NaN}', "not a finite"),
  ("Infinity", lambda: '{"seed": -Infinity}', "not a finite"),
  ("1e999", lambda: '{"seed": 1e999}', "not a finite"),
  ("a number of 5000 digits", lambda: '{"seed": ' + "9" * 5000 + "}", "large"),
  ("a number of 30 digits", lambda: '{"seed": ' + "9" * 30 + "}", "too large"),
  ("deep lists", lambda: "[" * 10**5, "more than 64 deep"),
  ("deep objects", lambda: '{"a":' * 65 + "1" + "}" * 65, "more than 64 deep"),
  ("UTF-16", lambda: json.dumps(GOOD).encode("utf-16"), "not UTF-8"),
  ("NUL", lambda: json.dumps(GOOD) + "\0", "NUL"),
  ("a pickle", lambda: b"\x80\x04K\x01.", "not UTF-8"),
  ("huge text", lambda: " " * (16 * 2**20 + 1), "at most"),
  ("huge list", lambda: "[" + "1," * 2**22 + "1]", "'format' is missing"),
  (
    "huge object",
    lambda: "{" + ",".join(f'"{i}":{i}' for i in range(500_000)) + "}",
    "'format' is missing",
  ),
  _field("no format", "format", value=..., said="'format' is missing"),
  _field(
    "other version", "format", value="nasjax.genotype/2", said="genotype/1"
  ),
  _field("format a number", "format", value=1, said="must be"),
  _field("no space", "space", value=..., said="'space' is missing"),
  _field("space a name", "space", value="nasbench201", said="must be"),
  _field(
    "unknown space", "space", "name", value="nasbench301", said="nasbench201?"
  ),
  _field("space of code", "space", "name", value=CODE, said="unknown space"),
  _field(
    "space with escapes", "space", "name", value="\x1b[2J", said="control"
  ),
  _field("no arguments", *_ARGUMENTS, value=..., said="'arguments' is missing"),
  _field(
    "unknown argument", *_ARGUMENTS, "chanels", value=4, said="mean channels?"
  ),
  *(
    _field(
      f"channels {str(v)[:20]}",
      *_ARGUMENTS,
      "channels",
      value=v,
      said="channels",
    )
    for v in (0, -1, 4.5, "4", True, None, 10**6, [4], {}, 10**18)
  ),
  _field("cells 10^9", *_ARGUMENTS, "cells", value=10**9, said="cells"),
  _field("cells 4000", *_ARGUMENTS, "cells", value=4000, said="cells"),
  _field(
    "nodes 4000", *_ARGUMENTS, "nodes", value=4000, said="nodes", good=EDGE
  ),
  _field(
    "stages 4000", *_ARGUMENTS, "stages", value=4000, said="stages", good=EDGE
  ),
  _field(
    "image of nine sides",
    *_ARGUMENTS,
    "image_shape",
    value=[8] * 9,
    said="list",
  ),
  _field("channels a list", *_ARGUMENTS, "channels", value=[4], said="whole"),
  _field("links 3", *_ARGUMENTS, "links", value=3, said="links", good=EDGE),
  _field(
    "links unknown",
    *_ARGUMENTS,
    "links",
    value="densse",
    said="dense?",
    good=EDGE,
  ),
  _field(
    "image of two sides", *_ARGUMENTS, "image_shape", value=[8, 8], said=""
  ),
  _field("image a number", *_ARGUMENTS, "image_shape", value=8, said="shape"),
  _field(
    "image too small", *_ARGUMENTS, "image_shape", value=[1, 1, 1], said="small"
  ),
  _field(
    "image of words", *_ARGUMENTS, "image_shape", value=["8"] * 3, said="whole"
  ),
  _field("no choices", "choices", value=..., said="'choices' is missing"),
  _field("choices a list", "choices", value=[], said="must be"),
  _field("no groups", "choices", value={}, said="choices"),
  _field("unknown group", "choices", value={"cel": []}, said="'cell'"),
  _field("a group too many", "choices", "more", value=[], said="'cell'"),
  _field(
    "10^5 groups",
    "choices",
    value={f"g{i}": [] for i in range(10**5)},
    said="choices",
  ),
  _field("too few", "choices", "cell", value=["none"], said="6 are needed"),
  _field("too many", "choices", "cell", value=["none"] * 10**5, said="6 are"),
  _field("choices a word", "choices", "cell", value="none", said="list"),
  _field("numbers", "choices", "cell", value=[0] * 6, said="list of"),
  _field(
    "unknown operation",
    *("choices", "cell", 0),
    value="nor_conv_5x5",
    said="did you mean nor_conv_",
  ),
  _field(
    "operation of code", "choices", "cell", 0, value=CODE, said="unknown cand"
  ),
  _field(
    "operation with escapes", "choices", "cell", 0, value="\x1b[31mx", said=""
  ),
  _field("operation huge", "choices", "cell", 0, value="x" * 10**6, said=""),
  _field(
    "lone surrogate", "choices", "cell", 0, value="\ud800", said="control"
  ),
  _field(
    "operations of another space",
    *("choices", "cell"),
    value=["sep_conv_3x3"] * 6,
    said="unknown candidate",
  ),
  _field("all none", "choices", "cell", value=["none"] * 6, said="none"),
  _field(
    "no way to the output",
    *("choices", "cell"),
    value=["skip_connect", *["none"] * 5],
    said="none",
  ),
  _field("metrics a list", "metrics", value=[], said="metrics"),
  _field("a metric a number", "metrics", "macs", value=3, said="macs"),
  _field("metric of words", "metrics", "macs", "value", value="x", said="macs"),
  _field("unit a number", "metrics", "macs", "unit", value=3, said="macs"),
  _field(
    "metric with escapes", "metrics", "macs", "unit", value="\x1b[5m", said=""
  ),
  _field("limits a list", "limits", value=[], said="limits"),
  _field("limit of words", "limits", "macs", value="x", said="limits"),
  _field("seed -1", "seed", value=-1, said="seed"),
  _field("seed 1.5", "seed", value=1.5, said="seed"),
]


def _text(name, text, said) -> Case:
  def make(folder):
    return ["show", str(write(folder / "g.json", text()))]

  return Case("genotypes", name, make, said)


def _words(name, words, said) -> Case:
  return Case("genotypes", name, lambda folder: ["show", *words], said)


def _fifo(folder):
  os.mkfifo(folder / "genotype.json")
  return ["show", str(folder)]


def _other(folder):
  path = str(write(folder / "g.json", json.dumps(EDGE)))
  return ["show", path, "--format", "nasbench201"]


_FIRST = "|none~0|+|none~0|none~1|"
_STRINGS = [
  ("two nodes", _FIRST, "has 2 nodes"),
  ("four nodes", _FIRST + "+|none~0|none~1|none~2|+|none~0|", "has 4 nodes"),
  ("no bars", "|none~0+none~0|none~1+none~0|", "node 1"),
  (
    "unknown",
    "|conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "nor_conv",
  ),
  (
    "a later node",
    "|none~2|+|none~0|none~1|+|none~0|none~1|none~2|",
    "from '2'",
  ),
  ("a cycle", "|none~0|+|none~0|none~2|+|none~0|none~1|none~2|", "from '2'"),
  ("itself", "|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "from '1'"),
  (
    "input twice",
    "|none~0|+|none~0|none~0|+|none~0|none~1|none~2|",
    "from '0'",
  ),
  ("no input", "|none|+|none~0|none~1|+|none~0|none~1|none~2|", "from ''"),
  ("code", f"|{CODE}~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown"),
  ("escapes", "|\x1b[1m~0|+|none~0|none~1|+|none~0|none~1|none~2|", "unknown"),
  ("all none", _FIRST + "+|none~0|none~1|none~2|", "none"),
  ("huge", "|none~0|+" * 10**5, "nodes"),
  ("huge operation", "|" + "x" * 10**5 + "~0|+|a~0|+|b~0|", "unknown"),
  ("empty", "|", "nodes"),
]

CASES = [
  *(_text(*case) for case in _TEXTS),
  *(_words(f"string: {n}", [text], said) for n, text, said in _STRINGS),
  _words("no such file", ["nowhere"], "neither"),
  _words("a name of 5000 characters", ["x" * 5000], "neither"),
  _words("a name with NUL", ["a\0b"], "neither"),
  _words("an empty name", [""], "neither"),
  _words("a device file", ["/dev/zero"], "not a regular file"),
  _words("unknown format", [_FIRST, "--format", "jsno"], "did you mean json?"),
  Case("genotypes", "a folder without one", lambda f: ["show", str(f)], "read"),
  Case("genotypes", "a FIFO in a run folder", _fifo, "not a regular file"),
  Case("genotypes", "other space", _other, "is of the space edge"),
]
