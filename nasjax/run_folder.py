"""The files of a run, each written whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nasjax import lock
from nasjax.errors import InputError

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
GENOTYPE = "genotype.json"
FRONT = "front.csv"
BASELINES = "baselines.csv"
RANKING = "ranking.csv"
EVALUATIONS = "evaluations.csv"
HYPERVOLUME = "hypervolume.csv"
MEMBERS = "members"  # of a front: a folder each
RETRAINED = "retrained.json"
AGAIN = "retrained"  # folder of the decided network's own training
_FILES = (
  *(CONFIG, ENVIRONMENT, METRICS, GENOTYPE, FRONT, RANKING),
  *(EVALUATIONS, HYPERVOLUME, RETRAINED, BASELINES),
)


def write_atomic(path: str | Path, text: str) -> None:
  """Writes `text` to a temporary file beside `path`, then renames it."""
  path = Path(path)
  temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
  try:
    with temporary.open("w", encoding="utf-8", newline="") as file:
      file.write(text)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)
  finally:
    temporary.unlink(missing_ok=True)


def sync(folder: Path) -> None:
  """Makes the names in a folder durable."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def check_free(path: str | Path, *, force: bool = False) -> Path:
  """Says that `path` can become a run folder, before any work is done.

  Raises:
    InputError: it is a file, or a folder with something in it and not
      `force`.
  """
  path = Path(path)
  try:
    path.stat()
  except FileNotFoundError:
    if path.is_symlink():
      raise InputError(f"--out {path}", "is a link to nothing") from None
  except (OSError, ValueError) as error:  # ValueError: a NUL in the name
    reason = getattr(error, "strerror", None) or str(error)
    raise InputError(f"--out {path}", f"cannot be used: {reason}") from None
  if path.exists() and not path.is_dir():
    raise InputError(f"--out {path}", "is a file, a folder is needed")
  # A run that never began leaves its lock file.
  used = path.is_dir() and any(p.name != lock.NAME for p in path.iterdir())
  if used and not force:
    raise InputError(
      f"--out {path}", "exists and is not empty", "name another or add --force"
    )
  parent = path if path.is_dir() else _existing_parent(path)
  if not os.access(parent, os.W_OK):
    raise InputError(f"--out {path}", f"{parent} cannot be written to")
  return path


def _existing_parent(path: Path) -> Path:
  path = path.absolute()
  while not path.exists():
    path = path.parent
  return path


def create(path: str | Path, *, force: bool = False) -> Path:
  """Makes the run folder; what is in it stays."""
  path = check_free(path, force=force)
  path.mkdir(parents=True, exist_ok=True)
  return path


def clear(path: Path) -> None:
  """Removes an old run's files."""
  for name in _FILES:
    (path / name).unlink(missing_ok=True)
  for old in (path / MEMBERS).glob(f"*/{GENOTYPE}"):
    old.unlink()
  clean(path)


def clean(path: Path) -> None:
  """Removes what a killed process left half written."""
  for left in path.glob(".*.tmp"):
    left.unlink(missing_ok=True)


def read_rows(path: Path, count: int) -> list[dict[str, Any]]:
  """The first `count` rows of metrics.csv; what follows is left out.

  Raises:
    OSError: there are not so many, or it cannot be read.
  """
  if not count:
    return []
  text = path.read_text(encoding="utf-8", errors="replace")
  whole = text[: text.rfind("\n") + 1]  # the last line may be torn
  rows = list(csv.DictReader(io.StringIO(whole)))[:count]
  numbers = [row.get("epoch") for row in rows]
  complete = all(None not in (*row, *row.values()) for row in rows)
  if not complete or numbers != [str(n + 1) for n in range(count)]:
    raise OSError(
      f"{path}: the checkpoint needs its first {count} rows and they are not"
      " there; begin anew with nasjax search --force"
    )
  return rows


def csv_text(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
  """Rows as CSV text; floats keep every digit that tells them apart."""
  out = io.StringIO()
  writer = csv.DictWriter(out, columns, lineterminator="\n")
  writer.writeheader()
  for row in rows:
    writer.writerow(row)
  return out.getvalue()


def json_text(value: Any) -> str:
  """JSON for a file: indented, non-ASCII kept, NaN refused."""
  return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def environment() -> dict[str, Any]:
  """Versions and machine of this run, for environment.json."""
  names = (
    "nasjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "chex",
    "numpy",
    "orbax-checkpoint",
  )
  versions = {}
  for name in names:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      versions[name] = "not installed"
  return {
    "python": platform.python_version(),
    "system": platform.platform(),
    "processor": platform.machine(),
    "cores": os.cpu_count(),
    "versions": versions,
  }
