"""Malformed latency tables, given to a search as its device."""

from __future__ import annotations

import gzip
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from fault_runs.cases import Case, search, write


def good() -> str:
  """A table of every workload of the tiny space."""
  from nasjax import spaces
  from nasjax.hardware import table

  space = spaces.nasbench201(
    channels=4, cells=1, image_shape=(8, 8, 3), num_classes=3
  )
  rows = [(w, 1, {"latency_ms": "0.5"}) for w in space.workloads().distinct()]
  return table.text({"device": "mine"}, rows, ("latency_ms",))


def _words(folder: Path, path: str, limit="latency_ms=1000") -> list:
  return search(folder, "--device", path, "--limit", limit)


def _text(name: str, change: Callable[[str], str | bytes], said: str) -> Case:
  """A table made of the good one."""

  def make(folder):
    return _words(folder, str(write(folder / "t.csv", change(good()))))

  return Case("tables", name, make, said)


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[str], str]:
  """Changes lines: 0 the `# device` line, 1 the columns, 2 the first row."""
  return lambda text: "\n".join(change(text.splitlines())) + "\n"


def _cell(value: str, column: int = -1, row: int = 2):
  def change(lines):
    cells = lines[row].split(",")
    cells[column] = value
    lines[row] = ",".join(cells)
    return lines

  return _lines(change)


def _column(name: str, new: str):
  def change(lines):
    lines[1] = lines[1].replace(name, new)
    return lines

  return _lines(change)


def _without(column: int):
  def change(lines):
    kept = [line.split(",") for line in lines[1:]]
    for cells in kept:
      del cells[column]
    return [lines[0], *(",".join(c) for c in kept)]

  return _lines(change)


def _with(*cells: str):
  """One column more."""

  def change(lines):
    rest = [line + "," + cells[1] for line in lines[2:]]
    return [lines[0], lines[1] + "," + cells[0], *rest]

  return _lines(change)


_KEYS = (
  "kind height width channels_in channels_out kernel stride groups bits batch"
).split()

_TEXTS: list[tuple[str, Callable, str]] = [
  ("empty", lambda t: "", "is empty"),
  ("only a byte order mark", lambda t: "\ufeff", "is empty"),
  ("only white space", lambda t: " \n\t\n", "t.csv"),
  ("only comments", lambda t: "# device: mine\n", "is empty"),
  ("header only", _lines(lambda a: a[:2]), "no rows"),
  *(
    (f"column {k} missing", _without(i), f"{k!r} is missing")
    for i, k in enumerate(_KEYS)
  ),
  ("cost column missing", _without(-1), "no cost column"),
  ("column twice", _column("height", "width"), "stands there twice"),
  ("cost column twice", _with("latency_ms", "0.5"), "stands there twice"),
  ("unit missing", _column("latency_ms", "latency"), "latency_ms"),
  ("other unit", _column("latency_ms", "latency_s"), "latency_ms"),
  ("two units", _with("latency_us", "500"), "latency_us"),
  ("key misspelt", _column("stride", "strides"), "mean strides?"),
  ("column without a name", _with("", "1"), "t.csv:2"),
  ("row missing", _lines(lambda a: a[:-1]), "has no row for"),
  ("row twice", _lines(lambda a: [*a, a[-1]]), "twice"),
  ("row twice, spelt otherwise", _lines(lambda a: [*a, a[-1] + " "]), "twice"),
  ("header key twice", lambda t: "# device: a\n" + t, "'device' stands there"),
  ("kind unknown", _cell("convolutoin", 0), "did you mean convolution?"),
  ("kind missing", _cell("", 0), "unknown kind"),
  ("kind huge", _cell("x" * 10**5, 0), "unknown kind"),
  ("kind with terminal escapes", _cell("\x1b[31mred\x07", 0), "unknown kind"),
  *(
    (f"cost {v or 'missing'}", _cell(v), "latency_ms")
    for v in (
      "-0.5 1e300 -1e-300 nan NaN inf -inf Infinity 1e999 -1e999 1_000 0.5ms"
      " 0x10 1e"
      " 1/2 ٣ . + true None 1e5.5 --1 1,5 0,5"
    ).split()
    if "," not in v
  ),
  ("cost missing", _cell(""), "latency_ms"),
  ("decimal comma", _cell("0,5"), "12 cells"),
  ("quoted decimal comma", _cell('"0,5"'), "not a number"),
  ("cost with an escape", _cell("\x1b[2J"), "latency_ms"),
  ("cost of many digits", _cell("9" * 10**5), "latency_ms"),
  ("line break in a quoted cell", _cell('"0.\n5"'), "latency_ms"),
  *(
    (f"height {v}", _cell(v, 1), "height")
    for v in (
      "0",
      "-8",
      "8.0",
      "8e0",
      "1_0",
      "",
      "10000000000",
      "٨",
      "9" * 5000,
    )
  ),
  ("batch 0", _cell("0", 9), "batch"),
  ("bits huge", _cell("9" * 400, 8), "bits"),
  ("ragged, short", _lines(lambda a: [*a, a[-1].rsplit(",", 1)[0]]), "cells"),
  ("ragged, long", _lines(lambda a: [*a, a[-1] + ",1"]), "12 cells"),
  ("semicolons", lambda t: t.replace(",", ";"), "missing"),
  ("tabs", lambda t: t.replace(",", "\t"), "missing"),
  ("open quote", _lines(lambda a: [*a, '"' + a[-1]]), "unexpected end"),
  ("text after a quote", _cell('"0.5"x'), "t.csv:3"),
  ("a cell over the csv limit", _cell('"' + "1" * 200_000 + '"'), "t.csv:3"),
  ("latin-1", lambda t: ("# é: é\n" + t).encode("latin-1"), "not UTF-8"),
  ("UTF-16", lambda t: t.encode("utf-16"), "not UTF-8"),
  ("UTF-32", lambda t: t.encode("utf-32"), "t.csv"),
  ("broken UTF-8", lambda t: t.encode() + b"\xf0\x28\x8c\x28", "not UTF-8"),
  ("surrogate", lambda t: t.encode() + b"\xed\xa0\x80", "not UTF-8"),
  ("NUL", lambda t: t + "\0", "NUL"),
  ("byte order mark twice", lambda t: "\ufeff\ufeff" + t, "t.csv"),
  ("byte order mark later", lambda t: t + "\ufeffx,1\n", "cells"),
  ("deep nesting", lambda t: "[" * 10**5, "missing"),
  ("JSON", lambda t: '{"latency_ms": 1}', "missing"),
  ("HTML", lambda t: "<html><body>404</body></html>", "missing"),
  ("gzip", lambda t: gzip.compress(t.encode()), "not UTF-8"),
  ("truncated gzip", lambda t: gzip.compress(t.encode())[:-9], "not UTF-8"),
  ("a pickle", lambda t: pickle.dumps({"latency_ms": 1}), "not UTF-8"),
  ("a text pickle", lambda t: pickle.dumps([1.5], protocol=0), "missing"),
  (
    "device name with escapes",
    _lines(lambda a: ["# device: \x1b]0;x\x07", *a[1:]]),
    "device",
  ),
  (
    "device name huge",
    _lines(lambda a: ["# device: " + "x" * 10**5, *a[1:]]),
    "device",
  ),
  ("device name empty", _lines(lambda a: ["# device:", *a[1:]]), "device"),
  (
    "device name with markup",
    _lines(lambda a: ["# device: [/b]", *a[1:]]),
    "device",
  ),
  (
    "device name with a colon",
    _lines(lambda a: ["# device: a:b", *a[1:]]),
    "device",
  ),
]


