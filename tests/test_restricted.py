"""Every space: the supernet at one-hot weights is the decided network alone.

Outputs in training and in evaluation, new batch statistics and gradients, at
1e-5 of their size; so what `extract` hands on is the same network.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from test_mobilenet import SMALL as MOBILENET

from nasjax import spaces
from nasjax.cli import own_spaces
from nasjax.spaces import space as space_tools
from nasjax.types import Sampled

MINE = Path(__file__).parent.parent / "experiments" / "my_space.py"
EDGE = dict(
  channels=4,
  nodes=2,
  stages=2,
  image_shape=(9, 8, 1),
  num_classes=3,
  conv_groups=2,
  expansion=2,
  activation="hswish",
)
CHAIN = dict(channels=4, image_shape=(16, 16, 3), num_classes=3)
SPACES = {
  "nasbench201": lambda: spaces.nasbench201(
    channels=4, cells=2, image_shape=(8, 8, 3), num_classes=3
  ),
  "edge": lambda: spaces.edge(**EDGE),
  "edge_dense": lambda: spaces.edge(**EDGE, links="dense"),
  "edge_bottleneck": lambda: spaces.edge(**EDGE, links="linear_bottleneck"),
  "darts": lambda: spaces.darts(
    channels=4, cells=4, nodes=2, image_shape=(8, 8, 3), num_classes=3
  ),
  "mobilenet": lambda: spaces.mobilenet(**MOBILENET),
  "mobilenet_shared": lambda: spaces.mobilenet(
    **{**MOBILENET, "channels": 32, "squeeze_excite": ("yes",)},
    widths=(50, 100),
    shared_kernels=True,
  ),
  "fbnet": lambda: spaces.fbnet(**CHAIN, cells=2),
  "macro": lambda: spaces.macro(**CHAIN),
  "own": lambda: own_spaces.constructor(f"{MINE}:chain", "test")(channels=8),
}
SLOW = ("edge_dense", "edge_bottleneck", "darts", "mobilenet_shared", "fbnet")


class Case(NamedTuple):
  space: Any
  one: Any  # an architecture
  variables: Any  # of the supernet
  images: Any
  alone: Any  # of the network: what `stepped` gives


def stepped(apply):
  """(gradient, outputs, statistics) in training, and evaluated outputs.

  Args:
    apply: (variables, train, ...) -> (logits, batch statistics).
  """

  def loss(params, stats, *rest):
    own = {"params": params, "batch_stats": stats}
    outputs, new = apply(own, True, *rest)
    return (outputs**2).sum(), (outputs, new)

  def run(own, *rest):
    gradient, (outputs, new) = jax.grad(loss, has_aux=True)(
      own["params"], own["batch_stats"], *rest
    )
    return gradient, outputs, new, apply(own, False, *rest)[0]

  return jax.jit(run)


def varied(space):
  """An architecture with as many of the candidates as there are rows."""
  rows = space_tools.random_choices(space, np.random.default_rng(4), 1)
  choices = {n: r[0] for n, r in rows.items()}
  if not space_tools.kept_of(space):
    choices = {
      n: (np.arange(g.edges) + len(g.candidates) - 1) % len(g.candidates)
      for n, g in space.groups.items()
    }
  return spaces.architecture(space, choices)


@pytest.fixture(scope="module")
def case(request):
  space = SPACES[request.param]()
  rng = np.random.default_rng(5)
  shape = (8, *space.arguments["image_shape"])
  images = rng.normal(size=shape).astype("f4")
  variables = jax.device_get(space.init(jax.random.key(0)))
  # Running statistics as after training, or evaluation would tell little.
  variables["batch_stats"] = jax.tree.map(
    lambda v: v + 0.5 * rng.random(v.shape).astype("f4"),
    variables["batch_stats"],
  )
  one = varied(space)
  network = space.build(one)

  def apply(own, train):
    if not train:
      return network.apply(own, images), None
    outputs, new = network.apply(own, images, True, mutable=["batch_stats"])
    return outputs, new["batch_stats"]

  alone = jax.device_get(stepped(apply)(space.extract(variables, one)))
  return Case(space, one, variables, images, alone)


def close(found, wanted):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(
      a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(b).max()))
    ),
    found,
    wanted,
  )


def trained(tree, blank):
  """Without the scales and shifts that searched layers have not.

  Args:
    tree: parameters of a network by layer.
    blank: what a supernet whose parameters are all 0 hands on.
  """
  return {
    layer: {
      n: v
      for n, v in parts.items()
      if not np.any(blank[layer][n].get("scale", 0.0))
    }
    for layer, parts in tree.items()
  }


def size(tree):
  return sum(float(np.abs(v).sum()) for v in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  "case, paths",
  [
    pytest.param(
      name,
      paths,
      marks=pytest.mark.slow
      if name in SLOW or paths != (name == "edge")
      else (),
    )
    for name in SPACES
    for paths in (False, True)
  ],
  indirect=["case"],
)
def test_one_hot_weights_are_the_decided_network(case, paths):
  """All candidates weighted, or the chosen ones alone executed."""
  space, one, variables, images, alone = case
  sampled = one.sampled() if paths else Sampled(one.one_hot())
  supernet = stepped(
    lambda own, train, sampled: space.apply(own, sampled, images, train)
  )
  slopes, outputs, moved, evaluated = jax.device_get(
    supernet(variables, sampled)
  )
  gradient, wanted, statistics, wanted_evaluated = alone
  assert np.ptp(wanted) > 0.01  # the network says something
  close(outputs, wanted)
  close(evaluated, wanted_evaluated)
  found, blank = (
    space.extract({"params": params, "batch_stats": moved}, one)
    for params in (slopes, jax.tree.map(np.zeros_like, slopes))
  )
  close(found["batch_stats"], statistics)
  ours, theirs = (
    trained(v, blank["params"]) for v in (found["params"], gradient)
  )
  close(ours, theirs)
  assert len(jax.tree.leaves(theirs)) > 6
  # A few units may be silent.
  loud = [np.abs(v).max() > 0 for v in jax.tree.leaves(theirs)]
  assert np.mean(loud) > 0.8
  # What was not chosen has no gradient.
  np.testing.assert_allclose(size(slopes), size(ours), rtol=1e-5)
