"""Parts of a batch give what the whole gives, with derivatives."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nasjax.layers import blocks, chunked, mixed, normalization


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_parts_give_what_the_whole_gives(chunks):
  """Outputs and sums of every order of derivative."""

  def function(shared, images):
    y = jnp.tanh(images["a"] * shared[0][None] + images["b"])
    return [y, y * y], {"sum": y.sum(0)}

  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    shared = (jnp.asarray(rng.normal(size=3)), jnp.ones(2))
    images = {n: jnp.asarray(rng.normal(size=(4, 3))) for n in "ab"}
    np.testing.assert_allclose(
      *(
        jax.flatten_util.ravel_pytree(f(shared, images))[0]
        for f in (
          function,
          lambda s, i: chunked.in_chunks(function, chunks, s, i),
        )
      ),
      rtol=1e-12,
    )
    check_grads(
      lambda s, i: chunked.in_chunks(function, chunks, s, i),
      (shared, images),
      order=2,
      modes=["rev"],
    )


def test_moments_of_a_convolution_without_it():
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(2.0, 3.0, (8, 5, 3, 4)), jnp.float32)
  w = jnp.asarray(rng.normal(size=(4, 7)), jnp.float32)
  for found, wanted in zip(
    chunked.moments_after(x, w), normalization.moments(x @ w), strict=True
  ):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("residual", [False, True])
def test_an_inverted_residual_equals_its_layers(residual, monkeypatch):
  """Output, batch statistics and gradients; in two parts."""
  monkeypatch.setattr(chunked, "_CHUNK", 2 * 6 * 6 * 6)
  block = blocks.inverted_residual((6, 6, 2), "hswish", 3, residual)
  assert not chunked.can_run(block)  # its scales are trained
  block = block.clone(affine=False)
  assert chunked.can_run(block)
  x = jax.random.normal(jax.random.key(0), (4, 6, 6, 2))
  variables = block.init(jax.random.key(1), x, False)

  def layers(params, x):
    own = {**variables, "params": params}
    y, new = block.apply(own, x, True, mutable=["batch_stats"])
    return (y**3).sum(), (y, new["batch_stats"])

  def parts(params, x):
    own = {**variables, "params": params}
    y, new = mixed.run_block(block, own, x, True)
    return (y**3).sum(), (y, new)

  wanted, found = (
    jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(variables["params"], x)
    for f in (layers, parts)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
    found,
    wanted,
  )


@pytest.mark.parametrize(
  "change",
  [
    lambda shape: blocks.ghost(shape, "relu6"),
    lambda shape: blocks.squeeze_excite(shape, "relu6"),
    lambda shape: blocks.platform_block(
      "fused_inverted_residual_3", shape, "relu6", True
    ),
    lambda shape: blocks.inverted_residual(shape, "relu6", 1, True),
    lambda shape: blocks.separable(
      blocks.Builder(*shape), shape[2], "relu6"
    ).block(),
  ],
)
def test_other_blocks_run_layer_by_layer(change):
  assert not chunked.can_run(change((6, 6, 4)).clone(affine=False))
