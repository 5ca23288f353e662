"""The same images in any order and form are the same run, byte for byte."""

import csv
import io
import json

import numpy as np
import picture_folders
import pytest
import toy_space
import yaml

from nasjax import data
from nasjax.cli.main import main

TOY = f"--space {toy_space.NAME} --batch-size 16"
EVOLVE = "--population 6 --generations 2"
RUNS = {
  "differentiable": f"{TOY} --epochs 2",
  "nsga2": f"{TOY} --epochs 1 --strategy nsga2 {EVOLVE}",
  "enas": f"{TOY} --epochs 2 --strategy enas",
}
FILES = {
  "differentiable": ("genotype.json", "metrics.csv", "baselines.csv"),
  "nsga2": (
    *("genotype.json", "metrics.csv", "baselines.csv"),
    *("evaluations.csv", "front.csv", "hypervolume.csv"),
  ),
  "enas": ("genotype.json", "metrics.csv", "baselines.csv"),
}


def forms(folder, count):
  """{form: path} of digits as PNGs, sorted by class, and shuffled."""
  digits = data.load("digits")
  images, labels = digits.train
  images, labels = images[:count], labels[:count]
  test = digits.test
  picture_folders.digits(folder / "png" / "train", images, labels)
  picture_folders.digits(folder / "png" / "test", *test)
  orders = {
    "sorted": np.argsort(labels, kind="stable"),
    "shuffled": np.random.default_rng(1).permutation(count),
  }
  paths = {"folder": str(folder / "png")}
  for name, order in orders.items():
    paths[name] = str(folder / f"{name}.npz")
    np.savez(
      paths[name],
      x_train=images[order],
      y_train=labels[order],
      x_test=test.images[::-1],
      y_test=test.labels[::-1],
    )
  return paths


def contents(out, name):
  """A file without what may differ: seconds."""
  text = (out / name).read_text()
  if name.endswith(".json"):
    return json.loads(text)
  rows = list(csv.DictReader(io.StringIO(text)))
  return [
    {k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows
  ]


def check(strategy, words, paths, folder, capsys, half):
  outs = {}
  for form, path in paths.items():
    outs[form] = folder / f"{strategy}-{form}"
    command = ["search", "--data", path, "--out", str(outs[form])]
    assert main([*command, *words.split()]) == 0
    said = capsys.readouterr().out
    assert f"scored on {half} of {half} validation images" in said
  config = yaml.safe_load((outs["folder"] / "config.yaml").read_text())
  assert config["row_order"] == 1 and config["split_seed"] == 0
  for name in FILES[strategy]:
    wanted = contents(outs["folder"], name)
    for form in ("sorted", "shuffled"):
      assert contents(outs[form], name) == wanted, (form, name)
  assert contents(outs["folder"], "genotype.json")["classes"] == [
    str(digit) for digit in range(10)
  ]


@pytest.fixture(scope="module")
def few(tmp_path_factory):
  return forms(tmp_path_factory.mktemp("few"), 130)


@pytest.mark.parametrize("strategy", RUNS)
def test_any_order_and_form_is_the_same_run(strategy, few, tmp_path, capsys):
  check(strategy, RUNS[strategy], few, tmp_path, capsys, 65)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", RUNS)
def test_all_digits_too(strategy, tmp_path, capsys):
  words = "--space edge --channels 8 --nodes 1 --epochs 20 --seed 0"
  words += f" --strategy {strategy}"
  check(strategy, words, forms(tmp_path, 1438), tmp_path, capsys, 719)
