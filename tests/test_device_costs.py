"""One time, one power, one count: what a device's metrics agree on."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import toy_space

from nasjax import hardware, run_folder, spaces
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.hardware import choices, energy, profile, roofline
from nasjax.hardware import table as tables
from nasjax.hardware.device import Device
from nasjax.hardware.workload import Workload, added
from nasjax.spaces import costs
from nasjax.spaces import space as space_tools
from nasjax.spaces.space import Architecture

FOLDER = Path(profile.__file__).parent / "devices"
SPACE = spaces.edge(image_shape=(8, 8, 1), nodes=1)


def network(seed, space=SPACE):
  rows = space_tools.random_choices(space, np.random.default_rng(seed), 1)
  return Architecture(space, {n: r[0] for n, r in rows.items()})


def table_of(space, ms, rules=None):
  """A table in which each workload takes `ms(workload)`."""
  works = space.workloads().distinct()
  rows = {(w, 1): {"latency_ms": ms(w)} for w in works}
  return tables.Table("t.csv", {}, rows, rules or {})


def test_energy_and_cost_of_a_device_use_its_measured_time():
  own = hardware.device("raspberry-pi-4").profile
  table = table_of(SPACE, lambda w: 7.0)
  device = Device("pi", table, own)
  one = network(0)
  works = [*SPACE.workloads().fixed]
  for group, row in one.choices.items():
    for edge, k in enumerate(row):
      works += SPACE.workloads().groups[group][edge][k]
  took = 7.0 * len(works)
  assert device.latency(SPACE).exact(one) == pytest.approx(took)
  busy = sum(
    e.dynamic_mj + e.memory_mj for e in (energy.energies(w, own) for w in works)
  )
  # Watts times milliseconds are millijoules.
  spent = busy + own.static_w * took
  assert device.energy(SPACE).exact(one) == pytest.approx(spent)
  assert device.edp(SPACE).exact(one) == pytest.approx(spent * took)
  flop, byte, ms = own.cost
  cost = ms * took + sum(
    flop * w.flops + byte * roofline.moved_bytes(w, own) for w in works
  )
  found = device.metric(SPACE, "cost")
  assert found.exact(one) == pytest.approx(cost)
  assert found.form == "sum" and "measured" in found.source
  assert float(found.expected(one.one_hot())) == pytest.approx(cost, rel=1e-5)


def test_a_table_of_choices_gives_the_time_too():
  space = spaces.nasbench201(channels=4, cells=1, image_shape=(8, 8, 3))
  table = choices.ChoiceTable(
    "c.csv",
    {},
    "latency_ms",
    5.0,
    {"cell": np.full((6, 5), 2.0)},
    dict(space.groups),
  )
  device = Device("pi", table, hardware.device("raspberry-pi-4").profile)
  one = network(1, space)
  busy = Device("pi", None, device.profile)
  static = device.profile.static_w
  alone = busy.energy(space).exact(one) - static * busy.latency(space).exact(
    one
  )
  assert device.energy(space).exact(one) == pytest.approx(
    alone + static * 17.0, rel=1e-5
  )


def test_sums_of_metrics_keep_what_a_decision_reads():
  space = spaces.mobilenet(image_shape=(32, 32, 3))
  both = hardware.params(space), hardware.macs(space)
  total = added(*both, 0.5, "half")
  one = network(0, space)
  want = both[0].exact(one) + 0.5 * both[1].exact(one)
  assert total.exact(one) == pytest.approx(want)
  found = costs.costs(space, total)
  assert found.of(one.choices) == pytest.approx(want)


def test_powers_agree_with_the_text_beside_them():
  """Watts, or a current at a voltage, that a profile's comment names."""
  seen = []
  for path in sorted(FOLDER.glob("*.toml")):
    text = path.read_text()
    own = profile.read(path)
    hertz, volts = zip(*own.points, strict=True)
    volt = np.interp(own.frequency_hz, hertz, volts)
    charge = 1e-9 * own.capacitance_nf["default"]
    busy = own.static_w + charge * volt**2 * own.frequency_hz
    about = text[text.index("[energy]") :].partition("static_w")[0]
    about = about.replace("\n#", "")
    for watts in re.findall(r"([\d.]+) (?:W with|W at|W busy)", about):
      assert busy == pytest.approx(float(watts), rel=0.05), path.name
      seen.append(path.stem)
    for idle in re.findall(r"([\d.]+) W idle", about):
      assert own.static_w == pytest.approx(float(idle), rel=0.05), path.name
    for current, at in re.findall(r"([\d.]+) mA at ([\d.]+) V", about):
      said = 1e-3 * float(current) * float(at)
      assert busy == pytest.approx(said, rel=0.05), path.name
      seen.append(path.stem)
  assert {"stm32f746", "esp32-s3", "edge-npu", "jetson-orin-nano"} <= set(seen)


