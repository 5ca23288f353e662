"""Strategies of `nasjax search` that evaluate: files, resuming, refusals."""

import csv
import json
import shutil

import numpy as np
import pytest
import toy_space

from nasjax import checkpoint, hardware, pareto, run_folder
from nasjax.cli.main import main

LIMIT = 15_000  # macs: about half of the space is within it
TINY = (
  f"--space {toy_space.CELL} --epochs 2 --batch-size 8"
  f" --checkpoint-minutes 0 --limit macs={LIMIT}"
).split()
SMALL = ["--population", "6", "--generations", "4"]


def rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
  out = tmp_path_factory.mktemp("run") / "a"
  words = ["search", "--strategy", "nsga2", "--data", npz, *TINY, *SMALL]
  assert main([*words, "--out", str(out)]) == 0
  return out


def test_files_say_what_was_evaluated_and_what_is_best(finished):
  found = rows(finished / run_folder.EVALUATIONS)
  assert len({r["architecture"] for r in found}) == len(found) == 24
  genotype = json.loads((finished / run_folder.GENOTYPE).read_text())
  decided = "|".join(genotype["choices"]["cell"])
  kept = [r for r in found if float(r["violation"]) <= 0]
  for row in found:
    over = max(0.0, float(row["macs"]) / LIMIT - 1)
    # Whether a way leads from the input to the output.
    on = [n != "none" for n in row["architecture"].split("|")]
    leads = on[1] or (on[0] and on[2])
    over += 0.0 if leads else 1.0
    assert float(row["violation"]) == pytest.approx(over, abs=1e-6)
  best = max(kept, key=lambda r: float(r["valid_accuracy"]))
  own = next(r for r in found if r["architecture"] == decided)
  assert own["valid_accuracy"] == best["valid_accuracy"]
  assert genotype["metrics"]["macs"]["value"] <= LIMIT
  points = np.array(
    [[1 - float(r["valid_accuracy"]), float(r["macs"])] for r in kept]
  )
  want = {kept[i]["architecture"] for i in pareto.front(points)}
  front = rows(finished / run_folder.FRONT)
  assert {r["architecture"] for r in front} == want
  volumes = rows(finished / run_folder.HYPERVOLUME)
  assert [int(r["evaluations"]) for r in volumes] == [6, 12, 18, 24]
  for name in ("hypervolume", "random_hypervolume"):
    series = [float(r[name]) for r in volumes]
    assert series == sorted(series) and series[-1] > 0


@pytest.mark.slow
def test_whole_networks_are_quantised(finished, npz, tmp_path):
  """`quantization_error` is that of each network, not a sum over choices."""
  out = tmp_path / "b"
  words = ["search", "--strategy", "nsga2", "--from", str(finished)]
  words += ["--data", npz, *SMALL, "--epochs", "1", "--batch-size", "8"]
  words += ["--objective", "cross_entropy", "quantization_error"]
  words += ["--quantize-scale", "tensor", "--out", str(out)]
  assert main(words) == 0
  found = rows(out / run_folder.EVALUATIONS)
  errors = np.array([float(r["quantization_error"]) for r in found])
  assert len(errors) == 24 and len(np.unique(errors)) > 12
  assert np.all((errors >= 0) & (errors < 0.5))
  genotype = json.loads((out / run_folder.GENOTYPE).read_text())
  assert "8-bit networks" in genotype["metrics"]["quantization_error"]["source"]
  front = rows(out / run_folder.FRONT)
  kept = np.array([float(r["violation"]) <= 0 for r in found])
  least = min(float(r["quantization_error"]) for r in front)
  assert least == errors[kept].min()


NAMES = (
  run_folder.EVALUATIONS,
  run_folder.FRONT,
  run_folder.HYPERVOLUME,
  run_folder.BASELINES,
  run_folder.GENOTYPE,
)


