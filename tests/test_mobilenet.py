"""MobileNet: published counts, mixing in weight space, factorised costs."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasjax import export, hardware, relaxations, search, spaces
from nasjax.cli import main
from nasjax.errors import InputError
from nasjax.hardware import memory, products
from nasjax.layers.convolution import conv
from nasjax.search import genes
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


@pytest.mark.parametrize("shared", [False, True])
def test_mixing_kernels_equals_mixing_outputs(shared):
  """A depthwise convolution is linear in its kernel: 3x3, 5x5 and 7x7."""
  space = spaces.mobilenet(
    **{**SMALL, "kernels": (3, 5, 7)}, shared_kernels=shared
  )
  layer = space.parts["stage_2_layer_0"]
  params = space.init(jax.random.key(0))["params"]["stage_2_layer_0"]
  rng = np.random.default_rng(0)
  weights = jnp.asarray(rng.dirichlet(np.ones(3)), jnp.float32)
  channels = int(layer.hidden.max())
  x = jnp.asarray(rng.normal(size=(2, 9, 8, channels)), jnp.float32)

  def convolved(kernel):
    margin = len(kernel) // 2
    return conv(
      x, kernel, (2, 2), [(margin, margin)] * 2, feature_group_count=channels
    )

  total = 0.0
  for weight, k in zip(weights, (3, 5, 7), strict=True):
    margin = (7 - k) // 2
    kernel = params[f"depthwise_{7 if shared else k}"]["kernel"]
    if shared:
      kernel = kernel[margin : 7 - margin, margin : 7 - margin]
    total += weight * convolved(kernel)
  mixed = mobilenet_supernet.expected_kernel(layer, params, {"kernel": weights})
  np.testing.assert_allclose(convolved(mixed), total, atol=1e-5)


@pytest.mark.parametrize("name", ["small", "wide"])
def test_the_restricted_supernet_equals_the_network_alone(
  name, request, images
):
  """Outputs, gradients and running statistics, at 1e-5 of their size."""
  space = request.getfixturevalue(name)
  variables = space.init(jax.random.key(0))
  # Running statistics as after training, or evaluation would tell little.
  rng = np.random.default_rng(5)
  stats = jax.tree.map(
    lambda v: v + 0.5 * rng.random(v.shape).astype("f4"),
    variables["batch_stats"],
  )
  variables = {**variables, "batch_stats": stats}

  @jax.jit
  def supernet(params, sampled):
    def loss(params):
      outputs, new = space.apply(
        {**variables, "params": params}, sampled, images, True
      )
      return (outputs**2).sum(), (outputs, new)

    return jax.value_and_grad(loss, has_aux=True)(params)

  @jax.jit
  def evaluate(sampled):
    return space.apply(variables, sampled, images, False)[0]

  for seed in range(2):
    one = drawn(space, seed)
    network, own = space.build(one), space.extract(variables, one)

    def loss(params, network=network, own=own):
      outputs, new = network.apply(
        {**own, "params": params}, images, True, mutable=["batch_stats"]
      )
      return (outputs**2).sum(), (outputs, new["batch_stats"])

    (_, (alone, new)), gradient = jax.value_and_grad(loss, has_aux=True)(
      own["params"]
    )
    for sampled in (Sampled(one.one_hot()), one.sampled()):
      (_, (full, moved)), slopes = supernet(variables["params"], sampled)
      close(full, alone)
      inherited = space.extract({"params": slopes, "batch_stats": moved}, one)
      close(inherited["batch_stats"], new)
      kernels = without_affine(inherited["params"])
      close(kernels, without_affine(gradient))
      close(evaluate(sampled), network.apply(own, images))


def without_affine(tree):
  """Only what the supernet's searched layers have."""
  return {
    layer: {n: v for n, v in parts.items() if not n.startswith("norm")}
    for layer, parts in tree.items()
  }


def close(found, wanted):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(jnp.abs(b).max()))
    ),
    found,
    wanted,
  )
