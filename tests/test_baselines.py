"""What decided networks are compared with."""

import itertools

import numpy as np
import pytest

from nasjax import hardware, spaces
from nasjax.cli import baselines
from nasjax.spaces import costs as cost_tables


def test_without_limits_it_is_mobilenet_v2():
  shape = dict(image_shape=(32, 32, 3), num_classes=10)
  made = spaces.mobilenet(
    channels=8,
    cells=2,
    expansions=(3, 4, 6),
    activations=("relu6", "hswish"),
    **shape,
  )
  names = baselines.mobilenet_like(made, []).names()
  assert {n: set(row) for n, row in names.items()} == {
    "depth": {"keep"},
    "expansion": {"6"},
    "kernel": {"3"},
    "squeeze_excite": {"no"},
    "activation": {"relu6"},
  }
  for made, block in (
    (spaces.fbnet(channels=4, cells=1, **shape), "k3_e6"),
    (spaces.macro(channels=4, **shape), "mb3_k3"),
    (spaces.edge(channels=4, nodes=1, **shape), "inverted_residual"),
  ):
    (row,) = baselines.mobilenet_like(made, []).names().values()
    assert set(row) == {block}
  for made in (
    spaces.nasbench201(channels=4, cells=1, **shape),
    spaces.darts(channels=4, cells=3, **shape),
  ):
    assert baselines.mobilenet_like(made, []) is None


@pytest.mark.parametrize("percent", [0, 5, 30, 60])
def test_within_a_limit_no_network_has_more_of_its_blocks(tiny_edge, percent):
  metric = hardware.params(tiny_edge)
  (group,) = tiny_edge.groups
  names = tiny_edge.groups[group].candidates
  edges = tiny_edge.groups[group].edges
  every = np.array(list(itertools.product(range(len(names)), repeat=edges)))
  costs = cost_tables.costs(tiny_edge, metric).of({group: every})
  bound = float(np.percentile(costs, percent))
  found = baselines.mobilenet_like(tiny_edge, [(metric, bound)])
  assert metric.exact(found) <= bound

  def likeness(rows):
    """Blocks count most, then skips."""
    block, skip = names.index("inverted_residual"), names.index("skip_connect")
    return 10 * (rows == block).sum(-1) + (rows == skip).sum(-1)

  best = likeness(every[costs <= bound]).max()
  assert likeness(found.choices[group]) == best
