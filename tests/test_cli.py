"""The command line: whole runs on tiny data, and every refusal."""

import csv
import json
import re
import subprocess
import sys

import pytest
import toy_space
import yaml

from nasjax.cli import config as configs
from nasjax.cli import search, strategies
from nasjax.cli.main import main

TINY = [
  "--epochs",
  "2",
  "--batch-size",
  "8",
  "--warmup",
  "0.5",
]


def rows(folder):
  with open(folder / "metrics.csv", newline="") as file:
    return [
      {k: v for k, v in r.items() if not k.endswith("_seconds")}
      for r in csv.DictReader(file)
    ]


def run(npz, out, *more):
  return main(
    [
      "search",
      "--space",
      toy_space.NAME,
      "--data",
      npz,
      "--out",
      str(out),
      *TINY,
      *more,
    ]
  )


@pytest.fixture(scope="module")
def finished(npz, tmp_path_factory):
  out = tmp_path_factory.mktemp("run") / "a"
  assert run(npz, out, "--limit", "macs=25000") == 0
  return out


def test_a_run_folder_holds_what_it_should(finished):
  genotype = json.loads((finished / "genotype.json").read_text())
  assert genotype["format"] == "nasjax.genotype/1"
  assert genotype["space"]["name"] == toy_space.NAME
  assert genotype["limits"] == {"macs": 25000.0}
  assert genotype["metrics"]["macs"]["value"] <= 25000
  assert 0 <= genotype["metrics"]["valid_accuracy"]["value"] <= 1
  found = rows(finished)
  assert [r["epoch"] for r in found] == ["1", "2"]
  # The first epoch only warms up: it has no architecture step.
  assert found[0]["valid_loss"] == "" and float(found[1]["valid_loss"]) > 0
  assert float(found[0]["expected_macs"]) > 0
  assert (
    "jax" in json.loads((finished / "environment.json").read_text())["versions"]
  )
  assert not list(finished.glob(".*.tmp"))


def test_the_same_seed_and_the_saved_configuration_repeat_the_run(
  finished, npz, tmp_path
):
  assert run(npz, tmp_path / "b", "--limit", "macs=25000") == 0
  again = ["search", "--config", str(finished / "config.yaml")]
  assert main([*again, "--out", str(tmp_path / "c")]) == 0
  for other in ("b", "c"):
    assert rows(tmp_path / other) == rows(finished)
    assert (tmp_path / other / "genotype.json").read_text() == (
      finished / "genotype.json"
    ).read_text()


def test_show_prints_every_format(finished, tmp_path, capsys):
  conv, pool = "|nor_conv_3x3~0|", "avg_pool_3x3"
  given = f"{conv}+{conv[:-1]}|none~1|+|{pool}~0|skip_connect~1|{pool}~2|"
  assert main(["show", given, "--format", "nasbench201"]) == 0
  text = capsys.readouterr().out.strip()
  assert text == given
  operation = r"(none|skip_connect|nor_conv_1x1|nor_conv_3x3|avg_pool_3x3)"
  node = "".join(rf"\|{operation}~{i}" for i in range(3)) + r"\|"
  assert re.search(node + "$", text)
  assert main(["show", text, "--format", "json"]) == 0
  shown = capsys.readouterr().out
  assert json.loads(shown)["metrics"]["params"]["value"] > 0
  # A run folder of that space too.
  (tmp_path / "genotype.json").write_text(shown)
  assert main(["show", str(tmp_path), "--format", "nasbench201"]) == 0
  assert capsys.readouterr().out.strip() == given
  assert main(["show", str(finished / "genotype.json")]) == 0
  assert "macs" in capsys.readouterr().out


USER = """
import jax
import jax.numpy as jnp
from nasjax import relaxations

def sharp(key, logits, step):
  return jax.nn.softmax(3.0 * logits, axis=-1)

mine = relaxations.from_function(sharp)

def bad(key, logits, step):
  return 2.0 * jax.nn.softmax(logits, axis=-1)

broken = relaxations.from_function(bad)

def make():
  return mine
"""


def test_a_users_relaxation_and_the_mitigations(npz, tmp_path, capsys):
  path = tmp_path / "mine.py"
  path.write_text(USER)
  out = tmp_path / "run"
  against_skips = ["--stop-on-skips", "0", "--operation-dropout", "0.3"]
  words = ["--relaxation", f"{path}:make", *against_skips]
  assert run(npz, out, *words) == 0
  assert (out / "genotype.json").exists()
  assert "stopped after epoch 1" in capsys.readouterr().out
  assert len(rows(out)) == 1
  assert run(npz, tmp_path / "n", "--relaxation", f"{path}:broken") == 2
  assert "not on the simplex" in capsys.readouterr().err
  # A function that is no relaxation, and needs arguments.
  assert run(npz, tmp_path / "n", "--relaxation", f"{path}:sharp") == 2
  assert "not a nasjax.types.Relaxation" in capsys.readouterr().err
  assert run(npz, tmp_path / "n", "--relaxation", f"{path}:mime") == 2
  assert "did you mean mine?" in capsys.readouterr().err
  assert not (tmp_path / "n").exists()


