"""MobileNet: published counts, mixing in weight space, factorised costs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import (
  data,
  export,
  hardware,
  objectives,
  relaxations,
  search,
  spaces,
)
from nasjax.cli import config as configs
from nasjax.cli import parts
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.spaces import genotype, mobilenet_supernet
from nasjax.spaces import space as space_tools
from nasjax.types import Sampled

SMALL = dict(
  channels=8,
  image_shape=(8, 8, 1),
  num_classes=3,
  expansions=(2, 3),
  kernels=(3, 5),
  stage_channels=(16, 24, 32),
  stage_depths=(1, 2, 1),
  stage_strides=(1, 1, 1, 2),
  head_channels=16,
)
MNASNET = dict(
  stage_channels=(16, 24, 40, 80, 96, 192, 320),
  stage_depths=(1, 3, 3, 3, 2, 4, 1),
  stage_strides=(2, 1, 2, 2, 2, 1, 2, 1),
  activation="relu",
  activations=("relu",),
)


@pytest.fixture(scope="module")
def small():
  return spaces.mobilenet(**SMALL)


@pytest.fixture(scope="module")
def wide():
  """Widths are chosen too, and kernels are one."""
  return spaces.mobilenet(
    **{**SMALL, "channels": 32, "squeeze_excite": ("yes",)},
    widths=(50, 100),
    shared_kernels=True,
  )


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("f4")


def drawn(space, seed):
  rows = space_tools.random_choices(space, np.random.default_rng(seed), 1)
  return spaces.architecture(space, {n: r[0] for n, r in rows.items()})


def uniform(space):
  return {n: m / m.sum(-1, keepdims=True) for n, m in space.masks.items()}


def same(space, **names):
  """The architecture with one candidate in every row of a group."""
  return spaces.architecture(
    space, {n: [names[n]] * g.edges for n, g in space.groups.items()}
  )


def module_parameters(architecture):
  space = architecture.space
  shape = (1, *space.arguments["image_shape"])
  found = jax.eval_shape(
    lambda x: space.build(architecture).init(jax.random.key(0), x),
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )
  return sum(v.size for v in jax.tree.leaves(found["params"]))


def test_mobilenet_v2_has_its_published_counts():
  """torchvision's mobilenet_v2: 3,504,872 parameters, 300,774,272 MACs."""
  space = spaces.mobilenet(
    image_shape=(224, 224, 3),
    num_classes=1000,
    activations=("relu6", "hswish"),
  )
  found = same(
    space,
    depth="keep",
    expansion="6",
    kernel="3",
    squeeze_excite="no",
    activation="relu6",
  )
  assert hardware.params(space).exact(found) == 3504872
  assert module_parameters(found) == 3504872
  assert hardware.macs(space).exact(found) == 300774272
  assert hardware.macs(space).expected(found.one_hot()) == pytest.approx(
    300774272, rel=1e-6
  )


def test_mnasnet_b1_has_its_published_counts():
  """torchvision's mnasnet1_0: 4,383,312 parameters, 314.4 M MACs."""
  space = spaces.mobilenet(
    image_shape=(224, 224, 3), num_classes=1000, **MNASNET
  )
  depths = MNASNET["stage_depths"][1:]

  def stages(names):
    return [n for n, d in zip(names, depths, strict=True) for _ in range(d)]

  found = spaces.architecture(
    space,
    {
      "depth": ["keep"] * space.groups["depth"].edges,
      "squeeze_excite": ["no"] * space.groups["squeeze_excite"].edges,
      "expansion": stages("336666"),
      "kernel": stages("355353"),
    },
  )
  assert hardware.params(space).exact(found) == 4383312
  assert module_parameters(found) == 4383312
  assert hardware.macs(space).exact(found) == pytest.approx(314.4e6, abs=5e4)


def test_sampled_paths_are_the_one_hot_weights(small):
  """What is not executed is 0 in value; the gradient is that of the weights."""
  weights = jnp.asarray([[0.5, 0.3, 0.2]])
  paths = jnp.asarray([[2, 0]])

  def executed(weights):
    return mobilenet_supernet._executed(Sampled({"g": weights}, {"g": paths}))[
      "g"
    ]

  np.testing.assert_allclose(executed(weights), [[0.5, 0.0, 0.2]], rtol=1e-6)
  slope = jax.grad(lambda w: executed(w).sum())(weights)
  np.testing.assert_array_equal(slope, [[1.0, 1.0, 1.0]])


