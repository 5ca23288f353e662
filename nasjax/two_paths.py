"""ProxylessNAS's relaxation, which samples two paths of each edge.

Cai, Zhu and Han, ICLR 2019 (arXiv:1812.00332), sections 3.1 to 3.3, with the
update of the authors' program: the two sampled parameters are shifted after a
step, so that the probabilities of all others stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax

from nasjax import relaxed
from nasjax.types import Array, Key, Logits, Masks, Relaxation, Sampled, Step

__all__ = ["proxyless"]


def _pair(key: Key, logits: Array, mask: Array) -> tuple[Array, Array]:
  """(weights f[E, K], paths i32[E, 2], the active one first)."""
  draw, gate = jax.random.split(key)
  closed = jnp.where(mask, logits, relaxed.CLOSED)
  # The two largest of logits + Gumbel noise: sampling without replacement.
  noise = jax.random.gumbel(draw, logits.shape, logits.dtype)
  _, pair = lax.top_k(lax.stop_gradient(closed + noise), 2)
  rows = jnp.arange(logits.shape[0])[:, None]
  two = jax.nn.softmax(closed[rows, pair], axis=-1)
  active = jax.random.uniform(gate, two.shape[:1]) < two[:, 0]
  pair = jnp.where(active[:, None], pair, pair[:, ::-1])
  two = jnp.where(active[:, None], two, two[:, ::-1])
  soft = jnp.zeros_like(logits).at[rows, pair].set(two)
  hard = jax.nn.one_hot(pair[:, 0], logits.shape[-1], dtype=logits.dtype)
  weights = jnp.where(mask, relaxed.straight_through(hard, soft), 0.0)
  return weights, pair.astype(jnp.int32)


def _one(key: Key, logits: Array, mask: Array) -> tuple[Array, Array]:
  """(weights f[E, K], paths i32[E, 1]) by the probabilities."""
  soft = relaxed.probabilities(logits, mask)
  closed = jnp.where(mask, logits, relaxed.CLOSED)
  drawn = jax.random.categorical(key, lax.stop_gradient(closed))
  hard = jax.nn.one_hot(drawn, logits.shape[-1], dtype=logits.dtype)
  weights = relaxed.straight_through(hard, soft)
  return weights, drawn[:, None].astype(jnp.int32)


def _sampled(one, key, logits, masks) -> Sampled:
  both = relaxed.each(one, key, logits, masks)
  return Sampled(
    {n: w for n, (w, _) in both.items()}, {n: p for n, (_, p) in both.items()}
  )


def _sample_pair(key: Key, logits: Logits, masks: Masks, step: Step) -> Sampled:
  del step
  return _sampled(_pair, key, logits, masks)


def _rescale(
  before: Logits, after: Logits, masks: Masks, paths: Mapping[str, Array]
) -> Logits:
  """Keeps the probabilities of candidates that were not sampled.

  Of each edge's sampled parameters the same number is taken, such that the sum
  of their exponentials is what it was: log(sum exp(after) / sum exp(before)).
  """
  found = {}
  for name, index in paths.items():
    rows = jnp.arange(index.shape[0])[:, None]
    mask = jnp.asarray(masks[name])

    def total(logits, rows=rows, index=index, mask=mask):
      closed = jnp.where(mask, logits, relaxed.CLOSED)
      return jax.nn.logsumexp(closed[rows, index], axis=-1)

    shift = total(after[name]) - total(before[name])
    found[name] = after[name].at[rows, index].add(-shift[:, None])
  return {**after, **found}


def proxyless() -> Relaxation:
  """Binary gates over sampled paths (ProxylessNAS, sections 3.1 and 3.2).

  A step of the weights runs one path, drawn by the softmax of the logits. A
  step of the architecture draws two candidates without replacement, by the
  same probabilities, of which one is active, by the softmax of the two; the
  gate's gradient reaches both, with the Jacobian of that softmax. After the
  step the two logits are rescaled, so that the other candidates keep their
  probabilities. Adam is the authors', without momentum.

  Returns:
    A relaxation with one path an edge; in a step of the architecture two,
    column 0 the active one.
  """

  def sample(key, logits, masks, step):
    del step
    return _sampled(_one, key, logits, masks)

  return Relaxation(
    relaxed.init,
    sample,
    relaxed.expect_softmax,
    arch_sample=_sample_pair,
    rescale=_rescale,
    b1=0.0,
  )