def goes_on(finished, tmp_path):
  """Three checkpoints are kept: the last three generations."""
  steps = checkpoint.steps(finished / checkpoint.FOLDER)
  digest = checkpoint.verify(finished / checkpoint.FOLDER, steps[-1]).manifest
  for keep in (1, 2):
    out = tmp_path / str(keep)
    shutil.copytree(finished, out)
    for name in NAMES:
      (out / name).unlink()
    for step in steps[keep:]:
      shutil.rmtree(out / checkpoint.FOLDER / str(step))
    assert main(["resume", str(out)]) == 0
    for name in NAMES:
      assert (out / name).read_bytes() == (finished / name).read_bytes()
    again = checkpoint.verify(out / checkpoint.FOLDER, steps[-1]).manifest
    assert again.digest == digest.digest


@pytest.mark.slow
def test_it_goes_on_from_every_generation_to_the_same_bits(finished, tmp_path):
  goes_on(finished, tmp_path)


@pytest.mark.slow
def test_what_was_decided_is_retrained(finished, tmp_path, capsys):
  out = tmp_path / "again"
  words = ["retrain", str(finished), "--epochs", "3", "--batch-size", "16"]
  words += ["--drop-path", "0.1", "--augment", "cutout", "--inherit"]
  assert main([*words, "--out", str(out)]) == 0
  found = json.loads((out / run_folder.RETRAINED).read_text())
  assert 0 <= found["test_accuracy"] <= 1
  whole = (out / run_folder.METRICS).read_bytes()
  assert whole.count(b"\n") == 4
  # As if it had been stopped after its second epoch.
  (out / run_folder.RETRAINED).unlink()
  shutil.rmtree(out / checkpoint.FOLDER / "3")
  capsys.readouterr()
  assert main([*words, "--out", str(out)]) == 0
  assert "RESUMED 2" in capsys.readouterr().out
  assert (out / run_folder.METRICS).read_bytes() == whole
  assert json.loads((out / run_folder.RETRAINED).read_text()) == found
  assert main([*words, "--seed", "1", "--out", str(out)]) == 2
  error = capsys.readouterr().err
  assert "another option seed" in error and error.count("\n") == 1
  assert main(["retrain", str(tmp_path)]) == 2
  assert "no genotype.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("through", ["predictor", "supernet"])
def test_hybrid_starts_where_gradients_lead_and_goes_on(
  through, npz, tmp_path, capsys
):
  out = tmp_path / "a"
  words = ["search", "--strategy", "hybrid", "--data", npz, *TINY, *SMALL]
  words += ["--refine-through", through]
  words += ["--warmup", "0", "--arch-learning-rate", "1.0"]
  assert main([*words, "--out", str(out)]) == 0
  found = rows(out / run_folder.EVALUATIONS)
  assert len({r["architecture"] for r in found}) == len(found) == 24
  state = checkpoint.verify(
    out / checkpoint.FOLDER, checkpoint.steps(out / checkpoint.FOLDER)[-1]
  )
  logits = dict(
    zip((x.path for x in state.manifest.leaves), state.arrays, strict=True)
  )
  (name,) = [n for n in logits if "logits" in n]
  space = toy_space.cell((8, 8, 3), 3)
  weights = {"cell": np.exp(logits[name])}
  best = space.decide(weights, [(hardware.macs(space), LIMIT)])
  # The most probable architecture within the limit is the first point.
  assert found[0]["architecture"] == "|".join(best.names()["cell"])
  said = capsys.readouterr().out
  assert "hybrid after gdas" in said and "evaluated anew" in said
  goes_on(out, tmp_path)


def test_random_search_has_no_rival(npz, tmp_path):
  out = tmp_path / "a"
  words = ["search", "--strategy", "random", "--data", npz, *TINY, *SMALL]
  assert main([*words, "--out", str(out)]) == 0
  assert len(rows(out / run_folder.EVALUATIONS)) == 24
  assert "random_hypervolume" not in rows(out / run_folder.HYPERVOLUME)[0]


