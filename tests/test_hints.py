"""What a search says at its end: cures that it did not have, and true ones."""

import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import toy_space

from nasjax import hardware, run_folder, spaces
from nasjax.cli import config as configs
from nasjax.cli import hints
from nasjax.cli.main import _parser, main
from nasjax.spaces import genotype
from nasjax.spaces.space import Architecture, random_choices

SPACE = toy_space.toy()
MACS = hardware.macs(SPACE)
SKIPS = Architecture(SPACE, {"layers": np.array([1, 1, 0])})
LARGE = Architecture(SPACE, {"layers": np.array([3, 3, 3])})


def problem(**options):
  config = dataclasses.replace(configs.SearchConfig(), epochs=10, **options)
  drawn = random_choices(SPACE, np.random.default_rng(0), 300)
  built = [Architecture(SPACE, {"layers": row}) for row in drawn["layers"]]
  values = np.array([MACS.exact(a) for a in built])
  return SimpleNamespace(config=config, random_values=lambda name: values)


@pytest.mark.parametrize(
  "strategy", ["differentiable", "enas", "hybrid", "nsga2", "random", "staged"]
)
@pytest.mark.parametrize(
  "had",
  [
    {},
    {"warmup": 0.7},
    {"operation_dropout": 0.3},
    {"stop_on_skips": 0.4},
    {"limit": ("skips=1",)},
  ],
)
def test_a_cure_differs_from_what_the_run_had(strategy, had):
  one = problem(strategy=strategy, **had)
  said = hints.collapse(one, SKIPS)
  assert said.startswith("collapsed, 3 of 3 choices")
  cures = hints.cures(one.config, 3)
  assert cures and all(cure in said for cure in cures)
  for cure in cures:
    flag, value = cure.split()
    # The command line reads it, and it is another value than the run's.
    name = flag.removeprefix("--").replace("-", "_")
    given = vars(_parser().parse_args(["search", flag, value]))
    other = configs.from_flags(configs.SearchConfig, given)
    assert getattr(other, name) != getattr(one.config, name)
    assert not any(flag == f"--{k.replace('_', '-')}" for k in had)
    # It is an option of the strategy.
    from nasjax.cli import strategies

    assert name not in strategies.foreign(strategy)
  assert hints.collapse(one, LARGE) is None


def test_a_limit_that_is_not_filled_is_said():
  most = MACS.exact(LARGE)
  near, far = 1.05 * most, 1.05 * most
  one = problem(strategy="differentiable")
  assert hints.unfilled(one, LARGE, [(MACS, near)]) == []
  (line,) = hints.unfilled(one, SKIPS, [(MACS, far)])
  assert "far below the limit" in line and "--penalty equality" in line
  (line,) = hints.unfilled(problem(strategy="nsga2"), SKIPS, [(MACS, far)])
  assert "--penalty" not in line
  (line,) = hints.unfilled(problem(penalty="equality"), SKIPS, [(MACS, far)])
  assert "--penalty" not in line
  # Where no network of the space comes near the limit there is no cure.
  assert hints.unfilled(one, LARGE, [(MACS, 100 * most)]) == []


def test_members_that_are_dominated_are_named():
  rows = [{"member": i, "on_front": on} for i, on in enumerate((1, 0, 1, 0))]
  assert hints.dominated(rows).startswith("members 1, 3 are dominated")
  assert hints.dominated(rows[:2]).startswith("member 1 is dominated")
  assert hints.dominated(rows[:1]) is None


def test_a_run_says_them(npz, tmp_path, capsys):
  words = ["search", "--data", npz, "--space", toy_space.NAME, "--epochs", "1"]
  words += ["--batch-size", "8", "--limit", "macs=30000", "--relaxation"]
  words += [
    "softmax",
    "--arch-learning-rate",
    "0",
    "--out",
    str(tmp_path / "a"),
  ]
  assert main(words) == 0
  said = " ".join(capsys.readouterr().out.split())
  found = json.loads((tmp_path / "a" / run_folder.GENOTYPE).read_text())
  decided = found["metrics"]["macs"]["value"]
  assert ("far below the limit" in said) == (decided < 0.7 * 30_000)


def test_timing_says_that_the_weights_are_random(tmp_path, capsys):
  path = tmp_path / "genotype.json"
  program = tmp_path / "print.py"
  program.write_text("print('{\"latency_ms\": 1.5}')")
  line = f"{sys.executable} {program} {{onnx}}"
  one = spaces.nasbench201(channels=2, cells=1, image_shape=(8, 8, 1))
  decided = spaces.architecture(one, {"cell": ["skip_connect"] * 6})
  value = genotype.to_json(decided, metrics={}, limits={}, seed=0)
  path.write_text(run_folder.json_text(value))
  assert main(["hw", "time", str(path), "--measure", line]) == 0
  said = capsys.readouterr()
  assert "latency_ms 1.5" in said.out and "random weights" in said.err
