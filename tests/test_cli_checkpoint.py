"""`nasjax resume`, `nasjax checkpoint`, locks and signals."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import toy_space

from nasjax import checkpoint, errors, lock, manifests, run_folder, signals
from nasjax.cli.main import main

TINY = (
  f"--space {toy_space.NAME} --relaxation softmax"
  " --hypergradient single_level --warmup 0 --epochs 3 --batch-size 8"
  " --checkpoint-minutes 0"
).split()


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp("data") / "images.npz"
  np.savez(
    path,
    x_train=rng.integers(256, size=(48, 8, 8, 1), dtype=np.uint8),
    y_train=np.arange(48) % 3,
    x_test=rng.integers(256, size=(6, 8, 8, 1), dtype=np.uint8),
    y_test=np.arange(6) % 3,
  )
  return path


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
  out = tmp_path_factory.mktemp("run") / "a"
  assert main(["search", "--data", str(npz), *TINY, "--out", str(out)]) == 0
  return out


@pytest.fixture
def cut(finished, tmp_path):
  """The finished run as if it had been killed in its last epoch."""
  out = tmp_path / "cut"
  shutil.copytree(finished, out)
  (out / run_folder.GENOTYPE).unlink()
  last = checkpoint.steps(out / checkpoint.FOLDER)[-1]
  shutil.rmtree(out / checkpoint.FOLDER / str(last))
  with open(out / run_folder.METRICS, "a") as file:
    file.write("4,0.1,0.")  # a torn row
  (out / ".metrics.csv.1.tmp").write_text("")
  (out / checkpoint.FOLDER / ".tmp-9-1").mkdir()
  return out


def result(folder):
  with open(folder / run_folder.METRICS, newline="") as file:
    rows = [
      {k: v for k, v in r.items() if not k.endswith("_seconds")}
      for r in csv.DictReader(file)
    ]
  step = checkpoint.steps(folder / checkpoint.FOLDER)[-1]
  saved = checkpoint.verify(folder / checkpoint.FOLDER, step)
  genotype = (folder / run_folder.GENOTYPE).read_text()
  return rows, step, saved.manifest.digest, genotype


def test_resuming_gives_the_same_bits(finished, cut, capsys):
  assert main(["resume", str(cut)]) == 0
  out = capsys.readouterr().out
  assert "RESUMED 8\n" in out and "CHECKPOINT 9\n" in out
  assert out.endswith("DONE\n")
  assert result(cut) == result(finished)
  assert not list(cut.glob(".*.tmp"))
  assert not list((cut / checkpoint.FOLDER).glob(".tmp*"))
  assert main(["resume", str(cut)]) == 0
  assert "is finished" in capsys.readouterr().out


def test_a_damaged_checkpoint_costs_a_line(finished, cut, capsys):
  path = cut / checkpoint.FOLDER / "8" / manifests.NAME
  path.write_bytes(path.read_bytes()[:-9])
  assert main(["checkpoint", "verify", str(cut)]) == errors.STORAGE
  assert "damaged 8 manifest.json" in capsys.readouterr().out
  assert main(["resume", str(cut)]) == 0
  error = capsys.readouterr().err
  assert "checkpoint 8 is damaged" in error and "Traceback" not in error
  assert result(cut) == result(finished)


def test_list_and_verify_print_step_and_digest(finished, capsys):
  for look in ("list", "verify"):
    assert main(["checkpoint", look, str(finished)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
      ["ok", "7"],
      ["ok", "8"],
      ["ok", "9"],
    ]
    assert lines[-1].split()[2] == result(finished)[2]


def test_a_changed_configuration_is_refused_by_name(cut, capsys):
  path = cut / run_folder.CONFIG
  path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
  assert main(["resume", str(cut)]) == errors.BAD_INPUT
  error = capsys.readouterr().err
  assert "configuration seed" in error and "--allow-changed" in error
  assert "data" in error  # another seed splits it elsewhere
  assert "configuration epochs" not in error


@pytest.mark.slow
def test_a_changed_configuration_is_taken_when_asked(cut, capsys):
  path = cut / run_folder.CONFIG
  path.write_text(
    path.read_text().replace("learning_rate: 0.05", "learning_rate: 0.01", 1)
  )
  assert main(["resume", str(cut)]) == errors.BAD_INPUT
  error = capsys.readouterr().err
  assert "configuration learning_rate" in error and error.count("\n") == 1
  assert main(["resume", str(cut), "--allow-changed"]) == 0
  assert (cut / run_folder.GENOTYPE).exists()


def test_numbers_that_are_not_finite_end_the_search(npz, tmp_path, capsys):
  """Exit 3, with the step and the task named; what was sound is kept."""
  out = tmp_path / "diverged"
  words = [*TINY, "--learning-rate", "1e6", "--arch-learning-rate", "1e6"]
  code = main(["search", "--data", str(npz), *words, "--out", str(out)])
  error = capsys.readouterr().err
  assert code == errors.NUMBERS, error
  assert "step" in error and error.count("\n") == 1
  assert not (out / run_folder.GENOTYPE).exists()
  for step in checkpoint.steps(out / checkpoint.FOLDER):
    saved = checkpoint.verify(out / checkpoint.FOLDER, step)
    leaves = zip(saved.manifest.leaves, saved.arrays, strict=True)
    # The epoch's log, `.infos`, holds what the steps left out reported.
    state = [a for leaf, a in leaves if leaf.path.startswith(".progress.state")]
    assert len(state) > 20
    assert all(np.isfinite(a).all() for a in state if a.dtype.kind == "f")


def test_a_live_lock_is_refused_and_a_dead_ones_is_taken(cut, capsys):
  with lock.hold(cut):
    assert main(["resume", str(cut)]) == errors.IN_USE
    assert f"process {os.getpid()}" in capsys.readouterr().err
    assert (cut / run_folder.CONFIG).exists()
  (cut / lock.NAME).write_text("process 1 on elsewhere\n")
  with lock.hold(cut):
    pass


def test_what_is_no_run_is_refused(tmp_path, capsys):
  assert main(["resume", str(tmp_path)]) == errors.BAD_INPUT
  assert "no config.yaml" in capsys.readouterr().err
  assert main(["checkpoint", "verify", str(tmp_path / "no")]) == 2


def test_a_signal_after_the_work_is_ignored():
  before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
  try:
    signals.Ending()
    with pytest.raises(KeyboardInterrupt):
      signal.raise_signal(signal.SIGINT)
    with signals.caught():
      pass
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_flag_and_handlers_come_back(number):
  before = signal.getsignal(number)
  with pytest.raises(signals.Stopped) as stopped, signals.caught() as stop:
    stop.check()
    signal.raise_signal(number)
    for _ in range(1000):  # the watching thread reads it
      if stop.signal is not None:
        break
      time.sleep(0.01)
    stop.check()
  assert stopped.value.code == 128 + number
  assert signal.getsignal(number) is before


TWICE = """
import signal, time
from nasjax import signals
with signals.caught() as stop:
  signal.raise_signal(signal.SIGTERM)
  while stop.signal is None:
    time.sleep(0.01)
  signal.raise_signal(signal.SIGTERM)
  time.sleep(60)
"""


AFTER = """
import signal, sys
from nasjax.cli import main
sys.argv = ["nasjax", "hw", "list"]
assert main.program() == 0
for number in (signal.SIGTERM, signal.SIGINT):
  signal.raise_signal(number)
print("quiet")
"""


def test_nothing_interrupts_a_process_whose_work_is_done():
  done = subprocess.run(
    [sys.executable, "-c", AFTER], capture_output=True, text=True, check=True
  )
  assert done.stdout.endswith("quiet\n") and not done.stderr


def test_a_second_signal_ends_at_once():
  done = subprocess.run([sys.executable, "-c", TWICE], check=False)
  assert done.returncode == 143


def test_metrics_that_are_missing_are_a_storage_error(cut, capsys):
  (cut / run_folder.METRICS).write_text("epoch\n1\n")
  assert main(["resume", str(cut)]) == errors.STORAGE
  assert "metrics.csv" in capsys.readouterr().err


def test_the_genotype_is_json(finished):
  assert json.loads((finished / run_folder.GENOTYPE).read_text())["seed"] == 0
