"""Manifests: what a checkpoint holds, proved by digests.

A manifest names every leaf of the saved pytree with its shape, dtype and
SHA-256, and every file of the checkpoint with its size and SHA-256. It carries
a digest of itself. A file is looked at only after its whole folder was found
to consist of regular files and folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.errors import InputError
from nasjax.reader import parse_json

FORMAT = "nasjax.checkpoint/1"
NAME = "manifest.json"
_MOST_BYTES = 64 * 2**20
_BLOCK = 2**20


class Damaged(ValueError):
  """A checkpoint is not what was saved; the message is the reason."""


class Leaf(NamedTuple):
  """One leaf of a pytree, as it is stored."""

  path: str
  shape: tuple[int, ...]  # as the pytree has it
  dtype: str  # likewise; a typed key's is key<...>
  stored: tuple[int, ...]  # shape of the stored numbers
  vector: str  # their dtype, and the name of the vector that holds them
  implementation: str  # of a typed key, otherwise empty
  sha256: str


class Manifest(NamedTuple):
  """What a checkpoint says of itself."""

  step: int
  leaves: tuple[Leaf, ...]
  files: Mapping[str, tuple[int, str]]  # path -> (bytes, SHA-256)
  fingerprint: Mapping[str, Any]
  digest: str  # SHA-256 over all leaves: equal where the states are equal


def _digest(array: np.ndarray) -> str:
  flat = np.ascontiguousarray(array).reshape(-1)
  return hashlib.sha256(flat.view(np.uint8)).hexdigest()


def paths(tree: Any) -> list[tuple[str, Any]]:
  """(path, leaf) of each leaf, in the order of `jax.tree.leaves`."""
  found, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(jax.tree_util.keystr(path), leaf) for path, leaf in found]


def flatten(tree: Any) -> tuple[list[Leaf], dict[str, np.ndarray]]:
  """A pytree as leaves and one vector of numbers a dtype.

  Args:
    tree: of arrays, typed keys and numbers.

  Returns:
    (leaves, {dtype: array[N]}): each leaf's numbers follow those of the leaves
    of its dtype before it.

  Raises:
    ValueError: a leaf holds no numbers.
  """
  leaves, parts = [], {}
  for path, leaf in paths(tree):
    dtype = getattr(leaf, "dtype", None)
    implementation = ""
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
      implementation = str(jax.random.key_impl(leaf))
      array = np.asarray(jax.random.key_data(leaf))
    else:
      array = np.asarray(leaf)
      dtype = array.dtype
    if array.dtype.kind in "OUSMm":
      raise ValueError(f"checkpoint: leaf {path} is {array.dtype}, no numbers")
    vector = array.dtype.name
    leaves.append(
      Leaf(
        path,
        tuple(np.shape(leaf)),
        str(dtype),
        array.shape,
        vector,
        implementation,
        _digest(array),
      )
    )
    parts.setdefault(vector, []).append(array.reshape(-1))
  vectors = {name: np.concatenate(found) for name, found in parts.items()}
  return leaves, {name: v for name, v in vectors.items() if v.size}


def unflatten(
  leaves: Sequence[Leaf], vectors: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
  """The leaves' numbers; raises Damaged where a digest differs."""
  arrays, used = [], dict.fromkeys(vectors, 0)
  for leaf in leaves:
    size = int(np.prod(leaf.stored))
    if not size:
      arrays.append(np.zeros(leaf.stored, np.dtype(leaf.vector)))
      continue
    vector = vectors.get(leaf.vector)
    start = used.get(leaf.vector, 0)
    if vector is None or start + size > len(vector):
      raise Damaged(f"leaf {leaf.path} is missing")
    array = vector[start : start + size].reshape(leaf.stored)
    used[leaf.vector] = start + size
    if array.dtype.name != leaf.vector or _digest(array) != leaf.sha256:
      raise Damaged(f"leaf {leaf.path} differs from its digest")
    arrays.append(array)
  return arrays


def state_digest(leaves: Sequence[Leaf]) -> str:
  """SHA-256 over all leaves with their paths, shapes and dtypes."""
  text = _canonical([list(leaf) for leaf in leaves])
  return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> str:
  return json.dumps(value, sort_keys=True, allow_nan=False, indent=1)


def to_text(
  step: int,
  leaves: Sequence[Leaf],
  files: Mapping[str, tuple[int, str]],
  fingerprint: Mapping[str, Any],
) -> str:
  """A manifest as JSON text with a digest of its own content."""
  content = {
    "format": FORMAT,
    "step": step,
    "leaves": [leaf._asdict() for leaf in leaves],
    "files": {n: {"bytes": b, "sha256": s} for n, (b, s) in files.items()},
    "fingerprint": fingerprint,
  }
  own = hashlib.sha256(_canonical(content).encode()).hexdigest()
  return _canonical(content | {"sha256": own}) + "\n"


