"""Gradients through a supernet's loss: proposals, limits, kept edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_space

from nasjax import hardware, spaces
from nasjax.search import genes as genetics
from nasjax.search import hybrid, refinement
from nasjax.spaces import space as space_tools

SPACE = toy_space.cell()
MACS = hardware.macs(SPACE)
GAIN = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (3, 5)), jnp.float32)


def loss(sampled, key):
  """A supernet's loss, as its gates see it: it falls with what is chosen."""
  assert sampled.paths["cell"].shape == (3, 1)
  noise = 1e-3 * jax.random.normal(key)
  return 2.0 - (sampled.weights["cell"] * GAIN).sum() / 3 + noise


def told_of(space, value, rows):
  choices = genetics.to_choices(space, rows)
  built = [
    spaces.Architecture(space, {n: r[i] for n, r in choices.items()})
    for i in range(len(rows))
  ]
  values = np.array([value(a) for a in built])
  return hybrid.Told(rows, values, np.zeros(len(rows)), np.arange(4), rows[:0])


def value(architecture):
  row = architecture.choices["cell"]
  right = np.asarray(GAIN)[np.arange(3), row].sum() / 3
  return [2.0 - right, MACS.exact(architecture)]


def start(count=20):
  counts = genetics.cardinalities(SPACE)
  rng = np.random.default_rng(1)
  return np.unique(rng.integers(counts, size=(count, 3)), axis=0).astype("i4")


def test_proposals_are_new_and_better_than_chance():
  propose = refinement.through_supernet(
    SPACE, loss, [MACS], count=8, members=8, steps=15
  )
  told = told_of(SPACE, value, start())
  found = propose(jax.random.key(0), told)
  assert 1 <= len(found) <= 8
  known = {tuple(r) for r in told.genes.tolist()}
  assert not known & {tuple(r) for r in found.tolist()}
  assert len({tuple(r) for r in found.tolist()}) == len(found)
  again = propose(jax.random.key(0), told)
  np.testing.assert_array_equal(found, again)
  # At one preference for the loss alone its networks are better than random.
  right = np.asarray(GAIN)[np.arange(3), found].sum(-1)
  chance = np.asarray(GAIN).mean(-1).sum()
  assert right.max() > chance + 0.3


def test_limits_are_kept_by_what_comes_first():
  bound = 12_000.0
  propose = refinement.through_supernet(
    SPACE, loss, [MACS], [(MACS, bound)], count=6, members=8, steps=20
  )
  found = propose(jax.random.key(1), told_of(SPACE, value, start()))
  built = [genetics.architecture(SPACE, row) for row in found]
  assert np.mean([MACS.exact(a) <= bound for a in built]) >= 0.5


def test_in_a_space_that_keeps_edges_all_are_networks():
  space = spaces.darts(channels=4, cells=3, nodes=2, image_shape=(8, 8, 3))
  params = hardware.params(space)

  def own(sampled, key):
    del key
    return 1.0 - 0.01 * sum(w[:, 4].sum() for w in sampled.weights.values())

  propose = refinement.through_supernet(
    space, own, [params], count=10, members=4, steps=5
  )
  counts = genetics.cardinalities(space)
  rows = np.asarray(genetics.random(jax.random.key(0), counts, 12))
  told = told_of(space, lambda a: [0.5, params.exact(a)], rows)
  for row in propose(jax.random.key(0), told):
    space_tools.check_connected(genetics.architecture(space, row))


@pytest.mark.parametrize(
  "wrong", [{"temperature": 0.0}, {"steps": 0}, {"count": 0}]
)
def test_numbers_out_of_range(wrong):
  with pytest.raises(ValueError, match="through_supernet"):
    refinement.through_supernet(SPACE, loss, [MACS], **wrong)
