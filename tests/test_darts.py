"""The DARTS space: the published count, its supernet, its genotypes."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import data, hardware, relaxations, search, spaces, training
from nasjax.cli import config as configs
from nasjax.cli import parts
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.layers import auxiliary
from nasjax.spaces import darts_genotype as field
from nasjax.spaces import space as space_tools
from nasjax.spaces import supernet
from nasjax.types import Sampled


@pytest.fixture(scope="module")
def small():
  return spaces.darts(
    channels=4, cells=4, nodes=2, image_shape=(8, 8, 3), num_classes=3
  )


def drawn(space, seed):
  rows = space_tools.random_choices(space, np.random.default_rng(seed), 1)
  return spaces.architecture(space, {n: r[0] for n, r in rows.items()})


def parameters(network, shape):
  found = jax.eval_shape(
    lambda x: network.init(jax.random.key(0), x), jnp.zeros((1, *shape))
  )
  return sum(v.size for v in jax.tree.leaves(found["params"]))


def test_darts_v2_has_its_published_parameters():
  """3.349342 M at C = 36 and 20 layers, without the auxiliary head.

  That has, on 8x8x576: 576 x 128 and 128 x 768 x 2 x 2 weights, scales and
  shifts, and a classifier.
  """
  space = spaces.darts(channels=36, cells=20, pools="plain")
  found = field.from_genotype(space, field.DARTS_V2)
  assert hardware.params(space).exact(found) == 3349342
  head = 576 * 128 + 128 * 768 * 4 + 2 * (128 + 768) + 768 * 10 + 10
  trained = space.build(found).clone(auxiliary=True)
  assert parameters(trained, (32, 32, 3)) == 3349342 + head


@pytest.mark.parametrize(
  "side, found", [(8, (5, 3)), (7, (5, 2)), (2, (1, 1)), (3, (2, 1))]
)
def test_the_auxiliary_head_leaves_two_pixels(side, found):
  """As in DARTS's code on CIFAR-10 and ImageNet."""
  window, stride = auxiliary.windows(side)
  assert (window, stride) == found and (side - window) // stride + 1 == 2


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 8), (9, 9)])
def test_the_auxiliary_head_runs_on_any_map(shape):
  logits = jax.eval_shape(
    lambda x: auxiliary.AuxiliaryHead(5).init_with_output(
      jax.random.key(0), x, False
    )[0],
    jnp.zeros((2, *shape, 4)),
  )
  assert logits.shape == (2, 5)


@pytest.mark.slow
def test_networks_train_with_an_auxiliary_head_and_drop_path(small):
  """The head learns, afresh beside what is inherited, and is left out."""
  one = drawn(small, 2)
  rng = np.random.default_rng(0)
  train = data.Images(
    rng.integers(256, size=(32, 8, 8, 3), dtype=np.uint8),
    (np.arange(32) % 3).astype(np.int32),
  )
  recipe = training.Recipe(
    epochs=1, batch_size=16, drop_path=0.2, auxiliary=0.4
  )
  inherited = small.extract(small.init(jax.random.key(0)), one)
  state = training.begin(jax.random.key(1), one, recipe, 32, inherited)
  begun = jax.device_get(state.variables)
  jax.tree.map(
    np.testing.assert_array_equal,
    {n: begun["params"][n] for n in inherited["params"]},
    inherited["params"],
  )
  (epoch,) = training.epochs(one, recipe, train, state, key=jax.random.key(2))
  assert epoch.finite
  for name in ("convolution_0", "convolution_1", "linear"):
    moved = epoch.state.variables["params"]["auxiliary"][name]["kernel"]
    assert np.abs(moved - begun["params"]["auxiliary"][name]["kernel"]).max()
  score = training.accuracy(
    one, epoch.state.variables, train, data.statistics(train)
  )
  assert 0.0 <= score <= 1.0