def test_gradients_reach_every_choice(small, images):
  """Of sampled paths too: no factor is left out of the forward pass."""
  variables = small.init(jax.random.key(0))
  relaxation = relaxations.gdas()
  masks = {n: jnp.asarray(m) for n, m in small.masks.items()}
  logits = relaxation.init(jax.random.key(1), masks)

  @jax.jit
  def slopes(logits):
    def loss(logits):
      sampled = relaxation.sample(jax.random.key(2), logits, masks, 0)
      outputs, _ = small.apply(variables, sampled, images, True)
      return (outputs[:, 0] ** 2).sum()

    return jax.grad(loss)(logits)

  for name, slope in slopes(logits).items():
    assert np.isfinite(slope).all()
    assert (np.abs(slope).max(-1) > 1e-7).mean() > 0.6, name


def test_genotypes_come_back(wide, tmp_path):
  one = drawn(wide, 3)
  value = genotype.to_json(one, metrics={}, limits={}, seed=0)
  (tmp_path / "genotype.json").write_text(json.dumps(value))
  again, _ = genotype.read(tmp_path, {"mobilenet": spaces.mobilenet})
  assert again.space.arguments == wide.arguments
  for group, row in one.choices.items():
    np.testing.assert_array_equal(again.choices[group], row)


@pytest.mark.parametrize(
  "change, said",
  [
    (dict(shared_kernels=1), "true or false"),
    (dict(activations=["relu", 3]), "list of names"),
    (dict(activations=["relu", "swish"]), "did you mean hswish"),
    (dict(kernels=[3, 4]), "odd"),
    (dict(expansions=[1, 6]), "2 to 16"),
    (dict(stage_depths=[2, 2, 1]), "begin with 1"),
    (dict(stage_strides=[1, 2]), "stage_strides"),
    (dict(image_shape=[1, 1, 1]), "too small"),
  ],
)
def test_bad_arguments_are_refused(wide, change, said):
  value = genotype.to_json(drawn(wide, 0), metrics={}, limits={}, seed=0)
  value = json.loads(json.dumps(value))
  value["space"]["arguments"].update(change)
  with pytest.raises(InputError, match=said):
    genotype.from_json(value, "g.json", {"mobilenet": spaces.mobilenet})


@pytest.mark.parametrize(
  "side, strides",
  [(224, 5), (128, 5), (64, 4), (32, 3), (28, 3), (8, 1), (4, 0)],
)
def test_strides_suit_the_image(side, strides):
  found = spaces.mobilenet(image_shape=(side, side, 3))
  assert found.arguments["stage_strides"].count(2) == strides
  last = found.parts["head"].workloads[0]
  assert last.height >= 4


def test_the_network_exports_to_onnx(wide, images):
  """Squeeze-and-excite and residuals; ONNX Runtime against JAX."""
  pytest.importorskip("onnxruntime")
  one = same(
    wide,
    width="0.5",
    depth="keep",
    expansion="3",
    kernel="5",
    activation="relu",
  )
  network = wide.build(one)
  own = wide.extract(wide.init(jax.random.key(0)), one)
  model = export.network(network, own, (8, 8, 1))
  assert export.parity(model, network, own, images) < 1e-5


def test_the_command_line_offers_widths_and_a_super_kernel():
  flags = dict(
    widths=["50", "75", "100", "125"], shared_kernels=True, cells="1"
  )
  images = data.load("digits")

  def made(name):
    config = configs.from_flags(configs.SearchConfig, {**flags, "space": name})
    return parts.search_space(config, images)

  space = made("mobilenet")
  assert space.groups["width"].candidates == ("0.5", "0.75", "1", "1.25")
  assert space.arguments["shared_kernels"]
  with pytest.raises(InputError, match="--widths: the space edge has none"):
    made("edge")


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["softmax", "gdas", "proxyless"])
def test_a_gradient_search_learns(small, relaxation, batches):
  """A latency objective alone leads to small choices."""
  latency = hardware.device("cortex-a76").latency(small)
  made = search.differentiable(
    small,
    relaxation=getattr(relaxations, relaxation)(),
    objectives=[objectives.cross_entropy(), objectives.metric(latency)],
  )
  train, valid = batches((8, 8, 1), classes=3)
  state = made.init(jax.random.key(0))
  for _ in range(3):
    state, info = made.update(state, train, valid)
    assert bool(info.finite)
  assert float(info.costs["latency_ms"]) > 0


@pytest.mark.slow
def test_a_search_of_the_command_line(tmp_path, capsys):
  """Digits, a latency limit on a device; the decision keeps it."""
  out = tmp_path / "run"
  code = main(
    [
      "search",
      *("--space", "mobilenet", "--channels", "8", "--cells", "1"),
      *("--data", "digits", "--device", "cortex-a76"),
      *("--limit", "latency_ms=0.2", "--epochs", "2", "--out", str(out)),
    ]
  )
  assert code == 0, capsys.readouterr()
  value = json.loads((out / "genotype.json").read_text())
  assert value["space"]["name"] == "mobilenet"
  assert value["metrics"]["latency_ms"]["value"] <= 0.2
