"""Every strategy of `nasjax search` on digits, and small searches that go on.

From each of their checkpoints, and after a signal.
"""

import csv
import functools
import json
import os
import shutil
import signal
import threading
from contextlib import contextmanager

import pytest

from nasjax import checkpoint, run_folder
from nasjax.cli.main import main

LIMIT = 80_000  # macs; about the median of the space
EPOCHS = 20
SHORT = (
  f"--space nasbench201 --channels 4 --cells 1 --limit macs={LIMIT}"
  f" --epochs {EPOCHS} --checkpoint-minutes 0.02"
).split()
# Options, and how many random networks a run is compared with.
CASES = {
  "differentiable": ([], 10),
  "enas": ([], 10),
  "hybrid": (["--population", "15", "--generations", "6"], 90),
  "nsga2": (["--population", "15", "--generations", "6"], 90),
  "random": (["--population", "15", "--generations", "6"], 10),
  "staged": (["--predictor-samples", "50", "--generations", "6"], 140),
}
# Epochs of three steps, and generations; each ends with a checkpoint.
TINY = (
  "--space nasbench201 --channels 2 --cells 1 --epochs 2 --batch-size 8"
  " --checkpoint-minutes 0 --limit"
).split()
BRED = "--epochs 1 --population 6 --generations 3".split()
ONE, TWO = "macs=50000", "macs=40000..60000"
SMALL = {
  "differentiable": ([ONE], 6),
  "front": ([TWO, "--front", "2"], 6),
  "enas": ([ONE, "--controller-samples", "2"], 6),
  "hybrid": ([ONE, *BRED, "--refine-every", "2"], 3 + 3),
  "nsga2": ([ONE, *BRED], 3 + 3),
  "random": ([ONE, *BRED], 3 + 3),
  "staged": ([ONE, *BRED, "--predictor-samples", "10"], 3 + 1 + 3),
}
FILES = (
  *(run_folder.METRICS, run_folder.GENOTYPE, run_folder.BASELINES),
  *(run_folder.EVALUATIONS, run_folder.FRONT, run_folder.HYPERVOLUME),
)


def result(folder):
  """The files of a run without wall-clock columns, and its last digest."""
  found = {}
  for name in FILES:
    path = folder / name
    if path.suffix == ".csv" and path.exists():
      with open(path, newline="") as file:
        found[name] = [
          {k: v for k, v in row.items() if not k.endswith("_seconds")}
          for row in csv.DictReader(file)
        ]
    elif path.exists():
      found[name] = path.read_text()
  steps = checkpoint.steps(folder / checkpoint.FOLDER)
  saved = checkpoint.verify(folder / checkpoint.FOLDER, steps[-1])
  return found, steps[-1], saved.manifest.digest


@contextmanager
def interrupted(folder, step):
  """Sends this process Ctrl-C once a checkpoint of `step` or later is there."""
  over = threading.Event()

  def watch():
    while not over.wait(0.05):
      if max(checkpoint.steps(folder / checkpoint.FOLDER), default=0) >= step:
        os.kill(os.getpid(), signal.SIGINT)
        return

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    yield
  finally:
    over.set()
    thread.join()


def cut(whole, out, step):
  """A copy of a run as it was when its checkpoint of `step` was the last."""
  shutil.copytree(whole, out)
  for path in FILES:
    if path != run_folder.METRICS:
      (out / path).unlink(missing_ok=True)
  for later in checkpoint.steps(out / checkpoint.FOLDER):
    if later > step:
      shutil.rmtree(out / checkpoint.FOLDER / str(later))
  return out


@pytest.mark.slow
@pytest.mark.parametrize("strategy", CASES)
def test_stopped_midway_on_digits_it_ends_with_the_same_bits(
  strategy, tmp_path, capsys
):
  options, rivals = CASES[strategy]
  words = ["search", "--strategy", strategy, *SHORT, *options, "--out"]
  whole = tmp_path / "whole"
  assert main([*words, str(whole)]) == 0
  files, last, digest = result(whole)
  oldest = checkpoint.steps(whole / checkpoint.FOLDER)[0]
  assert oldest < last
  again = cut(whole, tmp_path / "again", oldest)
  capsys.readouterr()
  assert main(["resume", str(again)]) == 0
  assert f"RESUMED {oldest}\n" in capsys.readouterr().out
  assert result(again) == (files, last, digest)
  genotype = json.loads(files[run_folder.GENOTYPE])
  assert genotype["metrics"]["macs"]["value"] <= LIMIT
  assert genotype["metrics"]["valid_accuracy"]["value"] > 0.3
  names = [row["network"] for row in files[run_folder.BASELINES]]
  assert names == ["decided", f"best of {rivals} random"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_goes_on_from_any_checkpoint_with_the_same_bits(
  name, npz, tmp_path, capsys, monkeypatch
):
  options, last = SMALL[name]
  strategy = "differentiable" if name == "front" else name
  whole = tmp_path / "whole"
  with monkeypatch.context() as patch:
    keep_all = functools.partial(checkpoint.save, keep=1000)
    patch.setattr(checkpoint, "save", keep_all)
    words = ["search", "--strategy", strategy, "--data", npz, *TINY, *options]
    assert main([*words, "--out", str(whole)]) == 0
  expected = result(whole)
  steps = checkpoint.steps(whole / checkpoint.FOLDER)
  assert steps == list(range(1, last + 1))
  for step in (0, *steps):
    again = cut(whole, tmp_path / str(step), step)
    capsys.readouterr()
    assert main(["resume", str(again)]) == 0
    assert f"RESUMED {step}\n" in capsys.readouterr().out
    assert result(again) == expected


@pytest.mark.slow
@pytest.mark.parametrize("strategy, step", [("enas", 2), ("nsga2", 3 + 1)])
def test_stopped_by_a_signal_it_ends_with_the_same_bits(
  strategy, step, npz, tmp_path, capsys
):
  options, last = SMALL[strategy]
  words = ["search", "--strategy", strategy, "--data", npz, *TINY, *options]
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  assert main([*words, "--out", str(whole)]) == 0
  with interrupted(stopped, step):
    assert main([*words, "--out", str(stopped)]) == 130
  assert not (stopped / run_folder.GENOTYPE).exists()
  saved = checkpoint.steps(stopped / checkpoint.FOLDER)[-1]
  assert step <= saved <= last
  capsys.readouterr()
  assert main(["resume", str(stopped)]) == 0
  assert f"RESUMED {saved}\n" in capsys.readouterr().out
  assert result(stopped) == result(whole)
