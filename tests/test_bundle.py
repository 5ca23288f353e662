"""Bundles, their timer, and what comes back."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from nasjax import hardware, spaces
from nasjax.cli.main import main
from nasjax.cli.parts import make_space
from nasjax.errors import InputError
from nasjax.hardware import meter, table
from nasjax.hardware.workload import Workload

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from nasjax.hardware import bundle, timer  # noqa: E402


def tiny():
  return spaces.edge(
    channels=4,
    nodes=1,
    stages=1,
    image_shape=(6, 6, 1),
    conv_groups=2,
    expansion=2,
  )


def run(folder, out, **others):
  timer.run(
    str(folder),
    str(out),
    repeats=3,
    rounds=1,
    retries=0,
    pinned=False,
    **others,
  )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A bundle of two workloads and two networks, timed."""
  folder = tmp_path_factory.mktemp("bundle")
  space = tiny()
  works = [
    Workload("convolution", 6, 6, 4, 4),
    Workload("add", 6, 6, 4, 4),
  ]
  bundle.make(
    folder,
    space,
    workloads=works,
    networks=bundle.random_networks(space, 2, 0),
    batches=[1, 3],
    bits=[32, 8],
    header={"device": "mine"},
  )
  run(folder, folder / "results.csv")
  return folder


def rows_of(path):
  lines = [n for n in path.read_text().splitlines() if n[0] != "#"]
  return list(csv.DictReader(lines))


def test_every_item_is_timed_at_every_batch(made):
  measured, space = bundle.read(made / "results.csv", make_space)
  assert space.arguments == tiny().arguments
  keys = {(w.kind, w.bits, batch) for w, batch, _ in measured.workloads}
  assert keys == {
    (kind, bits, batch)
    for kind in ("convolution", "add")
    for bits in (32, 8)
    for batch in (1, 3)
  }
  assert all(float(c["latency_ms"]) > 0 for _, _, c in measured.workloads)
  assert len(measured.networks) == 2 * 2 * 2
  header = measured.header
  assert header["device"] == "mine" and header["threads"] == "1"
  assert {"governor", "anchor_ms", "anchor_drift", "pinning"} <= set(header)


def test_int8_files_are_quantised(made):
  manifest = json.loads((made / bundle.MANIFEST).read_text())
  for item in manifest["items"]:
    model = onnx.load(str(made / item["file"]))
    kinds = {node.op_type for node in model.graph.node}
    assert ("QuantizeLinear" in kinds) == (item["row"]["bits"] == "8")


def test_a_stopped_run_goes_on(made, tmp_path):
  text = (made / "results.csv").read_text().splitlines(keepends=True)
  out = tmp_path / "results.csv"
  out.write_text("".join(text[:-5]))
  kept = rows_of(out)
  seen = []
  run(made, out, progress=lambda done, total, said: seen.append((done, total)))
  assert seen[-1] == (16, 16) and len(seen) == 1
  found = rows_of(out)
  assert found[: len(kept)] == kept and len(found) == 16


def test_a_run_made_otherwise_is_not_gone_on_with(made, tmp_path):
  out = tmp_path / "results.csv"
  out.write_text((made / "results.csv").read_text())
  with pytest.raises(ValueError, match="threads '1', not '2'"):
    run(made, out, threads=2)


def test_rounds_are_merged_by_their_median(made, tmp_path):
  text = (made / "results.csv").read_text()
  row = next(n for n in text.splitlines() if n.startswith("0000,"))
  names = next(n for n in text.splitlines() if n.startswith("item,")).split(",")
  cells = dict(zip(names, row.split(","), strict=True))
  lines = []
  for number, time in enumerate(("2", "1", "9"), 1):
    changed = {**cells, "latency_ms": time, "round": str(number)}
    lines.append(",".join({**changed, "spread": "0.1"}.values()))
  head = [n for n in text.splitlines() if n.startswith("#")]
  out = tmp_path / "r.csv"
  out.write_text("\n".join([*head, ",".join(names), *lines]) + "\n")
  measured, _ = bundle.read(out, make_space)
  [(_, _, merged)] = measured.workloads
  assert merged["latency_ms"] == "2" and merged["spread"] == "4"


@pytest.mark.parametrize(
  "old, new, said",
  [
    ("nasjax.measurements/1", "other", "no line `# format"),
    ('{"name"', '{"nam"', '# space: needs "name"'),
    ('"edge"', '"edgy"', "unknown name"),
    ("convolution,", "convolutoin,", "unknown kind"),
    ("nodes=", "nodes=99-", "has 2 choices"),
    ("nodes=", "nodes=x", "is not GROUP"),
    (",latency_ms", ",latency_us", "'latency_ms' is missing"),
  ],
)
def test_bad_measurements_are_refused(old, new, said, made, tmp_path):
  out = tmp_path / "r.csv"
  out.write_text((made / "results.csv").read_text().replace(old, new, 1))
  with pytest.raises(InputError, match=said):
    bundle.read(out, make_space)


def test_random_networks_differ_and_are_connected():
  space = spaces.nasbench201()
  found = bundle.random_networks(space, 40, 0)
  names = {bundle.choices_text(n.choices) for n in found}
  assert len(names) == 40
  again = bundle.random_networks(space, 40, 0)
  assert names == {bundle.choices_text(n.choices) for n in again}


