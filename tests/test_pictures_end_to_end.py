"""From folders of pictures to a test accuracy, options at their defaults."""

import json

import picture_folders
import pytest
import yaml

from nasjax.cli.main import main

FOLDERS = {
  "turned": picture_folders.turned_jpegs,
  "alpha": picture_folders.alpha_icons,
  "white": lambda folder: picture_folders.alpha_icons(folder, white=True),
  "arrows": picture_folders.arrows,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_what_a_person_sees_is_learnt(name, tmp_path, capsys):
  FOLDERS[name](tmp_path / "data")
  out = tmp_path / "run"
  words = ["search", "--data", str(tmp_path / "data"), "--out", str(out)]
  words += "--space nasbench201 --cells 1 --channels 8".split()
  words += "--epochs 60 --retrain 60 --limit params=20000".split()
  assert main(words) == 0
  found = json.loads((out / "retrained" / "retrained.json").read_text())
  assert found["test_accuracy"] >= 0.95
  assert min(found["per_class"].values()) >= 0.9
  config = yaml.safe_load((out / "config.yaml").read_text())
  assert "flip" not in config["augment"]
  assert config["background"] == ("grey" if name == "white" else "white")
  assert ("mid-grey" in capsys.readouterr().out) == (name == "white")
