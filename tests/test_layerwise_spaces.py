"""FBNet and NAS-Bench-Macro: published counts, supernet against network."""

import csv
import gzip
import json
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, spaces, testing
from nasjax.cli import own_spaces
from nasjax.hardware import networks, roofline
from nasjax.hardware.workload import Workload
from nasjax.layers.blocks import Block, channel_shuffle
from nasjax.spaces import chain, genotype
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_tools

DATA = Path(os.environ.get("NASJAX_DATA", "../shared/data"))


def from_digits(space, text):
  return spaces.architecture(
    space, {"layers": networks.parse(text, space.groups, "test")}
  )


@pytest.mark.parametrize(
  "digits, params, macs",
  [
    ("00000000", 387882, 7713280),
    ("11111111", 1588874, 53246464),
    ("22212202", 1985514, 85164544),  # the best of the benchmark
    ("22222222", 2932586, 105660928),
  ],
)
def test_macro_published_counts(digits, params, macs):
  """The benchmark's table; its FLOPs are multiply-adds."""
  space = spaces.macro()
  found = from_digits(space, digits)
  assert hardware.params(space).exact(found) == params
  assert hardware.macs(space).exact(found) == macs


def profiled(space, choices):
  """FLOPs as the profiler behind the published FBNet table counts them.

  Multiply-adds, 2 an element of each normalisation, 1 of a layer's last ReLU (a
  module used twice is counted once) and of the mean over the map.
  """

  def elements(work):
    return work.outputs[0] * work.outputs[1] * work.channels_out

  def count(works):
    rectified = [elements(w) for w in works if w.kind == "relu"][-1:]
    return sum(rectified) + sum(
      w.macs + 2 * w.batch_norm * elements(w) for w in works
    )

  works = space.workloads()
  fixed = sum(count([w]) for w in works.fixed) + sum(
    w.flops for w in works.fixed if w.kind == "global_average_pool"
  )
  rows = works.groups["layers"]
  table = np.array([[count(cell) for cell in row] for row in rows])
  return fixed + table[np.arange(len(table)), choices].sum(-1)


@pytest.mark.parametrize(
  "digits, params, flops",
  [
    ("7818488874147327324245", 1790500, 70098816),
    ("5355047552024513726040", 1695572, 64270720),
    ("8215184662525125282350", 1737316, 49232384),
  ],
)
def test_fbnet_published_counts(digits, params, flops):
  space = spaces.fbnet(num_classes=100)
  found = from_digits(space, digits)
  assert hardware.params(space).exact(found) == params
  assert profiled(space, found.choices["layers"]) == flops


def table(name):
  path = DATA / name
  if not path.is_file():
    pytest.skip(f"no {name} in {DATA}")
  with gzip.open(path, "rt", newline="") as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize(
  "make, name",
  [
    (spaces.macro, "nasbench_macro_cifar10.csv.gz"),
    (lambda: spaces.fbnet(num_classes=100), "fbnet_cifar100.csv.gz"),
  ],
)
def test_all_published_counts(make, name):
  rows, space = table(name), make()
  choices = np.array(
    [networks.parse(r["arch"], space.groups, name) for r in rows]
  )
  own = cost_tables.additive_costs(space, hardware.params(space))
  params, flops = (
    np.array([float(r[n]) for r in rows]) for n in ("params", "flops")
  )
  np.testing.assert_array_equal(own.of({"layers": choices}), params)
  if space.name == "macro":
    macs = cost_tables.additive_costs(space, hardware.macs(space))
    np.testing.assert_array_equal(macs.of({"layers": choices}), flops)
  else:
    np.testing.assert_array_equal(profiled(space, choices), flops)


def test_imagenet_strides_are_the_papers():
  """Table 1: 224x224 -> 7x7x352, 1504 channels, 1000 classes."""
  space = spaces.fbnet(image_shape=(224, 224, 3), num_classes=1000)
  head = space.plan.fixed["head"].workloads
  assert head[0][1:5] == (7, 7, 352, 1504)
  assert head[-1].channels_out == 1000
  sizes = [next(iter(s.edges[0].values())).output for s in space.plan.stages]
  assert sizes == [
    (112, 112, 16),
    *[(56, 56, 24)] * 2,
    *[(28, 28, 32)] * 2,
    *[(14, 14, 64)] * 2,
    *[(14, 14, 112)] * 2,
    *[(7, 7, 184)] * 2,
    (7, 7, 352),
  ]
  assert space.arguments["strides"] == "imagenet"
  assert spaces.fbnet().arguments["strides"] == "cifar"


def small(name):
  if name == "macro":
    return spaces.macro(channels=4, image_shape=(16, 16, 3), num_classes=3)
  return spaces.fbnet(
    channels=4, cells=2, image_shape=(16, 16, 3), num_classes=3
  )


@pytest.fixture(
  scope="module",
  params=["macro", pytest.param("fbnet", marks=pytest.mark.slow)],
)
def space(request):
  return small(request.param)


def test_spaces_keep_the_contract(space):
  testing.check_space(space)


@given(seed=st.integers(0, 10_000))
def test_genotypes_and_digits_come_back(seed):
  for name in ("macro", "fbnet"):
    made = small(name)
    drawn = space_tools.random_choices(made, np.random.default_rng(seed), 1)
    row = drawn["layers"][0]
    one = from_digits(made, "".join(map(str, row)))
    text = json.dumps(genotype.to_json(one, metrics={}, limits={}, seed=0))
    again = genotype.from_json(json.loads(text), "test", own_spaces.known())
    assert again.space.arguments == made.arguments
    np.testing.assert_array_equal(again.choices["layers"], row)


