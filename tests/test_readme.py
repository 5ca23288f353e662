"""The README's own code, run as it stands."""

import re
from pathlib import Path

import pytest

from nasjax import relaxations, testing

TEXT = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)


def test_the_api_example_runs(capsys):
  names = {}
  exec(compile(BLOCKS[0], "README.md", "exec"), names)
  assert names["latency"].exact(names["architecture"]) <= 0.016
  *_, last = capsys.readouterr().out.splitlines()
  # What the README's last line prints; chance is .1.
  accuracy = float(last.removeprefix("test accuracy "))
  assert accuracy > 0.8


def test_the_users_relaxation_runs():
  names = {}
  exec(compile(BLOCKS[1], "README.md", "exec"), names)
  testing.check_relaxation(names["sharp"], "README")


def test_commands_name_only_known_flags():
  from nasjax.cli import config as configs
  from nasjax.cli import hw_config
  from nasjax.cli.retrain_config import RetrainConfig

  known = (
    {
      configs.flag(f)
      for kind in (
        configs.SearchConfig,
        RetrainConfig,
        hw_config.MeasureConfig,
        hw_config.FitConfig,
        hw_config.TimeConfig,
      )
      for f in kind.__dataclass_fields__
    }
    | {"--help", "--config", "--force", "--no-compilation-cache"}
    | {"--allow-changed", "--from"}
  )
  said = set(re.findall(r"--[a-z][a-z-]+", TEXT))
  assert said <= known, said - known


@pytest.mark.parametrize("name", relaxations.__all__)
def test_relaxations_are_documented(name):
  assert getattr(relaxations, name).__doc__
