"""Pools with fast derivatives on CPU.

XLA's CPU back end is slow in the gradients of pools: the maximum of 3x3 over
64x32x32x16 with its gradient takes 40 ms, shifted slices 2 ms. As in
`nasjax.layers.convolution`, each function here comes with its transpose, and
each is the other's derivative.
"""

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.layers.barrier import computed_once
from nasjax.layers.platform import Planned, by_platform
from nasjax.layers.windows import Windows, pad, taps

_MANY_TAPS = 64  # larger windows are left to XLA: too many slices to compile


def _native_sum(x: jax.Array, windows: Windows) -> jax.Array:
  return lax.reduce_window(
    x,
    np.zeros((), x.dtype),
    lax.add,
    (1, *windows.kernel, 1),
    (1, *windows.strides, 1),
    ((0, 0), *windows.padding, (0, 0)),
  )


def _cpu_sum(x: jax.Array, windows: Windows) -> jax.Array:
  return reduce(add, taps(pad(x, windows.exact_padding), windows))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum(x: jax.Array, windows: Windows) -> jax.Array:
  """Returns the sum of every window."""
  return by_platform(
    x, cpu=Planned(_cpu_sum, windows), default=Planned(_native_sum, windows)
  )[0]


def _cpu_transposed(g: jax.Array, windows: Windows) -> jax.Array:
  g = pad(g, ((0, 0), (0, 0)), windows.strides)
  return _cpu_sum(g, windows.transposed)


def _native_transposed(g: jax.Array, windows: Windows) -> jax.Array:
  shape = (g.shape[0], *windows.size, g.shape[3])
  x = jax.ShapeDtypeStruct(shape, g.dtype)
  return jax.linear_transpose(lambda x: _native_sum(x, windows), x)(g)[0]


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _sum_transposed(g: jax.Array, windows: Windows) -> jax.Array:
  """Returns, for every input, the sum over the windows it is in."""
  return by_platform(
    g,
    cpu=Planned(_cpu_transposed, windows),
    default=Planned(_native_transposed, windows),
  )[0]


_sum.defvjp(
  lambda x, windows: (_sum(x, windows), None),
  lambda windows, _, ct: (_sum_transposed(ct, windows),),
)
_sum_transposed.defvjp(
  lambda g, windows: (_sum_transposed(g, windows), None),
  lambda windows, _, ct: (_sum(ct, windows),),
)


def avg_pool(
  x: jax.Array, window: int, stride: int, padding: int = 0, ceil: bool = False
) -> jax.Array:
  """Averages windows; padding does not count.

  Args:
    x: images, [N, H, W, C].
    window: height and width of a window.
    stride: distance of neighbouring windows.
    padding: rows and columns added on every side, at most window / 2.
    ceil: keep a last window that reaches beyond the padding, so that 2x2 with
      stride 2 gives ceil(H / 2).

  Returns:
    The averages, [N, H_out, W_out, C].

  Raises:
    ValueError: no window fits, or one would see nothing but padding.
  """
  windows = _pool_windows(x, window, stride, padding, ceil)
  rows, columns = (
    np.minimum(starts + window, n) - np.maximum(starts, 0)
    for n, m in zip(windows.size, windows.output, strict=True)
    for starts in [np.arange(m) * stride - padding]
  )
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  total = _native_sum if window**2 > _MANY_TAPS else _sum
  counts = np.outer(rows, columns)[None, :, :, None].astype(wide.dtype)
  return computed_once(
    (total(computed_once(wide), windows) / counts).astype(x.dtype)
  )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _gather(x: jax.Array, chosen: jax.Array, windows: Windows) -> jax.Array:
  """Returns the chosen tap of every window, 0 where that is padding."""
  x = lax.optimization_barrier(pad(x, windows.exact_padding))
  return reduce(
    add,
    [jnp.where(chosen == i, tap, 0) for i, tap in enumerate(taps(x, windows))],
  )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _scatter(g: jax.Array, chosen: jax.Array, windows: Windows) -> jax.Array:
  """Returns the transpose of `_gather`: adds each entry at its chosen tap."""
  around = windows.transposed
  # The barrier pads once; XLA would pad anew for every tap (1.2 to 1.4 ms).
  g, chosen = lax.optimization_barrier(
    (
      pad(g, around.padding, windows.strides),
      pad(chosen, around.padding, windows.strides, -1),
    )
  )
  count = windows.kernel[0] * windows.kernel[1]
  pairs = zip(taps(g, around), taps(chosen, around), strict=True)
  return reduce(
    add,
    [
      jnp.where(index == count - 1 - i, tap, 0)
      for i, (tap, index) in enumerate(pairs)
    ],
  )


