"""Damaged checkpoint files: found out, put aside, the step before used."""

import random
import shutil
import tempfile
from pathlib import Path

import jax
import numpy as np
from fault_runs.common import Table

from nasjax import checkpoint, manifests


def _tree(step):
  rng = np.random.default_rng(step)
  return {
    "weights": rng.normal(size=(40, 30)).astype(np.float32),
    "key": jax.random.key(step),
    "step": np.array(step, np.int32),
  }


def _bit(path, rng):
  data = bytearray(path.read_bytes())
  place = rng.randrange(8 * len(data))
  data[place // 8] ^= 1 << place % 8
  path.write_bytes(data)


def _garbage(path, rng):
  path.write_bytes(rng.randbytes(max(1, path.stat().st_size)))


KINDS = {
  "truncated": lambda p, rng: p.write_bytes(p.read_bytes()[:-1]),
  "empty": lambda p, rng: p.write_bytes(b""),
  "missing": lambda p, rng: p.unlink(),
  "zeroed": lambda p, rng: p.write_bytes(bytes(p.stat().st_size)),
  "garbage": _garbage,
}


def _try(kind, damage, source, rng):
  """One damaged file of step 3; what went wrong, or nothing."""
  with tempfile.TemporaryDirectory(prefix="nasjax-damage-") as held:
    folder = Path(held) / checkpoint.FOLDER
    shutil.copytree(source, folder)
    files = [p for p in sorted((folder / "3").rglob("*")) if p.is_file()]
    if kind != "missing":  # an empty file has no bit, and nothing to lose
      files = [p for p in files if p.stat().st_size]
    path = rng.choice(files)
    before = path.read_bytes()
    damage(path, rng)
    if path.exists() and path.read_bytes() == before:
      return ""
    said = []
    saved = checkpoint.newest(folder, said.append)
    where = path.relative_to(folder)
    if saved is None or saved.step != 2:
      return f"{where}: step {saved and saved.step} was used"
    found = checkpoint.fit(saved, _tree(2), "checkpoint")
    if manifests.flatten(found)[0] != manifests.flatten(_tree(2))[0]:
      return f"{where}: silently wrong"
    if len(said) != 1 or "\n" in said[0]:
      return f"{where}: said {said}"
    checkpoint.save(folder, 3, _tree(3), {})
    again = checkpoint.newest(folder, said.append)
    if again is None or again.step != 3 or len(said) != 1:
      return f"{where}: a later save does not work"
  return ""


def run(tries):
  """Damages `tries` bits and every file in other ways; counts failures."""
  table, rng = Table("damage"), random.Random(0)
  with tempfile.TemporaryDirectory(prefix="nasjax-damage-") as held:
    source = Path(held) / checkpoint.FOLDER
    for step in (1, 2, 3):
      checkpoint.save(source, step, _tree(step), {"fixed": {}, "machine": {}})
    for _ in range(tries):
      table.add("one bit", _try("one bit", _bit, source, rng))
    for kind, damage in KINDS.items():
      for _ in range(20):
        table.add(kind, _try(kind, damage, source, rng))
  return table.done()