def test_a_batch_shares_the_control_cost_of_a_profile():
  own = hardware.device("hexagon-hvx")
  assert own.profile.control_us > 0
  one = network(0)
  single = own.latency(SPACE).exact(one)
  eight = own.latency(SPACE, batch=8).exact(one)
  count = len(
    [
      w
      for w in [
        *SPACE.workloads().fixed,
        *(
          w
          for g, row in one.choices.items()
          for e, k in enumerate(row)
          for w in SPACE.workloads().groups[g][e][k]
        ),
      ]
      if w.kind not in own.profile.fused
    ]
  )
  saved = 7e-3 * own.profile.control_us * count
  assert eight == pytest.approx(8 * single - saved)
  assert "batch 8" in own.latency(SPACE, batch=8).source
  # Static power runs for as long as the batch.
  energies = [own.energy(SPACE, batch=b).exact(one) for b in (1, 8)]
  static = own.profile.static_w
  assert energies[1] == pytest.approx(8 * energies[0] - static * saved)
  with pytest.raises(InputError, match="at its own bits"):
    own.latency(SPACE, bits=8)


def test_pointwise_traffic_is_the_loop_nests():
  work = Workload("convolution", 8, 8, 16, 32)
  assert roofline.textbook_bytes(work, 32) == 8 * 8 * 16 * 32 * 4
  depthwise = Workload("depthwise", 8, 8, 16, 16, 3, groups=16)
  assert roofline.textbook_bytes(depthwise, 32) == 8 * 8 * 16 * 9 * 4
  own = hardware.device("raspberry-pi-4").profile
  slow = tuple(m._replace(bandwidth_bytes_per_s=1e6) for m in own.memory)
  device = Device("pi", None, own._replace(memory=slow))
  metric, one = device.latency(SPACE, counting="textbook"), network(0)
  assert metric.exact(one) > device.latency(SPACE).exact(one)
  assert "textbook" in metric.source
  with pytest.raises(InputError, match="no bytes are counted"):
    hardware.device("x86-server").latency(SPACE, counting="textbook")


@pytest.mark.parametrize(
  "make, adds",
  [
    # Three additions in a cell, of which each stage has two.
    (
      lambda: spaces.nasbench201(channels=4, cells=2, image_shape=(8, 8, 3)),
      18,
    ),
    # Three cells of two nodes, each of which sums two edges.
    (lambda: spaces.darts(channels=4, cells=3, nodes=2), 6),
    (lambda: spaces.edge(image_shape=(8, 8, 1), nodes=2), 6),
  ],
)
def test_fused_additions_are_those_that_the_networks_have(make, adds):
  """Additions alone cost something, and after an operation nothing."""
  space = make()
  read = {
    work.after
    for edges in space.workloads().joins.values()
    for row in edges
    for cell in row
    for work in cell
  }
  assert "" not in read
  factors = {f"{kind}>add": 0.0 for kind in read}
  rules = {(32, 1): tables.Rules(0.0, factors)}
  table = table_of(space, lambda w: 10.0 * (w.kind == "add"), rules)
  fused = Device("d", table).latency(space)
  plain = Device("d", table._replace(rules={})).latency(space)
  work = [w for w in space.workloads().fixed if w.kind == "add"]
  for seed in range(5):
    one = network(seed, space)
    whole = plain.exact(one)
    assert fused.exact(one) >= -1e-9
    inside = {n: w for n, w in one.names().items() if "none" not in w}
    if not inside and not space_tools.kept_of(space):
      continue
    # All but those between the cells are read by an operation.
    assert whole - fused.exact(one) == pytest.approx(10.0 * adds, abs=1e-3)
  assert len(work) >= adds


@pytest.mark.parametrize("words", [[], ["--strategy", "nsga2"]])
def test_a_deadline_that_cannot_be_kept_is_refused(
  words, npz, tmp_path, capsys
):
  out = tmp_path / "run"
  given = ["search", "--data", npz, "--device", "raspberry-pi-4", *words]
  given += ["--objective", "cross_entropy", "edp_mj_ms"]
  given += ["--space", toy_space.NAME]
  given += ["--edp-deadline-ms", "1e-6", "--out", str(out)]
  assert main(given) == 2
  error = capsys.readouterr().err
  assert "fastest_ms" in error and "no architecture" in error
  assert error.count("\n") == 1 and not out.exists()


def test_a_deadline_bounds_what_is_decided(npz, tmp_path):
  out = tmp_path / "run"
  space = toy_space.toy((8, 8, 3), 3)
  device = hardware.device("raspberry-pi-4")
  fastest = device.fastest(space)
  values = [fastest.exact(network(s, space)) for s in range(200)]
  deadline = float(np.percentile(values, 20))
  given = ["search", "--data", npz, "--device", "raspberry-pi-4"]
  given += ["--objective", "cross_entropy", "edp_mj_ms"]
  given += ["--space", toy_space.NAME]
  given += ["--edp-deadline-ms", repr(deadline), "--out", str(out)]
  given += ["--epochs", "1", "--batch-size", "8"]
  assert main(given) == 0
  found = json.loads((out / run_folder.GENOTYPE).read_text())
  assert found["metrics"]["fastest_ms"]["value"] <= deadline
  assert found["limits"] == {"fastest_ms": deadline}
  decided = spaces.architecture(space, found["choices"])
  assert bool(device.dvfs(space, deadline)[1](decided.one_hot()).kept)
