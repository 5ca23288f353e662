"""Checkpoints: exact, whole or nothing, and damage never goes unseen."""

import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import checkpoint, manifests
from nasjax.errors import InputError


def tree(seed=0):
  rng = np.random.default_rng(seed)
  return {
    "weights": jnp.asarray(rng.normal(size=(7, 5)), jnp.float32),
    "half": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
    "key": jax.random.key(seed),
    "keys": jax.random.split(jax.random.key(seed, impl="rbg"), 2),
    "none": None,
    "empty": jnp.zeros((0, 3)),
    "scalar": jnp.int32(seed),
    "flags": jnp.array([True, False]),
    "wide": np.arange(3, dtype=np.int64),
  }


def same(a, b):
  return manifests.flatten(a)[0] == manifests.flatten(b)[0]


@pytest.fixture
def folder(tmp_path):
  for step in (1, 2, 3):
    checkpoint.save(tmp_path / "c", step, tree(step), {"a": 1})
  return tmp_path / "c"


def test_any_pytree_comes_back_exactly(tmp_path):
  digest = checkpoint.save(tmp_path / "c", 4, tree(4), {"a": [1, "é"]})
  saved = checkpoint.newest(tmp_path / "c", pytest.fail)
  assert saved.step == 4 and saved.manifest.digest == digest
  assert saved.manifest.fingerprint == {"a": [1, "é"]}
  found = checkpoint.fit(saved, jax.eval_shape(lambda: tree(4)) | _wide(), "c")
  assert same(found, tree(4))
  assert isinstance(found["wide"], np.ndarray)
  assert found["keys"].dtype == tree(4)["keys"].dtype


def _wide():
  return {"wide": np.zeros(3, np.int64)}


def test_three_are_kept_and_leftovers_go(folder):
  checkpoint.save(folder, 10, tree(), {})
  assert checkpoint.steps(folder) == [2, 3, 10]
  (folder / ".tmp-11-1" / "state").mkdir(parents=True)
  (folder / ".deleting-1-1").mkdir()
  checkpoint.clean(folder)
  assert sorted(os.listdir(folder)) == ["10", "2", "3"]


def test_a_step_saved_again_is_replaced(folder):
  digest = checkpoint.save(folder, 3, tree(9), {})
  assert checkpoint.verify(folder, 3).manifest.digest == digest


def test_leaves_without_numbers_are_refused(tmp_path):
  with pytest.raises(ValueError, match="no numbers"):
    checkpoint.save(tmp_path, 1, {"a": "text"}, {})


@pytest.mark.parametrize(
  "change, said",
  [
    ({"weights": jnp.zeros((5, 7))}, "float32[7, 5]"),
    ({"weights": jnp.zeros((7, 5), jnp.bfloat16)}, "carries bfloat16"),
    ({"scalar": jnp.float32(0)}, "int32[]"),
    ({"key": jax.random.key(0, impl="rbg")}, "key<fry>"),
    ({"more": jnp.zeros(1)}, "has no ['more']"),
    ({"flags": None}, "does not carry"),
  ],
)
def test_shape_and_dtype_are_strict(folder, change, said):
  saved = checkpoint.newest(folder, pytest.fail)
  with pytest.raises(InputError) as caught:
    checkpoint.fit(saved, tree(3) | change, "c")
  assert said in str(caught.value)


def largest(path):
  files = [p for p in path.rglob("*") if p.is_file()]
  return max(files, key=lambda p: p.stat().st_size)


def chunk(path):
  """A file that holds numbers."""
  return largest(path / "state")


def flip(path):
  for name in (manifests.NAME, chunk(path).relative_to(path)):
    data = bytearray((path / name).read_bytes())
    data[len(data) // 2] ^= 4
    (path / name).write_bytes(data)


def _rewrite(path, change):
  file = chunk(path)
  file.write_bytes(change(file.read_bytes()))


DAMAGE = {
  "one bit": lambda p: _rewrite(
    p, lambda b: b[:9] + bytes([b[9] ^ 1]) + b[10:]
  ),
  "both": flip,
  "truncated": lambda p: _rewrite(p, lambda b: b[:-1]),
  "zeroed": lambda p: _rewrite(p, lambda b: bytes(len(b))),
  "garbage": lambda p: (p / manifests.NAME).write_bytes(b"\xff{}"),
  "other manifest": lambda p: shutil.copy(
    p.parent / "2" / manifests.NAME, p / manifests.NAME
  ),
  "no manifest": lambda p: (p / manifests.NAME).unlink(),
  "missing file": lambda p: chunk(p).unlink(),
  "file too many": lambda p: (p / "more").write_text("x"),
  "link": lambda p: (p / "more").symlink_to("/etc/passwd"),
  "pipe": lambda p: os.mkfifo(p / "more"),
  "no files": lambda p: (shutil.rmtree(p), p.mkdir()),
  "is a file": lambda p: (shutil.rmtree(p), p.write_text("x")),
  "is a link": lambda p: (
    shutil.rmtree(p),
    p.symlink_to(p.parent / "2", target_is_directory=True),
  ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_step_is_named_and_moved_and_the_one_before_used(
  folder, kind
):
  DAMAGE[kind](folder / "3")
  said = []
  saved = checkpoint.newest(folder, said.append)
  assert saved.step == 2
  assert same(checkpoint.fit(saved, tree(2), "c"), tree(2))
  assert len(said) == 1 and said[0].startswith("checkpoint 3 is damaged: ")
  assert "\n" not in said[0]
  assert os.path.lexists(folder / checkpoint.QUARANTINE / "3")
  checkpoint.save(folder, 3, tree(3), {})
  assert checkpoint.newest(folder, pytest.fail).step == 3


def test_a_chunk_behind_a_link_is_not_followed(folder, tmp_path):
  file = chunk(folder / "3")
  shutil.move(file, tmp_path / "elsewhere")
  file.symlink_to(tmp_path / "elsewhere")
  with pytest.raises(manifests.Damaged, match="link"):
    checkpoint.verify(folder, 3)


def test_nothing_sound_is_none(folder):
  for step in (1, 2, 3):
    (folder / str(step) / manifests.NAME).unlink()
  said = []
  assert checkpoint.newest(folder, said.append) is None
  assert len(said) == 3
  assert checkpoint.newest(folder / "absent", pytest.fail) is None


def test_a_save_that_fails_leaves_the_others(folder):
  # A file stands where the temporary folder must go.
  blocked = folder / f".tmp-4-{os.getpid()}"
  blocked.write_text("")
  with pytest.raises(checkpoint.StorageError, match="checkpoint 4 was not"):
    checkpoint.save(folder, 4, tree(4), {})
  assert checkpoint.newest(folder, pytest.fail).step == 3


FULL = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from nasjax import checkpoint

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
weights = np.random.default_rng(0).normal(size=9999)
try:
  checkpoint.save(Path(sys.argv[1]), 1, {"weights": weights}, {})
except checkpoint.StorageError as error:
  print(f"stored nothing: {error}")
"""


def test_a_full_disk_is_one_exception_and_no_log(tmp_path):
  """A limit of a file's size stands for the disk; Orbax logs of nothing."""
  done = subprocess.run(
    [sys.executable, "-c", FULL, str(tmp_path / "c")],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.startswith("stored nothing: ")
  assert "File too large" in done.stdout
  assert done.stderr == ""
  assert not checkpoint.steps(tmp_path / "c")
