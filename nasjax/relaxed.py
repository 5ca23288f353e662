"""What relaxations are made of: softmax over what exists, straight through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.types import Array, Key, Logits, Masks, Step

CLOSED = -1e9  # a logit of a candidate that does not exist


def init(key: Key, masks: Masks) -> Logits:
  """Logits near 0: DARTS's 1e-3 times normal noise."""
  keys = jax.random.split(key, len(masks))
  return {
    name: 1e-3 * jax.random.normal(k, np.shape(masks[name]))
    for k, name in zip(keys, sorted(masks), strict=True)
  }


def each(
  function: Callable[..., Any], key: Key, *trees: Mapping[str, Array]
) -> dict[str, Any]:
  """Maps over the groups with a key each, in the order of their names."""
  names = sorted(trees[0])
  keys = jax.random.split(key, len(names))
  return {
    name: function(k, *(jnp.asarray(t[name]) for t in trees))
    for k, name in zip(keys, names, strict=True)
  }


def probabilities(logits: Array, mask: Array) -> Array:
  """Softmax f[E, K] over the candidates that exist, 0 for the others."""
  found = jax.nn.softmax(jnp.where(mask, logits, CLOSED), axis=-1)
  return jnp.where(mask, found, 0.0)


def expect_softmax(logits: Logits, masks: Masks, step: Step) -> Logits:
  """The softmax of the logits, of each group."""
  del step
  return {n: probabilities(v, masks[n]) for n, v in logits.items()}


def straight_through(hard: Array, soft: Array) -> Array:
  """`hard` in value, the Jacobian of `soft`."""
  return lax.stop_gradient(hard - soft) + soft
