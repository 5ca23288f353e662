"""Spaces: published counts, supernet against decided network, genotypes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasjax import hardware, spaces
from nasjax.errors import InputError
from nasjax.spaces import genotype
from nasjax.spaces import space as space_module
from nasjax.spaces.nasbench201 import from_string, to_string
from nasjax.types import Sampled

CONSTRUCTORS = {"edge": spaces.edge, "nasbench201": spaces.nasbench201}
CELL = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"


def parameters(space, architecture):
  """Counted from the flax module itself."""
  shape = (1, *space.arguments["image_shape"])
  variables = jax.eval_shape(
    lambda x: space.build(architecture).init(jax.random.key(0), x),
    jax.ShapeDtypeStruct(shape, jnp.float32),
  )
  return sum(v.size for v in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
  "cell, params, macs",
  [
    (CELL.format(*["nor_conv_3x3"] * 6), 1.531546e6, 220.119680e6),
    # NATS-Bench issue 36, get_cost_info: 0.802426 M parameters.
    (
      "|skip_connect~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0"
      "|nor_conv_3x3~1|nor_conv_3x3~2|",
      0.802426e6,
      113.951360e6,
    ),
    # NATS-Bench architecture 0: 0.129306 M parameters, 15.647360 M FLOPs
    # (its FLOPs are multiply-adds).
    (
      "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0"
      "|skip_connect~1|skip_connect~2|",
      0.129306e6,
      15.647360e6,
    ),
  ],
)
def test_nasbench201_published_counts(cell, params, macs):
  space = spaces.nasbench201(channels=16, cells=5, num_classes=10)
  architecture = from_string(space, cell)
  assert hardware.params(space).exact(architecture) == pytest.approx(params)
  assert hardware.macs(space).exact(architecture) == pytest.approx(macs)
  assert parameters(space, architecture) == pytest.approx(params)


@given(
  choices=st.lists(st.integers(0, 4), min_size=6, max_size=6),
)
def test_nasbench201_string_round_trip(choices):
  space = spaces.nasbench201()
  architecture = spaces.architecture(space, {"cell": choices})
  text = to_string(architecture)
  again = from_string(space, text)
  np.testing.assert_array_equal(again.choices["cell"], choices)
  nodes = text.split("+")
  assert [n.count("~") for n in nodes] == [1, 2, 3]


@pytest.mark.parametrize(
  "text, said",
  [
    ("", "1 nodes, 3"),
    (CELL.format(*["nor_conv_3x3"] * 5, "nor_conv_5x5"), "nor_conv_"),
    ("|none~0|+|none~0|none~0|+|none~0|none~1|none~2|", "comes from"),
    ("|none~0|+|none~0|+|none~0|none~1|none~2|", "node 2"),
    ("__import__('os')", "nodes"),
  ],
)
def test_nasbench201_bad_strings_are_refused(text, said):
  with pytest.raises(InputError, match=said):
    from_string(spaces.nasbench201(), text)


def small_spaces():
  yield spaces.nasbench201(
    channels=4, cells=2, image_shape=(8, 8, 3), num_classes=3
  )
  for links in ("residual", "dense", "linear_bottleneck"):
    yield spaces.edge(
      channels=4,
      nodes=2,
      stages=2,
      image_shape=(9, 8, 1),
      num_classes=3,
      links=links,
      conv_groups=2,
      expansion=2,
      activation="hswish",
    )


def test_gradient_of_the_sampled_path_equals_the_mixtures():
  """Weights, and the executed candidates' architecture weights."""
  space = spaces.edge(
    channels=4,
    nodes=1,
    stages=1,
    image_shape=(8, 8, 1),
    num_classes=4,
    conv_groups=2,
    expansion=2,
  )
  images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
  variables = space.init(jax.random.key(0))
  rng = np.random.default_rng(3)
  choices = {"nodes": space_module.random_choices(space, rng, 1)["nodes"][0]}
  architecture = spaces.architecture(space, choices)
  paths = architecture.sampled().paths

  def loss(params, weights, paths):
    sampled = Sampled({"nodes": weights}, paths)
    outputs, _ = space.apply(
      {**variables, "params": params}, sampled, images, True
    )
    return (outputs**2).sum()

  weights = jnp.asarray(architecture.one_hot()["nodes"])
  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  ours = gradient(variables["params"], weights, paths)
  full = gradient(variables["params"], weights, None)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3),
    ours[0],
    full[0],
  )
  rows = np.arange(len(choices["nodes"]))
  np.testing.assert_allclose(
    ours[1][rows, choices["nodes"]],
    full[1][rows, choices["nodes"]],
    rtol=2e-3,
    atol=2e-3,
  )


@pytest.mark.parametrize(
  "space", list(small_spaces()), ids=lambda s: str(s.name)
)
def test_parameters_equal_the_modules_own(space):
  group = next(iter(space.groups))
  count = len(space.groups[group].candidates)
  metric = hardware.params(space)
  for k in range(count):
    row = [(k + e) % count for e in range(space.groups[group].edges)]
    architecture = spaces.architecture(space, {group: row})
    assert metric.exact(architecture) == parameters(space, architecture)


