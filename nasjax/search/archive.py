"""All unique points that a search evaluated, found again by their genes.

Static shapes: room for a stated number of points, and a hash table of open
addressing over them, so that looking up a batch costs the same however many
there are. Genes are compared exactly, as words in mixed radix.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.types import Array

__all__ = ["Archive", "add", "empty", "first_seen"]

_FREE = np.int32(2**31 - 1)  # above every index


class Archive(NamedTuple):
  """Evaluated points, in the order of their evaluation."""

  genes: Array  # i32[A, G]
  objectives: Array  # f32[A, M], infinite past `size`
  violations: Array  # f32[A], infinite past `size`
  size: Array  # i32[]
  words: Array  # u32[A, W], the genes packed
  slots: Array  # i32[T], T a power of two: points by hash, _FREE where none is


def empty(
  counts: np.ndarray, objectives: int, capacity: int, batch: int
) -> Archive:
  """An archive without points.

  Args:
    counts: i32[G], the cardinalities of the genes.
    objectives: M.
    capacity: A, the most points that it takes.
    batch: the most points that are looked up or added at once.

  Returns:
    The archive.
  """
  slots = 1 << int(2 * (capacity + batch) - 1).bit_length()
  return Archive(
    jnp.zeros((capacity, len(counts)), jnp.int32),
    jnp.full((capacity, objectives), jnp.inf, jnp.float32),
    jnp.full(capacity, jnp.inf, jnp.float32),
    jnp.int32(0),
    jnp.zeros((capacity, len(_packing(counts))), jnp.uint32),
    jnp.full(slots, _FREE, jnp.int32),
  )


def _packing(counts: np.ndarray) -> list[list[int]]:
  """Which genes share a word: as many as 32 bits can tell apart."""
  groups: list[list[int]] = []
  room = 0
  for gene, count in enumerate(np.asarray(counts).tolist()):
    if not groups or room * count > 2**32:
      groups.append([])
      room = 1
    groups[-1].append(gene)
    room *= count
  return groups


def _pack(genes: Array, counts: np.ndarray) -> Array:
  """Genes i32[N, G] as words u32[N, W], equal where all genes are."""
  words = []
  for group in _packing(counts):
    word = jnp.zeros(genes.shape[0], jnp.uint32)
    for gene in group:
      word = word * np.uint32(counts[gene]) + genes[:, gene].astype(jnp.uint32)
    words.append(word)
  return jnp.stack(words, axis=-1)


def _hash(words: Array) -> Array:
  """u32[N] of words u32[N, W]: the mixing steps of MurmurHash3."""
  mixed = jnp.zeros(words.shape[0], jnp.uint32)
  for column in range(words.shape[1]):
    mixed = (mixed ^ words[:, column]) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> 13)) * np.uint32(0xC2B2AE35)
    mixed = mixed ^ (mixed >> 16)
  return mixed


def _place(archive: Archive, words: Array) -> tuple[Array, Array]:
  """(slot i32[N], new bool[N]) of each of a batch.

  All look for their slot at once. Where several meet at a free one the first
  of the batch takes it; the others see whether it holds their genes and go on
  if not.
  """
  capacity, size = archive.genes.shape[0], words.shape[0]
  number = archive.slots.shape[0]
  if capacity + size > number:
    raise ValueError(
      f"a batch of {size} is too large for this archive; make it with batch="
      f"{size}"
    )
  index = jnp.arange(size, dtype=jnp.int32)
  known = jnp.concatenate([archive.words, words])
  start = _hash(words)

  def look(carry):
    slots, slot, new, open_, turn = carry
    # Triangular steps visit every slot of a power of two.
    step = (turn * (turn + 1) // 2).astype(jnp.uint32)
    at = ((start + step) & np.uint32(number - 1)).astype(jnp.int32)
    free = open_ & (slots[at] == _FREE)
    claimed = jnp.where(free, at, number)
    slots = slots.at[claimed].min(capacity + index, mode="drop")
    holder = slots[at]
    own = holder == capacity + index
    same = (known[holder] == words).all(-1)
    slot = jnp.where(open_, at, slot)
    new = jnp.where(open_, own, new)
    return slots, slot, new, open_ & ~own & ~same, turn + 1

  carry = (
    archive.slots,
    jnp.zeros(size, jnp.int32),
    jnp.zeros(size, bool),
    jnp.ones(size, bool),
    jnp.int32(0),
  )
  _, slot, new, _, _ = lax.while_loop(lambda c: c[3].any(), look, carry)
  return slot, new


def first_seen(archive: Archive, genes: Array, counts: np.ndarray) -> Array:
  """Which of a batch are neither in the archive nor earlier in the batch.

  Args:
    archive: the archive.
    genes: i32[N, G].
    counts: i32[G], the cardinalities.

  Returns:
    bool[N].
  """
  return _place(archive, _pack(genes, counts))[1]


def add(
  archive: Archive,
  genes: Array,
  objectives: Array,
  violations: Array,
  counts: np.ndarray,
) -> tuple[Archive, Array]:
  """Adds the points of a batch that are new, as long as there is room.

  Args:
    archive: the archive.
    genes: i32[N, G].
    objectives: f32[N, M].
    violations: f32[N], see `pareto.non_dominated_sort`.
    counts: i32[G], the cardinalities.

  Returns:
    (the archive, i32[N]: the index of each that was added, else A).
  """
  capacity = archive.genes.shape[0]
  chex.assert_shape(objectives, (genes.shape[0], archive.objectives.shape[1]))
  chex.assert_shape(violations, genes.shape[:1])
  words = _pack(genes, counts)
  slot, new = _place(archive, words)
  index = archive.size + jnp.cumsum(new.astype(jnp.int32)) - 1
  # Those without room leave no trace; what was looked up past their slots may
  # then not be found, in an archive that takes no more anyway.
  new = new & (index < capacity)
  index = jnp.where(new, index, capacity)
  free = jnp.where(new, slot, archive.slots.shape[0])
  made = Archive(
    archive.genes.at[index].set(genes, mode="drop"),
    archive.objectives.at[index].set(objectives, mode="drop"),
    archive.violations.at[index].set(violations, mode="drop"),
    archive.size + new.sum(dtype=jnp.int32),
    archive.words.at[index].set(words, mode="drop"),
    archive.slots.at[free].set(index, mode="drop"),
  )
  return made, index
