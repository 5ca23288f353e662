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

from nasjax.errors import InputError

CONFIG = "config.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.csv"
GENOTYPE = "genotype.json"


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
  finally:
    temporary.unlink(missing_ok=True)


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
  if path.is_dir() and any(path.iterdir()) and not force:
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
  """Makes the run folder; with `force` an old run's files are removed."""
  path = check_free(path, force=force)
  path.mkdir(parents=True, exist_ok=True)
  for name in (CONFIG, ENVIRONMENT, METRICS, GENOTYPE):
    (path / name).unlink(missing_ok=True)
  return path


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
