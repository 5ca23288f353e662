"""Every strategy in DARTS's space: what it decides is a network of it."""

import csv

import pytest

from nasjax import run_folder, spaces
from nasjax.cli.main import main
from nasjax.spaces import genotype
from nasjax.spaces import space as space_tools

TINY = (
  "--space darts --channels 4 --cells 3 --nodes 2 --epochs 1 --batch-size 16"
).split()
EVOLVES = "--population 6 --generations 2".split()
WORDS = {
  "differentiable": [],
  "enas": [],
  "nsga2": EVOLVES,
  "random": EVOLVES,
  "hybrid": [*EVOLVES, "--refine-every", "1"],
  "staged": [*EVOLVES, "--predictor-samples", "12"],
}


@pytest.mark.slow
@pytest.mark.parametrize("strategy", WORDS)
def test_it_ends_in_a_network_of_the_space(strategy, npz, tmp_path):
  out = tmp_path / "run"
  words = ["search", "--strategy", strategy, "--data", npz, *TINY]
  words += [*WORDS[strategy], "--limit", "skips=2", "--out", str(out)]
  assert main(words) == 0
  decided, found = genotype.read(out, {"darts": spaces.darts})
  space_tools.check_connected(decided)
  names = [n for row in found["choices"].values() for n in row]
  assert names.count("skip_connect") <= 2
  assert len(names) - names.count("none") == 8
  if strategy in ("differentiable", "enas"):
    return
  with open(out / run_folder.EVALUATIONS, newline="") as file:
    rows = list(csv.DictReader(file))
  space = spaces.darts(**found["space"]["arguments"])
  for row in rows:
    choices, flat = {}, row["architecture"].split("|")
    for name, group in space.groups.items():
      choices[name], flat = flat[: group.edges], flat[group.edges :]
    space_tools.check_connected(spaces.architecture(space, choices))
    assert row["violation"] == "0.0" or float(row["skips"]) > 2
  assert len({row["architecture"] for row in rows}) == len(rows)