def _path(name: str, make: Callable[[Path], str], said: str) -> Case:
  return Case("tables", name, lambda folder: _words(folder, make(folder)), said)


def _fifo(folder):
  os.mkfifo(folder / "t.csv")
  return str(folder / "t.csv")


def _folder(folder):
  (folder / "t.csv").mkdir()
  return str(folder / "t.csv")


def _loop(folder):
  (folder / "t.csv").symlink_to(folder / "t.csv")
  return str(folder / "t.csv")


def _huge(folder):
  with (folder / "t.csv").open("wb") as file:
    file.truncate(2**40)  # sparse
  return str(folder / "t.csv")


def _linked(folder):
  (folder / "t.csv").symlink_to("/dev/zero")
  return str(folder / "t.csv")


_PATHS: list[tuple[str, Callable[[Path], str], str]] = [
  ("a FIFO", _fifo, "not a regular file"),
  ("a device file", lambda f: "/dev/zero", "not a regular file"),
  ("a link to a device file", _linked, "not a regular file"),
  ("a folder", _folder, "not a regular file"),
  ("a link to itself", _loop, "cannot be read"),
  ("a terabyte", _huge, "at most"),
  ("no such file", lambda f: "./nowhere.csv", "cannot be read"),
  ("a folder's file in a file", lambda f: "/dev/null/t.csv", "cannot be read"),
  ("a name with NUL", lambda f: "a\0.csv", "--device"),
  ("a name of 5000 characters", lambda f: "/" + "x" * 5000, "cannot be read"),
  ("a name with escapes", lambda f: "./\x1b[31m.csv", "--device"),
  ("a name with a line break", lambda f: "./a\nb.csv", "--device"),
  ("an empty name", lambda f: "", "--device"),
]


def _accepted(folder):
  """A byte order mark and Windows line ends are read: the limit is refused."""
  text = "\ufeff" + good().replace("\n", "\r\n")
  path = str(write(folder / "t.csv", text))
  return _words(folder, path, limit="latency_ms=1e-9")


CASES = [
  *(_text(*case) for case in _TEXTS),
  *(_path(*case) for case in _PATHS),
  Case(
    "tables", "byte order mark accepted", _accepted, "smallest reachable value"
  ),
]
