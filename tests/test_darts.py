"""The DARTS space: the published count, its supernet, its genotypes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, spaces
from nasjax.errors import InputError
from nasjax.search import genes
from nasjax.spaces import darts_genotype as field
from nasjax.spaces import space as space_tools
from nasjax.types import Sampled


@pytest.fixture(scope="module")
def small():
  return spaces.darts(
    channels=4, cells=4, nodes=2, image_shape=(8, 8, 3), num_classes=3
  )


def drawn(space, seed):
  rows = space_tools.random_choices(space, np.random.default_rng(seed), 1)
  return spaces.architecture(space, {n: r[0] for n, r in rows.items()})


def test_darts_v2_has_its_published_parameters():
  """3.349342 M at C = 36 and 20 layers, without the auxiliary head."""
  space = spaces.darts(channels=36, cells=20, pools="plain")
  found = field.from_genotype(space, field.DARTS_V2)
  assert hardware.params(space).exact(found) == 3349342


@pytest.fixture(scope="module")
def restricted(small):
  """A network, its supernet on images, and both ways to restrict it."""
  images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("f4")
  one = drawn(small, 1)

  def supernet(v, sampled):
    outputs, _ = small.apply(v, sampled, images, True)
    return (outputs**2).sum(), outputs

  mixture = Sampled(one.one_hot())
  path = genes.one_path(small.masks, one.choices)
  return one, images, supernet, mixture, path


def test_a_decided_network_equals_the_restricted_supernet(small, restricted):
  """All paths weighted, one path, and the network alone."""
  one, images, supernet, mixture, path = restricted
  variables = small.init(jax.random.key(0))
  _, full = jax.jit(supernet)(variables, mixture)
  _, single = jax.jit(supernet)(variables, path)
  np.testing.assert_allclose(full, single, rtol=1e-4, atol=1e-5)
  network, own = small.build(one), small.extract(variables, one)
  outputs, _ = network.apply(own, images, True, mutable=["batch_stats"])
  np.testing.assert_allclose(outputs, single, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_gradients_of_one_path_equal_the_mixtures(small, restricted):
  _, _, supernet, mixture, path = restricted
  variables = small.init(jax.random.key(0))
  gradient = jax.jit(jax.grad(supernet, has_aux=True))
  full, _ = gradient(variables, mixture)
  single, _ = gradient(variables, path)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    full["params"],
    single["params"],
  )


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