def from_text(text: str) -> Manifest:
  """Reads a manifest; raises Damaged unless it is one, whole."""
  try:
    content = parse_json(text, NAME)
  except InputError as error:
    raise Damaged(str(error)) from None
  if not isinstance(content, dict):
    raise Damaged(f"{NAME} is no manifest")
  own = content.pop("sha256", None)
  written = _canonical(content | {"sha256": own}) + "\n"
  digest = hashlib.sha256(_canonical(content).encode()).hexdigest()
  if digest != own or text != written:
    raise Damaged(f"{NAME} differs from its digest")
  if content.get("format") != FORMAT:
    raise Damaged(f"{NAME} has the format {str(content.get('format'))[:40]!r}")
  try:
    leaves = tuple(_leaf(fields) for fields in content["leaves"])
    files = {n: (f["bytes"], f["sha256"]) for n, f in content["files"].items()}
    return Manifest(
      content["step"],
      leaves,
      files,
      content["fingerprint"],
      state_digest(leaves),
    )
  except (KeyError, TypeError, AttributeError) as error:
    raise Damaged(f"{NAME} has a wrong field: {error}") from None


def _leaf(fields: Mapping[str, Any]) -> Leaf:
  leaf = Leaf(**fields)
  sizes = [*leaf.shape, *leaf.stored]
  if not all(type(n) is int and n >= 0 for n in sizes):
    raise TypeError(f"shape {sizes}")
  np.dtype(leaf.vector)
  return leaf._replace(shape=tuple(leaf.shape), stored=tuple(leaf.stored))


def hash_files(folder: Path) -> dict[str, tuple[int, str]]:
  """(bytes, SHA-256) of every file under a folder, but the manifest.

  Raises:
    Damaged: there is a link or anything else that is no regular file.
    OSError: something cannot be read.
  """
  found = {}
  for path in _regular_files(folder):
    name = path.relative_to(folder).as_posix()
    if name == NAME:
      continue
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", opener=_no_links) as file:
      while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    found[name] = (size, digest.hexdigest())
  return found


def _no_links(path, flags):
  return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _regular_files(folder: Path) -> list[Path]:
  """Every file under a folder; Damaged for what is no file and no folder."""
  if not stat.S_ISDIR(folder.lstat().st_mode):
    raise Damaged("is not a folder")
  files, waiting = [], [folder]
  while waiting:
    for entry in sorted(waiting.pop().iterdir()):
      mode = entry.lstat().st_mode
      if stat.S_ISDIR(mode):
        waiting.append(entry)
      elif stat.S_ISREG(mode):
        files.append(entry)
      else:
        name = entry.relative_to(folder).as_posix()
        raise Damaged(f"{name} is a link or a special file")
  return files


def read(folder: Path, step: int) -> Manifest:
  """The manifest of a checkpoint, its other files unread.

  Raises:
    Damaged: it is missing, not what was written, or of another step.
    OSError: it cannot be read.
  """
  path = folder / NAME
  if not stat.S_ISDIR(folder.lstat().st_mode):
    raise Damaged("is not a folder")
  if not os.path.lexists(path):
    raise Damaged(f"{NAME} is missing")
  if not stat.S_ISREG(path.lstat().st_mode):
    raise Damaged(f"{NAME} is a link or a special file")
  with open(path, "rb", opener=_no_links) as file:
    data = file.read(_MOST_BYTES + 1)
  if len(data) > _MOST_BYTES:
    raise Damaged(f"{NAME} is over {_MOST_BYTES} bytes")
  try:
    manifest = from_text(data.decode("utf-8"))
  except UnicodeDecodeError:
    raise Damaged(f"{NAME} is not UTF-8 text") from None
  if manifest.step != step:
    raise Damaged(f"{NAME} is of step {manifest.step}")
  return manifest


def read_checked(folder: Path, step: int) -> Manifest:
  """The manifest of a checkpoint all of whose files are as it says.

  Raises:
    Damaged: names the first file that is missing, too much or different.
    OSError: something cannot be read.
  """
  found = hash_files(folder)
  manifest = read(folder, step)
  for name in sorted(set(found) | set(manifest.files)):
    if name not in found:
      raise Damaged(f"{name} is missing")
    if name not in manifest.files:
      raise Damaged(f"{name} does not belong to it")
    if found[name] != tuple(manifest.files[name]):
      raise Damaged(f"{name} differs from its digest")
  return manifest
