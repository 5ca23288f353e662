"""Quantisation-friendly rules: any space, from the command line."""

import numpy as np
import pytest

from nasjax.cli import config as configs
from nasjax.cli import parts, quantization_rules
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.hardware import closing, quantization
from nasjax.layers.blocks import Builder, inverted_residual, platform_block


def space_of(name, *rules, **options):
  config = configs.SearchConfig(space=name, quantization_rule=rules, **options)
  return parts.search_space(config, (16, 16, 1), 3)


def opened(space):
  """Names of the candidates that are open in some row, by group."""
  return {
    n: {
      c for c, k in zip(g.candidates, space.masks[n].any(0), strict=True) if k
    }
    for n, g in space.groups.items()
  }


def kinds(space):
  """Kinds of workloads that the open candidates of a layer-wise space have."""
  works = space.workloads()
  cells = [
    cell
    for group, edges in works.groups.items()
    for row, mask in zip(edges, space.masks[group], strict=True)
    for cell, there in zip(row, mask, strict=True)
    if there
  ]
  return {w.kind for w in works.fixed} | {w.kind for c in cells for w in c}


def test_expansion_is_that_of_the_hidden_layers():
  shape = (8, 8, 16)
  b = Builder(*shape)
  works = inverted_residual(shape, "relu6", 6, True).workloads
  assert closing.expansion(works) == 6
  fused = platform_block("fused_inverted_residual_3", shape, "relu6", True)
  assert closing.expansion(fused.workloads) == 3
  assert closing.expansion(b.conv(64, 3).workloads) == 0  # an output
  assert closing.expansion(b.depthwise(3).conv(64).workloads) == 1
  # A choice that several cells share: each block by itself.
  wide = Builder(4, 4, 64).depthwise(3).conv(64).workloads
  assert closing.expansion((*b.depthwise(3).conv(16).workloads, *wide)) == 1


@pytest.mark.parametrize("name", ["edge", "fbnet", "macro", "tiny"])
def test_bounded_activations(name):
  """relu6 takes the place of what the space has, and nothing else is left."""
  free = space_of(name)
  space = space_of(name, "bounded_activations")
  assert opened(space) == opened(free)
  if name != "tiny":
    assert "relu6" in kinds(space)
    assert not kinds(space) & {"relu", "hswish"}


def test_bounded_activations_of_mobilenet():
  """Squeeze-and-excite has a ReLU inside: it is closed."""
  space = space_of("mobilenet", "bounded_activations", cells=1, channels=8)
  assert "activation" not in space.groups
  assert opened(space)["squeeze_excite"] == {"no"}
  assert opened(space)["kernel"] == {"3", "5", "7"}


@pytest.mark.parametrize(
  "name, group, left",
  [
    ("mobilenet", "expansion", {"3", "4"}),
    ("tiny", "expansion", {"3", "4"}),
    ("macro", "layers", {"identity", "mb3_k3"}),
  ],
)
def test_limited_expansion(name, group, left):
  space = space_of(name, "largest_expansion=4")
  assert opened(space)[group] == left


def test_limited_expansion_of_cells():
  free, space = space_of("edge"), space_of("edge", "largest_expansion=4")
  closed = opened(free)["nodes"] - opened(space)["nodes"]
  assert closed == {"inverted_residual"}
  blocks = opened(space_of("fbnet", "largest_expansion=1"))["layers"]
  assert blocks == {"k3_e1", "k3_e1_g2", "k5_e1", "k5_e1_g2", "skip"}


@pytest.mark.parametrize("name", ["mobilenet", "tiny", "fbnet", "macro"])
def test_channels_fill_vectors(name):
  """All of them, and the argument is in the genotype."""
  space = space_of(
    name, "channel_multiple=12", cells=None if name == "macro" else 1
  )
  assert space.arguments["channel_multiple"] == 12
  works = [
    w
    for w in space.workloads().distinct()
    if w.kind in ("convolution", "depthwise")
  ]
  assert all(w.channels_out % 12 == 0 for w in works)


def test_channels_of_spaces_without_the_argument_are_checked():
  """Ghost modules make half of their channels: those of 8 are closed."""
  space = space_of("edge", "channel_multiple=16", channels=16)
  ghost = space.groups["nodes"].candidates.index("ghost")
  shut = ~space.masks["nodes"]
  assert np.flatnonzero(shut[:, ghost]).tolist() == [0, 1, 2]
  assert shut.sum() == 3
  with pytest.raises(InputError, match="every network of the space edge has"):
    space_of("edge", "channel_multiple=16", channels=8)


def test_the_devices_vectors():
  """CMSIS-NN wants 4 channels; 16 bytes of NEON hold 4 floats or 16 bytes."""
  rule = ("channel_multiple=device",)
  found = [
    quantization_rules.read(
      configs.SearchConfig(quantization_rule=rule, device=names)
    ).channel_multiple
    for names in (("stm32f746",), ("stm32f746", "esp32-s3"))
  ]
  assert found[0] == 4 and found[1] % 4 == 0 and found[1] % 16 == 0


@pytest.mark.parametrize(
  "rules, said",
  [
    (("bounded_activation",), "did you mean bounded_activations"),
    (("bounded_activations=3",), "takes no value"),
    (("largest_expansion",), "has no value"),
    (("largest_expansion=0",), "below 1"),
    (("largest_expansion=device",), "no number"),
    (("channel_multiple=device",), "add --device"),
    (("channel_multiple=2", "channel_multiple=4"), "twice"),
  ],
)
def test_bad_rules(rules, said, capsys):
  code = main(["search", "--data", "digits", "--quantization-rule", *rules])
  assert code == 2
  assert said in capsys.readouterr().err


@pytest.mark.parametrize(
  "space, options, rule, said",
  [
    ("edge", ["--activation", "hswish"], "bounded_activations", "leave one"),
    ("nasbench201", [], "bounded_activations", "every network"),
    ("fbnet", [], "channel_multiple=3", "must be even"),
  ],
)
def test_rules_that_a_space_cannot_keep(space, options, rule, said, capsys):
  code = main(
    [
      *("search", "--data", "digits", "--space", space, *options),
      *("--quantization-rule", rule),
    ]
  )
  assert code == 2
  assert said in capsys.readouterr().err


def test_stacked_kernels_are_penalised_one_by_one():
  """Two cells with ranges 0..1 and -1..0 are not symmetric together."""
  kernel = np.zeros((2, 1, 1, 2, 1), np.float32)
  kernel[0, 0, 0, 0], kernel[1, 0, 0, 0] = 1.0, -1.0
  found = quantization.asymmetry_penalty({"convolution_0": {"kernel": kernel}})
  assert float(found) == pytest.approx(1.0)
