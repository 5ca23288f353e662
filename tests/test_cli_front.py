"""Fronts, weightings and reuse from the command line."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest

from nasjax import checkpoint, spaces
from nasjax.cli import config as configs
from nasjax.cli import goals, search, strategies
from nasjax.cli.main import main
from nasjax.hardware import table as tables
from nasjax.spaces import space as space_tools

SHAPE = dict(channels=4, cells=1, image_shape=(8, 8, 3), num_classes=3)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """(images, a table with latency and energy) of a tiny space."""
  folder = tmp_path_factory.mktemp("files")
  rng = np.random.default_rng(0)
  np.savez(
    folder / "images.npz",
    x_train=rng.integers(256, size=(48, 8, 8, 3), dtype=np.uint8),
    y_train=np.arange(48) % 3,
    x_test=rng.integers(256, size=(6, 8, 8, 3), dtype=np.uint8),
    y_test=np.arange(6) % 3,
  )
  rows = [
    (
      work,
      1,
      {
        "latency_ms": str(1e-3 + 1e-6 * work.flops),
        "energy_mj": str(1e-3 + 1e-5 * work.channels_out),
      },
    )
    for work in spaces.nasbench201(**SHAPE).workloads().distinct()
  ]
  tables.write(
    folder / "board.csv", {"device": "board"}, rows, ("latency_ms", "energy_mj")
  )
  return str(folder / "images.npz"), str(folder / "board.csv")


def arguments(files, *more):
  return [
    *("--space", "nasbench201", "--data", files[0], "--device", files[1]),
    *("--cells", "1", "--channels", "4", "--epochs", "2"),
    *("--batch-size", "8", "--relaxation", "gdas", *more),
  ]


def rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file))


def config(files, **more):
  return configs.SearchConfig(
    space="nasbench201",
    data=files[0],
    device=(files[1],),
    cells=1,
    channels=4,
    epochs=2,
    batch_size=8,
    **more,
  )


def percentiles(files):
  problem = search.prepare(config(files))
  return np.percentile(problem.costs["latency_ms"].of(problem.random), [20, 80])


@pytest.mark.slow
def test_a_front_is_decided_reused_and_ranked(files, tmp_path, capsys):
  low, high = percentiles(files)
  out, again = tmp_path / "front", tmp_path / "again"
  limit = f"latency_ms={low:.6g}..{high:.6g}"
  assert (
    main(
      [
        "search",
        *arguments(files, "--front", "3", "--limit", limit),
        *("--penalty", "augmented_lagrangian", "--out", str(out)),
      ]
    )
    == 0
  ), capsys.readouterr().err
  found = rows(out / "front.csv")
  assert [r["member"] for r in found] == ["0", "1", "2"]
  limits = [float(r["limit_latency_ms"]) for r in found]
  np.testing.assert_allclose(limits, np.linspace(low, high, 3), rtol=1e-5)
  for row, bound in zip(found, limits, strict=True):
    assert float(row["latency_ms"]) <= bound
  assert [r["chosen"] for r in found].count("1") == 1
  chosen = next(r for r in found if r["chosen"] == "1")
  assert chosen["on_front"] == "1"
  own = json.loads((out / "genotype.json").read_text())
  member = json.loads(
    (out / "members" / chosen["member"] / "genotype.json").read_text()
  )
  assert own == member
  log = rows(out / "metrics.csv")
  # Half of the epochs warm the weights up.
  volumes = rows(out / "hypervolume.csv")
  assert [r["epoch"] for r in volumes] == ["2"]
  assert 0.0 < float(volumes[0]["hypervolume"]) < 1.0
  assert "violation_latency_ms__2" in log[-1] and len(log) == 2
  assert main(["show", str(out / "members" / "1")]) == 0

  # The supernet is good for another limit, and says how well it ranks.
  limit = f"latency_ms={0.9 * high:.6g}"
  more = ("--limit", limit, "--check-ranking", "3", "--out", str(again))
  assert main(["search", "--from", str(out), *more]) == 0, (
    capsys.readouterr().err
  )
  assert "rank correlation" in capsys.readouterr().out
  value = json.loads((again / "genotype.json").read_text())
  assert value["metrics"]["latency_ms"]["value"] <= 0.9 * high
  assert len(rows(again / "ranking.csv")) == 3
  assert len(rows(again / "metrics.csv")) == 1  # without the warm-up's epochs
  other = ["--cells", "2", "--limit", "macs=1e9"]
  assert main(["search", "--from", str(out), *other]) == 2
  assert "another one" in capsys.readouterr().err


@pytest.mark.parametrize(
  "weighting",
  [
    "constant",
    "chebyshev",
    "mgda",
    "pcgrad",
    "upgrad",
    "exact_pareto",
    "epsilon_constraint",
  ],
)
@pytest.mark.parametrize(
  "penalty", ["quadratic", "augmented_lagrangian", "log_barrier", "objective"]
)
def test_every_combination_is_made(weighting, penalty, files):
  _, high = percentiles(files)
  problem = search.prepare(
    config(
      files,
      weighting=weighting,
      penalty=penalty,
      objective=("cross_entropy", "latency_ms", "energy_mj"),
      limit=(f"latency_ms={high}",),
      tighten=None if penalty == "objective" else 2.0,
    )
  )
  made = strategies.build(problem).search
  assert callable(made.update)


@pytest.mark.slow
@pytest.mark.parametrize("weighting", ["constant", "chebyshev", "mgda"])
def test_weightings_search(weighting, files, tmp_path, capsys):
  code = main(
    [
      "search",
      *arguments(files, "--weighting", weighting, "--out", str(tmp_path / "r")),
      *("--objective", "cross_entropy", "latency_ms", "energy_mj"),
    ]
  )
  assert code == 0, capsys.readouterr().err


@pytest.mark.slow
def test_a_front_that_was_cut_ends_with_the_same_bits(files, tmp_path, capsys):
  low, high = percentiles(files)
  whole, cut = tmp_path / "whole", tmp_path / "cut"
  limit = ("--limit", f"latency_ms={low:.6g}..{high:.6g}")
  flags = ("--front", "2", *limit, "--out", str(whole))
  assert main(["search", *arguments(files, *flags)]) == 0, (
    capsys.readouterr().err
  )
  shutil.copytree(whole, cut)
  # As if it had been killed in its last epoch.
  names = ["genotype.json", "front.csv", "hypervolume.csv"]
  for name in names:
    (cut / name).unlink()
  shutil.rmtree(cut / "members")
  last = checkpoint.steps(cut / checkpoint.FOLDER)[-1]
  shutil.rmtree(cut / checkpoint.FOLDER / str(last))
  assert main(["resume", str(cut)]) == 0, capsys.readouterr().err
  names += ["members/0/genotype.json", "members/1/genotype.json"]
  for name in names:
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
  digests = [
    checkpoint.verify(out / checkpoint.FOLDER, last).manifest.digest
    for out in (whole, cut)
  ]
  assert digests[0] == digests[1]


def test_devices_latencies_are_one_weighted_objective(files):
  names = ["raspberry-pi-4", "cortex-a76"]
  terms = "raspberry-pi-4:latency_ms+3*cortex-a76:latency_ms"
  problem = search.prepare(
    dataclasses.replace(
      config(files, objective=("cross_entropy", f"{terms}=0.5")),
      device=tuple(names),
    )
  )
  metrics = [problem.metrics[f"latency_ms__{name}"] for name in names]
  medians = {
    m.name: np.median(problem.costs[m.name].of(problem.random)) for m in metrics
  }
  made, preference = goals.make_objectives(
    problem.config, problem.metrics, medians
  )
  assert [o.name for o in made] == ["cross_entropy", terms]
  assert preference == [1.0, 0.5]
  # At the medians each term counts as its weight.
  assert float(made[1].value({}, medians)) == pytest.approx(4.0)
  strategies.build(problem)


def test_the_energy_delay_product_is_a_metric(files):
  """Also where a table has both costs: latency x energy of every network."""
  problem = search.prepare(config(files, objective=("edp_mj_ms",)))
  found = spaces.architecture(
    problem.space, {n: r[0] for n, r in problem.random.items()}
  )
  parts_of = [problem.metrics[n] for n in ("latency_ms", "energy_mj")]
  product = np.prod([m.exact(found) for m in parts_of])
  metric = problem.metrics["edp_mj_ms"]
  assert metric.exact(found) == pytest.approx(product)
  assert float(metric.expected(found.one_hot())) == pytest.approx(
    product, rel=1e-5
  )


def test_skips_are_limited_like_a_cost(files):
  problem = search.prepare(config(files, limit=("skips=2",)))
  metric = problem.metrics["skips"]
  for i in range(20):
    one = space_tools.Architecture(
      problem.space, {n: r[i] for n, r in problem.random.items()}
    )
    assert metric.exact(one) == space_tools.count_skips(one)[0]
    assert float(metric.expected(one.one_hot())) == metric.exact(one)
  skips = problem.space.skips["cell"]
  leaning = {"cell": np.where(skips, 0.45, 0.1 / 3)}
  decided = problem.space.decide(leaning, problem.limits)
  assert space_tools.count_skips(decided)[0] == 2


@pytest.mark.parametrize(
  "objective", ["edp_mj_ms", "efficiency", "mnasnet_soft", "mnasnet_hard"]
)
def test_composed_objectives_are_made(objective, files):
  _, high = percentiles(files)
  problem = search.prepare(
    config(files, objective=(objective,), limit=(f"latency_ms={high}",))
  )
  strategies.build(problem)


REFUSED = [
  (["--limit", "latency_ms=1..2"], "add --front N"),
  (["--limit", "latency_ms=2..1", "--front", "2"], "LOW..HIGH"),
  (["--limit", "latency_ms=0..1", "--front", "2"], "above 0"),
  (["--limit", "latency_ms=0.000001..1", "--front", "2"], "reachable"),
  (["--front", "2", "--stop-on-skips", "0.5"], "many networks"),
  (["--normalization", "l2"], "constant has none"),
  (["--weighting", "mgda", "--normalization", "l3"], "did you mean l2?"),
  (["--weighting", "mgda", "--objective", "params=0"], "above 0"),
  (["--objective", "mnasnet_soft"], "add --limit"),
  (["--objective", "edp"], "unknown objective"),
  (["--objective", "params+latency_m"], "no metric"),
  (["--objective", "params+2*"], "no sum"),
  (["--objective", "params+-1*macs"], "--objective"),
  (["--tighten", "2"], "no limit"),
  (
    ["--penalty", "objectiv", "--limit", "params=1e6"],
    "did you mean objective?",
  ),
  (["--from", "nowhere"], "no run folder"),
  (["--check-ranking", "2"], "below 3"),
]


@pytest.mark.parametrize("flags, said", REFUSED, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_line(flags, said, files, tmp_path, capsys):
  out = tmp_path / "out"
  assert main(["search", *arguments(files, "--out", str(out), *flags)]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert said in error
  assert not out.exists()
