"""Zero-cost proxies against the same numbers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import spaces
from nasjax.search import zero_cost
from nasjax.spaces import space as space_module
from nasjax.types import Batch


def kernels(tree):
  found = jax.tree_util.tree_leaves_with_path(tree)
  return [leaf for path, leaf in found if path[-1].key == "kernel"]


@pytest.mark.slow
def test_proxies_of_mapped_networks_equal_those_of_built_ones(toy):
  """`vmap` over one-hot weights gives what the decided network gives."""
  rng = np.random.default_rng(0)
  batch = Batch(
    rng.normal(size=(4, 8, 8, 1)).astype(np.float32),
    rng.integers(4, size=4).astype(np.int32),
  )
  drawn = space_module.random_choices(toy, rng, 2)
  key = jax.random.key(3)
  found = zero_cost.proxies(toy, drawn, batch, key, at_once=2)
  assert set(found) == set(zero_cost.PROXIES)
  variables = toy.init(key)
  architecture = spaces.architecture(toy, {"layers": drawn["layers"][1]})
  network, own = toy.build(architecture), toy.extract(variables, architecture)

  def loss(params):
    logits, _ = network.apply(
      {**own, "params": params}, batch.images, True, mutable=["batch_stats"]
    )
    return -jax.nn.log_softmax(logits)[jnp.arange(4), batch.labels].mean()

  def flow(params):
    ones = jnp.ones((1, 8, 8, 1))
    return network.apply({**own, "params": params}, ones, False).sum()

  absolute = jax.tree.map(jnp.abs, own["params"])
  gradients = jax.jit(lambda p, q: (jax.grad(loss)(p), jax.grad(flow)(q)))(
    own["params"], absolute
  )
  norm = np.sqrt(sum(float((g**2).sum()) for g in kernels(gradients[0])))
  assert found["gradient_norm"][1] == pytest.approx(norm, rel=1e-3)
  pairs = zip(kernels(absolute), kernels(gradients[1]), strict=True)
  total = sum(float(jnp.abs(p * g).sum()) for p, g in pairs)
  assert found["synflow"][1] == pytest.approx(np.log(total), rel=1e-3)
  assert np.isfinite(found["jacobian_covariance"]).all()


def test_synflow_of_skips_alone_is_the_fixed_parts(toy):
  """By hand: ones through the stem's and the head's absolute kernels."""
  batch = Batch(np.ones((1, 8, 8, 1), np.float32), np.zeros(1, np.int32))
  key = jax.random.key(0)
  drawn = {"layers": np.array([[1, 1, 1], [0, 0, 0]])}
  found = zero_cost.proxies(
    toy, drawn, batch, key, names=("synflow",), at_once=2
  )["synflow"]
  # x + skip(x) doubles at each of three layers, x + none(x) does not; two
  # kernels lie on every way, and each counts the whole flow.
  assert found[0] - found[1] == pytest.approx(3 * np.log(2), rel=1e-4)


def test_an_unknown_proxy_is_refused(toy):
  with pytest.raises(ValueError, match="unknown proxy 'snip'"):
    zero_cost.proxies(toy, {}, None, jax.random.key(0), names=("snip",))
