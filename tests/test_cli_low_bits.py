"""The bits of a search's weights are those of what is retrained and scored."""

import json

import numpy as np
import pytest
import toy_space

from nasjax import checkpoint, run_folder
from nasjax.cli.main import main

WORDS = f"--space {toy_space.NAME} --batch-size 8 --epochs 2".split()


def kernels(folder):
  """The kernels in a training's last checkpoint, [.., C]."""
  step = checkpoint.steps(folder / checkpoint.FOLDER)[-1]
  saved = checkpoint.verify(folder / checkpoint.FOLDER, step)
  return [
    np.asarray(array)
    for leaf, array in zip(saved.manifest.leaves, saved.arrays, strict=True)
    if "params" in leaf.path
    and "kernel" in leaf.path
    and "variables" in leaf.path
  ]


def most_values(folder):
  """The most values that an output channel of a kernel takes."""
  found = kernels(folder)
  assert found
  return max(
    len(np.unique(channel))
    for k in found
    for channel in k.reshape(-1, k.shape[-1]).T
  )


@pytest.fixture(scope="module")
def searched(npz, tmp_path_factory):
  out = tmp_path_factory.mktemp("bits") / "run"
  words = ["search", "--data", npz, *WORDS, "--quantize-bits", "3"]
  words += ["--retrain", "2"]
  assert main([*words, "--out", str(out)]) == 0
  return out


def test_a_retraining_has_the_bits_of_its_search(searched, capsys, tmp_path):
  again = searched / run_folder.AGAIN
  assert most_values(again) <= 8
  found = json.loads((again / run_folder.RETRAINED).read_text())
  assert found["weight_bits"] == 3 and found["weight_scale"] == "channel"
  genotype = json.loads((searched / run_folder.GENOTYPE).read_text())
  assert "3 bits" in genotype["metrics"]["valid_accuracy"]["source"]
  for words, bits in ((["--quantize-bits", "32"], None), ([], 3)):
    out = tmp_path / str(bits)
    given = ["retrain", str(searched), "--epochs", "1", *words]
    assert main([*given, "--batch-size", "16", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert ("3 bits" in said) == (bits == 3)
    found = json.loads((out / run_folder.RETRAINED).read_text())
    assert found.get("weight_bits") == bits
    assert (most_values(out) <= 8) == (bits == 3)


def test_bits_that_no_quantiser_has(searched, capsys):
  assert main(["retrain", str(searched), "--quantize-bits", "20"]) == 2
  error = capsys.readouterr().err
  assert "20 is not 2 to 16" in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def front(npz, tmp_path_factory):
  out = tmp_path_factory.mktemp("front") / "run"
  words = ["search", "--data", npz, *WORDS, "--front", "2", "--relaxation"]
  words += ["softmax", "--limit", "params=200..600", "--quantize-bits", "4"]
  assert main([*words, "--out", str(out)]) == 0
  return out


@pytest.mark.parametrize("by", ["flag", "path"])
def test_a_member_of_a_front_is_retrained(front, by):
  own = front / run_folder.MEMBERS / "1"
  words = {
    "flag": [str(front), "--member", "1"],
    "path": [str(own)],
  }[by]
  words = ["retrain", *words, "--epochs", "1", "--batch-size", "16"]
  assert main([*words, "--force"]) == 0
  again = own / run_folder.AGAIN
  found = json.loads((again / run_folder.RETRAINED).read_text())
  assert 0 <= found["test_accuracy"] <= 1 and found["weight_bits"] == 4
  decided = json.loads((own / run_folder.GENOTYPE).read_text())
  # The network that was trained is the member's.
  names = [n for row in decided["choices"].values() for n in row]
  assert len(kernels(again)) == 2 + sum(n.startswith("conv") for n in names)


def test_members_that_are_not_there(front, searched, capsys):
  for words, said in (
    ([str(front), "--member", "2"], "has no member 2: it has 0, 1"),
    ([str(front / run_folder.MEMBERS / "1"), "--member", "1"], "already"),
    ([str(front / run_folder.MEMBERS / "5")], "has no member 5: it has 0, 1"),
    ([str(searched), "--member", "0"], "it has no front"),
  ):
    assert main(["retrain", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
