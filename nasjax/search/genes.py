"""Architectures as rows of categorical genes, and back.

A gene is one choice of one edge, among the candidates that exist there: genes
stand group after group, edge after edge, and count the open candidates only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.search import draws
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Choices, Masks, Sampled

__all__ = [
  "architecture",
  "cardinalities",
  "from_choices",
  "kinds",
  "mutated",
  "mutated_by",
  "one_hot",
  "one_path",
  "random",
  "to_choices",
  "to_weights",
]


def _rows(masks: Masks) -> list[np.ndarray]:
  """The open candidates of each edge, one array a gene."""
  return [
    np.flatnonzero(row)
    for mask in masks.values()
    for row in np.asarray(mask, bool)
  ]


def cardinalities(masks: Masks) -> np.ndarray:
  """How many values each gene has.

  Args:
    masks: bool[E, K] a group, as a space has them.

  Returns:
    i32[G], G the edges of all groups; gene g is 0 .. cardinalities[g] - 1.

  Raises:
    ValueError: an edge has no candidate.
  """
  counts = np.array([len(row) for row in _rows(masks)], np.int32)
  if not counts.size or counts.min() < 1:
    raise ValueError("an edge has no candidate, or there is no edge")
  return counts


def kinds(masks: Masks) -> np.ndarray:
  """Which genes mean the same by their values: equal numbers, i32[G].

  Those of one group with the same open candidates do.
  """
  found: dict[Any, int] = {}
  return np.array(
    [
      found.setdefault((name, np.asarray(row, bool).tobytes()), len(found))
      for name, mask in masks.items()
      for row in np.asarray(mask)
    ],
    np.int32,
  )


def to_choices(masks: Masks, genes: Any) -> dict[str, Any]:
  """Genes i32[..., G] as choices i32[..., E] a group; numpy or traced."""
  library = np if isinstance(genes, np.ndarray) else jnp
  columns = [
    library.asarray(row.astype(np.int32))[genes[..., g]]
    for g, row in enumerate(_rows(masks))
  ]
  found, start = {}, 0
  for name, mask in masks.items():
    edges = len(mask)
    found[name] = library.stack(columns[start : start + edges], axis=-1)
    start += edges
  return found


def to_weights(masks: Masks, hot: Array) -> dict[str, Array]:
  """Weights of genes f32[..., G, C] as f32[..., E, K] a group; traced.

  Args:
    masks: bool[E, K] a group.
    hot: of each gene's values, one-hot or relaxed; C the largest cardinality.

  Returns:
    The weights, 0 where masked.
  """
  found, gene = {}, 0
  for name, mask in masks.items():
    mask = np.asarray(mask, bool)
    index = np.maximum(np.cumsum(mask, -1) - 1, 0)  # i[E, K] into C
    part = hot[..., gene : gene + len(mask), :]
    index = np.broadcast_to(index, (*part.shape[:-1], mask.shape[1]))
    taken = jnp.take_along_axis(part, jnp.asarray(index), axis=-1)
    lead = (1,) * (taken.ndim - 2)
    found[name] = jnp.where(mask.reshape(*lead, *mask.shape), taken, 0.0)
    gene += len(mask)
  return found


def from_choices(masks: Masks, choices: Choices) -> np.ndarray:
  """Choices i32[..., E] a group as genes i32[..., G].

  Raises:
    ValueError: a choice that does not exist.
  """
  flat = np.concatenate([np.asarray(choices[n]) for n in masks], axis=-1)
  genes = np.zeros(flat.shape, np.int32)
  for g, row in enumerate(_rows(masks)):
    genes[..., g] = np.searchsorted(row, flat[..., g])
    known = row[np.minimum(genes[..., g], len(row) - 1)]
    if (known != flat[..., g]).any():
      raise ValueError(f"gene {g}: a choice does not exist there")
  return genes


def architecture(space: Any, genes: Any) -> Architecture:
  """The architecture that genes i32[G] name."""
  choices = to_choices(space.masks, np.asarray(genes))
  return Architecture(space, choices)


def one_hot(genes: Array, counts: np.ndarray) -> Array:
  """Genes i32[..., G] as f32[..., G, K], K the largest cardinality."""
  return jax.nn.one_hot(genes, int(np.max(counts)), dtype=jnp.float32)


def one_path(masks: Masks, choices: Choices) -> Sampled:
  """Traced choices i32[E] a group as `space.apply` takes them: one path."""
  weights = {
    name: jax.nn.one_hot(choices[name], np.shape(mask)[1])
    for name, mask in masks.items()
  }
  return Sampled(weights, {name: choices[name][:, None] for name in weights})


def random(key: jax.Array, counts: np.ndarray, size: int) -> Array:
  """Uniform genes i32[size, G]."""
  counts = jnp.asarray(counts, jnp.int32)
  return draws.below(draws.bits(key, (size, len(counts))), counts[None])


def mutated(
  key: jax.Array, genes: Array, counts: np.ndarray, rate: float
) -> Array:
  """Each gene, with probability `rate`, replaced by another value of its own.

  Args:
    key: consumed.
    genes: i32[N, G].
    counts: i32[G], the cardinalities.
    rate: 0..1.

  Returns:
    i32[N, G]. Genes of one value stay.
  """
  return mutated_by(draws.bits(key, genes.shape), genes, counts, rate)


def mutated_by(
  words: Array, genes: Array, counts: np.ndarray, rate: float
) -> Array:
  """The same with u32[N, G] of `draws.bits` in place of a key."""
  others = jnp.asarray(counts, jnp.int32)[None] - 1
  # One draw for both: below the rate it is uniform once more.
  drawn = draws.uniform(words)
  step = (drawn / max(rate, 1e-30) * others).astype(jnp.int32)
  # Any step of 1 .. count - 1 leads to another value.
  step = 1 + jnp.clip(step, 0, jnp.maximum(others - 1, 0))
  changed = genes + step
  changed = jnp.where(changed > others, changed - others - 1, changed)
  return jnp.where(drawn < rate, changed, genes)
