"""Tiny: counts by hand, the shrunk space, ONNX's own count of the memory."""

import itertools
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import test_mobilenet
from hypothesis import given, settings
from hypothesis import strategies as st
from test_mobilenet import drawn, module_parameters, same, uniform
from test_restricted import close

from nasjax import data, hardware, spaces, testing
from nasjax.cli import config as configs
from nasjax.cli import parts, shrinking
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.search import genes
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import genotype
from nasjax.spaces import space as space_tools
from nasjax.spaces.tiny import WIDTHS, resolutions, shrink
from nasjax.types import Sampled

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
_SHARED = {n: v for n, v in test_mobilenet.SMALL.items() if n != "channels"}
SMALL = dict(width=50, channel_multiple=4) | _SHARED
MCU = "stm32f746"


def without_affine(tree):
  """Only what the supernet's searched layers have."""
  return {
    layer: {n: v for n, v in parts.items() if not n.startswith("norm")}
    for layer, parts in tree.items()
  }


@pytest.fixture(scope="module")
def small():
  return spaces.tiny(**SMALL)


@pytest.fixture(scope="module")
def device():
  return hardware.device(MCU)


def smaller(width=50, side=8):
  """Two searched layers, the second may be skipped: 32 networks."""
  return spaces.tiny(
    **{
      **SMALL,
      "width": width,
      "image_shape": (side, side, 1),
      "stage_channels": (16, 24),
      "stage_depths": (1, 2),
      "stage_strides": (1, 1, 2),
    }
  )


def everything(space):
  """All architectures."""
  counts = genes.cardinalities(space)
  for row in itertools.product(*(range(n) for n in counts)):
    yield genes.architecture(space, np.array(row, np.int32))


def test_counts_by_hand(small, device):
  """Channels 16 | 8 | 12 12 | 16 | 8, expansion 2, kernel 3."""
  one = same(small, depth="keep", expansion="2", kernel="3")
  # (pixels, inputs, outputs, kernel) of full convolutions, then of depthwise.
  full = [
    (64, 1, 16, 3),
    (64, 16, 8, 1),
    *((64, 8, 16, 1), (64, 16, 12, 1)),
    *((64, 12, 24, 1), (64, 24, 12, 1)),
    *((64, 12, 24, 1), (16, 24, 16, 1)),
    (16, 16, 8, 1),
    (1, 8, 3, 1),
  ]
  thin = [(64, 16), (64, 16), (64, 24), (16, 24)]
  kernels = sum(i * o * k * k for _, i, o, k in full)
  kernels += sum(9 * c for _, c in thin)
  outputs = sum(o for _, _, o, _ in full) + sum(c for _, c in thin)
  macs = sum(p * i * o * k * k for p, i, o, k in full)
  macs += sum(9 * p * c for p, c in thin)
  assert hardware.macs(small).exact(one) == macs == 137112
  # A byte a weight, four a bias.
  assert device.flash(small).exact(one) == kernels + 4 * outputs
  # Each normalisation has a scale and a shift, the last layer biases.
  parameters = kernels + 2 * (outputs - 3) + 3
  assert hardware.params(small).exact(one) == parameters
  assert module_parameters(one) == parameters
  # The second layer of the first stage: its input is kept for the addition,
  # and the depthwise convolution reads and writes 24 channels of 64 pixels.
  assert device.peak_sram(small).exact(one) == 64 * (12 + 24 + 24)


def test_the_space_keeps_the_contract(small, tmp_path):
  testing.check_space(small)
  one = drawn(small, 0)
  value = genotype.to_json(one, metrics={}, limits={}, seed=0)
  (tmp_path / "genotype.json").write_text(json.dumps(value))
  again, _ = genotype.read(tmp_path, {"tiny": spaces.tiny})
  assert again.space.arguments == small.arguments
  assert again.names() == one.names()


@pytest.mark.parametrize(
  "change, said",
  [
    (dict(width=5), "tiny: width=5"),
    (dict(width=True), "tiny: width=True"),
    (dict(channel_multiple=0), "tiny: channel_multiple=0"),
    (dict(kernels=(4,)), "tiny: kernels"),
    (dict(activation="relu7"), "did you mean relu"),
    (dict(stage_strides=(1, 2)), "stage_strides"),
    (dict(image_shape=(1, 8, 1)), "too small"),
  ],
)
def test_bad_arguments_are_refused(change, said):
  with pytest.raises(ValueError, match=said):
    spaces.tiny(**{**SMALL, **change})


def test_activations_are_bounded_and_channels_fill_vectors(small):
  works = small.workloads().distinct()
  kinds = {w.kind for w in works}
  assert "relu6" in kinds and not kinds & {"relu", "hswish"}
  wide = [w for w in works if w.kind in ("convolution", "depthwise")]
  assert all(w.channels_out % 4 == 0 for w in wide)


