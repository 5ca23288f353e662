"""Random bits that cost next to nothing, for what draws thousands a time.

Threefry takes ten times as long as all else that makes children. Here it gives
two words, and a counter mixed with them the bits: twice the finaliser of
MurmurHash3 (Appleby 2011), in which every bit of the input flips every bit of
the output in about half of the cases. That is enough for evolution, not for
secrets. The same key gives the same bits on every platform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.layers.barrier import computed_once
from nasjax.types import Array, Key

__all__ = ["below", "bits", "uniform"]


def _mixed(words: Array) -> Array:
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)


def bits(key: Key, shape: Sequence[int]) -> Array:
  """Uniform u32 of a shape of up to 2^32 numbers."""
  first, second = jax.random.bits(key, (2,))
  counter = jnp.arange(math.prod(shape), dtype=jnp.uint32)
  # What reads them would mix them anew for each of its own elements.
  words = computed_once(_mixed(_mixed(counter + first) + second))
  return words.reshape(shape)


def uniform(words: Array) -> Array:
  """f32 in [0, 1), multiples of 2^-24, of uniform u32."""
  return (words >> 8).astype(jnp.float32) * np.float32(2.0**-24)


def below(words: Array, counts: Array) -> Array:
  """Whole numbers i32 from 0 to counts - 1, of uniform u32 of its rank.

  Args:
    words: u32[...].
    counts: i32[...], from 1 to 2^16; one is at most counts / 2^24 more likely
      than another.
  """
  found = (uniform(words) * counts).astype(jnp.int32)
  return jnp.minimum(found, counts - 1)