_gather.defvjp(
  lambda x, chosen, windows: (_gather(x, chosen, windows), chosen),
  lambda windows, chosen, ct: (_scatter(ct, chosen, windows), None),
)
_scatter.defvjp(
  lambda g, chosen, windows: (_scatter(g, chosen, windows), chosen),
  lambda windows, chosen, ct: (_gather(ct, chosen, windows), None),
)


def _padded_taps(x: jax.Array, windows: Windows) -> list[jax.Array]:
  return taps(pad(x, windows.exact_padding, value=-jnp.inf), windows)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _maximum(x: jax.Array, windows: Windows) -> jax.Array:
  """Returns the maximum of every window."""
  return reduce(jnp.maximum, _padded_taps(x, windows))


def _maximum_and_choice(
  x: jax.Array, windows: Windows
) -> tuple[jax.Array, jax.Array]:
  """Returns the maxima and, one byte each, which tap is the first to be it."""
  first, *others = _padded_taps(x, windows)
  highest, chosen = first, jnp.zeros(first.shape, jnp.int8)
  for i, tap in enumerate(others, 1):
    chosen = jnp.where(tap > highest, jnp.int8(i), chosen)
    highest = jnp.maximum(highest, tap)
  return highest, chosen


_maximum.defvjp(
  _maximum_and_choice,
  lambda windows, chosen, ct: (_scatter(ct, chosen, windows),),
)


def max_pool(
  x: jax.Array, window: int, stride: int, padding: int = 0
) -> jax.Array:
  """Takes the maximum of windows; the first of equal ones has the gradient.

  Args:
    x: images, [N, H, W, C].
    window: height and width of a window.
    stride: distance of neighbouring windows.
    padding: rows and columns added on every side, at most window / 2.

  Returns:
    The maxima, [N, H_out, W_out, C].

  Raises:
    ValueError: no window fits, or one would see nothing but padding.
  """
  windows = _pool_windows(x, window, stride, padding, False)
  if window**2 <= _MANY_TAPS:
    return computed_once(_maximum(computed_once(x), windows))
  return lax.reduce_window(
    x,
    np.array(-np.inf, x.dtype),
    lax.max,
    (1, window, window, 1),
    (1, stride, stride, 1),
    ((0, 0), *windows.padding, (0, 0)),
  )


def _pool_windows(
  x: jax.Array, window: int, stride: int, padding: int, ceil: bool
) -> Windows:
  """Makes the windows of a pool."""
  if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
      "Pools take floating-point images [N, H, W, C], not "
      f"{x.dtype}{list(x.shape)}."
    )
  if window < 1 or stride < 1 or not 0 <= 2 * padding <= window:
    raise ValueError(
      f"A pool's window ({window}) and stride ({stride}) must be positive and "
      f"its padding ({padding}) between 0 and half the window."
    )
  rows, columns = (
    (padding, padding + (_overhang(n, window, stride, padding) if ceil else 0))
    for n in x.shape[1:3]
  )
  size, both = (x.shape[1], x.shape[2]), (stride, stride)
  windows = Windows(size, (window, window), both, (rows, columns))
  if min(windows.output) < 1:
    raise ValueError(
      f"The window {window} is larger than the image {size} with padding "
      f"{padding}: use a smaller window."
    )
  return windows


def _overhang(size: int, window: int, stride: int, padding: int) -> int:
  """Returns how far a last window, begun inside, reaches beyond the padding."""
  room = size + 2 * padding - window
  last = -(-room // stride) * stride  # where a window that is cut off begins
  return last - room if last < size + padding else 0
