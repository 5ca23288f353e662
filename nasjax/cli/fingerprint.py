"""What a run depends on: what must not change, and what may change its bits."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from nasjax import data, run_folder
from nasjax.hardware import measured
from nasjax.reader import read_bytes

# Where a run and its data lie, how often it is saved, how much it may read and
# what comes after it change no result; the data has a digest.
_FREE = (
  *("out", "checkpoint_minutes", "max_dataset_bytes", "retrain", "data"),
  *("data_digest", "classes"),
)


def sha256(*parts: Any) -> str:
  """The digest of bytes, and of arrays with their type and shape."""
  digest = hashlib.sha256()
  for part in parts:
    if isinstance(part, np.ndarray):
      digest.update(f"{part.dtype}{part.shape}".encode())
      digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8))
    else:
      digest.update(part)
  return digest.hexdigest()


def of_data(dataset: data.Dataset) -> str:
  """The digest of all images and labels of a data set, in their order."""
  sets = (dataset.train, dataset.valid, dataset.test)
  return sha256(*(array for s in sets if s is not None for array in s))


def _json(value: Any) -> bytes:
  return json.dumps(value, sort_keys=True, default=list).encode()


def of(problem: Any) -> dict[str, Any]:
  """The fingerprint of a prepared search.

  Args:
    problem: a `search.Problem`.

  Returns:
    JSON values: `fixed`, by name what must be the same to go on, and
    `machine`, what may only change the last bits.
  """
  config, space = problem.config, problem.space
  fixed = {
    f"configuration {name}": list(v) if isinstance(v, tuple) else v
    for name, v in dataclasses.asdict(config).items()
    if name not in _FREE
  }
  fixed["space"] = sha256(
    _json(
      [
        space.name,
        dict(space.arguments),
        {n: list(g.candidates) for n, g in space.groups.items()},
      ]
    ),
    *(np.asarray(space.masks[n]) for n in sorted(space.masks)),
  )
  for name, costs in problem.costs.items():
    joint = [t.values for t in getattr(costs, "products", ())]
    arrays = [np.asarray(v) for v in jax.tree.leaves((*costs[:2], joint))]
    fixed[f"table {name}"] = sha256(*arrays)
  sets = (problem.train, problem.valid)
  fixed["data"] = sha256(*(array for images in sets for array in images))
  for part in (config.relaxation or "", config.space, config.measured or ""):
    if ":" in part and measured.PLACE not in part:
      path = part.rpartition(":")[0]
      fixed[f"part {path}"] = sha256(read_bytes(path))
  environment = run_folder.environment()
  device = jax.devices()[0]
  machine = {
    "python": environment["python"],
    **environment["versions"],
    "device": f"{device.platform} {device.device_kind}",
    # One core and two differ in bits.
    "cores": len(os.sched_getaffinity(0)),
  }
  return {"fixed": fixed, "machine": machine}


def changed(
  old: Mapping[str, Any], new: Mapping[str, Any], kind: str
) -> list[str]:
  """The names of a kind, `fixed` or `machine`, whose values differ."""
  before, now = old.get(kind, {}), new[kind]
  return [n for n in sorted({*before, *now}) if before.get(n) != now.get(n)]
