"""Device profiles: reading, rules, substitution, several devices at once."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from nasjax import hardware, spaces
from nasjax.cli import config as configs
from nasjax.cli import goals, parts
from nasjax.cli import metrics as metric_parts
from nasjax.cli.main import _parser, main
from nasjax.errors import InputError
from nasjax.hardware import memory, profile, roofline
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import genotype

FOLDER = Path(profile.__file__).parent / "devices"
PROFILES = sorted(p.stem for p in FOLDER.glob("*.toml"))
TEXT = (FOLDER / "stm32f746.toml").read_text()


def test_the_ten_devices_are_there():
  assert PROFILES == sorted(
    "raspberry-pi-4 cortex-a76 mali-g76 hexagon-hvx edge-npu jetson-orin-nano"
    " stm32f746 stm32h743 esp32-s3 x86-server".split()
  )
  assert hardware.device_names() == PROFILES


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_costs_a_space_and_says_unverified(name):
  device = hardware.device(name)
  space = spaces.edge()
  for metric_name in device.metrics:
    metric = device.metric(space, metric_name)
    found = spaces.architecture(space, {"nodes": ["sep_conv_3x3"] * 9})
    assert 0 < metric.exact(found) < 1e12
    assert float(metric.expected(found.one_hot())) == pytest.approx(
      metric.exact(found), rel=1e-4
    )
    measured = metric.source.startswith("measured")
    assert measured or "datasheet, unverified" in metric.source, metric.source
    assert measured == (name == "x86-server" and metric_name == "latency_ms")


@pytest.mark.parametrize("name", PROFILES)
def test_each_rule_is_warned_of_and_costs(name):
  """Each rule: a workload it matches is slower by its factor, or closed."""
  own = hardware.device(name).profile
  assert own.rules
  for rule in own.rules:
    for kind in rule.kinds:
      odd = 0 if rule.channels_multiple == 1 else 1
      channels = 64 + odd
      groups = channels if kind == "depthwise" else 1
      work = space_module_work(kind, channels, groups)
      assert roofline.matches(rule, work)
      if odd:
        assert not roofline.matches(rule, space_module_work(kind, 64, 1))
      with_rule = roofline.times(work, own)
      without = roofline.times(work, own._replace(rules=()))
      others = np.prod(
        [
          r.slowdown
          for r in own.rules
          if r != rule and roofline.matches(r, work)
        ]
      )
      assert with_rule.slowdown == pytest.approx(rule.slowdown * others)
      assert with_rule.total_s >= without.total_s


def space_module_work(kind, channels, groups):
  from nasjax.hardware.workload import Workload

  return Workload(kind, 8, 8, channels, channels, 3, 1, groups)


def test_rules_warn_and_close_candidates():
  space = spaces.edge(activation="hswish", image_shape=(8, 8, 1))
  dsp = hardware.device("hexagon-hvx")
  lines = dsp.warnings(space)
  assert any("no h-swish" in line and "closed" in line for line in lines)
  assert all("datasheet, unverified" in line for line in lines)
  names = space.groups["nodes"].candidates
  open_ = hardware.closed([dsp], space)["nodes"]
  swishing = {
    "sep_conv_3x3",
    "sep_conv_5x5",
    "squeeze_excite",
    "ghost",
    "inverted_residual",
  }
  for row in open_:
    assert {n for n, o in zip(names, row, strict=True) if not o} == swishing
  # relu6 breaks no rule of that kind.
  plain = spaces.edge(image_shape=(8, 8, 1))
  assert hardware.closed([dsp], plain)["nodes"].all()
  # 6 channels are no multiple of 4.
  crooked = spaces.edge(channels=6, conv_groups=2, image_shape=(8, 8, 1))
  assert any(
    "multiples of 4" in line
    for line in hardware.device("raspberry-pi-4").warnings(crooked)
  )


@pytest.mark.parametrize(
  "name, block, shapes",
  [
    # (kind, kernel, channels in, out, groups) of what a CPU, GPU, NPU runs.
    (
      "raspberry-pi-4",
      "separable_expansion_3",
      [
        ("convolution", 1, 16, 48, 1),
        ("depthwise", 3, 48, 48, 48),
        ("convolution", 1, 48, 16, 1),
      ],
    ),
    (
      "mali-g76",
      "group_conv_3x3_groups_4",
      [("convolution", 3, 16, 16, 4), ("convolution", 1, 16, 16, 1)],
    ),
    (
      "edge-npu",
      "fused_inverted_residual_3",
      [("convolution", 3, 16, 48, 1), ("convolution", 1, 48, 16, 1)],
    ),
  ],
)
def test_a_platform_has_its_own_block(name, block, shapes):
  substitutes = hardware.device(name).profile.substitutes
  assert substitutes == {"inverted_residual": block}
  space = spaces.edge(block=block)
  assert space.arguments["block"] == block
  assert space.groups["nodes"].candidates[-1] == block
  own = space.plan.stages[0].edges[0][block].workloads
  assert [
    (w.kind, w.kernel, w.channels_in, w.channels_out, w.groups)
    for w in own
    if w.kind in ("convolution", "depthwise")
  ] == shapes
  with pytest.raises(ValueError, match="block='separable"):
    spaces.edge(block="separable")


def test_two_devices_decide_two_networks_each_better_at_home():
  """The same preferences under the same relative limit on two devices."""
  space = spaces.edge()
  rng = np.random.default_rng(0)
  weights = {"nodes": rng.dirichlet(np.ones(12), 9)}
  found, latencies = {}, {}
  for name in ("raspberry-pi-4", "jetson-orin-nano"):
    latency = latencies[name] = hardware.device(name).latency(space)
    costs = cost_tables.additive_costs(space, latency)
    low, high = costs.extremes(space.masks)
    found[name] = space.decide(weights, [(latency, low + 0.1 * (high - low))])
  one, two = found
  assert found[one].names() != found[two].names()
  for own, other in ((one, two), (two, one)):
    metric = latencies[own]
    low, high = cost_tables.additive_costs(space, metric).extremes(space.masks)
    # The other device's network breaks this device's limit, or is less likely.
    limit = low + 0.1 * (high - low)
    score = np.log(weights["nodes"])
    likely = {
      n: score[np.arange(9), f.choices["nodes"]].sum() for n, f in found.items()
    }
    assert metric.exact(found[own]) <= limit
    assert metric.exact(found[other]) > limit or likely[own] > likely[other]


@pytest.mark.parametrize(
  "old, new, said",
  [
    ("cores = 1", "cores = 0", r"\[compute\] cores: 0 is below 1"),
    ("cores = 1", "coers = 1", r"'cores' is missing; did you mean coers"),
    ("cores = 1", "cores = 1\ncolour = 2", "colour: unknown key"),
    ("cores = 1", "cores = 1\ncores = 2", "line 1"),
    ("static_w = 0.05", "static_w = nan", "not a finite"),
    ("static_w = 0.05", 'static_w = "a lot"', "not a number"),
    ('platform = "mcu"', 'platform = "mcp"', "did you mean mcu"),
    ("size_bytes = 8e6", "size_bytes = 8", "holds no more than SRAM"),
    (
      "frequency_hz = 216e6\nvoltage",
      "frequency_hz = 1e5\nvoltage",
      "not rise",
    ),
    ('kinds = ["hswish"]', 'kinds = ["h-swish"]', "did you mean hswish"),
    ("bits = 8", "bits = 8.5", "not a whole number"),
    ("bits = 8", 'bits = "\\u001b[2J"', "control characters"),
    ("[holds]", "[hold]", "'holds' is missing"),
  ],
)
def test_bad_profiles_are_refused(old, new, said, tmp_path):
  assert old in TEXT
  path = tmp_path / "board.toml"
  path.write_text(TEXT.replace(old, new))
  with pytest.raises(InputError, match=f"board.toml.*{said}"):
    hardware.device(str(path))


def test_a_profile_of_ones_own(tmp_path):
  path = tmp_path / "board.toml"
  path.write_text(TEXT)
  device = hardware.device(str(path))
  assert device.name == "board"
  assert (
    device.profile._replace(name="stm32f746")
    == hardware.device("stm32f746").profile
  )


def test_list_and_show_print_units_and_sources(capsys, monkeypatch):
  monkeypatch.setenv("COLUMNS", "200")
  assert main(["hw", "list"]) == 0
  text = capsys.readouterr().out
  assert all(name in text for name in PROFILES)
  assert "measured: latency_ms" in text
  assert main(["hw", "show", "stm32f746"]) == 0
  text = capsys.readouterr().out
  assert "216" in text and "MHz" in text and "KiB" in text
  rows = [line for line in text.splitlines() if line.startswith("│")]
  assert rows and all("datasheet, unverified" in line for line in rows)
  assert main(["hw", "show", "stm32f74"]) == 2
  assert "did you mean stm32f746" in capsys.readouterr().err


@pytest.mark.slow
def test_limits_of_several_devices_are_kept(npz, tmp_path, capsys):
  out = tmp_path / "run"
  asked = {
    "raspberry-pi-4:latency_ms": ("latency_ms__raspberry-pi-4", 0.15, 1),
    "raspberry-pi-4:energy_mj": ("energy_mj__raspberry-pi-4", 0.3, 1),
    "stm32f746:peak_sram_kib": ("peak_sram_bytes__stm32f746", 0.75, 1024),
    "stm32f746:working_set_kib": ("working_set_bytes__stm32f746", 4.5, 1024),
  }
  words = [f"{name}={value}" for name, (_, value, _) in asked.items()]
  code = main(
    ["search", "--space", "nasbench201", "--data", npz, "--cells", "1"]
    + ["--channels", "4", "--epochs", "1", "--batch-size", "8"]
    + ["--device", "raspberry-pi-4", "--device", "stm32f746"]
    + ["--limit", *words, "--out", str(out)]
  )
  printed = capsys.readouterr()
  assert code == 0, printed.err
  genotype = json.loads((out / "genotype.json").read_text())
  for name, value, factor in asked.values():
    assert genotype["limits"][name] == pytest.approx(value * factor)
    assert genotype["metrics"][name]["value"] <= value * factor
    assert genotype["metrics"][name]["unit"] in ("ms", "mJ", "B")
    assert "datasheet, unverified" in genotype["metrics"][name]["source"]
  for name in ("params", *(n for n, _, _ in asked.values())):
    assert name in printed.out


@pytest.mark.parametrize(
  "words, said",
  [
    (["--limit", "stm32f746:peak_sram_kib=0.1"], "no architecture"),
    (["--limit", "edp_mj_ms=1e-9", "--nodes", "1"], "keeps it; the nearest"),
    (["--limit", "peak_sram_kb=3"], "did you mean peak_sram_bytes"),
    (["--block", "device", "--device", "TABLE"], "prefers none"),
  ],
)
def test_limits_that_cannot_be_are_refused(words, said, npz, tmp_path, capsys):
  if "TABLE" in words:
    text = (FOLDER / "x86-server.csv").read_text()
    (tmp_path / "t.csv").write_text(text)
    words = [w.replace("TABLE", str(tmp_path / "t.csv")) for w in words]
  out = tmp_path / "run"
  base = ["search", "--data", npz, "--device", "stm32f746"]
  if "--block" in words:
    base = base[:3]
  assert main([*base, *words, "--out", str(out)]) == 2
  assert said in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.slow
def test_a_run_starts_from_another(npz, tmp_path, capsys):
  base, out = str(tmp_path / "base"), tmp_path / "new"
  words = ["search", "--space", "nasbench201", "--data", npz, "--cells", "1"]
  words += ["--channels", "4", "--epochs", "4", "--batch-size", "8"]
  assert main([*words, "--device", "raspberry-pi-4", "--out", base]) == 0
  again = ["search", "--from", base, "--device", "stm32f746", "--out", str(out)]
  assert main([*again, "--limit", "latency_ms=1.0"]) == 0, capsys.readouterr()
  genotype = json.loads((out / "genotype.json").read_text())
  assert genotype["metrics"]["latency_ms"]["value"] <= 1.0
  text = (out / "config.yaml").read_text()
  assert f"from_: {base}" in text and "epochs: 1" in text
  capsys.readouterr()
  assert main([*again, "--config", "x.yaml"]) == 2
  assert "leave one out" in capsys.readouterr().err


@pytest.fixture
def genotype_path(tmp_path):
  space = spaces.edge(image_shape=(8, 8, 1))
  found = spaces.architecture(space, {"nodes": ["inverted_residual"] * 9})
  path = tmp_path / "genotype.json"
  value = genotype.to_json(found, metrics={}, limits={}, seed=0)
  path.write_text(json.dumps(value))
  return found, path


def test_a_schedule_is_printed_and_written(genotype_path, tmp_path, capsys):
  network, path = genotype_path
  out = tmp_path / "schedule.json"
  words = ["hw", "schedule", str(path), "--device", "stm32f746"]
  assert main([*words, "--out", str(out)]) == 0
  plain = json.loads(out.read_text())
  wanted = memory.peak_bytes(network, 8)
  assert plain["peak_bytes"] == wanted.peak_bytes
  assert tuple(plain["order"]) == wanted.order
  text = capsys.readouterr().out
  assert "peak_sram_bytes" in text and "datasheet, unverified" in text
  assert main([*words, "--out", str(out)]) == 2  # it exists
  assert "exists" in capsys.readouterr().err
  options = ["--in-place-depthwise", "--patches", "2"]
  options += ["--patched-operations", "1", "--deadline-ms", "1000"]
  assert main([*words, *options, "--out", str(out), "--force"]) == 0
  found = json.loads(out.read_text())
  assert found["peak_bytes"] < plain["peak_bytes"]
  assert found["in_place"] == ["depthwise"] and found["patches"] == 2
  # No deadline binds: no operating point has a lower energy-delay product.
  device = hardware.device("stm32f746")
  best = found["dvfs"]["latency_ms"] * found["dvfs"]["energy_mj"]
  for hertz, _ in device.profile.points:
    own = device._replace(profile=device.profile._replace(frequency_hz=hertz))
    assert best <= own.edp(network.space).exact(network) * (1 + 1e-4)
  capsys.readouterr()
  for wrong, said in (
    (["--deadline-ms", "1e-3"], "at its highest frequency"),
    (["--patches", "2"], "give both"),
    (["--device", str(FOLDER / "x86-server.csv")], "has no profile"),
  ):
    assert main([*words, *wrong]) == 2
    assert said in capsys.readouterr().err


def options_of(*words):
  return configs.from_flags(
    configs.SearchConfig, vars(_parser().parse_args(["search", *words]))
  )


def test_metrics_and_objectives_of_many_devices_on_the_command_line():
  space = spaces.edge(image_shape=(8, 8, 1))
  names = ["raspberry-pi-4", "stm32f746"]
  config = options_of(
    *["--device", names[0], "--device", names[1], "--in-place-depthwise"],
    *["--objective", "cross_entropy", "worst_latency_ms=0.5", "edp_mj_ms"],
    *["--edp-deadline-ms", "1000"],
  )
  devices = parts.devices(config)
  with pytest.raises(InputError, match="edp_mj_ms: unknown objective"):
    known = metric_parts.metrics(config, space, devices)
    goals.make_objectives(config, known, dict.fromkeys(known, 1.0))
  config = dataclasses.replace(config, objective=("worst_latency_ms=0.5",))
  with pytest.raises(InputError, match="--edp-deadline-ms"):
    metric_parts.metrics(config, space, devices)
  config = dataclasses.replace(
    config, objective=("worst_latency_ms=0.5", "stm32f746:edp_mj_ms")
  )
  known = metric_parts.metrics(config, space, devices)
  made, preference = goals.make_objectives(
    config, known, {n: 2.0 for n in known}
  )
  assert preference == [0.5, 1.0]
  assert {m.device for m in made[0].metrics} == set(names)
  costs = {f"latency_ms__{names[0]}": 2.0, f"latency_ms__{names[1]}": 6.0}
  assert 2.999 <= float(made[0].value({}, costs)) <= 3.07
  found = spaces.architecture(space, {"nodes": ["inverted_residual"] * 9})
  peak = known["peak_sram_bytes__stm32f746"]
  assert "depthwise in place" in peak.source
  assert peak.exact(found) < memory.peak_bytes(found, 8).peak_bytes
  device = hardware.device("stm32f746")
  at_best = known["edp_mj_ms__stm32f746"].exact(found)
  assert at_best <= device.edp(space).exact(found) * (1 + 1e-4)


@pytest.mark.parametrize(
  "words, said",
  [
    (["--objective", "worst_latency_ms", "--device", "stm32f746"], "several"),
    (["--objective", "quantization_error"], "--from RUN"),
    (["--objective", "cross_entropy", "weight_asymmetry"], "--from RUN"),
    (["--in-place-depthwise"], "add --device"),
    (["--edp-deadline-ms", "3"], "not asked for"),
    (["--quantize-scale", "tensor"], "add --quantize-bits"),
    (["--quantize-bits", "1"], "below 2"),
  ],
)
def test_options_that_nothing_reads_are_refused(
  words, said, npz, tmp_path, capsys
):
  out = tmp_path / "run"
  assert main(["search", "--data", npz, *words, "--out", str(out)]) == 2
  assert said in capsys.readouterr().err
  assert not out.exists()


@pytest.mark.slow
def test_a_search_for_few_bits(npz, tmp_path, capsys):
  """From a run: objectives of its weights, four bits, schedules, retraining."""
  base, out = str(tmp_path / "base"), tmp_path / "new"
  words = ["search", "--space", "nasbench201", "--data", npz, "--cells", "1"]
  words += ["--channels", "4", "--epochs", "2", "--batch-size", "8"]
  few = ["--quantize-bits", "4", "--asymmetry-penalty", "0.1"]
  assert main([*words, *few, "--out", base]) == 0, capsys.readouterr().err
  again = ["search", "--from", base, "--device", "stm32f746", "--out", str(out)]
  again += ["--objective", "cross_entropy", "quantization_error=0.5"]
  again += ["weight_asymmetry=0.1", "--limit", "peak_sram_kib=2"]
  assert main(again) == 0, capsys.readouterr().err
  value = json.loads((out / "genotype.json").read_text())
  assert value["schedules"]["stm32f746"]["peak_bytes"] <= 2048
  assert "at 4 bits" in value["metrics"]["quantization_error"]["source"]
  assert "weight_asymmetry" in value["metrics"]
  assert "quantize_bits: 4" in (out / "config.yaml").read_text()
  retrain = ["retrain", str(out), "--epochs", "1", "--batch-size", "16", *few]
  assert main(retrain) == 0, capsys.readouterr().err
