"""One candidate is executed, and it is the block itself, times its weight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import spaces
from nasjax.layers.mixed import mixed

SPACES = {
  "edge": lambda: spaces.edge(channels=8, image_shape=(8, 8, 1)),
  "nasbench201": lambda: spaces.nasbench201(channels=4, image_shape=(8, 8, 3)),
}
NAMES = {
  "edge": ("none", "skip_connect", "ghost", "inverted_residual"),
  "nasbench201": ("none", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3"),
}


def edge_of(space):
  """(blocks, variables, input) of one edge of a space's first stage."""
  candidates = SPACES[space]().plan.stages[0].edges[0]
  blocks = {
    n: candidates[n] and candidates[n].clone(affine=False) for n in NAMES[space]
  }
  channels = {"edge": 8, "nasbench201": 4}[space]
  x = jax.random.normal(jax.random.key(1), (4, 8, 8, channels))
  variables = {"params": {}, "batch_stats": {}}
  for i, (name, block) in enumerate(blocks.items()):
    found = block.init(jax.random.key(i), x, False) if block else {}
    for part in variables:
      variables[part][name] = found.get(part, {})
  return blocks, variables, x


def alone(blocks, variables, x, name):
  block = blocks[name]
  if block is None:
    return jnp.zeros_like(x), {}
  own = {part: variables[part][name] for part in variables}
  y, new = block.apply(own, x, True, mutable=["batch_stats"])
  return y, new.get("batch_stats", {})


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("space", SPACES)
def test_the_sampled_one_alone(space, keep):
  blocks, variables, x = edge_of(space)
  weights = jnp.linspace(0.5, 1.5, len(blocks))
  stats = variables["batch_stats"]
  probe = jax.random.normal(jax.random.key(2), x.shape)

  def ours(path, weights, params, x):
    own = {"params": params, "batch_stats": stats}
    y, new = mixed(blocks, own, x, weights, path[None], True, keep=keep)
    return (jnp.sin(y) * probe).sum(), (y, new)

  def twice(function):
    """Derivatives, and those of their squares' sum."""
    first = jax.grad(function, (0, 1, 2), has_aux=True)

    def squares(*operands):
      found = first(*operands)[0]
      return sum((v**2).sum() for v in jax.tree.leaves(found))

    return lambda *operands: (
      first(*operands),
      jax.grad(squares, (0, 1, 2))(*operands),
    )

  @jax.jit
  def run(path):
    function = twice(lambda *operands: ours(path, *operands))
    return function(weights, variables["params"], x)

  for k, name in enumerate(blocks):

    def theirs(weights, params, x, name=name, k=k):
      own = {"params": params, "batch_stats": stats}
      y, new = alone(blocks, own, x, name)
      y = weights[k] * y
      return (jnp.sin(y) * probe).sum(), (y, {**stats, name: new})

    want = jax.jit(twice(theirs))(weights, variables["params"], x)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=2e-4, atol=2e-4 * max(1.0, float(np.abs(b).max()))
      ),
      run(jnp.int32(k)),
      want,
    )
