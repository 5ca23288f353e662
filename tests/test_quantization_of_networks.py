"""What few bits cost whole networks, against integer networks themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import quantization_objective as study
from nasjax import data, export, search, spaces
from nasjax.data import pool as pools
from nasjax.errors import InputError
from nasjax.hardware import quantization
from nasjax.search import evaluation
from nasjax.spaces import space as space_tools

COUNT = 256


@pytest.fixture(scope="module")
def images():
  rng = np.random.default_rng(0)
  pixels = rng.integers(256, size=(COUNT, 8, 8, 1), dtype=np.uint8)
  return data.Images(pixels, rng.integers(4, size=COUNT).astype(np.int32))


def networks(space, count):
  drawn = space_tools.random_choices(space, np.random.default_rng(0), 40)
  rows = [
    {n: r[i] for n, r in drawn.items()}
    for i in range(40)
    if space_tools.is_connected(
      spaces.architecture(space, {n: r[i] for n, r in drawn.items()})
    )
  ][:count]
  return {n: np.stack([row[n] for row in rows]) for n in rows[0]}


def errors(space, images, variables, rows, bits=8, loss=None):
  of = search.population_quantization_error(
    space,
    images,
    data.statistics(images),
    bits=bits,
    loss=loss,
    batch_size=COUNT,
  )
  return np.asarray(
    jax.jit(of)(variables, {n: jnp.asarray(r) for n, r in rows.items()})
  )


def test_it_is_what_an_integer_network_loses(tiny_edge, images):
  """ONNX Runtime's symmetric int8 network on the images of its ranges."""
  space, statistics = tiny_edge, data.statistics(images)
  variables = space.init(jax.random.key(0))
  rows = networks(space, 6)
  found = errors(space, images, variables, rows)
  mean, std = statistics
  pixels = ((images.images / 255.0 - mean) / std).astype(np.float32)
  pool = pools.make_pool(images, statistics)
  own = jax.jit(
    lambda variables, sampled: evaluation.with_own_statistics(
      space, variables, sampled, pool, COUNT
    )
  )
  wanted, added = [], []
  for i in range(len(found)):
    one = spaces.architecture(space, {n: r[i] for n, r in rows.items()})
    mine = jax.device_get(own(variables, one.sampled()))
    model = export.network(
      space.build(one), space.extract(mine, one), (8, 8, 1)
    )
    right, seen = (
      study.session(m).run(None, {export.INPUT: pixels})[0]
      for m in (model, study.with_int8(model, pixels))
    )
    wanted.append(np.linalg.norm(right - seen) / np.linalg.norm(right))
    added.append(np.mean(seen - right, 0))
  # Where runtimes round differs; a quarter is what that makes.
  np.testing.assert_allclose(found, wanted, rtol=0.25)
  assert max(wanted) > 1.3 * min(wanted)

  @jax.jit
  def added_to(k):
    """What a class's logit changes by, for every network."""
    of = search.population_quantization_error(
      space, images, statistics, loss=lambda y, _: y[:, k], batch_size=COUNT
    )
    return of(variables, {n: jnp.asarray(r) for n, r in rows.items()})

  lost = [np.asarray(added_to(k)) for k in range(4)]
  assert np.corrcoef(np.ravel(lost), np.ravel(np.transpose(added)))[0, 1] > 0.8


def test_more_bits_lose_less_and_many_nothing(toy, images):
  variables, rows = toy.init(jax.random.key(0)), networks(toy, 3)
  coarse, usual, fine = (
    errors(toy, images, variables, rows, bits) for bits in (4, 8, 16)
  )
  assert np.all(coarse > 4 * usual)
  assert np.all(usual > 1e-4)
  assert np.all(fine < 1e-3)


def test_as_a_metric_it_is_each_networks_own(toy, images):
  variables, rows = toy.init(jax.random.key(0)), networks(toy, 3)
  metric = search.quantization_error_metric(toy, variables, images)
  found = [
    metric.exact(spaces.architecture(toy, {n: r[i] for n, r in rows.items()}))
    for i in range(3)
  ]
  wanted = errors(toy, images, variables, rows)
  np.testing.assert_allclose(found, wanted, rtol=1e-4)
  with pytest.raises(ValueError, match="no expected value"):
    metric.expected({})


def test_kernels_are_rounded_with_their_normalisation(toy):
  """A channel of little variance has a large deployed kernel."""
  variables = toy.init(jax.random.key(1))
  stats = jax.tree.map(jnp.ones_like, variables["batch_stats"])
  params = variables["params"]
  same = quantization.deployed_params(params, stats, 16, per_channel=False)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), same, params
  )
  path = ("stem", "norm_0", "var")
  stats[path[0]][path[1]][path[2]] = jnp.array([1e-4, 1.0, 1.0, 1.0])
  rounded = quantization.deployed_params(params, stats, 8, per_channel=False)
  lost = jnp.abs(
    rounded["stem"]["convolution_0"]["kernel"]
    - params["stem"]["convolution_0"]["kernel"]
  ).max((0, 1, 2))
  # The others' step is that of the first, about 95 times as large.
  assert float(lost[1:].min()) > 10 * float(lost[0])


def test_a_space_without_a_plan_is_refused(images):
  with pytest.raises(InputError, match="has no plan"):
    search.population_quantization_error(
      spaces.mobilenet(image_shape=(8, 8, 1)), images, data.statistics(images)
    )
  with pytest.raises(ValueError, match="bits=1"):
    search.population_quantization_error(
      spaces.edge(image_shape=(8, 8, 1)),
      images,
      data.statistics(images),
      bits=1,
    )
