"""The compilation cache of the command line."""

import os
import subprocess
import sys

DOCTOR = [sys.executable, "-m", "nasjax", "doctor"]


def doctor(home, *flags, **variables):
  """`nasjax doctor` as a new user; the widest table is not broken."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
  environment = kept | {"XDG_CACHE_HOME": str(home), "COLUMNS": "300"}
  return subprocess.run(
    [*DOCTOR, *flags],
    env=environment | variables,
    capture_output=True,
    text=True,
    check=True,
  )


def test_cache_lies_in_the_users_folder_and_can_be_turned_off(tmp_path):
  assert f"{tmp_path}/nasjax/compilations" in doctor(tmp_path).stdout
  off = doctor(tmp_path / "other", "--no-compilation-cache")
  assert "nasjax/compilations" not in off.stdout
  assert not (tmp_path / "other").exists()


def test_a_folder_given_to_jax_is_kept(tmp_path):
  own = str(tmp_path / "own")
  done = doctor(tmp_path / "other", JAX_COMPILATION_CACHE_DIR=own)
  assert own in done.stdout and not (tmp_path / "other").exists()


def test_an_unusable_folder_costs_a_line_not_the_run(tmp_path):
  (tmp_path / "file").write_text("")
  done = doctor(tmp_path / "file")
  assert "no compilation cache" in done.stderr
  assert "Traceback" not in done.stderr