@pytest.mark.slow
def test_a_search_retrains_what_it_decided_when_told(npz, tmp_path, capsys):
  out = tmp_path / "a"
  words = ["search", "--data", npz, *TINY, "--retrain", "2"]
  assert main([*words, "--out", str(out)]) == 0
  again = out / run_folder.AGAIN
  found = (again / run_folder.RETRAINED).read_text()
  assert 0 <= json.loads(found)["test_accuracy"] <= 1
  assert len(rows(again / run_folder.METRICS)) == 2
  # As if it had been stopped while it was retrained.
  (again / run_folder.RETRAINED).unlink()
  shutil.rmtree(again / checkpoint.FOLDER / "2")
  capsys.readouterr()
  for said in ("RESUMED 1\n", ""):
    assert main(["resume", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "is finished" in shown and said in shown
    assert ("epoch 2/2" in shown) == bool(said)
    assert (again / run_folder.RETRAINED).read_text() == found
  # Another search in the folder forgets it.
  assert main([*words[:-2], "--force", "--out", str(out)]) == 0
  assert not (again / run_folder.RETRAINED).exists()
  assert not checkpoint.steps(again / checkpoint.FOLDER)


@pytest.fixture(scope="module")
def staged(npz, tmp_path_factory):
  """A run whose macs are measured: 100 times the bytes of the names."""
  out = tmp_path_factory.mktemp("staged") / "a"
  part = out.parent / "meter.py"
  part.write_text(METER)
  words = ["search", "--strategy", "staged", "--data", npz, *TINY, *STAGED]
  words += ["--measured", f"{part}:names", "--limit", "params=300"]
  assert main([*words, "--out", str(out)]) == 0
  return out


METER = """
def names(architecture):
  return {"macs": 100.0 * len("".join(architecture.names()["cell"]))}

def other(architecture):
  return {"colour": 1}
"""
STAGED = "--population 5 --generations 3 --predictor-samples 20".split()


def test_stages_evaluate_what_predictors_choose(staged):
  found = rows(staged / run_folder.EVALUATIONS)
  assert len({r["architecture"] for r in found}) == len(found) == 35
  taken = [int(r["generation"]) for r in found]
  assert taken == [0] * 20 + [1] * 5 + [2] * 5 + [3] * 5
  volumes = rows(staged / run_folder.HYPERVOLUME)
  assert [int(r["evaluations"]) for r in volumes] == [20, 25, 30, 35]
  # A device's time is not spent on random rivals.
  assert "random_hypervolume" not in volumes[0]
  for row in found:
    length = len(row["architecture"].replace("|", ""))
    if float(row["violation"]) < 1.0:
      assert float(row["measured_macs"]) == 100.0 * length
  # Limits that are known exactly are kept by every point that was chosen.
  chosen = found[20:]
  assert all(float(r["params"]) <= 300 for r in chosen)
  assert not all(float(r["params"]) <= 300 for r in found[:20])


@pytest.mark.slow
def test_stages_go_on_to_the_same_bits(staged, tmp_path):
  goes_on(staged, tmp_path)


@pytest.mark.parametrize(
  "words, said",
  [
    ("--strategy nsga2 --penalty equality", "--penalty: is no option"),
    ("--strategy nsga2 --relaxation gdas", "--relaxation: is no option"),
    ("--strategy nsga2 --front 3", "--front: is no option"),
    ("--population 10", "--population: is no option of --strategy diff"),
    ("--strategy nsga3", "did you mean nsga2"),
    ("--strategy nsga2 --objective cross_entropy params=2", "coefficients"),
    ("--strategy nsga2 --objective colour", "no metric"),
    ("--strategy nsga2 --population 3", "--population"),
    ("--strategy hybrid --front 3", "--front: is no option"),
    ("--strategy staged --refine-every 3", "--refine-every: is no option"),
    ("--strategy nsga2 --predictor-samples 50", "is no option of"),
    ("--measured onnxruntime", "--measured: is no option of --strategy diff"),
    ("--strategy random --measured METER:other", "neither minimised nor"),
    ("--strategy staged --measured METER:missing", "has no 'missing'"),
  ],
)
def test_mistakes_are_one_line(words, said, npz, tmp_path, capsys):
  out, part = tmp_path / "a", tmp_path / "meter.py"
  part.write_text(METER)
  words = words.replace("METER", str(part)).split()
  given = ["search", "--data", npz, *TINY, *words, "--out", str(out)]
  assert main(given) == 2
  error = capsys.readouterr().err
  assert said in error and error.count("\n") == 1
  assert not out.exists()
