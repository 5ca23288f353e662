"""Mixing where the mathematics is linear equals mixing outputs.

Outputs, and gradients with respect to weights, parameters and input, at 1e-5
of their size.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import spaces
from nasjax.layers import fan_out
from nasjax.layers.convolution import conv
from nasjax.spaces import mobilenet_supernet

MOBILENET = dict(
  channels=32,
  image_shape=(8, 8, 1),
  num_classes=3,
  expansions=(2, 3),
  kernels=(3, 5, 7),
  squeeze_excite=("yes",),
  stage_channels=(16, 24, 32),
  stage_depths=(1, 2, 1),
  stage_strides=(1, 1, 1, 2),
  head_channels=16,
  widths=(50, 100),
)


def simplex(*shape, seed=0):
  drawn = np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])
  return jnp.asarray(drawn, jnp.float32)


def normal(*shape, seed=1):
  return np.random.default_rng(seed).normal(size=shape).astype("f4")


def equal(mixing, outputs, *arguments):
  """Both functions of `arguments`, and the gradients for all of them."""

  def probed(function):
    def run(*arguments):
      found = function(*arguments)
      probe = jax.tree.map(lambda y: normal(*y.shape, seed=2), found)
      value = sum(
        (y * p).sum()
        for y, p in zip(
          jax.tree.leaves(found), jax.tree.leaves(probe), strict=True
        )
      )
      return value, found

    count = tuple(range(len(arguments)))
    return jax.jit(jax.grad(run, count, has_aux=True))(*arguments)

  ours, theirs = probed(mixing), probed(outputs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(
      a, b, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(b).max()))
    )
  assert all(np.abs(g).max() > 0 for g in jax.tree.leaves(ours[0]))


def layer_of(name, **changes):
  space = spaces.mobilenet(**{**MOBILENET, **changes})
  variables = space.init(jax.random.key(0))
  own = {part: variables[part][name] for part in variables}
  return space.parts[name], own


@pytest.mark.parametrize("shared", [False, True])
def test_kernels(shared):
  """A depthwise convolution is linear in its kernel: 3x3, 5x5 and 7x7."""
  layer, own = layer_of("stage_2_layer_0", shared_kernels=shared, widths=(100,))
  channels = int(layer.hidden.max())
  kernels = {n: v for n, v in own["params"].items() if n.startswith("depth")}

  def convolved(x, kernel):
    margin = len(kernel) // 2
    return conv(
      x, kernel, (2, 2), [(margin, margin)] * 2, feature_group_count=channels
    )

  def mixing(weights, params, x):
    kernel = mobilenet_supernet.expected_kernel(
      layer, params, {"kernel": weights}
    )
    return convolved(x, kernel)

  def outputs(weights, params, x):
    total = 0.0
    for weight, k in zip(weights, (3, 5, 7), strict=True):
      margin = (7 - k) // 2 if shared else 0
      kernel = params[f"depthwise_{7 if shared else k}"]["kernel"]
      inner = slice(margin, len(kernel) - margin)
      total += weight * convolved(x, kernel[inner, inner])
    return total

  equal(mixing, outputs, simplex(3), kernels, normal(2, 9, 8, channels))


def test_expansions():
  """The projection is linear: channels by their mean mask, before it."""
  layer, own = layer_of("stage_2_layer_0", widths=(100,))
  hidden = layer.hidden[:, 0]
  kernel = own["params"]["project"]["kernel"]

  def projected(x, kernel, mask):
    return conv(x * mask, kernel, (1, 1), "VALID")

  def mixing(weights, kernel, x):
    mask = mobilenet_supernet._expected_mask(
      layer.hidden, {"expansion": weights}, ("expansion", "width_in")
    )
    return projected(x, kernel, mask[None, None, None])

  def outputs(weights, kernel, x):
    return sum(
      # Each expansion as a layer of its own has so many channels.
      w * conv(x[..., :n], kernel[:, :, :n], (1, 1), "VALID")
      for w, n in zip(weights, hidden, strict=True)
    )

  equal(mixing, outputs, simplex(2), kernel, normal(2, 4, 4, max(hidden)))


@pytest.mark.parametrize(
  "axis, name", [("width", "stage_1_layer_0"), ("depth", "stage_1_layer_1")]
)
def test_widths_and_skips(axis, name):
  """The last mask, and the sum with what is skipped, of a whole layer."""
  layer, own = layer_of(name)
  rest = dict(
    width=jnp.eye(2)[1],
    width_in=jnp.eye(2)[1],
    depth=jnp.eye(2)[1],
    expansion=simplex(2),
    kernel=simplex(3),
    activation=simplex(2),
  )
  rest = {a: rest[a] for a in rest if a != "depth" or layer.optional}
  x = normal(4, 5, 4, max(layer.inputs))

  def mixing(weights, x):
    return mobilenet_supernet.run(layer, own, x, {**rest, axis: weights}, True)[
      0
    ]

  def outputs(weights, x):
    return sum(w * mixing(jnp.eye(2)[i], x) for i, w in enumerate(weights))

  equal(mixing, outputs, simplex(2), x)


@pytest.mark.parametrize(
  "name",
  [
    "nasbench201",
    pytest.param("darts", marks=pytest.mark.slow),
    pytest.param("edge", marks=pytest.mark.slow),
  ],
)
def test_edges_that_run_together(name):
  """Three edges that read one node equal each candidate's output alone."""
  candidates = {
    "nasbench201": lambda: spaces.nasbench201(channels=4, cells=1),
    "edge": lambda: spaces.edge(channels=8),
    "darts": lambda: spaces.darts(channels=4, cells=3),
  }[name]()
  candidates = candidates.plan.stages[0].edges[-1]
  block = next(b for b in candidates.values() if b and b.workloads)
  work = block.workloads[0]
  shape = (2, 6, 5, work.channels_in)
  variables = {"params": {}, "batch_stats": {}}
  for i, (key, block) in enumerate(candidates.items()):
    for part in variables:
      variables[part][key] = {}
    if block is not None and block.workloads:
      alone = block.clone(affine=False)
      found = jax.vmap(lambda k, b=alone: b.init(k, jnp.ones(shape), False))(
        jax.random.split(jax.random.key(i), 3)
      )
      for part in found:
        variables[part][key] = found[part]
  blocks = {
    n: None if b is None else b.clone(affine=False)
    for n, b in candidates.items()
  }
  stats = variables["batch_stats"]

  def together(weights, params, x):
    own = {"params": params, "batch_stats": stats}
    return fan_out.run(blocks, own, x, weights)[0]

  def alone(params, x, e, key):
    """(output, statistics) of one candidate on one edge."""
    own = {"params": params[key], "batch_stats": stats[key]}
    own = jax.tree.map(lambda v: v[e], own)
    y, new = blocks[key].apply(own, x, True, mutable=["batch_stats"])
    return y, new.get("batch_stats", {})

  def apart(weights, params, x):
    return [
      sum(
        weights[e, k] * alone(params, x, e, key)[0]
        for k, key in enumerate(blocks)
        if blocks[key] is not None
      )
      for e in range(3)
    ]

  params, x, weights = (
    variables["params"],
    normal(*shape),
    simplex(3, len(blocks)),
  )
  equal(together, apart, weights, params, x)
  found = fan_out.run(blocks, variables, x, weights)[1]
  for e, key in np.ndindex(3, len(blocks)):
    name = tuple(blocks)[key]
    if blocks[name] is not None:
      jax.tree.map(
        lambda a, b, e=e: np.testing.assert_allclose(a[e], b, 1e-5, 1e-6),
        found[name],
        alone(params, x, e, name)[1],
      )