def test_the_restricted_supernet_equals_the_network_alone(small):
  """Outputs, gradients and running statistics, at 1e-5 of their size."""
  rng = np.random.default_rng(1)
  images = rng.normal(size=(4, 8, 8, 1)).astype("f4")
  variables = jax.device_get(small.init(jax.random.key(0)))
  one = drawn(small, 1)
  network, own = small.build(one), small.extract(variables, one)

  def loss(params, stats, apply):
    outputs, new = apply({"params": params, "batch_stats": stats})
    return (outputs**2).sum(), (outputs, new)

  def supernet(own):
    return small.apply(own, Sampled(one.one_hot()), images, True)

  def alone(own):
    outputs, new = network.apply(own, images, True, mutable=["batch_stats"])
    return outputs, new["batch_stats"]

  full, single = (
    jax.device_get(
      jax.jit(jax.grad(loss, has_aux=True), static_argnums=2)(
        v["params"], v["batch_stats"], apply
      )
    )
    for v, apply in ((variables, supernet), (own, alone))
  )
  close(full[1][0], single[1][0])
  found = small.extract({"params": full[0], "batch_stats": full[1][1]}, one)
  close(found["batch_stats"], single[1][1])
  close(without_affine(found["params"]), without_affine(single[0]))


def test_onnx_counts_the_same_memory(small, device):
  """Peak, flash and multiply-adds of exported files, every tensor by itself."""
  pytest.importorskip("onnx")
  import onnx_peak

  by_hand = same(small, depth="keep", expansion="2", kernel="3")
  for one in (by_hand, *(drawn(small, seed) for seed in range(3))):
    counted = onnx_peak.of_network(one)
    assert counted.peak_sram_bytes == device.peak_sram(small).exact(one)
    assert counted.flash_bytes == device.flash(small).exact(one)
    assert counted.macs == hardware.macs(small).exact(one)


def test_onnx_sees_another_memory_where_there_is_another():
  """The count can tell: nothing reads a kept input, so it may go."""
  onnx = pytest.importorskip("onnx")
  import onnx_peak

  def model(residual):
    make = onnx.helper
    nodes = [make.make_node("Relu", ["x"], ["a"])]
    nodes += [make.make_node("Concat", ["a", "a"], ["b"], axis=1)]
    read = ["b", "a"] if residual else ["b"]
    nodes += [make.make_node("Concat", read, ["y"], axis=1)]
    channels = 12 if residual else 8
    values = [
      make.make_tensor_value_info(name, 1, [1, c, 2, 2])
      for name, c in (("x", 4), ("y", channels))
    ]
    return make.make_model(
      make.make_graph(nodes, "g", values[:1], values[1:]),
      opset_imports=[make.make_opsetid("", 17)],
    )

  # Relu writes over x. b beside a, then y beside what it reads.
  assert onnx_peak.count(model(True)).peak_sram_bytes == 4 * (4 + 8 + 12)
  assert onnx_peak.count(model(False)).peak_sram_bytes == 4 * (8 + 8)


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000), share=st.floats(0.1, 0.9))
def test_decisions_keep_memory_computing_and_energy(device, seed, share):
  """The most probable of all networks within a sum's and a maximum's limits."""
  space = smaller()
  rng = np.random.default_rng(seed)
  weights = {
    n: rng.dirichlet(np.ones(len(g.candidates)), g.edges)
    for n, g in space.groups.items()
  }
  metrics = [
    device.peak_sram(space),
    hardware.macs(space),
    device.energy(space),
  ]
  rows = list(everything(space))
  assert len(rows) == 32
  values = np.array([[m.exact(a) for m in metrics] for a in rows])
  bounds = [float(np.quantile(v, share)) for v in values.T]
  good = (values <= bounds).all(1)
  if not good.any():
    return

  def score(one):
    return sum(
      np.log(w[np.arange(len(w)), one.choices[n]]).sum()
      for n, w in weights.items()
    )

  found = space.decide(weights, list(zip(metrics, bounds, strict=True)))
  assert all(m.exact(found) <= b for m, b in zip(metrics, bounds, strict=True))
  best = max(score(a) for a, kept in zip(rows, good, strict=True) if kept)
  assert score(found) == pytest.approx(best)


def test_resolutions_are_tinynas_own():
  """48, 64 .. 224 of ImageNet; small images are not blown up."""
  assert resolutions(224) == tuple(range(48, 225, 16))
  assert resolutions(28) == tuple(range(6, 29, 2))
  assert resolutions(8) == (4, 5, 6, 7, 8)
  assert resolutions(3) == (3,)


def test_shrinking_goes_by_the_distribution(device):
  """Shares and means as of the samples one by one; the largest mean first."""
  bound = 64 * 40.0

  def limits(space):
    return [(device.peak_sram(space), bound), (hardware.macs(space), 9e4)]

  found = shrink(
    smaller, limits, sides=(6, 8), widths=(40, 50, 100), samples=40, seed=3
  )
  assert {c[:2] for c in found} == set(itertools.product((40, 50, 100), (6, 8)))
  for width, side, share, mean in found:
    space = smaller(width, side)
    rows = space_tools.random_choices(space, np.random.default_rng(3), 40)
    flops, pairs = hardware.flops(space), limits(space)
    kept = []
    for i in range(40):
      one = spaces.architecture(space, {n: r[i] for n, r in rows.items()})
      if all(m.exact(one) <= b for m, b in pairs):
        kept.append(flops.exact(one))
    assert share == pytest.approx(len(kept) / 40)
    if kept:
      assert mean == pytest.approx(np.mean(kept))
  many = [c for c in found if c.share >= 0.1]
  few = [c for c in found if c.share < 0.1]
  assert list(found) == many + few and many and few
  means = [c.mean_flops for c in many]
  assert means == sorted(means, reverse=True) and len(set(means)) == len(means)
  # Of the others the smallest network alone may compute more: it comes last.
  shares = [c.share for c in few]
  assert shares == sorted(shares, reverse=True)


