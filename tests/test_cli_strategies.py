"""Every strategy of `nasjax search` on digits, stopped midway and gone on."""

import csv
import json
import os
import signal
import threading
from contextlib import contextmanager

import pytest

from nasjax import checkpoint, run_folder
from nasjax.cli.main import main

LIMIT = 0.03  # ms
EPOCHS = 20
SHORT = (
  f"--limit latency_ms={LIMIT} --epochs {EPOCHS} --checkpoint-minutes 0.02"
).split()
# Options, and how many checkpoints before its last one a run is stopped.
CASES = {
  "differentiable": ([], EPOCHS * 5),
  "enas": ([], EPOCHS * 5),
  "hybrid": (["--population", "15", "--generations", "6"], 3),
  "nsga2": (["--population", "15", "--generations", "6"], 3),
  "random": (["--population", "15", "--generations", "6"], 3),
  "staged": (["--predictor-samples", "50", "--generations", "6"], 3),
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


@pytest.mark.slow
@pytest.mark.parametrize("strategy", CASES)
def test_stopped_midway_on_digits_it_ends_with_the_same_bits(
  strategy, tmp_path, capsys
):
  options, before = CASES[strategy]
  words = ["search", "--strategy", strategy, *SHORT, *options, "--out"]
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  assert main([*words, str(whole)]) == 0
  files, last, digest = result(whole)
  with interrupted(cut, last - before):
    assert main([*words, str(cut)]) == 130
  assert not (cut / run_folder.GENOTYPE).exists()
  stopped = checkpoint.steps(cut / checkpoint.FOLDER)[-1]
  assert last - before <= stopped < last
  capsys.readouterr()
  assert main(["resume", str(cut)]) == 0
  assert f"RESUMED {stopped}\n" in capsys.readouterr().out
  assert result(cut) == (files, last, digest)
  genotype = json.loads(files[run_folder.GENOTYPE])
  assert genotype["metrics"]["latency_ms"]["value"] <= LIMIT
  assert genotype["metrics"]["valid_accuracy"]["value"] > 0.5
  names = [row["network"] for row in files[run_folder.BASELINES]]
  assert names == ["decided", "best of 10 random", "MobileNetV2-like"]