@pytest.mark.parametrize("channels, kernel", [(16, 3), (64, 3)])
def test_separable_convolution_saves_one_over_c_plus_one_over_k2(
  channels, kernel
):
  """MobileNet, section 3.1: cost over a full convolution's."""
  space = spaces.edge(channels=channels, image_shape=(16, 16, 3))
  work = space.workloads().groups["nodes"][0]
  names = space.groups["nodes"].candidates
  separable = sum(w.macs for w in work[names.index("sep_conv_3x3")])
  full = sum(w.macs for w in work[names.index("group_conv_3x3")]) * 4
  assert separable / full == pytest.approx(1 / channels + 1 / kernel**2)


@given(
  height=st.integers(8, 64), width=st.integers(8, 64), depth=st.integers(1, 3)
)
@settings(max_examples=6)
def test_any_image_shape_makes_a_network(height, width, depth):
  for make in CONSTRUCTORS.values():
    space = make(image_shape=(height, width, depth))
    group = next(iter(space.groups))
    row = [len(space.groups[group].candidates) - 1] * space.groups[group].edges
    architecture = spaces.architecture(space, {group: row})
    outputs = jax.eval_shape(
      lambda x, s=space, a=architecture: s.build(a).init_with_output(
        jax.random.key(0), x
      )[0],
      jax.ShapeDtypeStruct((2, height, width, depth), jnp.float32),
    )
    assert outputs.shape == (2, 10)


@pytest.mark.parametrize("make", list(CONSTRUCTORS.values()))
def test_too_small_images_and_bad_arguments_are_refused(make):
  with pytest.raises(ValueError, match="at least 4x4"):
    make(image_shape=(3, 32, 1))
  with pytest.raises(ValueError, match="channels=0"):
    make(channels=0)


def test_edge_refuses_unknown_names():
  with pytest.raises(ValueError, match="did you mean residual"):
    spaces.edge(links="residuals")
  with pytest.raises(ValueError, match="did you mean hswish"):
    spaces.edge(activation="h-swish")
  with pytest.raises(ValueError, match="groups"):
    spaces.edge(channels=6)


def test_dense_links_cost_their_concatenations():
  kinds = [w.kind for w in spaces.edge(links="dense").workloads().fixed]
  assert kinds.count("concat") == 9
  assert "concat" not in [w.kind for w in spaces.edge().workloads().fixed]


@pytest.mark.parametrize(
  "space", list(small_spaces()), ids=lambda s: str(s.name)
)
def test_genotype_round_trip(space, tmp_path):
  rng = np.random.default_rng(0)
  group = next(iter(space.groups))
  row = space_module.random_choices(space, rng, 1)[group][0]
  architecture = spaces.architecture(space, {group: row})
  value = genotype.to_json(architecture, metrics={}, limits={}, seed=1)
  path = tmp_path / "genotype.json"
  path.write_text(json.dumps(value))
  again, _ = genotype.read(tmp_path, CONSTRUCTORS)
  assert again.space.arguments == space.arguments
  np.testing.assert_array_equal(again.choices[group], row)


def test_decisions_lead_from_the_input_to_the_output():
  space = spaces.nasbench201(cells=1)
  none = np.tile(np.eye(5)[0] * 0.9 + 0.02, (6, 1))
  space_module.check_connected(space.decide({"cell": none}))
  cut = spaces.architecture(space, {"cell": [1, 0, 0, 0, 0, 0]})
  with pytest.raises(InputError, match="no way leads"):
    space_module.check_connected(cut)


@pytest.mark.parametrize(
  "change, said",
  [
    (lambda v: v.update(format="nasjax.genotype/9"), "reads no other"),
    (lambda v: v["space"].update(name="nasbench200"), "nasbench201"),
    (lambda v: v["space"]["arguments"].update(chanels=3), "channels"),
    (lambda v: v["space"]["arguments"].update(channels="16"), "whole number"),
    (lambda v: v["space"]["arguments"].update(channels=10**9), "100000"),
    (lambda v: v["space"]["arguments"].update(channels=5000), "4096"),
    (lambda v: v["space"]["arguments"].update(cells=65), "at most 64"),
    (lambda v: v["choices"].update(cell=["none"] * 6), "no way leads"),
    (lambda v: v["choices"].update(cell=["none"] * 5), "6 are needed"),
    (lambda v: v["choices"].update(cell=["nope"] * 6), "unknown candidate"),
    (lambda v: v["choices"].update(cell=[1] * 6), "candidate names"),
    (lambda v: v["choices"].update(other=["none"]), "groups"),
    (lambda v: v.pop("choices"), "'choices' is missing"),
  ],
)
def test_bad_genotypes_are_refused(change, said):
  space = spaces.nasbench201()
  value = genotype.to_json(
    from_string(space, CELL.format(*["skip_connect"] * 6)),
    metrics={},
    limits={},
    seed=0,
  )
  value = json.loads(json.dumps(value))
  change(value)
  with pytest.raises(InputError, match=said):
    genotype.from_json(value, "genotype.json", CONSTRUCTORS)