REFUSED = [
  (["--limit", "macs=1"], "smallest reachable value is macs="),
  (["--limit", "latency_ms=1"], "no row for"),
  (["--limit", "latncy_ms=1"], "latncy_ms"),
  (["--limit", "macs"], "has no value"),
  (["--limit", "macs=-3"], "above 0"),
  (["--limit", "macs=1e999"], "not a finite"),
  (["--limit", "macs=1_000"], "not a number"),
  (["--space", "nasbench200"], "did you mean nasbench201?"),
  (["--relaxation", "gdsa"], "did you mean gdas?"),
  (["--hypergradient", "unroled"], "did you mean unrolled?"),
  (["--weighting", "constnat"], "did you mean constant?"),
  (
    ["--penalty", "quadratik", "--limit", "params=1e6"],
    "did you mean quadratic?",
  ),
  (["--objective", "cross_entropi"], "did you mean cross_entropy?"),
  (["--objective", "params", "params"], "twice"),
  (["--device", "x86-servr"], "did you mean x86-server?"),
  (
    ["--space", "nasbench201", "--links", "dense"],
    "the space nasbench201 has none",
  ),
  (["--temperature", "2", "--relaxation", "proxyless"], "has none"),
  (["--batch-size", "1000"], "training images"),
  (["--epochs", "0"], "below 1"),
  (["--epochs", "1.5"], "whole number"),
  (["--epochs", "many"], "not a number"),
  (["--learning-rat", "1"], "did you mean --learning-rate?"),
  (["--data", "nowhere.npz"], "nowhere.npz"),
  (["--augment", "flop"], "did you mean flip?"),
  (["--config", "nowhere.yaml"], "cannot be read"),
  (["--warmup", "2"], "at most 1"),
]


@pytest.mark.parametrize("flags, said", REFUSED, ids=lambda v: str(v)[:40])
def test_mistakes_are_one_line_and_write_nothing(
  flags, said, npz, tmp_path, capsys
):
  assert run(npz, tmp_path / "out", *flags) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1
  assert said in error and len(error) <= 401
  assert not (tmp_path / "out").exists()


def test_an_existing_run_needs_force(npz, finished, tmp_path, capsys):
  assert run(npz, finished) == 2
  assert "--force" in capsys.readouterr().err
  (tmp_path / "file").write_text("")
  assert run(npz, tmp_path / "file") == 2


@pytest.mark.parametrize(
  "text, said",
  [
    ("sped: 3", ":1 sped: unknown key; did you mean seed?"),
    ("seed: 1\nepochs: three", ":2 epochs"),
    ("seed: 1\nseed: 2", "twice"),
    ("seed: &a 1\nepochs: *a", "aliases"),
    ("seed: !!python/object/apply:os.system ['true']", "the tag"),
    ("seed: .nan", "finite"),
    ("seed: !!int 3", "the tag"),
    ("seed: 1_000", "seed: '1_000' is not a number"),
    ("seed: 1:30", "not a number"),
    ("seed: 0x10", "not a number"),
    ("seed: 4294967296", "at most"),
    ("[1]: 2", "no name"),
    ("limit: " + "[" * 100, "64 deep"),
    ("seed:", "not a number"),
    ("[1, 2]", "not a mapping"),
    ("epochs: true", "not a number"),
  ],
)
def test_bad_configuration_files(text, said, tmp_path, capsys):
  path = tmp_path / "run.yaml"
  path.write_text(text)
  assert main(["search", "--config", str(path)]) == 2
  error = capsys.readouterr().err
  assert said in error and "run.yaml" in error


def test_configuration_round_trip(tmp_path):
  config = configs.SearchConfig(
    limit=("macs=3", "params=4"), epochs=3, stop_on_skips=0.5, links="dense"
  )
  path = tmp_path / "run.yaml"
  path.write_text(configs.to_yaml(config))
  assert configs.from_flags(configs.SearchConfig, {}, str(path)) == config
  assert set(yaml.safe_load(path.read_text())) == {
    f for f in configs.SearchConfig.__dataclass_fields__
  }


def test_unknown_commands_and_files(capsys, tmp_path):
  assert main(["serch"]) == 2
  assert "did you mean search?" in capsys.readouterr().err
  assert main(["show", str(tmp_path / "no")]) == 2
  assert "neither" in capsys.readouterr().err
  assert main(["hw", "measur"]) == 2
  assert "did you mean measure?" in capsys.readouterr().err


def test_help_says_defaults_and_units(capsys):
  with pytest.raises(SystemExit) as stopped:
    main(["search", "--help"])
  assert stopped.value.code == 0
  text = " ".join(capsys.readouterr().out.split())
  for word in ("latency_ms (ms)", "default 64", "--arch-learning-rate"):
    assert word in text


def test_doctor_and_a_traceback_only_with_debug(capsys):
  assert main(["doctor"]) == 0
  assert "x86-server" in capsys.readouterr().out
  done = subprocess.run(
    [sys.executable, "-m", "nasjax", "search", "--space", "x"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2 and "Traceback" not in done.stderr
  done = subprocess.run(
    [sys.executable, "-m", "nasjax", "search", "--space", "x", "--debug"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert "Traceback" in done.stderr


def test_measured_table_serves_a_search(tmp_path, npz, capsys):
  out = tmp_path / "mine.csv"
  words = [
    "hw",
    "measure",
    "--space",
    "nasbench201",
    "--image-shape",
    "8x8x3",
    "--channels",
    "4",
    "--num-classes",
    "3",
    "--repeats",
    "3",
    "--device",
    "mine",
    "--out",
    str(out),
  ]
  assert main(words) == 0
  text = out.read_text()
  assert "# command: nasjax hw measure --space nasbench201" in text
  config = configs.SearchConfig(
    space="nasbench201",
    data=npz,
    channels=4,
    cells=1,
    batch_size=8,
    device=(str(out),),
    limit=("latency_ms=1000",),
    objective=("cross_entropy", "latency_ms=0.1"),
  )
  problem = search.prepare(config)
  metric = problem.metrics["latency_ms"]
  assert metric.unit == "ms" and "mine" in metric.source
  low, high = problem.costs["latency_ms"].extremes(problem.space.masks)
  assert 0 < low < high
  made = strategies.build(problem).search
  assert made.init and problem.steps > 0
  capsys.readouterr()
