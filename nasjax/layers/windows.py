"""The geometry of sliding windows, shared by convolutions and pools."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Pair = tuple[int, int]


class Windows(NamedTuple):
  """Where the windows of a convolution or a pool lie; all static."""

  size: Pair  # height and width of the input
  kernel: Pair
  strides: Pair
  padding: tuple[Pair, Pair]  # (low, high) of height and width
  dilation: Pair = (1, 1)

  @property
  def extent(self) -> Pair:
    """Returns how far apart a window's first and last taps are."""
    (k, m), (d, e) = self.kernel, self.dilation
    return (k - 1) * d, (m - 1) * e

  @property
  def output(self) -> Pair:
    """Returns the height and width of the output; below 1 if none fits."""
    height, width = (
      (n + sum(p) - e - 1) // s + 1
      for n, p, e, s in zip(
        self.size, self.padding, self.extent, self.strides, strict=True
      )
    )
    return height, width

  @property
  def reach(self) -> Pair:
    """Returns how far apart the first and the last window start."""
    (n, m), (s, t) = self.output, self.strides
    return (n - 1) * s, (m - 1) * t

  @property
  def exact_padding(self) -> tuple[Pair, Pair]:
    """Returns the padding that the windows just cover; negative ones crop."""
    height, width = (
      (p[0], e + r + 1 - n - p[0])
      for n, p, e, r in zip(
        self.size, self.padding, self.extent, self.reach, strict=True
      )
    )
    return height, width

  @property
  def transposed(self) -> "Windows":
    """Returns the windows over the spread output that yield the input."""
    height, width = (
      (e - p[0], n + p[0] - r - 1)
      for n, p, e, r in zip(
        self.size, self.padding, self.extent, self.reach, strict=True
      )
    )
    size = self.reach[0] + 1, self.reach[1] + 1
    return self._replace(size=size, strides=(1, 1), padding=(height, width))


def pad(
  x: jax.Array,
  padding: tuple[Pair, Pair],
  spacing: Pair = (1, 1),
  value: float = 0,
) -> jax.Array:
  """Pads height and width, and spreads what is there.

  Args:
    x: images, [..., H, W, C].
    padding: (low, high) of height and width; negative ones crop.
    spacing: distance of neighbouring entries in the result.
    value: what is put in.

  Returns:
    The padded images, [..., H', W', C].
  """
  inner = [(*p, s - 1) for p, s in zip(padding, spacing, strict=True)]
  if not any(map(any, inner)):
    return x
  lead = [(0, 0, 0)] * (x.ndim - 3)
  return lax.pad(x, jnp.asarray(value, x.dtype), [*lead, *inner, (0, 0, 0)])


def taps(x: jax.Array, windows: Windows) -> list[jax.Array]:
  """Returns what each tap of the windows sees, row by row.

  Args:
    x: images with the windows' exact padding, [..., H', W', C].
    windows: their geometry.

  Returns:
    KH * KW arrays [..., H_out, W_out, C].
  """
  *lead, _, _, channels = x.shape
  none, one = [0] * len(lead), [1] * len(lead)
  height, width = windows.reach
  return [
    lax.slice(  # indexing takes ten times as long to trace
      x,
      (*none, row, column, 0),
      (*lead, row + height + 1, column + width + 1, channels),
      (*one, *windows.strides, 1),
    )
    for row in range(0, windows.extent[0] + 1, windows.dilation[0])
    for column in range(0, windows.extent[1] + 1, windows.dilation[1])
  ]


def convolution_windows(
  x: jax.Array,
  w: jax.Array,
  strides: Sequence[int],
  padding: str | Sequence[Pair],
  dilation: Sequence[int] | None,
) -> Windows:
  """Checks the windows of a convolution and spells their padding out.

  Args:
    x: images, [N, H, W, C].
    w: kernel, [KH, KW, I, O].
    strides: of height and width.
    padding: a name that `jax.lax` knows, or (low, high) of height and width.
    dilation: of height and width; None is (1, 1).

  Returns:
    The windows.

  Raises:
    ValueError: strides, dilation or padding are not of that form.
  """
  strides, dilation = tuple(strides), tuple(dilation or (1, 1))
  if len(strides) != 2 or len(dilation) != 2 or min(strides + dilation) < 1:
    raise ValueError(
      "Strides and dilation must be two positive integers each, not "
      f"{strides} and {dilation}."
    )
  size, kernel = (x.shape[1], x.shape[2]), (w.shape[0], w.shape[1])
  windows = Windows(size, kernel, strides, ((0, 0), (0, 0)), dilation)
  if isinstance(padding, str):
    covered = tuple(e + 1 for e in windows.extent)
    padding = lax.padtype_to_pads(size, covered, strides, padding)
  pairs = tuple((int(low), int(high)) for low, high in padding)
  if len(pairs) != 2:
    raise ValueError(
      f"padding must be (low, high) of height and width, not {padding}."
    )
  return windows._replace(padding=pairs)
