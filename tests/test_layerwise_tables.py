"""Gradient search over tables of layers, against exact optima and chance."""

import argparse
import os
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import layerwise_tables as study
import tables

from nasjax import constraints, hardware, spaces
from nasjax.hardware import choices as choice_tables
from nasjax.spaces import costs as cost_tables

DATA = Path(os.environ.get("NASJAX_DATA", "../shared/data"))


def lut(path, device, entries, constant):
  lines = ["device,layer,op,op_name,latency_ms"]
  lines += [f"{device},-1,-1,fixed,{constant}"]
  for layer, row in enumerate(entries):
    for op, value in enumerate(row):
      name = ("identity", "mb3_k3", "mb6_k5")[op]
      lines.append(f"{device},{layer},{op},{name},{value}")
  path.write_text("\n".join(lines) + "\n")
  return str(path)


@pytest.fixture
def made(tmp_path):
  """A table of NAS-Bench-Macro's layers, made up; its space and metrics."""
  space = spaces.macro()
  entries = np.random.default_rng(0).uniform(0.1, 2.0, size=(8, 3))
  path = lut(tmp_path / "lut.csv", "pi", entries, 0.5)
  table = tables.layerwise(path, "pi", space.groups)
  return space, entries, table, table.metric(space, device="pi")


def test_tables_by_layer_are_read(made, tmp_path):
  space, entries, table, latency = made
  one = spaces.architecture(space, {"layers": [0, 1, 2, 0, 1, 2, 0, 1]})
  wanted = 0.5 + entries[np.arange(8), one.choices["layers"]].sum()
  assert latency.exact(one) == pytest.approx(wanted, rel=1e-12)
  # As the command line takes it.
  choice_tables.write(tmp_path / "pi.csv", table)
  device = hardware.device(str(tmp_path / "pi.csv"))
  assert device.latency(space).exact(one) == pytest.approx(wanted, rel=1e-7)
  for other, groups in (("tv", space.groups), ("pi", spaces.fbnet().groups)):
    with pytest.raises(SystemExit, match="no whole table|operation 0 is"):
      tables.layerwise(table.source, other, groups)


def test_the_gradient_comes_near_the_exact_optimum(made):
  """Latency above a floor of FLOPs: within a tenth of the best of 6,561."""
  space, _, table, latency = made
  flops = hardware.flops(space)
  every = {"layers": np.stack(np.unravel_index(range(3**8), (3,) * 8), -1)}
  amounts, costs = (
    cost_tables.additive_costs(space, m).of(every) for m in (flops, latency)
  )
  floor = float(np.median(amounts))
  left, limit = study.left_to(flops, 1.01 * amounts.max()), 0.0
  limit = 1.01 * float(amounts.max()) - floor
  best = costs[amounts >= floor].min()
  # The decision alone finds the optimum of costs that add up.
  cheap = {"layers": np.exp(-table.tables["layers"])}
  exact = space.decide(cheap, [(left, limit)])
  assert latency.exact(exact) == pytest.approx(best, rel=1e-9)
  search = jax.jit(
    lambda key: study.descend(
      space,
      lambda weights: latency.expected(weights) / 5.0,
      constraints.at_most(
        left, limit, penalty=constraints.augmented_lagrangian()
      ),
      key,
      steps=400,
    )
  )
  for seed in range(3):
    weights = search(jax.random.key(seed))
    np.testing.assert_allclose(weights["layers"].sum(-1), 1.0, rtol=1e-5)
    decided = space.decide(weights, [(left, limit)])
    assert flops.exact(decided) >= floor * (1 - 1e-9)
    assert latency.exact(decided) <= 1.1 * best
    assert (costs[amounts >= floor] < latency.exact(decided)).mean() < 0.01


def data(name):
  path = DATA / name
  if not path.is_file():
    pytest.skip(f"no {name} in {DATA}")
  return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["raspi4", "fpga"])
def test_fbnet_is_among_the_fastest_of_a_million(device):
  """In the lowest 0.1% of 10^6 random networks above the floor of FLOPs."""
  arguments = argparse.Namespace(
    lut=data("fbnet_lut.csv"),
    device=device,
    floor=0.5,
    random=10**6,
    seeds=3,
    seed=0,
  )
  found = study.fbnet(arguments)
  assert found["head"]["random_networks"] == 10**6
  for row in found["rows"]:
    assert row["share_as_fast"] <= 1e-3
    assert row["mflops"] >= found["head"]["floor_mflops"] * (1 - 1e-9)
    assert row["latency_ms"] >= found["head"]["optimum_ms"] * (1 - 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
  "strategy, evaluations, seeds", [("gradient", 60, 2), ("nsga2", 200, 5)]
)
def test_macro_finds_the_top_percent_within_its_limit(
  strategy, evaluations, seeds
):
  arguments = argparse.Namespace(
    networks=data("nasbench_macro_cifar10.csv.gz"),
    column="test_acc",
    strategy=strategy,
    limit=0.5,
    evaluations=evaluations,
    seeds=seeds,
    seed=0,
  )
  found = study.macro(arguments)
  assert found["head"]["networks_within"] == 3282
  for row in found["rows"]:
    assert row["evaluations"] <= evaluations
    assert row["share_better"] < 0.01
