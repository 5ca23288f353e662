"""Convolutions whose every derivative is fast on CPU.

XLA's CPU back end computes the gradients of a convolution with a reversed
kernel and with the batch in the place of the channels. Both miss its fast path
inside `lax.scan`, `lax.cond` and `lax.switch`, where they are 17 to 45 times
slower (3x3, 64x32x32x16), and `feature_group_count` misses it everywhere. A
convolution is bilinear, so one trilinear form holds all of its derivatives:

  <forward(x, w), g> = <x, input_gradient(g, w)> = <w, kernel_gradient(x, g)>

The three functions are written here as plain forward convolutions, matrix
products and sums, and the derivative of each is the other two: derivatives of
every order stay on the fast path. On GPU and TPU all three are the platform's
own.

`conv` is a drop-in for flax: `nn.Conv(..., conv_general_dilated=conv)`; for the
platform's own convolution pass nothing to flax. Both modes of differentiation.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.layers import depthwise
from nasjax.layers.barrier import computed_once
from nasjax.layers.trilinear import trilinear
from nasjax.layers.windows import Pair, Windows, convolution_windows, pad, taps

__all__ = ["conv"]

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Larger kernels than this many weights make one product.
_SHARED_WEIGHTS = 131072
# XLA is slow with fewer channels a group than this: groups are merged, with
# zeros in the kernel.
_GROUP_CHANNELS = 32
# XLA leaves convolutions with more channels than this to a library that runs
# them on one core, unless the result is larger than the image: up to so many
# rows are computed in vain for that (64x16x16, 32 -> 96 channels, 2 cores: 7 ms
# become 4; 64x32x32, 16 -> 48: 8 become 5.4; on one core 20 to 50% are lost).
_SMALL_CHANNELS = 16
_MORE_ROWS = 3


class Plan(NamedTuple):
  """All that is static about one convolution; hashable."""

  windows: Windows
  groups: int
  channels: int  # of the input, in each group
  precision: Any


def _dense(
  x: jax.Array,
  w: jax.Array,
  windows: Windows,
  precision: Any,
  spacing: Pair = (1, 1),
) -> jax.Array:
  """Convolves x, spread by spacing, without groups; negative padding crops."""
  padding = windows.padding
  if min(min(p) for p in padding) < 0:
    x = pad(x, padding, spacing)
    padding, spacing = ((0, 0), (0, 0)), (1, 1)
  rows = windows.output[0]
  more = x.shape[1] + 1 - rows
  large = max(w.shape[2:]) > _SMALL_CHANNELS
  unspread = windows.strides == (1, 1) and spacing == (1, 1)
  if not (large and unspread and 0 < more <= _MORE_ROWS):
    more = 0
  (low, high), columns = padding
  y = lax.conv_general_dilated(
    x,
    w,
    windows.strides,
    ((low, high + more), columns),
    lhs_dilation=spacing,
    rhs_dilation=windows.dilation,
    dimension_numbers=_LAYOUT,
    precision=precision,
  )
  return y[:, :rows]


def _dense_forward(x: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  return _dense(x, w, plan.windows, plan.precision)


def _dense_input(g: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  w = jnp.flip(w, (0, 1)).swapaxes(2, 3)
  windows = plan.windows
  return _dense(g, w, windows.transposed, plan.precision, windows.strides)


def _shared(x: jax.Array, shares: int) -> jax.Array:
  """Returns the pixels of [N, H, W, C] in equal shares, [S, N H W / S, C]."""
  return x.reshape(shares, -1, x.shape[3])


def _shares(images: int, inputs: int, outputs: int) -> int:
  """Returns into how many products to split one over all pixels.

  A few products and their sum are 2 to 3 times faster than one (64x28x28,
  16 x 96 channels: 2.1 against 5.5 ms), or than one for each image (3.9).
  """
  return math.gcd(images, 8) if inputs * outputs <= _SHARED_WEIGHTS else 1


def _dense_kernel(x: jax.Array, g: jax.Array, plan: Plan) -> jax.Array:
  windows, inputs, outputs = plan.windows, x.shape[3], g.shape[3]
  shares = _shares(len(g), inputs, outputs)
  x = pad(x, windows.exact_padding)

  def product(x: jax.Array, g: jax.Array) -> jax.Array:
    x, g = _shared(x, shares), _shared(g, shares)
    w = jnp.einsum("sri,sro->sio", x, g, precision=plan.precision)
    # `sum` over the first axis takes 8 times as long.
    return reduce(lax.add, list(w))

  if windows.strides != (1, 1):
    parts = [product(tap, g) for tap in taps(x, windows)]
    return jnp.stack(parts).reshape(*windows.kernel, inputs, outputs)
  # A tap's column moves x, its row g: one product holds every pair of them and
  # takes KW copies of x and KH of g (64x32x32, 16 channels, 3x3: 6 ms; one
  # product a tap 11, a convolution with the batch as channels 25 to 33).
  rows, columns = (
    [i * d for i in range(k)]
    for k, d in zip(windows.kernel, windows.dilation, strict=True)
  )
  x = jnp.concatenate([x[:, :, j : j + g.shape[2]] for j in columns], 3)
  g = jnp.concatenate(
    [pad(g, ((i, windows.extent[0] - i), (0, 0))) for i in rows], 3
  )
  w = product(x, g).reshape(len(columns), inputs, len(rows), outputs)
  return w.transpose(2, 0, 1, 3)


def _depthwise_forward(x: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  return computed_once(depthwise.weighted(x, w, plan.windows))


def _depthwise_input(g: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  return depthwise.weighted(
    g, jnp.flip(w, (0, 1)), plan.windows.transposed, plan.windows.strides
  )


def _depthwise_kernel(x: jax.Array, g: jax.Array, plan: Plan) -> jax.Array:
  windows = plan.windows
  if windows.strides != (1, 1):
    return depthwise.kernel(x, computed_once(g), windows)
  # Padded as `_depthwise_input` pads it: what makes g need not store it twice.
  # Rows that a negative padding crops have windows in the padding of x alone.
  (a, b), (c, d) = padding = windows.transposed.exact_padding
  g = computed_once(pad(g, padding))
  return depthwise.kernel(x, pad(g, ((-a, -b), (-c, -d))), windows)


def _merge_factor(groups: int, channels: int) -> int:
  """Returns how many neighbouring groups to merge into one."""
  return next(
    m
    for m in range(1, groups + 1)
    if groups % m == 0 and (m * channels >= _GROUP_CHANNELS or m == groups)
  )


def _block_diagonal(w: jax.Array, groups: int, merge: int) -> jax.Array:
  """Spreads [KH, KW, I, G * O] to [KH, KW, M * I, G * O], zero off-diagonal."""
  height, width, _, outputs = w.shape
  blocks = w.reshape(
    height, width, 1, -1, groups // merge, merge, outputs // groups
  )
  diagonal = jnp.eye(merge, dtype=bool).reshape(1, 1, merge, 1, 1, merge, 1)
  return jnp.where(diagonal, blocks, 0).reshape(height, width, -1, outputs)


def _diagonal_blocks(w: jax.Array, groups: int, merge: int) -> jax.Array:
  """Returns the transpose of `_block_diagonal`."""
  height, width, inputs, outputs = w.shape
  blocks = w.reshape(
    height,
    width,
    merge,
    inputs // merge,
    groups // merge,
    merge,
    outputs // groups,
  )
  diagonal = jnp.eye(merge, dtype=bool).reshape(1, 1, merge, 1, 1, merge, 1)
  return (
    jnp.where(diagonal, blocks, 0).sum(2).reshape(height, width, -1, outputs)
  )


def _on_cpu(dense, each, yields_kernel: bool = False):
  """Makes a CPU implementation of one of the three functions.

  Groups lie along the last axis of both operands and of the result.

  Args:
    dense: the function for one group.
    each: the function for one channel a group.
    yields_kernel: the result is a kernel; otherwise the second operand is.

  Returns:
    The function of two operands and a plan.
  """

  def grouped(a: jax.Array, b: jax.Array, plan: Plan) -> jax.Array:
    groups = plan.groups
    merge = _merge_factor(groups, min(plan.channels, b.shape[3] // groups))
    if not yields_kernel:
      b = _block_diagonal(b, groups, merge)
    parts = zip(
      jnp.split(a, groups // merge, 3),
      jnp.split(b, groups // merge, 3),
      strict=True,
    )
    result = jnp.concatenate([dense(*part, plan) for part in parts], 3)
    return _diagonal_blocks(result, groups, merge) if yields_kernel else result

  def function(a: jax.Array, b: jax.Array, plan: Plan) -> jax.Array:
    dtype = a.dtype
    if dtype.itemsize < 4:  # sums in half precision would be inexact
      a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    if plan.groups == 1:
      result = dense(a, b, plan)
    elif plan.channels == 1 and b.shape[3] == plan.groups:
      result = each(a, b, plan)
    else:
      result = grouped(a, b, plan)
    return result.astype(dtype)

  return function


_cpu_forward = _on_cpu(_dense_forward, _depthwise_forward)
_cpu_input = _on_cpu(_dense_input, _depthwise_input)
_cpu_kernel = _on_cpu(_dense_kernel, _depthwise_kernel, True)


def native_forward(x: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  return lax.conv_general_dilated(
    x,
    w,
    plan.windows.strides,
    plan.windows.padding,
    rhs_dilation=plan.windows.dilation,
    dimension_numbers=_LAYOUT,
    feature_group_count=plan.groups,
    precision=plan.precision,
  )


def native_input(g: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  shape = (g.shape[0], *plan.windows.size, plan.channels * plan.groups)
  x = jax.ShapeDtypeStruct(shape, g.dtype)
  return jax.linear_transpose(lambda x: native_forward(x, w, plan), x)(g)[0]


def native_kernel(x: jax.Array, g: jax.Array, plan: Plan) -> jax.Array:
  shape = (*plan.windows.kernel, plan.channels, g.shape[3])
  w = jax.ShapeDtypeStruct(shape, x.dtype)
  return jax.linear_transpose(lambda w: native_forward(x, w, plan), w)(g)[0]


_forward = trilinear(
  (_cpu_forward, native_forward),
  (_cpu_input, native_input),
  (_cpu_kernel, native_kernel),
)


def _pointwise(x: jax.Array, w: jax.Array, plan: Plan) -> jax.Array:
  """Returns an unpadded 1x1 convolution: a matrix product."""
  height, width = plan.windows.strides
  x = x[:, ::height, ::width]
  shares = _shares(len(x), *w.shape[2:])
  # The gradient of such a kernel is the sum of its shares' gradients, which are
  # of its shape: with more rows than columns they take 2 to 3 times as long
  # (64x28x28, 96 to 16 channels: 3.1 against 1.4 ms).
  turned = w.shape[2] > w.shape[3]
  w = jnp.stack([w[0, 0].T if turned else w[0, 0]] * shares)
  y = jnp.einsum(
    "sri,soi->sro" if turned else "sri,sio->sro",
    _shared(x, shares),
    w,
    precision=plan.precision,
  )
  return y.reshape(*x.shape[:3], -1)


def conv(
  lhs: jax.Array,
  rhs: jax.Array,
  window_strides: Sequence[int],
  padding: str | Sequence[Pair],
  lhs_dilation: Sequence[int] | None = None,
  rhs_dilation: Sequence[int] | None = None,
  dimension_numbers: Any = None,
  feature_group_count: int = 1,
  batch_group_count: int = 1,
  precision: Any = None,
  preferred_element_type: jax.typing.DTypeLike | None = None,
) -> jax.Array:
  """Convolves images; every reverse-mode derivative is fast on CPU.

  Takes what `jax.lax.conv_general_dilated` takes, for two-dimensional images.
  For flax: `nn.Conv(features, (3, 3), conv_general_dilated=conv)`; for the
  platform's own convolution pass nothing to flax.

  Args:
    lhs: images, [N, H, W, C_in].
    rhs: kernel, [KH, KW, C_in / groups, C_out].
    window_strides: strides of height and width.
    padding: "SAME", "SAME_LOWER", "VALID", or (low, high) of height and width.
    lhs_dilation: must be None or 1.
    rhs_dilation: dilation of the kernel's height and width.
    dimension_numbers: must be None or NHWC, HWIO, NHWC.
    feature_group_count: number of groups of channels.
    batch_group_count: must be 1.
    precision: as in `jax.lax`.
    preferred_element_type: type of the result; the operands are cast to it.

  Returns:
    The convolved images, [N, H_out, W_out, C_out].

  Raises:
    ValueError: the convolution is not one of those described above.
  """
  if lhs.ndim != 4 or rhs.ndim != 4:
    raise ValueError(
      "conv takes images [N, H, W, C] and a kernel [KH, KW, I, O], not shapes "
      f"{lhs.shape} and {rhs.shape}: use jax.lax.conv_general_dilated."
    )
  numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, _LAYOUT)
  if dimension_numbers is not None and numbers != lax.conv_dimension_numbers(
    lhs.shape, rhs.shape, dimension_numbers
  ):
    raise ValueError(
      f"conv takes dimension_numbers {_LAYOUT} only, not {dimension_numbers}: "
      "transpose the operands."
    )
  if any(d != 1 for d in lhs_dilation or ()) or batch_group_count != 1:
    raise ValueError(
      f"conv takes no lhs_dilation ({lhs_dilation}) and no batch_group_count "
      f"({batch_group_count}): use jax.lax.conv_general_dilated."
    )
  groups, inputs, outputs = feature_group_count, lhs.shape[3], rhs.shape[3]
  if groups < 1 or outputs % groups or inputs != rhs.shape[2] * groups:
    raise ValueError(
      f"{groups} groups do not fit images {lhs.shape} and kernel {rhs.shape}: "
      "the kernel must be [KH, KW, C_in / groups, C_out], with C_out a "
      "multiple of groups."
    )
  if preferred_element_type is not None:
    lhs = lhs.astype(preferred_element_type)
    rhs = rhs.astype(preferred_element_type)
  if lhs.dtype != rhs.dtype or not jnp.issubdtype(lhs.dtype, jnp.floating):
    raise ValueError(
      f"conv takes two operands of one floating type, not {lhs.dtype} and "
      f"{rhs.dtype}: cast them with astype."
    )
  windows = convolution_windows(lhs, rhs, window_strides, padding, rhs_dilation)
  if min(windows.output) < 1:
    raise ValueError(
      f"The kernel {windows.kernel} with dilation {windows.dilation} is larger "
      f"than the image {windows.size} with padding {windows.padding}: pad more."
    )
  plan = Plan(windows, groups, rhs.shape[2], precision)
  if windows.kernel == (1, 1) and groups == 1:
    if not any(map(any, windows.padding)):
      return computed_once(_pointwise(lhs, rhs, plan))
  if groups == inputs and outputs > inputs > 1:  # depthwise, C_out / C_in each
    lhs = jnp.repeat(lhs, outputs // groups, 3)
    plan = plan._replace(groups=outputs)
  y = _forward(lhs, rhs, plan)
  # Depthwise ones store their results themselves, but not their cotangents.
  return y if plan.groups in (1, lhs.shape[3]) else computed_once(y)
