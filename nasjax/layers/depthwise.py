"""Depthwise convolutions on CPU: sums of shifted images, without a product.

Kernels and images may have an axis of edges before their own.
"""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp
from jax import lax

from nasjax.layers.barrier import computed_once
from nasjax.layers.sums import sums
from nasjax.layers.windows import Pair, Windows, pad, taps

__all__ = ["kernel", "weighted"]


def weighted(
  x: jax.Array, w: jax.Array, windows: Windows, spacing: Pair = (1, 1)
) -> jax.Array:
  """Sums the windows of images by weight.

  Args:
    x: [(E,) N, H, W, C], spread by `spacing` first; an E of 1 for all.
    w: [(E,) KH, KW, 1, C].
    windows: their geometry.
    spacing: distance of neighbouring pixels.

  Returns:
    [(E,) N, H', W', C].
  """
  x = computed_once(pad(x, windows.exact_padding, spacing))
  views = taps(x, windows)
  w = computed_once(w).reshape(*w.shape[:-4], len(views), 1, 1, 1, -1)
  return reduce(
    lax.add, [view * w[..., i, :, :, :, :] for i, view in enumerate(views)]
  )


def kernel(x: jax.Array, g: jax.Array, windows: Windows) -> jax.Array:
  """The gradient of kernels.

  Args:
    x: [(E,) N, H, W, C], an E of 1 for all.
    g: cotangents [(E,) N, H', W', C]; stored, or cheap to compute anew.
    windows: their geometry.

  Returns:
    [(E,) KH, KW, 1, C].
  """
  x = computed_once(pad(x, windows.exact_padding))
  found = sums(lambda x, g: [view * g for view in taps(x, windows)], x, g)
  w = jnp.moveaxis(found, 0, -2)
  return w.reshape(*w.shape[:-2], *windows.kernel, 1, -1)
