"""A second classifier that helps to train a deep network.

The head of DARTS's code on CIFAR-10 and on ImageNet (Inception's, Szegedy et
al. 2015, section 5): ReLU, a mean of windows to 2x2, a 1x1 and a 2x2
convolution, a linear classifier. It is left out of the network that is
deployed, so it is no workload.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.layers import convolution, normalization, pooling

__all__ = ["AuxiliaryHead"]

CHANNELS = (128, 768)  # of its two convolutions


def windows(side: int) -> tuple[int, int]:
  """(window, stride) of a mean that leaves 2 of `side` pixels, at least 2.

  Five eighths of the side: 5 and 3 of 8 pixels (CIFAR-10), 5 and 2 of 7
  (ImageNet), as DARTS's code has them.
  """
  window = min(-(-5 * side // 8), side - 1)
  return window, side - window


class AuxiliaryHead(nn.Module):
  """The head.

  Attributes:
    classes: logits.
  """

  classes: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps f32[B, H, W, C] to logits f32[B, classes].

    Args:
      x: what it reads; its middle square where it is not square.
      train: use and update batch statistics, not the running ones.

    Returns:
      The logits.
    """
    side = min(x.shape[1:3])
    rows, columns = ((n - side) // 2 for n in x.shape[1:3])
    x = jax.nn.relu(x[:, rows : rows + side, columns : columns + side])
    if side > 1:
      x = pooling.avg_pool(x, *windows(side))
    for i, channels in enumerate(CHANNELS):
      kernel = min(x.shape[1], i + 1)
      x = nn.Conv(
        channels,
        (kernel, kernel),
        padding="VALID",
        use_bias=False,
        kernel_init=nn.initializers.he_normal(),
        conv_general_dilated=convolution.conv,
        name=f"convolution_{i}",
      )(x)
      x = normalization.BatchNorm(name=f"norm_{i}")(x, train)
      x = jax.nn.relu(x)
    x = jnp.reshape(x, (len(x), -1))
    return nn.Dense(self.classes, name="linear")(x)
