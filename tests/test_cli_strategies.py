"""Every strategy of `nasjax search` on digits, stopped midway and gone on.

And small searches that go on from each of their checkpoints.
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
# Options, how many checkpoints before its last one a run is stopped, and how
# many random networks it is compared with.
CASES = {
  "differentiable": ([], EPOCHS * 5, 10),
  "enas": ([], EPOCHS * 5, 10),
  "hybrid": (["--population", "15", "--generations", "6"], 3, 90),
  "nsga2": (["--population", "15", "--generations", "6"], 3, 90),
  "random": (["--population", "15", "--generations", "6"], 3, 10),
  "staged": (["--predictor-samples", "50", "--generations", "6"], 3, 140),
}
# Two epochs of three steps, and generations; each ends with a checkpoint.
TINY = (
  "--space nasbench201 --channels 2 --cells 1 --epochs 2 --batch-size 8"
  " --checkpoint-minutes 0 --limit"
).split()
BRED = "--population 6 --generations 3".split()
ONE, TWO = "macs=50000", "macs=40000..60000"
SMALL = {
  "differentiable": ([ONE], 6),
  "front": ([TWO, "--front", "2"], 6),
  "enas": ([ONE, "--controller-samples", "2"], 6),
  "hybrid": ([ONE, *BRED, "--refine-every", "2"], 6 + 3),
  "nsga2": ([ONE, *BRED], 6 + 3),
  "random": ([ONE, *BRED], 6 + 3),
  "staged": ([ONE, *BRED, "--predictor-samples", "10"], 6 + 1 + 3),
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
  options, before, rivals = CASES[strategy]
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
    cut = tmp_path / str(step)
    shutil.copytree(whole, cut)
    for path in FILES:
      if path != run_folder.METRICS:
        (cut / path).unlink(missing_ok=True)
    for later in steps[step:]:
      shutil.rmtree(cut / checkpoint.FOLDER / str(later))
    capsys.readouterr()
    assert main(["resume", str(cut)]) == 0
    assert f"RESUMED {step}\n" in capsys.readouterr().out
    assert result(cut) == expected