def test_limits_that_no_configuration_keeps_name_the_least():
  def limits(space):
    return [(hardware.macs(space), 10.0)]

  with pytest.raises(
    InputError, match="none of 5 .* of any of 1 widths.*macs="
  ):
    shrink(smaller, limits, sides=(8,), widths=(50,), samples=5)


def fit(**changes):
  config = configs.SearchConfig(space="tiny", **changes)
  devices = [hardware.device(d) for d in config.device]
  return shrinking.fitted(config, devices, parts.dataset(config))


def test_the_command_line_fits_width_and_resolution():
  """A microcontroller's own memories are limits where none is given."""
  limits = ("peak_sram_kib=16", "macs=2e6")
  config, images, found = fit(
    device=(MCU,), limit=limits, cells=1, image_size="6"
  )
  assert config.limit == (*limits, "flash_kib=1024")
  assert config.width == found[0].width and config.image_size == "6x6"
  assert len(found) == len(WIDTHS)
  assert data.shape(images.train) == (6, 6, 1)
  # Both known: nothing is looked at, and the data is as it was loaded.
  again = shrinking.fitted(config, [hardware.device(MCU)], images)
  assert again[0] == config and again[1] is images and again[2] == ()


def test_without_limits_or_width_nothing_is_fitted():
  config, images, found = fit()
  assert config.width is None and data.shape(images.train) == (8, 8, 1)
  assert not found
  other = configs.SearchConfig(space="mobilenet", limit=("macs=1e6",))
  assert shrinking.fitted(other, [], images) == (other, images, ())
  assert main(["search", "--space", "mobilenet", "--width", "50"]) == 2


def test_several_microcontrollers_bring_their_own_limits():
  devices = [hardware.device(d) for d in (MCU, "stm32h743", "cortex-a76")]
  config = configs.SearchConfig(limit=(f"{MCU}:flash_kib=100",))
  found = shrinking._with_budgets(config, devices).limit
  assert found == (
    f"{MCU}:flash_kib=100",
    f"{MCU}:peak_sram_kib=320",
    "stm32h743:peak_sram_kib=512",
    "stm32h743:flash_kib=2048",
  )


@pytest.mark.slow
def test_a_search_of_the_command_line(tmp_path, capsys):
  """Shrinks, searches and decides within all limits; can be retrained."""
  out = tmp_path / "run"
  code = main(
    [
      *("search", "--space", "tiny", "--data", "digits", "--cells", "1"),
      *("--device", MCU, "--limit", "peak_sram_kib=8", "--limit", "macs=1e6"),
      *("--limit", "energy_mj=1", "--epochs", "2", "--out", str(out)),
    ]
  )
  said = capsys.readouterr()
  assert code == 0, said
  assert "fitted to the limits" in said.out
  value = json.loads((out / "genotype.json").read_text())
  metrics = {n: m["value"] for n, m in value["metrics"].items()}
  assert metrics["peak_sram_bytes"] <= 8192 and metrics["macs"] <= 1e6
  assert metrics["energy_mj"] <= 1 and metrics["flash_bytes"] <= 2**20
  assert main(["retrain", str(out), "--epochs", "1"]) == 0


def test_uniform_weights_are_decided(small, device):
  """A smallest peak that only all choices together reach."""
  peak = device.peak_sram(small)
  least = cost_tables.costs(small, peak).constant
  found = small.decide(uniform(small), [(peak, least)])
  assert peak.exact(found) == least
  with pytest.raises(InputError, match="smallest reachable"):
    small.decide(uniform(small), [(peak, least - 1)])


@pytest.mark.parametrize("shape, macs", [((49, 10), 6.7e6), ((251, 1), 8e6)])
def test_the_resolution_keeps_the_aspect(shape, macs, tmp_path):
  """Spectrograms and sensors' windows are no squares."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(256, size=(24, *shape, 1), dtype=np.uint8)
  path = str(tmp_path / "windows.npz")
  np.savez(path, x_train=pixels, y_train=np.arange(24) % 2)
  config, images, found = fit(
    data=path, device=(MCU,), limit=(f"macs={macs}",), cells=1, width=40
  )
  height, width = data.shape(images.train)[:2]
  assert height < shape[0]
  assert width == max(1, round(height * shape[1] / shape[0]))
  assert config.image_size == f"{height}x{width}"
  # Read again with what was found, as when the run is resumed.
  again = parts.dataset(config)
  assert np.array_equal(again.train.images, images.train.images)
  assert len(found) >= 1
