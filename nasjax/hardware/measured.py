"""Measurements in the loop: a user's measure(architecture) -> {metric: value}.

Any strategy can call what `function` or `command` makes. Both keep what they
found, so that an architecture is measured once, try again where a measurement
failed, and end one that takes too long.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nasjax.errors import InputError
from nasjax.layers import onnx_nodes
from nasjax.reader import RAISED, number, one_problem, parse_json, read_json
from nasjax.run_folder import write_atomic
from nasjax.spaces.space import Architecture

__all__ = ["command", "function"]

Measure = Callable[[Architecture], dict[str, float]]
_FORMAT = "nasjax.measured/1"
_HIGHEST = 1e30
PLACE = "{onnx}"  # of the file's path in a command line


def _key(architecture: Architecture) -> str:
  space = architecture.space
  about = [space.name, dict(space.arguments), architecture.names()]
  text = json.dumps(about, sort_keys=True, default=list)
  return hashlib.sha256(text.encode()).hexdigest()[:32]


def check_values(found: Any, where: str) -> dict[str, float]:
  """What a measurement returned as {metric: value}.

  Raises:
    InputError: no mapping of names with units to finite numbers >= 0.
  """
  if not isinstance(found, Mapping) or not found:
    raise InputError(
      where, "did not give {metric: value}", 'such as {"latency_ms": 1.5}'
    )
  values = {}
  for name, value in found.items():
    if not isinstance(name, str) or not name.isidentifier():
      raise InputError(where, f"{str(name)[:40]!r} is no metric's name")
    if not isinstance(value, (str, int, float)):
      value = float(value) if hasattr(value, "__float__") else value
    values[name] = number(value, f"{where} {name}", low=0.0, high=_HIGHEST)
  return values


def _read_cache(path: Path, source: str) -> dict[str, dict[str, float]]:
  if not path.exists():
    return {}
  found = read_json(path)
  if not isinstance(found, dict) or found.get("format") != _FORMAT:
    raise InputError(str(path), f"is not of the format {_FORMAT}")
  if found.get("measure") != source:
    raise InputError(
      str(path),
      f"was measured by {str(found.get('measure'))[:80]!r}, not {source!r}",
      "name another cache",
    )
  values = found.get("values")
  if not isinstance(values, dict):
    raise InputError(f"{path} values", "must be a JSON object")
  return {k: check_values(v, f"{path} {k[:40]}") for k, v in values.items()}


class _Failed(Exception):
  """One attempt failed; another may not."""


def _kept(
  attempt: Callable[[Architecture], Any],
  source: str,
  retries: int,
  cache: str | Path | None,
) -> Measure:
  """Adds the cache, the check of what came back and the retries."""
  path = None if cache is None else Path(cache)
  known = {} if path is None else _read_cache(path, source)

  def measure(architecture):
    key = _key(architecture)
    if key in known:
      return dict(known[key])
    problem = ""
    for _ in range(1 + retries):
      try:
        known[key] = check_values(attempt(architecture), source)
        break
      except _Failed as failed:
        problem = str(failed)
    else:
      raise InputError(
        source, f"failed {1 + retries} times, the last time: {problem}"
      )
    if path is not None:
      content = {"format": _FORMAT, "measure": source, "values": known}
      write_atomic(path, json.dumps(content, indent=1) + "\n")
    return dict(known[key])

  return measure


def function(
  measure: Callable[[Architecture], Mapping[str, float]],
  *,
  timeout_seconds: float = 600.0,
  retries: int = 1,
  cache: str | Path | None = None,
) -> Measure:
  """Measures with a user's Python function.

  Args:
    measure: architecture -> {metric: value}, units in the names.
    timeout_seconds: of one call. A function that hangs cannot be ended: it is
      left behind and not called again.
    retries: how often a call that raised is repeated.
    cache: a JSON file that keeps what was measured; None: only in memory.

  Returns:
    The same function, kept and checked. It raises InputError, naming the
    function, where it raised, hung or gave no finite numbers.
  """
  name = getattr(measure, "__qualname__", type(measure).__name__)
  source = f"{getattr(measure, '__module__', '')}:{name}"

  def attempt(architecture):
    outcome: dict[str, Any] = {}

    def run():
      try:
        outcome["value"] = measure(architecture)
      except RAISED as error:
        outcome["error"] = f"{type(error).__name__}: {one_problem(error)}"

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_seconds)
    if thread.is_alive():
      raise InputError(source, f"took longer than {timeout_seconds:g} s")
    if "error" in outcome:
      raise _Failed(outcome["error"])
    return outcome["value"]

  return _kept(attempt, source, retries, cache)


def command(
  line: str,
  *,
  model: Callable[[Architecture], Any],
  timeout_seconds: float = 600.0,
  retries: int = 1,
  cache: str | Path | None = None,
) -> Measure:
  """Measures with a user's command line, such as one that calls ssh or adb.

  Args:
    line: the words of the command; `{onnx}` stands for the network's file. No
      shell reads it. The last line that it prints is JSON,
      {"latency_ms": 1.5}.
    model: architecture -> its ONNX model, `bundle.decided_model` or one with
      trained weights.
    timeout_seconds: of one call, after which it and its children are killed.
    retries: how often a call that failed is repeated.
    cache: a JSON file that keeps what was measured; None: only in memory.

  Returns:
    Architecture -> {metric: value}. It raises InputError with the command's
    own last words where it failed.

  Raises:
    InputError: the line has no `{onnx}`, or cannot be split into words, or onnx
      is not installed.
  """
  try:
    words = shlex.split(line)
  except ValueError as error:
    raise InputError(line, str(error)) from None
  if not any(PLACE in word for word in words):
    raise InputError(line, f"names no {PLACE}, the network's file")
  onnx = onnx_nodes.need("onnx")

  def attempt(architecture):
    with tempfile.TemporaryDirectory(prefix="nasjax-") as folder:
      path = os.path.join(folder, "network.onnx")
      onnx.save(model(architecture), path)
      filled = [word.replace(PLACE, path) for word in words]
      return _last_json(_run(filled, line, timeout_seconds), line)

  return _kept(attempt, line, retries, cache)


def _run(words, line, timeout_seconds) -> str:
  try:
    process = subprocess.Popen(
      words,
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      errors="replace",
      start_new_session=True,
    )
  except OSError as error:
    raise InputError(line, f"cannot be run: {error.strerror}") from None
  try:
    out, said = process.communicate(timeout=timeout_seconds)
  except subprocess.TimeoutExpired:
    raise _Failed(f"took longer than {timeout_seconds:g} s") from None
  finally:
    if process.poll() is None:
      # Its children too: ssh and adb leave theirs behind.
      os.killpg(process.pid, signal.SIGKILL)
      process.communicate()
  if process.returncode:
    words = (said.strip().splitlines() or ["nothing said"])[-1]
    raise _Failed(f"exit code {process.returncode}, {words[:200]}")
  return out


def _last_json(out: str, line: str) -> Any:
  last = (out.strip().splitlines() or [""])[-1]
  try:
    return parse_json(last, line)
  except InputError:
    raise _Failed(f"the last line is no JSON: {last[:80]!r}") from None
