"""Checkpoints: a whole pytree on disk, or nothing.

A step is written to a temporary folder beside the others, made durable and
renamed into place once. The arrays are Orbax's, saved synchronously; a
manifest of digests stands beside them, and nothing is handed to Orbax before
every file was found to be the one that was saved.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from nasjax import manifests
from nasjax.errors import InputError
from nasjax.manifests import Damaged, Manifest

FOLDER = "checkpoints"
QUARANTINE = "quarantine"
KEEP = 3
_STATE = "state"
_TEMPORARY = ".tmp-"
_DELETING = ".deleting-"
# What Orbax logs for nothing: of plain zarr files at each save and load (there
# is one process, so there is nothing to merge), and, with a traceback for each
# of its threads, of an error that reaches us as an exception.
_KNOWN = (
  "Skipping merge of OCDBT",
  "TensorStore data files not found",
  "_SignalingThread.run() raised an exception",
)


class StorageError(OSError):
  """Something could not be stored or read; exit code 4."""


class Saved(NamedTuple):
  """A sound checkpoint, as read."""

  step: int
  manifest: Manifest
  arrays: list[np.ndarray]  # the numbers of the manifest's leaves


def steps(folder: Path) -> list[int]:
  """The steps there are, sound or not, lowest first."""
  if not folder.is_dir():
    return []
  names = [n for n in os.listdir(folder) if n.isascii() and n.isdigit()]
  return sorted(int(n) for n in names if str(int(n)) == n)


def save(
  folder: Path,
  step: int,
  tree: Any,
  fingerprint: Mapping[str, Any],
  *,
  keep: int = KEEP,
) -> str:
  """Saves a pytree; when this returns it is durable.

  Args:
    folder: of all checkpoints of a run; made if missing.
    step: names the checkpoint; one of that step is replaced.
    tree: any pytree of arrays, typed keys and numbers.
    fingerprint: what the run depends on, JSON values.
    keep: so many of the newest stay, at least 1.

  Returns:
    The SHA-256 of the state.

  Raises:
    StorageError: it could not be stored; earlier checkpoints are untouched.
    ValueError: a leaf holds no numbers.
  """
  folder = Path(folder).absolute()
  leaves, vectors = manifests.flatten(tree)
  temporary = folder / f"{_TEMPORARY}{step}-{os.getpid()}"
  try:
    folder.mkdir(parents=True, exist_ok=True)
    temporary.mkdir()
    _write(temporary / _STATE, vectors)
    files = manifests.hash_files(temporary)
    text = manifests.to_text(step, leaves, files, fingerprint)
    (temporary / manifests.NAME).write_text(text, encoding="utf-8")
    _sync(temporary)
    final = folder / str(step)
    if os.path.lexists(final):
      _remove(final)
    os.rename(temporary, final)
    _sync_one(folder)
    for old in steps(folder)[: -max(keep, 1)]:
      _remove(folder / str(old))
  except OSError as error:
    shutil.rmtree(temporary, ignore_errors=True)
    raise StorageError(
      f"{folder}: checkpoint {step} was not saved: {_reason(error)}"
    ) from error
  return manifests.state_digest(leaves)


def _reason(error: BaseException) -> str:
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return str(error)


def _write(path: Path, vectors: Mapping[str, np.ndarray]) -> None:
  if not vectors:
    path.mkdir()
    return
  context = ocp.Context()
  # Plain zarr files: fewer writes for a few vectors than OCDBT.
  context.array.saving.use_ocdbt = False
  try:
    with context, _quiet():
      ocp.save(path, dict(vectors))
  except (ValueError, RuntimeError) as error:
    # TensorStore reports what the file system said in these.
    raise StorageError(str(error)) from error


def _read(path: Path) -> dict[str, np.ndarray]:
  if not (path / "orbax.checkpoint").exists():
    return {}
  try:
    with _quiet():
      return ocp.load(path)
  except (ValueError, RuntimeError, KeyError) as error:
    raise Damaged(f"{path.name} cannot be read: {error}") from error


@contextlib.contextmanager
def _quiet():
  logger = logging.getLogger("absl")
  logger.addFilter(_is_news)
  try:
    yield
  finally:
    logger.removeFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
  return not any(known in record.getMessage() for known in _KNOWN)


def _sync_one(path: Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _sync(folder: Path) -> None:
  """Flushes every file and folder below, and the folder itself."""
  for root, _, files in os.walk(folder, topdown=False):
    for name in files:
      _sync_one(Path(root, name))
    _sync_one(Path(root))


def _remove(path: Path) -> None:
  """Removes a checkpoint; by its rename it is gone at once."""
  gone = path.with_name(f"{_DELETING}{path.name}-{os.getpid()}")
  os.rename(path, gone)
  _delete(gone)


def _delete(path: Path) -> None:
  if stat.S_ISDIR(path.lstat().st_mode):
    shutil.rmtree(path)
  else:
    path.unlink()


def clean(folder: Path) -> None:
  """Removes what an earlier process left half done; raises OSError."""
  if not folder.is_dir():
    return
  for entry in folder.iterdir():
    if entry.name.startswith((_TEMPORARY, _DELETING)):
      _delete(entry)


def remove_all(folder: Path) -> None:
  """Removes every checkpoint of a run; raises OSError."""
  if os.path.lexists(folder):
    _remove(folder)


def manifest(folder: Path, step: int) -> Manifest:
  """What one checkpoint says of itself, its arrays unread; raises Damaged."""
  path = Path(folder).absolute() / str(step)
  try:
    return manifests.read(path, step)
  except OSError as error:
    raise Damaged(f"cannot be read: {_reason(error)}") from error


def verify(folder: Path, step: int) -> Saved:
  """Reads one checkpoint and proves it sound.

  Raises:
    Damaged: it is not what was saved.
    StorageError: there is no right to read it.
  """
  path = Path(folder).absolute() / str(step)
  try:
    sound = manifests.read_checked(path, step)
    arrays = manifests.unflatten(sound.leaves, _read(path / _STATE))
  except PermissionError as error:
    raise StorageError(f"{path}: {_reason(error)}") from error
  except OSError as error:
    raise Damaged(f"cannot be read: {_reason(error)}") from error
  return Saved(step, sound, arrays)


def newest(folder: Path, say: Callable[[str], None]) -> Saved | None:
  """The newest sound checkpoint; damaged ones go to quarantine.

  Args:
    folder: of all checkpoints of a run.
    say: is given a line about each damaged one.

  Returns:
    None where there is no sound one.

  Raises:
    StorageError: a damaged one cannot be moved, or none may be read.
  """
  for step in reversed(steps(folder)):
    try:
      return verify(folder, step)
    except Damaged as error:
      place = _quarantine(folder, step)
      say(f"checkpoint {step} is damaged: {error}; moved to {place}")
  return None


def _quarantine(folder: Path, step: int) -> Path:
  """Moves a checkpoint out of the way, as it is."""
  place = folder / QUARANTINE
  try:
    if place.is_symlink():
      raise StorageError(f"{place}: is a link, a folder is needed")
    place.mkdir(exist_ok=True)
    name, count = place / str(step), 1
    while os.path.lexists(name):
      count += 1
      name = place / f"{step}-{count}"
    os.rename(folder / str(step), name)
    _sync_one(folder)
  except OSError as error:
    raise StorageError(
      f"{folder}: damaged checkpoint {step} cannot be moved: {_reason(error)}"
    ) from error
  return name


def fit(saved: Saved, target: Any, where: str) -> Any:
  """The saved pytree in the form of `target`.

  Args:
    saved: a sound checkpoint.
    target: a pytree of arrays or `jax.ShapeDtypeStruct`.
    where: what a message calls the checkpoint.

  Returns:
    A pytree like `target`: JAX arrays, or numpy's where it has numpy's.

  Raises:
    InputError: a leaf is missing, too much, or has another shape or dtype;
      nothing is cast.
  """
  wanted = manifests.paths(target)
  found = {leaf.path: leaf for leaf in saved.manifest.leaves}
  for path, leaf in wanted:
    if path not in found:
      raise InputError(where, f"has no {path}, which the search carries")
    shape, dtype = found[path].shape, found[path].dtype
    own = getattr(leaf, "dtype", None) or np.asarray(leaf).dtype
    if shape != tuple(np.shape(leaf)) or dtype != str(own):
      raise InputError(
        where,
        f"{path} is {dtype}{list(shape)}, the search carries"
        f" {own}{list(np.shape(leaf))}",
      )
  known = {path for path, _ in wanted}
  for path in found:
    if path not in known:
      raise InputError(where, f"has {path}, which the search does not carry")
  arrays = dict(zip(found, saved.arrays, strict=True))
  made = [_as(found[p], arrays[p], leaf) for p, leaf in wanted]
  return jax.tree.unflatten(jax.tree.structure(target), made)


def _as(record, array, leaf):
  if record.implementation:
    data = jnp.asarray(array)
    return jax.random.wrap_key_data(data, impl=record.implementation)
  if isinstance(leaf, (jax.Array, jax.ShapeDtypeStruct)):
    return jnp.asarray(array)
  return np.array(array)
