"""Batch normalisation equals flax's, with derivatives of every order."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from nasjax.layers.normalization import BatchNorm, standardize
from nasjax.layers.sums import sums


@pytest.fixture
def images():
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(2.0, 3.0, (4, 5, 3, 2)), jnp.float32)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_equals_flax(images, train, affine):
  ours = BatchNorm(affine)
  theirs = nn.BatchNorm(
    not train, momentum=0.9, use_scale=affine, use_bias=affine, epsilon=1e-5
  )
  variables = theirs.init(jax.random.key(0), images)
  assert jax.tree.structure(variables) == jax.tree.structure(
    ours.init(jax.random.key(0), images, train)
  )
  variables = jax.tree.map(lambda v: v + 0.3, variables)

  def run(module, x, *arguments):
    y, new = module.apply(variables, x, *arguments, mutable=["batch_stats"])
    return jnp.sum(jnp.sin(y)), (y, new)

  mine = jax.value_and_grad(lambda x: run(ours, x, train), has_aux=True)
  other = jax.value_and_grad(lambda x: run(theirs, x), has_aux=True)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-5),
    mine(images),
    other(images),
  )


def test_derivatives_of_all_outputs(images):
  with jax.enable_x64(True):
    x = jnp.asarray(images, jnp.float64)
    check_grads(
      lambda x: [jnp.sin(v) for v in standardize(x)],
      (x,),
      order=2,
      modes=["rev"],
    )


def test_half_precision_keeps_its_type_and_wide_statistics(images):
  y, mean, var = standardize(images.astype(jnp.bfloat16))
  assert (y.dtype, mean.dtype, var.dtype) == (
    jnp.bfloat16,
    jnp.float32,
    jnp.float32,
  )
  np.testing.assert_allclose(
    np.asarray(y, np.float32), standardize(images)[0], atol=0.05
  )


@pytest.mark.parametrize("count", [1, 3, 8, 13, 64, 67])
def test_sums_of_any_number_of_images_and_terms(count):
  rng = np.random.default_rng(count)
  x, y = (rng.normal(size=(2, count, 3, 4, 5)).astype("f4") for _ in "xy")

  def terms(x, y):
    return [x, y] + [x * (y + i * x) for i in range(11)]

  for found, wanted in zip(sums(terms, x, y), terms(x, y), strict=True):
    np.testing.assert_allclose(found, wanted.sum((1, 2, 3)), rtol=1e-4)