@pytest.mark.parametrize(
  "make, said",
  [
    (lambda: spaces.fbnet(activation="relu7"), "did you mean relu"),
    (lambda: spaces.fbnet(strides="cifer"), "did you mean cifar"),
    (
      lambda: spaces.fbnet(strides="imagenet", image_shape=(31, 40, 3)),
      "at least 32x32",
    ),
    (lambda: spaces.fbnet(channel_multiple=3), "must be even"),
    (lambda: spaces.fbnet(channels=0), "channels=0"),
    (lambda: spaces.fbnet(cells=65), "at most 64"),
    (lambda: spaces.fbnet(image_shape=(7, 32, 3)), "at least 8x8"),
    (lambda: spaces.fbnet(image_shape=(63, 7)), "height, width, channels"),
    (lambda: spaces.macro(image_shape=(7, 32, 3)), "at least 8x8"),
    (lambda: spaces.macro(activation="gelu"), "did you mean relu"),
    (lambda: spaces.macro(channel_multiple=0), "channel_multiple=0"),
    (lambda: spaces.macro(num_classes=0), "num_classes=0"),
  ],
)
def test_arguments_out_of_range_are_refused(make, said):
  with pytest.raises(ValueError, match=said):
    make()


@given(channels=st.floats(0.1, 5000), multiple=st.integers(1, 64))
def test_rounded_channels_are_near_multiples(channels, multiple):
  found = chain.rounded(channels, multiple)
  assert found % multiple == 0 and found >= 0.9 * channels
  assert found - channels < multiple


@pytest.mark.parametrize("make", [spaces.fbnet, spaces.macro])
def test_channels_fill_the_vectors_and_activations_are_bounded(make):
  """int8 on 128 bits: 16 lanes."""
  lanes = 16
  space = make(channels=12, activation="relu6", channel_multiple=lanes)
  plain = make(channels=12, num_classes=10)
  crooked = 0
  for one in (space, plain):
    works = one.workloads().distinct()
    kinds = {w.kind for w in works}
    bounded = one is space
    assert ("relu6" in kinds, "relu" in kinds) == (bounded, not bounded)
    for work in works:
      shares = [
        roofline.alignment(w, lanes)
        for w in (work,)
        # Of grouped convolutions a group is a vector's.
        if w.kind in ("convolution", "depthwise") and w.groups != 2
      ]
      crooked += sum(share < 1 for share in shares)
    if bounded:
      assert crooked == 0
  assert crooked > 0
  # A rule of the device that the plain space breaks.
  device = hardware.device("stm32f746")
  said = "\n".join(device.warnings(make(channels=6)))
  assert "multiples of 4" in said
  kept = "\n".join(device.warnings(make(channels=6, channel_multiple=4)))
  assert kept.count("multiples of 4") < said.count("multiples of 4") or (
    len(kept) < len(said)
  )


def test_channels_take_turns():
  """ShuffleNet, figure 1: 2 groups of 3."""
  x = jnp.arange(6.0).reshape(1, 1, 1, 6)
  shuffled = channel_shuffle(x, 2)
  np.testing.assert_array_equal(shuffled.ravel(), [0, 3, 1, 4, 2, 5])
  np.testing.assert_array_equal(channel_shuffle(shuffled, 3), x)


def test_both_groups_reach_every_output():
  """Without the shuffle half of the channels would never meet the others."""
  block = small("fbnet").plan.stages[0].edges[0]["k3_e1_g2"]
  assert [w.kind for w in block.workloads].count("channel_shuffle") == 1
  shape = (1, 16, 16, block.workloads[0].channels_in)
  own = block.init(jax.random.key(0), jnp.ones(shape), False)

  def mean(x):
    return block.apply(own, x, False).mean((0, 1, 2))

  # The block's own input is added to its output: not counted here.
  slopes = jax.jacobian(mean)(jax.random.normal(jax.random.key(1), shape))
  reach = np.abs(slopes).sum((1, 2, 3)) > 0
  assert reach.shape == (4, 4) and reach.all()


def test_skips_are_what_computes_nothing(space):
  name = space.groups["layers"].candidates.index(
    "skip" if space.name == "fbnet" else "identity"
  )
  skips = space.skips["layers"]
  assert not np.delete(skips, name, -1).any()
  works = [row[name] for row in space.workloads().groups["layers"]]
  np.testing.assert_array_equal(skips[:, name], [not cell for cell in works])
  # Where neither shape nor channels change: of 8 layers, and of 12.
  assert skips[:, name].sum() == {"macro": 5, "fbnet": 6}[space.name]


def test_every_block_is_exported(space):
  pytest.importorskip("onnxruntime")
  from nasjax import export
  from nasjax.layers import onnx_nodes

  edges, names = space.groups["layers"]
  for start in range(0, len(names), 3):
    row = (np.arange(edges) + start) % len(names)
    network = space.build(spaces.architecture(space, {"layers": row}))
    images = np.random.default_rng(start).normal(size=(2, 16, 16, 3))
    images = images.astype("f4")
    own = network.init(jax.random.key(start), images)
    model = export.network(network, own, (16, 16, 3))
    assert export.parity(model, network, own, images) < 1e-5
  work = Workload("channel_shuffle", 3, 2, 6, 6, groups=2)
  x = np.random.default_rng(0).normal(size=(4, 3, 2, 6)).astype("f4")
  (found,) = export.session(onnx_nodes.workload(work)).run(
    None, {"x_0": x.transpose(0, 3, 1, 2)}
  )
  wanted = Block((work,)).apply({}, x, False)
  np.testing.assert_array_equal(found.transpose(0, 2, 3, 1), wanted)
