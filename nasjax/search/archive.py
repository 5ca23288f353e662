"""All unique points that a search evaluated, found again by their genes.

Static shapes: room for a stated number of points, and a hash table of open
addressing over them, so that looking up a batch costs the same however many
there are. Genes are compared exactly, as words in mixed radix.
"""

from __future__ import annotations

from typing import Any, NamedTuple

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


def empty(counts: np.ndarray, objectives: int, capacity: int) -> Archive:
  """An archive without points.

  Args:
    counts: i32[G], the cardinalities of the genes.
    objectives: M.
    capacity: A, the most points that it takes.

  Returns:
    The archive.
  """
  slots = 1 << int(2 * capacity - 1).bit_length()
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


def _at(start: Array, turn: Array, slots: Array) -> Array:
  """The slots i32[N] that are looked at in a turn, T of them a power of two."""
  # Triangular steps visit every slot of a power of two.
  step = (turn * (turn + 1) // 2).astype(jnp.uint32)
  return ((start + step) & np.uint32(slots.shape[0] - 1)).astype(jnp.int32)


def _known(archive: Archive, words: Array, start: Array) -> Array:
  """bool[N]: which words u32[N, W] the archive holds; start is their hash."""

  def look(carry):
    known, open_, turn = carry
    holder = archive.slots[_at(start, turn, archive.slots)]
    same = (archive.words[holder] == words).all(-1) & (holder != _FREE)
    known = known | (open_ & same)
    return known, open_ & ~same & (holder != _FREE), turn + 1

  none = jnp.zeros(start.shape, bool)
  carry = (none, ~none, jnp.int32(0))
  return lax.while_loop(lambda c: c[1].any(), look, carry)[0]


def _claim(slots: Array, start: Array, mine: Array, open_: Array, same: Any):
  """Points take slots, all at once, turn after turn.

  Where several meet at a free one that with the smallest number takes it; the
  others go on, unless `same` says that they need not.

  Args:
    slots: i32[T], changed.
    start: u32[N], the hashes.
    mine: i32[N], the number that each puts into its slot.
    open_: bool[N], which look for one.
    same: holders i32[N] -> bool[N], who stops without a slot; or None.

  Returns:
    (slots, bool[N]: who took one).
  """
  size = slots.shape[0]

  def look(carry):
    slots, took, open_, turn = carry
    at = _at(start, turn, slots)
    free = open_ & (slots[at] == _FREE)
    slots = slots.at[jnp.where(free, at, size)].min(mine, mode="drop")
    holder = slots[at]
    own = open_ & (holder == mine)
    done = own if same is None else own | same(holder)
    return slots, took | own, open_ & ~done, turn + 1

  carry = (slots, jnp.zeros(start.shape, bool), open_, jnp.int32(0))
  return lax.while_loop(lambda c: c[2].any(), look, carry)[:2]


def _first_of_batch(words: Array, start: Array, open_: Array) -> Array:
  """bool[N]: of `open_` words u32[N, W] those that no earlier one equals."""
  size = words.shape[0]
  index = jnp.arange(size, dtype=jnp.int32)
  # A table of its own: claims in that of the archive would cost a copy of it.
  slots = jnp.full(1 << int(4 * size - 1).bit_length(), _FREE, jnp.int32)

  def same(holder):
    return (words[jnp.minimum(holder, size - 1)] == words).all(-1)

  return _claim(slots, start, index, open_, same)[1]


def first_seen(archive: Archive, genes: Array, counts: np.ndarray) -> Array:
  """Which of a batch are neither in the archive nor earlier in the batch.

  Args:
    archive: the archive.
    genes: i32[N, G].
    counts: i32[G], the cardinalities.

  Returns:
    bool[N].
  """
  return _new(archive, _pack(genes, counts))[0]


def _new(archive, words):
  """(bool[N] of `first_seen`, u32[N] their hashes)."""
  start = _hash(words)
  return _first_of_batch(words, start, ~_known(archive, words, start)), start


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
  new, start = _new(archive, words)
  index = archive.size + jnp.cumsum(new.astype(jnp.int32)) - 1
  new = new & (index < capacity)
  index = jnp.where(new, index, capacity)
  made = Archive(
    archive.genes.at[index].set(genes, mode="drop"),
    archive.objectives.at[index].set(objectives, mode="drop"),
    archive.violations.at[index].set(violations, mode="drop"),
    archive.size + new.sum(dtype=jnp.int32),
    archive.words.at[index].set(words, mode="drop"),
    _claim(archive.slots, start, index, new, None)[0],
  )
  return made, index
