"""A run and its data: from other folders, moved, changed, of an older order."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import toy_space
import yaml

from nasjax import training
from nasjax.cli.config import SearchConfig
from nasjax.cli.main import main
from nasjax.cli.retrain_config import RetrainConfig

WORDS = f"--space {toy_space.NAME} --batch-size 8 --epochs 2".split()


def search(data, out, *more):
  return main(["search", "--data", str(data), "--out", str(out), *WORDS, *more])


def pictures(folder, count=60, seed=0):
  """Gray pictures of three classes, which differ in where they are bright."""
  rng = np.random.default_rng(seed)
  for number in range(count):
    name = ("ant", "bee", "Zebra")[number % 3]
    (folder / name).mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(60, size=(8, 8)).astype(np.uint8)
    pixels[number % 3 * 3 :][:2] += 180
    PIL.Image.fromarray(pixels).save(folder / name / f"{number:03}.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A run whose data and folder are named relative to where it was started."""
  root = tmp_path_factory.mktemp("data")
  pictures(root / "photos")
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(root)
    assert search("photos", "run") == 0
  return root / "run"


def config(run):
  return yaml.safe_load((run / "config.yaml").read_text())


def test_class_names_and_what_was_resolved_are_kept(finished):
  kept = config(finished)
  assert kept["classes"] == ["Zebra", "ant", "bee"]  # by code point
  assert kept["augment"] == "crop=1" and kept["background"] == "white"
  assert kept["row_order"] == 1 and kept["split_seed"] == 0
  genotype = json.loads((finished / "genotype.json").read_text())
  assert genotype["classes"] == kept["classes"]
  assert kept["data"] == str(finished.parent / "photos")


def test_retraining_elsewhere_says_each_class(finished, tmp_path, capsys):
  """Data moved, from another folder; accuracy by class, the worst first."""
  moved = tmp_path / "elsewhere"
  shutil.copytree(finished.parent / "photos", moved)
  words = ["retrain", str(finished), "--epochs", "40", "--batch-size", "8"]
  words += ["--data", str(moved), "--out", str(tmp_path / "again")]
  assert main(words) == 0
  said = capsys.readouterr().out
  found = json.loads((tmp_path / "again" / "retrained.json").read_text())
  assert set(found) == {"test_accuracy", "train_accuracy", "per_class"}
  assert set(found["per_class"]) == {"Zebra", "ant", "bee"}
  # Four test images a class, so the mean is the whole.
  mean = sum(found["per_class"].values()) / 3
  assert found["test_accuracy"] == pytest.approx(mean)
  assert found["test_accuracy"] > 0.9
  worst = min(found["per_class"].values())
  assert f"{worst:.4f}" in said.split("worst class: ")[1].splitlines()[0]
  (moved / "ant" / "000.png").unlink()
  assert main([*words, "--force"]) == 2
  assert "holds other images" in capsys.readouterr().err


def test_a_run_goes_on_elsewhere_with_moved_data(
  finished, tmp_path, capsys, monkeypatch
):
  root = tmp_path / "there"
  shutil.copytree(finished.parent, root)
  (root / "run" / "genotype.json").unlink()  # as if it had been killed before
  kept = config(root / "run")
  kept["data"] = str(tmp_path / "gone")
  (root / "run" / "config.yaml").write_text(yaml.safe_dump(kept))
  monkeypatch.chdir(tmp_path)
  assert main(["resume", str(root / "run")]) == 2
  capsys.readouterr()
  words = ["resume", "there/run", "--data", "there/photos"]
  assert main(words) == 0
  assert config(root / "run")["data"] == str(root / "photos")
  for name in ("genotype.json", "baselines.csv"):
    wanted = (finished / name).read_text()
    assert (root / "run" / name).read_text() == wanted
  (root / "photos" / "bee" / "001.png").unlink()
  assert main(words) == 2
  assert "holds other images" in capsys.readouterr().err


def test_a_run_of_an_older_order_is_refused_by_name(finished, tmp_path, capsys):
  old = tmp_path / "old"
  shutil.copytree(finished, old)
  kept = {k: v for k, v in config(old).items() if k != "row_order"}
  (old / "config.yaml").write_text(yaml.safe_dump(kept))
  for words in (
    ["resume", str(old)],
    ["resume", str(old), "--allow-changed"],
    ["search", "--from", str(old), "--out", str(tmp_path / "new")],
    ["retrain", str(old), "--inherit", "--out", str(tmp_path / "new")],
  ):
    assert main(words) == 2, words
    error = capsys.readouterr().err
    assert f"{old}/config.yaml" in error and "row_order" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()
  assert main(["show", str(old)]) == 0
  words = ["retrain", str(old), "--epochs", "1", "--batch-size", "8"]
  assert main([*words, "--out", str(tmp_path / "fresh")]) == 0


def test_a_new_search_keeps_the_split_and_the_data(finished, tmp_path, capsys):
  """Images that trained the weights score no network, whatever the seed."""
  out = tmp_path / "new"
  words = ["search", "--from", str(finished), "--epochs", "1"]
  assert main([*words, "--seed", "7", "--out", str(out)]) == 0
  assert config(out)["seed"] == 7 and config(out)["split_seed"] == 0
  capsys.readouterr()
  for more, said in (
    (["--split-seed", "7"], "--split-seed"),
    (["--data", "digits"], "holds other images"),
    (["--image-size", "7"], "holds other images"),
  ):
    refused = tmp_path / "no"
    assert main([*words, *more, "--out", str(refused)]) == 2, more
    error = capsys.readouterr().err
    assert said in error
    assert not refused.exists()


def test_another_seed_than_the_files_splits_anew(finished, tmp_path):
  words = ["search", "--config", str(finished / "config.yaml"), "--out"]
  for name, more, wanted in (("a", [], 0), ("b", ["--seed", "3"], 3)):
    assert main([*words, str(tmp_path / name), *more]) == 0
    assert config(tmp_path / name)["split_seed"] == wanted


def test_python_and_the_command_line_have_the_same_defaults():
  recipe = training.Recipe(epochs=1)
  told = RetrainConfig()
  for name in ("batch_size", "learning_rate", "label_smoothing", "drop_path"):
    assert getattr(recipe, name) == getattr(told, name), name
  assert recipe.augmentation == told.augment == SearchConfig().augment


def test_a_validation_folder_is_the_second_half(tmp_path, capsys):
  for seed, (part, count) in enumerate(
    {"Train": 30, "VAL": 18, "test": 12}.items()
  ):
    pictures(tmp_path / "d" / part, count, seed)
  out = tmp_path / "run"
  assert search(tmp_path / "d", out, "--retrain", "1") == 0
  said = capsys.readouterr().out
  assert "(30 + 18 images of 8x8x1)" in said
  assert "scored on 18 of 18 validation images" in said
  assert "48 training images, augmentation: crop=1" in said


def test_moved_data_may_be_named_as_nasjax_names_its_own(tmp_path):
  """`digits` is no folder beside where the command is called."""
  out = tmp_path / "run"
  assert search("digits", out, "--epochs", "1", "--batch-size", "64") == 0
  words = ["retrain", str(out), "--epochs", "1", "--data", "digits"]
  assert main(words) == 0
