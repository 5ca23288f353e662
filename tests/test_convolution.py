"""Tests of the fast convolutions and pools: they equal JAX's own."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from nasjax.layers.convolution import conv
from nasjax.layers.pooling import avg_pool, max_pool
from nasjax.layers.trilinear import trilinear

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def _strict_ranks():
  with jax.numpy_rank_promotion("raise"):
    yield


def native(x, w, **options):
  """JAX's own convolution."""
  return lax.conv_general_dilated(
    x, w, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
  )


def derivatives(function, *arguments):
  """Returns the output, its gradients, and the gradients of their squares."""

  def widen(x):
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

  def loss(*arguments):
    y = jnp.tanh(widen(function(*arguments)))
    return jnp.sum(
      y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)
    )

  positions = tuple(range(len(arguments)))
  gradients = jax.grad(loss, positions)

  def squares(*arguments):
    return sum(jnp.sum(widen(g) ** 2) for g in gradients(*arguments))

  def everything(*arguments):
    return (
      function(*arguments),
      gradients(*arguments),
      jax.grad(squares, positions)(*arguments),
    )

  return jax.jit(everything)(*arguments)


def assert_close(left, right, tolerance):
  """Asserts that two trees agree, relative to each leaf's largest entry."""
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.isfinite(a).all()
    np.testing.assert_allclose(
      a, b, rtol=0, atol=tolerance * (np.abs(b).max() + 1e-30)
    )


def random(shape, dtype=np.float32, seed=0):
  """Normally distributed numbers; distinct, so that maxima are unique."""
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


KINDS = {  # C_in, C_out, groups
  "dense": (3, 5, 1),
  "depthwise": (4, 4, 4),
  "multiplier": (3, 6, 3),
  "grouped": (16, 8, 2),
  "tiny_groups": (6, 12, 3),
  "narrowing": (6, 3, 3),
}


