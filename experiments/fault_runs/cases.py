"""One malformed input: how it is made, run, and judged.

A case makes its files in an empty folder and says the words after `nasjax`.
It behaves if the command exits as stated, within seconds, with one line on
standard error that names what is wrong, and writes nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

SECONDS = 120.0  # a case that takes longer hangs
LONGEST = 400  # characters of the line on standard error


class Case(NamedTuple):
  """A malformed input.

  Attributes:
    group: of the table that is printed.
    name: what is wrong with it.
    make: makes the files in a folder; returns the words after `nasjax`.
    said: what the line must contain.
    code: the exit code.
    process: needs a process of its own; else it runs in this one.
    shell: a bash script that starts it, as "$@"; else it starts directly.
  """

  group: str
  name: str
  make: Callable[[Path], Sequence[str | bytes]]
  said: str = ""
  code: int = 2
  process: bool = False
  shell: str = ""


class Hang(BaseException):
  """A case took too long; no `except Exception` may swallow it."""


@contextlib.contextmanager
def limit(seconds: float):
  """Raises Hang in the block after so many seconds."""

  def stop(number, frame):
    raise Hang

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def _state(folder: Path) -> dict[str, str]:
  """What stands in a folder: names, kinds and content of small files."""
  found = {}
  for root, folders, files in os.walk(folder):
    for name in folders + files:
      path = Path(root, name)
      status = path.lstat()
      text = f"{status.st_mode:o} {status.st_size}"
      if stat.S_ISREG(status.st_mode) and status.st_size < 2**26:
        text += hashlib.sha256(path.read_bytes()).hexdigest()
      found[str(path)] = text
  return {k: v for k, v in found.items() if "__pycache__" not in k}


def in_process(argv: Sequence[str]) -> tuple[int | str, str, str]:
  """Runs the command line here: (exit code or what it raised, out, err)."""
  from nasjax.cli.main import main

  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      code: int | str = main(argv)
    except SystemExit as stopped:
      code = f"SystemExit({stopped.code})"
    except Exception as error:  # a traceback is what we look for
      code = f"traceback: {type(error).__name__}: {str(error)[:200]}"
  return code, out.getvalue(), err.getvalue()


def in_own_process(case: Case, argv, folder: Path):
  """Runs `python -m nasjax`: (exit code, out, err)."""
  command = [sys.executable, "-m", "nasjax", *argv]
  if case.shell:
    command = ["bash", "-c", case.shell, "bash", *command]
  root = str(Path(__file__).resolve().parents[2])
  done = subprocess.run(
    command,
    cwd=folder,
    capture_output=True,
    timeout=SECONDS,
    check=False,
    env={**os.environ, "PYTHONPATH": root},
  )
  out, err = (s.decode("utf-8", "replace") for s in (done.stdout, done.stderr))
  return done.returncode, out, err


def judge(case: Case, code, err: str) -> str:
  """What is wrong with how a case ended; empty if it behaved."""
  if code != case.code:
    return f"exit code {code}, not {case.code}; said {err[-300:]!r}"
  if case.code == 0 or case.code == 141:
    return "" if "Traceback" not in err else f"traceback: {err[-300:]!r}"
  line = err.removesuffix("\n")
  if "\n" in line or not err.endswith("\n"):
    return f"not one line: {err[:300]!r}"
  if len(line) > LONGEST:
    return f"a line of {len(line)} characters"
  if not line.isprintable():
    return f"control characters: {line!r}"
  if case.said not in line:
    return f"does not say {case.said!r}: {line}"
  return ""


def run_case(case: Case, folder: Path) -> str:
  """Runs a case in an empty folder; what is wrong, or empty.

  A hang counts the second time: a machine may stand still by itself.
  """
  wrong = ""
  for name in ("a", "b"):
    (folder / name).mkdir()
    wrong = _run_once(case, folder / name)
    if not wrong.startswith("hangs"):
      break
  return wrong


def _run_once(case, folder):
  argv = case.make(folder)
  before, here = _state(folder), os.getcwd()
  os.chdir(folder)
  try:
    with limit(SECONDS + 5):
      if case.process:
        code, _, err = in_own_process(case, argv, folder)
      else:
        code, _, err = in_process(argv)
  except (Hang, subprocess.TimeoutExpired):
    return f"hangs: over {SECONDS:g} s"
  finally:
    os.chdir(here)
  wrong = judge(case, code, err)
  if not wrong and case.code and _state(folder) != before:
    wrong = f"wrote {sorted(set(_state(folder)) - set(before))}"
  return wrong


def write(path: Path, content: str | bytes) -> Path:
  """Writes a file."""
  if isinstance(content, str):
    content = content.encode("utf-8", "surrogateescape")
  path.write_bytes(content)
  return path


def images(path: Path, **changes) -> str:
  """A good small .npz, with arrays replaced or (None) left out."""
  rng = np.random.default_rng(0)
  arrays = dict(
    x_train=rng.integers(256, size=(48, 8, 8, 3), dtype=np.uint8),
    y_train=np.arange(48) % 3,
  )
  arrays |= changes
  np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
  return str(path)


def search(folder: Path, *more: str | bytes) -> list[str | bytes]:
  """Words of a tiny search whose data is good."""
  return [
    "search",
    "--space",
    "nasbench201",
    "--cells",
    "1",
    "--channels",
    "4",
    "--epochs",
    "1",
    "--batch-size",
    "8",
    "--data",
    images(folder / "images.npz"),
    "--out",
    str(folder / "out"),
    *more,
  ]
