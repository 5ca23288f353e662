"""The one strict reader of users' text: files, tables, JSON, TOML, parts.

Every reader here takes only regular files of a stated size, says the line at
fault, and lets no number through that is not finite. YAML: `strict_yaml.py`.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import math
import re
import stat
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nasjax.errors import InputError, nearest

MAX_TEXT_BYTES = 16 * 2**20
MAX_CONFIG_BYTES = 2**20  # a configuration; PyYAML reads 16 MiB in a minute
MAX_DEPTH = 64

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NOT_FINITE = re.compile(
  r"[+-]?\.?(nan|inf|infinity)", re.ASCII | re.IGNORECASE
)


def check_file(path: str | Path, max_bytes: int) -> Path:
  """Returns `path` if it is a regular file of at most `max_bytes`.

  Raises:
    InputError: it is missing, a folder, a device, a pipe, or too large.
  """
  path = Path(path)
  try:
    status = path.stat()
  except (OSError, ValueError) as error:
    reason = getattr(error, "strerror", None) or str(error)
    raise InputError(str(path), f"cannot be read: {reason}") from None
  if not stat.S_ISREG(status.st_mode):
    raise InputError(str(path), "is not a regular file")
  if status.st_size > max_bytes:
    raise InputError(
      str(path), f"has {status.st_size} bytes, at most {max_bytes} are read"
    )
  return path


def read_bytes(path: str | Path, max_bytes: int = MAX_TEXT_BYTES) -> bytes:
  """Reads a regular file of at most `max_bytes`; raises InputError."""
  path = check_file(path, max_bytes)
  try:
    with path.open("rb") as file:
      data = file.read(max_bytes + 1)
  except OSError as error:
    raise InputError(str(path), f"cannot be read: {error.strerror}") from None
  if len(data) > max_bytes:
    raise InputError(str(path), f"grew past {max_bytes} bytes")
  return data


def read_text(path: str | Path) -> str:
  """Reads UTF-8 text (a byte order mark is accepted); raises InputError."""
  data = read_bytes(path)
  try:
    text = data.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = data[: error.start].count(b"\n") + 1
    raise InputError(
      f"{path}:{line}", "is not UTF-8 text", "save it as UTF-8"
    ) from None
  if "\0" in text:
    line = text[: text.index("\0")].count("\n") + 1
    raise InputError(f"{path}:{line}", "holds a NUL character")
  return text


def number(
  text: Any, where: str, *, low: float = -math.inf, high: float = math.inf
) -> float:
  """Parses one finite number, `low` to `high`; raises InputError.

  Digits with `_`, decimal commas, `nan` and `inf` are refused.
  """
  if isinstance(text, bool):
    raise InputError(where, f"{text} is not a number")
  if isinstance(text, str):
    text = text.strip()
  if isinstance(text, int):
    value = float(text) if abs(text) < 2**1023 else math.inf
  elif isinstance(text, float):
    value = text
  elif isinstance(text, str) and _NUMBER.fullmatch(text):
    value = float(text)
  elif isinstance(text, str) and _NOT_FINITE.fullmatch(text):
    value = math.nan
  else:
    raise InputError(where, f"{str(text)[:40]!r} is not a number")
  if not math.isfinite(value):
    shown = str(text)[:40] if isinstance(text, str) else value
    raise InputError(where, f"{shown} is not a finite number")
  if value < low:
    raise InputError(where, f"{value:g} is below {low:g}")
  if value > high:
    raise InputError(where, f"{value:g} is too high, at most {high:g} is taken")
  return value


def whole(
  text: Any, where: str, *, low: float = -math.inf, high: float = math.inf
) -> int:
  """Parses one whole number exactly; raises InputError as `number` does."""
  value = number(text, where, low=low, high=high)
  if isinstance(text, int):
    return text
  if isinstance(text, str) and _WHOLE.fullmatch(text.strip()):
    return int(text)
  if value != int(value):
    raise InputError(where, f"{str(text)[:40]} is not a whole number")
  if abs(value) > 2**53:
    raise InputError(where, f"{str(text)[:40]} is too large to be exact")
  return int(value)


class Csv(NamedTuple):
  """A table as text: `# key: value` lines, column names, rows by line."""

  header: dict[str, str]
  columns: tuple[str, ...]
  rows: list[tuple[int, dict[str, str]]]


def read_csv(path: str | Path, required: Sequence[str] = ()) -> Csv:
  """Reads a comma-separated table with an optional block of `# key: value`.

  Raises:
    InputError: names the line and the column that is missing, said twice,
      ragged or badly quoted; or that there are no rows.
  """
  lines = read_text(path).split("\n")
  header: dict[str, str] = {}
  start = 0
  while start < len(lines) and lines[start].lstrip().startswith("#"):
    key, colon, value = lines[start].lstrip()[1:].partition(":")
    key = key.strip()
    if colon and key in header:
      raise InputError(
        f"{path}:{start + 1}", f"{key[:40]!r} stands there twice"
      )
    if colon:
      header[key] = value.strip()
    start += 1
  reader = csv.reader(io.StringIO("\n".join(lines[start:])), strict=True)
  rows: list[tuple[int, dict[str, str]]] = []
  columns: tuple[str, ...] = ()
  try:
    for cells in reader:
      line = start + reader.line_num
      if not cells:
        continue
      cells = [c.strip() for c in cells]
      if not columns:
        columns = tuple(cells)
        _check_columns(f"{path}:{line}", columns, required)
        continue
      if len(cells) != len(columns):
        raise InputError(
          f"{path}:{line}",
          f"has {len(cells)} cells, the header has {len(columns)}",
        )
      rows.append((line, dict(zip(columns, cells, strict=True))))
  except csv.Error as error:
    raise InputError(f"{path}:{start + reader.line_num}", str(error)) from None
  if not columns:
    raise InputError(str(path), "is empty", "a header line is expected")
  if not rows:
    raise InputError(str(path), "has a header but no rows")
  return Csv(header, columns, rows)


def _check_columns(where, columns, required):
  seen = set()
  for column in columns:
    if not column:
      raise InputError(where, "a column has no name")
    if column in seen:
      raise InputError(where, f"column {column[:40]!r} stands there twice")
    seen.add(column)
  for column in required:
    if column not in columns:
      raise InputError(
        where, f"column {column!r} is missing", nearest(column, columns)
      )


def read_json(path: str | Path) -> Any:
  """Reads JSON, see `parse_json`; raises InputError."""
  return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str) -> Any:
  """Parses JSON text: no NaN, no key twice, nested at most 64 deep.

  Whole numbers fit in 64 bits, and strings have no control characters.

  Raises:
    InputError: names the line or what is wrong.
  """
  _check_depth(text, where)

  def pairs(items):
    found = {}
    for key, value in items:
      if key in found:
        raise InputError(where, f"key {key[:40]!r} stands there twice")
      found[key] = value
    return found

  def constant(name):
    raise InputError(where, f"{name} is not a finite number")

  def fraction(digits):
    return number(digits, where)

  def integer(digits):
    if len(digits) > 19 or abs(int(digits)) >= 2**63:
      raise InputError(where, f"{digits[:20]}... is too large a number")
    return int(digits)

  try:
    value = json.loads(
      text,
      object_pairs_hook=pairs,
      parse_constant=constant,
      parse_float=fraction,
      parse_int=integer,
    )
    _check_words(value, where)
    return value
  except json.JSONDecodeError as error:
    raise InputError(f"{where}:{error.lineno}", error.msg) from None
  except (RecursionError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(where, "is not JSON that can be read") from None


def _check_words(value, where):
  """Refuses strings that would command a terminal, or that are no text."""
  if isinstance(value, str) and not value.isprintable():
    raise InputError(where, f"{value[:40]!r} holds control characters")
  for item in value if isinstance(value, (list, dict)) else ():
    _check_words(item, where)
  for item in value.values() if isinstance(value, dict) else ():
    _check_words(item, where)


def _check_depth(text, where):
  depth, in_string, escaped = 0, False, False
  for char in text:
    if in_string:
      if escaped:
        escaped = False
      elif char == "\\":
        escaped = True
      elif char == '"':
        in_string = False
    elif char == '"':
      in_string = True
    elif char in "[{":
      depth += 1
      if depth > MAX_DEPTH:
        raise InputError(where, f"is nested more than {MAX_DEPTH} deep")
    elif char in "]}":
      depth -= 1


def read_toml(path: str | Path) -> dict[str, Any]:
  """Reads TOML: finite numbers, text without control characters.

  Raises:
    InputError: bad syntax (with its line), a key twice, a number that is not
      finite.
  """
  check_file(path, MAX_CONFIG_BYTES)
  try:
    value = tomllib.loads(read_text(path))
  except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(str(path), one_problem(error)) from None
  _check_words(value, str(path))
  _check_finite(value, str(path))
  return value


def _check_finite(value, where):
  if isinstance(value, (int, float)):
    number(float(value) if isinstance(value, bool) else value, where)
  for item in value if isinstance(value, list) else ():
    _check_finite(item, where)
  for key, item in value.items() if isinstance(value, dict) else ():
    _check_finite(item, f"{where} {key[:40]}")


def one_problem(error: BaseException) -> str:
  """The first line of an exception's text, or its type."""
  return (str(error).strip().splitlines() or [type(error).__name__])[0]


# What a user's own code may raise: anything. SystemExit would end us without
# a word.
RAISED = (Exception, SystemExit)


def load_part(reference: str, where: str) -> Any:
  """Loads a user's own part, `path/to/file.py:name`.

  The file is imported as Python: it is the user's own program.

  Raises:
    InputError: the reference has no name, or the file or name is missing,
      or importing the file raised.
  """
  path, _, name = reference.rpartition(":")
  if not path or not name.isidentifier():
    raise InputError(
      where, f"{reference!r} names no part", "write path/to/file.py:name"
    )
  check_file(path, MAX_TEXT_BYTES)
  spec = importlib.util.spec_from_file_location(f"user_{Path(path).stem}", path)
  if spec is None or spec.loader is None:
    raise InputError(where, f"{path} is not a Python file")
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except RAISED as error:
    raise InputError(
      path, f"cannot be imported: {type(error).__name__}: {one_problem(error)}"
    ) from error
  if not hasattr(module, name):
    names = [n for n in vars(module) if not n.startswith("_")]
    raise InputError(path, f"has no {name!r}", nearest(name, names))
  return getattr(module, name)