@st.composite
def cases(draw):
  """Draws operands and options of a convolution."""
  inputs, outputs, groups = KINDS[draw(st.sampled_from(sorted(KINDS)))]
  kernel = draw(st.sampled_from([1, 2, 3, 5, 7])), draw(st.sampled_from([1, 3]))
  height, width = draw(st.integers(7, 11)), draw(st.integers(7, 11))
  dilation = (2, 2) if kernel[0] < 4 and draw(st.booleans()) else (1, 1)
  wide = 2 * kernel[0] + 1
  options = {
    "window_strides": (draw(st.integers(1, 2)), draw(st.integers(1, 3))),
    "rhs_dilation": dilation,
    "feature_group_count": groups,
    "padding": draw(
      st.sampled_from(
        ["SAME", "VALID", ((1, 2), (0, 1)), ((wide, 0), (1, wide))]
      )
    ),
  }
  return (
    (2, height, width, inputs),
    (*kernel, inputs // groups, outputs),
    options,
  )


@settings(deadline=None, max_examples=14, derandomize=True)
@given(case=cases())
def test_every_derivative_equals_native(case):
  x_shape, w_shape, options = case
  with jax.enable_x64(True):
    x, w = random(x_shape, np.float64), random(w_shape, np.float64, 1)
    ours = derivatives(partial(conv, **options), x, w)
    theirs = derivatives(partial(native, **options), x, w)
  assert_close(ours, theirs, 1e-10)


@pytest.mark.parametrize("kind", ["dense", "depthwise", "grouped"])
def test_forward_mode_and_each_mapped_axis(kind):
  inputs, outputs, groups = KINDS[kind]
  options = dict(
    window_strides=(2, 1), padding="SAME", feature_group_count=groups
  )
  with jax.enable_x64(True):
    x = random((3, 2, 6, 5, inputs), np.float64)
    w = random((3, 3, 3, inputs // groups, outputs), np.float64, 1)
    tangents = random(x.shape, np.float64, 2), random(w.shape, np.float64, 3)

    def pushed(function):
      def one(*given):
        return jax.jvp(partial(function, **options), given[:2], given[2:])

      return jax.jit(jax.vmap(one))(x, w, *tangents)

    assert_close(pushed(conv), pushed(native), 1e-10)
    # Gradients of what is mapped, and of what all share.
    for axes, shared in (((0, None), (x, w[0])), ((None, 0), (x[0], w))):

      def mapped(function, axes=axes):
        return jax.vmap(partial(function, **options), axes)

      ours = derivatives(mapped(conv), *shared)
      assert_close(ours, derivatives(mapped(native), *shared), 1e-10)


SAME = {"window_strides": (1, 1), "padding": "SAME"}
DTYPES = [(np.float32, 1e-4), (jnp.bfloat16, 4e-2)]


@pytest.mark.parametrize("kind", ["dense", "depthwise", "grouped"])
def test_cropping_padding(kind):
  inputs, outputs, groups = KINDS[kind]
  options = {
    "window_strides": (2, 1),
    "rhs_dilation": (1, 2),
    "padding": ((-1, 8), (9, -2)),
    "feature_group_count": groups,
  }
  with jax.enable_x64(True):
    x = random((2, 8, 9, inputs), np.float64)
    w = random((3, 3, inputs // groups, outputs), np.float64, 1)
    ours = derivatives(partial(conv, **options), x, w)
    assert_close(ours, derivatives(partial(native, **options), x, w), 1e-10)


@pytest.mark.parametrize("dtype,tolerance", DTYPES)
@pytest.mark.parametrize("kind", ["dense", "depthwise", "grouped"])
def test_precisions(kind, dtype, tolerance):
  inputs, outputs, groups = KINDS[kind]
  options = SAME | {"feature_group_count": groups}
  x = random((2, 6, 5, inputs), dtype)
  w = random((3, 3, inputs // groups, outputs), dtype, 1) / 3
  ours = derivatives(partial(conv, **options), x, w)
  exact = derivatives(
    partial(native, **options), x.astype(np.float32), w.astype(np.float32)
  )
  assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
  ours = jax.tree.map(lambda leaf: leaf.astype(np.float32), ours)
  assert_close(ours, exact, tolerance)


def test_preferred_element_type():
  x, w = random((2, 5, 5, 3), jnp.bfloat16), random((3, 3, 3, 4), jnp.bfloat16)
  y = conv(x, w, preferred_element_type=np.float32, **SAME)
  expected = native(x, w, preferred_element_type=np.float32, **SAME)
  assert_close(y, expected, 1e-5)


@pytest.mark.parametrize("kind", ["dense", "depthwise", "grouped"])
def test_under_vmap_scan_and_switch(kind):
  inputs, outputs, groups = KINDS[kind]
  xs = random((2, 2, 6, 5, inputs))
  ws = random((2, 3, 3, inputs // groups, outputs), seed=1)

  def gradients(function):
    function = partial(function, feature_group_count=groups, **SAME)

    def one(x, w):
      return jax.grad(lambda *xw: jnp.sum(jnp.sin(function(*xw))), (0, 1))(x, w)

    return one

  def scan(xs, ws):
    one = gradients(conv)
    return lax.scan(lambda carry, xw: (carry, one(*xw)), 0, (xs, ws))[1]

  def switch(xs, ws):
    zeros = partial(jax.tree.map, jnp.zeros_like)

    def pick(i, x, w):
      return lax.switch(i, [lambda *xw: zeros(xw), gradients(conv)], x, w)

    return lax.map(lambda ixw: pick(*ixw), (jnp.ones(2, int), xs, ws))

  def loop(xs, ws):
    one = gradients(native)
    parts = [one(x, w) for x, w in zip(xs, ws, strict=True)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *parts)

  expected = jax.jit(loop)(xs, ws)
  for way in (jax.vmap(gradients(conv)), scan, switch):
    assert_close(jax.jit(way)(xs, ws), expected, 1e-5)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("kernel", [1, 3])
def test_flax(groups, kernel):
  x = random((2, 7, 8, 4))
  make = partial(
    nn.Conv, 4, (kernel, kernel), strides=2, feature_group_count=groups
  )
  variables = make().init(jax.random.key(0), x)
  fast = make(conv_general_dilated=conv)
  assert_close(fast.apply(variables, x), make().apply(variables, x), 1e-5)


def pools():
  """Every pool as a function of images alone."""
  yield partial(avg_pool, window=3, stride=2, padding=1)
  yield partial(avg_pool, window=9, stride=1, padding=4)
  yield partial(max_pool, window=3, stride=2, padding=1)


def test_what_stands_apart_is_one_function_for_equal_shapes():
  """A program in parts compiles faster; of equal parts it needs one."""

  def plainly(x, w, _):
    return x * w

  def step(apart):
    product = trilinear((plainly,) * 2, (plainly,) * 2, (plainly,) * 2, apart)

    def loss(x, w):
      return jnp.sum(jnp.sin(product(product(x, w, 0), w, 0)))

    return jax.jit(jax.value_and_grad(loss, (0, 1)))

  x = jax.random.normal(jax.random.key(0), (4, 8))
  apart, together = (step(a).lower(x, x) for a in (True, False))
  text = apart.as_text()
  # Forwards, and for the gradients of either operand.
  assert text.count("func.func private @") == 3
  assert text.count('inlineable = "false"') == 2 * 3
  assert "func.func private @" not in together.as_text()
  for own, same in zip(
    jax.tree.leaves(apart.compile()(x, x)),
    jax.tree.leaves(together.compile()(x, x)),
    strict=True,
  ):
    np.testing.assert_allclose(own, same, rtol=1e-6)


def test_lowers_for_accelerators():
  functions = [
    (partial(conv, feature_group_count=groups, **SAME), (kernel, 4 // groups))
    for groups, kernel in ((1, 3), (1, 1), (2, 3), (4, 3))
  ]
  for function, (kernel, inputs) in functions:
    arguments = random((2, 8, 8, 4)), random((kernel, kernel, inputs, 4))
    check_lowering(function, *arguments)
  for pool in pools():
    check_lowering(pool, random((2, 8, 8, 4)))


def check_lowering(function, *arguments):
  """Lowers a function and its derivatives for GPU and TPU."""

  def everything(*arguments):
    return derivatives(function, *arguments)

  traced = jax.jit(everything).trace(*arguments)
  for platform in ("cuda", "tpu"):
    traced.lower(lowering_platforms=(platform,))
  traced.lower(lowering_platforms=("cuda", "tpu"))


def test_accelerators_use_their_own_convolutions():
  x, w = random((2, 8, 8, 4)), random((3, 3, 1, 4))
  function = partial(conv, feature_group_count=4, **SAME)
  traced = jax.jit(function).trace(x, w)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("stablehlo.convolution") == 1
  assert "feature_group_count = 4" in text
  text = traced.lower(lowering_platforms=("cpu",)).as_text()
  assert "stablehlo.convolution" not in text


@pytest.mark.parametrize(
  "change,message",
  [
    ({"lhs_dilation": (2, 1)}, "lhs_dilation"),
    ({"batch_group_count": 2}, "batch_group_count"),
    ({"dimension_numbers": ("NCHW", "OIHW", "NCHW")}, "NHWC"),
    ({"feature_group_count": 3}, "groups"),
    ({"padding": [(0, 0)]}, "height and width"),
    ({"padding": [(0, 0), (0, -3)]}, "pad more"),
    ({"window_strides": (0, 1)}, "positive"),
    ({"rhs": np.ones((3, 3, 4, 4), np.float16)}, "astype"),
    ({"rhs": np.ones((3, 4, 4), np.float32)}, "conv_general_dilated"),
  ],
)
def test_mistakes_name_the_fix(change, message):
  arguments = {
    "lhs": random((2, 5, 4, 4)),
    "rhs": random((3, 3, 4, 4)),
    "window_strides": (1, 1),
    "padding": "VALID",
  }
  with pytest.raises(ValueError, match=message):
    conv(**(arguments | change))


def slow_average(x, window, stride, padding, ceil):
  """Averages pools the obvious way."""
  size = x.shape[1] + 2 * padding
  extra = -(size - window) % stride if ceil else 0
  if ceil and size - window + extra >= x.shape[1] + padding:
    extra = 0
  pads = ((0, 0), *((padding, padding + extra),) * 2, (0, 0))

  def total(x):
    window_shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    return lax.reduce_window(
      x, np.zeros((), x.dtype), lax.add, window_shape, strides, pads
    )

  return total(x) / total(jnp.ones_like(x))


POOLS = [  # size, window, stride, padding
  (8, 3, 1, 1),
  (7, 3, 2, 1),
  (8, 2, 2, 0),
  (7, 2, 2, 0),
  (9, 5, 2, 2),
  (5, 1, 2, 0),
  (7, 2, 3, 1),
  (12, 9, 3, 4),
]


@pytest.mark.parametrize("size,window,stride,padding", POOLS)
@pytest.mark.parametrize("ceil", [False, True])
def test_average_pool(size, window, stride, padding, ceil):
  options = (window, stride, padding, ceil)
  with jax.enable_x64(True):
    x = random((2, size, size, 3), np.float64)
    ours = derivatives(lambda x: avg_pool(x, *options), x)
    assert_close(
      ours, derivatives(lambda x: slow_average(x, *options), x), 1e-10
    )
  if ceil and padding == 0 and window == stride:
    assert ours[0].shape[1] == -(-size // stride)


@pytest.mark.parametrize("size,window,stride,padding", POOLS)
def test_maximum_pool(size, window, stride, padding):
  with jax.enable_x64(True):
    x = random((2, size, size + 1, 3), np.float64)
    ours = derivatives(lambda x: max_pool(x, window, stride, padding), x)
    pads = ((padding, padding), (padding, padding))
    shape, strides = (window, window), (stride, stride)
    theirs = derivatives(lambda x: nn.max_pool(x, shape, strides, pads), x)
    assert_close(ours, theirs, 1e-10)


def test_first_of_equal_maxima_has_the_gradient():
  x = jnp.zeros((1, 4, 4, 1))
  gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 2, 2)))(x)
  expected = np.zeros((4, 4))
  expected[::2, ::2] = 1
  np.testing.assert_array_equal(gradient[0, :, :, 0], expected)


def test_pools_in_half_precision_vmap_and_scan():
  xs = random((3, 2, 6, 6, 4))
  for pool in pools():

    def gradient(x, pool=pool):
      return jax.grad(lambda x: jnp.sum(pool(x) ** 2))(x)

    expected = jnp.stack([gradient(x) for x in xs])
    assert_close(jax.vmap(gradient)(xs), expected, 1e-6)
    scanned = lax.scan(lambda c, x, f=gradient: (c, f(x)), 0, xs)[1]
    assert_close(scanned, expected, 1e-6)
    half = pool(xs[0].astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    assert_close(half.astype(np.float32), pool(xs[0]), 2e-2)


def test_pools_refuse_empty_windows():
  x = random((1, 4, 4, 1))
  with pytest.raises(ValueError, match="half the window"):
    avg_pool(x, 3, 1, 2)
  with pytest.raises(ValueError, match="smaller window"):
    max_pool(x, 5, 1, 0)
  with pytest.raises(ValueError, match="floating-point"):
    max_pool(x.astype(int), 2, 2)