def test_a_space_without_a_place_for_the_head_is_refused():
  space = spaces.macro(channels=4, image_shape=(8, 8, 3))
  recipe = training.Recipe(epochs=1, auxiliary=0.4)
  with pytest.raises(ValueError, match="macro has no place"):
    training.begin(jax.random.key(0), drawn(space, 0), recipe, 64)


def reference_cell(weights, nodes):
  """`parse` of DARTS's code, beside which ours must decide the same."""
  pairs, start, none = [], 0, field.OPERATIONS.index("none")
  for node in range(nodes):
    rows = weights[start : start + 2 + node]
    real = np.delete(rows, none, axis=1)
    for j in sorted(range(len(rows)), key=lambda j: -real[j].max())[:2]:
      k = max((k for k in range(8) if k != none), key=lambda k: rows[j][k])  # noqa: B023
      pairs.append((node, (field.OPERATIONS[k], j)))
    start += 2 + node
  return sorted(pairs)


@given(seed=st.integers(0, 10_000))
def test_decisions_keep_the_two_strongest_edges(seed):
  """The paper's section 2.4, whatever the weight of none."""
  space = spaces.darts(channels=4, cells=3)
  rng = np.random.default_rng(seed)
  weights = {n: rng.dirichlet(np.ones(8), 14) for n in ("normal", "reduce")}
  genotype = field.to_genotype(space.decide(weights))
  for cell in ("normal", "reduce"):
    pairs = [(i // 2, p) for i, p in enumerate(getattr(genotype, cell))]
    assert sorted(pairs) == reference_cell(weights[cell], 4)


def test_genotypes_have_the_fields_form():
  """As the reference code's named tuple, which its users paste, prints it."""
  theirs = collections.namedtuple(
    "Genotype", "normal normal_concat reduce reduce_concat"
  )
  text = str(field.parse(field.DARTS_V2))
  assert text == field.DARTS_V2 == str(eval(text, {"Genotype": theirs}))
  ranges = text.replace("[2, 3, 4, 5]", "range(2, 6)")
  assert ranges == str(eval(ranges, {"Genotype": theirs}))
  assert field.parse(ranges) == field.parse(text)


def test_the_command_line_reads_and_writes_genotypes(tmp_path, capsys):
  assert main(["show", field.DARTS_V2, "--format", "darts"]) == 0
  text = capsys.readouterr().out.strip()
  space = spaces.darts()
  wanted = field.from_genotype(space, field.DARTS_V2)
  found = field.from_genotype(space, text)
  for group, row in wanted.choices.items():
    np.testing.assert_array_equal(found.choices[group], row)
  assert main(["show", text, "--format", "json"]) == 0
  (tmp_path / "genotype.json").write_text(capsys.readouterr().out)
  assert main(["show", str(tmp_path), "--format", "darts"]) == 0
  assert capsys.readouterr().out.strip() == text
  assert main(["show", text, "--format", "nasbench201"]) == 2
  assert "is of the space darts" in capsys.readouterr().err
  assert main(["show", "Genotype(normal=[])"]) == 2
  assert "is needed" in capsys.readouterr().err


@pytest.fixture(scope="module")
def part():
  return spaces.darts(
    channels=8,
    cells=3,
    nodes=2,
    image_shape=(7, 8, 3),
    num_classes=3,
    partial_channels=4,
  )


def test_partial_channels_pass_the_others_by(part):
  """PC-DARTS, section 3.2: one in four is seen, then all are shuffled."""
  stages = part.plan.stages
  x = np.random.default_rng(0).normal(size=(2, 7, 8, 8)).astype("f4")
  weights = np.array([0.25, 0.3, 0, 0, 0, 0, 0, 0.2], "f4")

  def through(stage, run):
    candidates = stage.in_supernet().edges[0]
    return supernet._partly(run, stage, candidates, weights, x)

  seen, passed = x[..., :2], 0.5 * x[..., 2:]  # none is a quarter
  found = through(stages[0], lambda seen: 3.0 * seen)
  together = np.concatenate([3.0 * seen, passed], -1)
  order = [0, 2, 4, 6, 1, 3, 5, 7]
  np.testing.assert_allclose(found, together[..., order], rtol=1e-6)
  # A reduction halves them by a maximum; a missing row is the last again.
  found = through(stages[1], lambda seen: seen[:, ::2, ::2])
  rows = np.concatenate([passed, passed[:, -1:]], 1)
  halved = rows.reshape(2, 4, 2, 4, 2, 6).max((2, 4))
  together = np.concatenate([seen[:, ::2, ::2], halved], -1)
  np.testing.assert_allclose(found, together[..., order], rtol=1e-6)


def test_partial_channels_leave_networks_and_costs_alone(part):
  whole = spaces.darts(**{**part.arguments, "partial_channels": 1})
  one = drawn(part, 0)
  same = spaces.architecture(whole, one.choices)
  for cost in (hardware.params, hardware.macs):
    assert cost(part).exact(one) == cost(whole).exact(same)
  ours, theirs = (
    jax.eval_shape(s.init, jax.random.key(0))["params"] for s in (part, whole)
  )
  kernels = [
    p["stage_0"]["edges"]["sep_conv_3x3"]["convolution_2"]["kernel"].shape
    for p in (ours, theirs)
  ]
  assert kernels == [(1, 5, 1, 1, 2, 2), (1, 5, 1, 1, 8, 8)]
  with pytest.raises(InputError, match="fresh weights"):
    part.extract({}, one)
  with pytest.raises(ValueError, match="no multiple"):
    spaces.darts(channels=6, partial_channels=4)


def test_the_command_line_weighs_the_edges_of_partial_channels(part, small):
  config = configs.SearchConfig(relaxation="softmax")
  assert parts.relaxation(config, small, 10).simplex
  assert not parts.relaxation(config, part, 10).simplex
  config = configs.SearchConfig(relaxation="dirichlet")
  with pytest.raises(InputError, match="cannot weigh edges"):
    parts.relaxation(config, part, 10)


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["softmax", "proxyless"])
def test_partial_channels_are_searched(part, relaxation, batches):
  """Edges are weighed, and one path is the same as all paths at one-hot."""
  images = batches((7, 8, 3), classes=3)[0].images
  one, variables = drawn(part, 1), part.init(jax.random.key(0))
  run = jax.jit(lambda sampled: part.apply(variables, sampled, images, True)[0])
  np.testing.assert_allclose(
    run(one.sampled()), run(Sampled(one.one_hot())), rtol=1e-4, atol=1e-4
  )
  made = search.differentiable(
    part,
    relaxation=relaxations.edge_normalized(
      getattr(relaxations, relaxation)(), part.kept
    ),
  )
  state = made.init(jax.random.key(0))
  state, info = made.update(state, *batches((7, 8, 3), classes=3))
  assert bool(info.finite)


@given(seed=st.integers(0, 10_000))
def test_genotypes_come_back_and_nodes_keep_two_edges(small, seed):
  one = drawn(small, seed)
  text = str(field.to_genotype(one))
  again = field.from_genotype(small, text)
  for group, row in one.choices.items():
    np.testing.assert_array_equal(again.choices[group], row)
  space_tools.check_connected(again)


@pytest.mark.parametrize(
  "old, new, said",
  [
    ("sep_conv_3x3", "sep_conv_3x4", "did you mean sep_conv_3x3"),
    ("('sep_conv_3x3', 1)", "('sep_conv_3x3', 0)", "twice"),
    ("('dil_conv_3x3', 2)", "('dil_conv_3x3', 7)", "reads node 7"),
    ("normal_concat=[2, 3, 4, 5]", "normal_concat=[2, 3]", "is needed"),
    ("Genotype(", "__import__('os').system(", "is needed, not"),
    ("('skip_connect', 0), ('dil", "('dil", "pairs"),
  ],
)
def test_bad_genotypes_are_refused(old, new, said):
  text = field.DARTS_V2.replace(old, new, 1)
  assert text != field.DARTS_V2
  with pytest.raises(InputError, match=said):
    field.from_genotype(spaces.darts(), text)