def test_the_script_needs_only_numpy_and_onnxruntime(made):
  """Run alone, with every import of this package refused."""
  text = (made / bundle.SCRIPT).read_text()
  assert "nasjax." not in text.replace("nasjax.measurements", "")
  done = subprocess.run(
    [sys.executable, "-I", made / bundle.SCRIPT, "--help"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0 and "--threads" in done.stdout


def test_from_bundle_to_search_on_the_command_line(tmp_path, capsys):
  small = ["--nodes", "1", "--image-shape", "4x4x1", "--channels", "4"]
  folder, results = tmp_path / "b", tmp_path / "b" / "results.csv"
  words = ["--batch", "1,2", "--device", "mine", "--calibrate", "10"]
  assert main(["hw", "bundle", *small, *words, "--out", str(folder)]) == 0
  assert main(["hw", "bundle", *small, "--out", str(folder)]) == 2
  assert "not an empty folder" in capsys.readouterr().err
  run(folder, results)
  out = tmp_path / "t.csv"
  assert main(["hw", "import", str(results), "--out", str(out)]) == 0
  assert main(["hw", "import", str(results), "--out", str(out)]) == 2
  assert "exists" in capsys.readouterr().err
  device = hardware.device(str(out))
  assert device.name == "mine" and set(device.table.rules) == {(32, 1), (32, 2)}
  space = spaces.edge(nodes=1, image_shape=(4, 4, 1), channels=4)
  for batch in (1, 2):
    one = bundle.random_networks(space, 1, 5)[0]
    assert device.latency(space, batch=batch).exact(one) > 0
  words = ["hw", "coverage", *small, "--device", str(out), "--batch"]
  assert main([*words, "1,2"]) == 0
  assert main([*words, "4"]) == 2
  said = capsys.readouterr().out
  assert "missing: add 1x1 16->16 at batch 4" in said
  words = ["search", "--nodes", "1", "--channels", "4", "--device", str(out)]
  words += ["--limit", "latency_ms=1e-9", "--device-batch"]
  npz = tmp_path / "a.npz"
  rng = np.random.default_rng(0)
  np.savez(
    npz,
    x_train=rng.integers(256, size=(20, 4, 4, 1), dtype=np.uint8),
    y_train=np.arange(20) % 10,
  )
  # Refused by the limit, which shows that the table was read.
  assert main([*words, "2", "--data", str(npz)]) == 2
  assert "smallest reachable" in capsys.readouterr().err
  assert main([*words, "4", "--data", str(npz)]) == 2
  assert "at batch 4" in capsys.readouterr().err
  assert main([*words, "2", "--device-bits", "8", "--data", str(npz)]) == 2
  assert "bits=8 at batch 2" in capsys.readouterr().err


def test_measure_with_energies_of_a_users_meter(tmp_path, capsys):
  meter = tmp_path / "meter.py"
  meter.write_text(
    "def read(path, batch):\n"
    "  assert path.endswith('.onnx')\n"
    "  return {'energy_mj': 2.5 * batch}\n"
    "def broken(path, batch):\n"
    "  return {'energy_mj': float('nan')}\n"
  )
  out = tmp_path / "t.csv"
  words = ["hw", "measure", "--runtime", "onnxruntime", "--nodes", "1"]
  words += ["--image-shape", "4x4x1", "--channels", "4", "--out", str(out)]
  words += ["--rounds", "1", "--repeats", "3", "--energy"]
  assert main([*words, f"{meter}:broken"]) == 2
  assert "not a finite number" in capsys.readouterr().err
  assert not out.exists()
  assert main([*words, f"{meter}:read"]) == 0
  found = table.read(out)
  assert found.costs == ("latency_ms", "energy_mj")
  assert {row["energy_mj"] for row in found.rows.values()} == {2.5}
  assert [p.name for p in tmp_path.iterdir() if "bundle" in p.name] == []


def test_rapl_is_refused_where_there_is_none(tmp_path):
  with pytest.raises(InputError, match="no energy counter in"):
    meter.rapl_zones(tmp_path)


def test_rapl_counters_are_read_and_run_over(tmp_path):
  for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "energy_uj").write_text("123\n")
    (tmp_path / name / "max_energy_range_uj").write_text("999\n")
  zones = meter.rapl_zones(tmp_path)
  assert len(zones) == 2 and meter.read_uj(zones) == [123, 123]
  assert meter.used_uj([10, 990], [30, 5], [999, 999]) == 20 + 15


@pytest.mark.parametrize(
  "words, said",
  [
    (["--runtime", "jax", "--bits", "8"], "--bits: is for --runtime onnx"),
    (["--runtime", "jax", "--calibrate", "30"], "--calibrate: is for"),
    (["--runtime", "onnxruntime", "--bits", "4"], "4 is not measured"),
    (["--batch", "1,x"], "not a number"),
    (["--batch", "0"], "below 1"),
    (
      ["--runtime", "onnxruntime", "--calibrate", "3", "--channels", "4", "8"],
      "are of one space",
    ),
  ],
)
def test_wrong_options_are_refused(words, said, tmp_path, capsys):
  out = str(tmp_path / "t.csv")
  assert main(["hw", "measure", *words, "--out", out]) == 2
  assert said in capsys.readouterr().err
