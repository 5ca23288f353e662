"""Architectures as rows of categorical genes, and back.

A gene is one choice of one edge, among the candidates that exist there: genes
stand group after group, edge after edge, and count the open candidates only.

Of edges of which a fixed number is kept (see `kept_edges`) the genes say which
are kept, one gene for all of the set, and what the first, the second, .. of
them is, `none` excepted. So every row of genes is a network of the space, and
crossover and mutation make networks of networks.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import kept_edges
from nasjax.search import draws
from nasjax.spaces.space import Architecture
from nasjax.types import Array, Choices, Masks, Sampled

__all__ = [
  "architecture",
  "cardinalities",
  "drawn",
  "from_choices",
  "kinds",
  "mutated",
  "mutated_by",
  "one_hot",
  "one_path",
  "random",
  "to_choices",
  "to_weights",
  "uniform_path",
]


class _Edge(NamedTuple):
  """One edge that has a gene of its own."""

  group: str
  edge: int
  open: np.ndarray  # i[C], its candidates

  @property
  def counts(self) -> list[int]:
    return [len(self.open)]

  @property
  def kinds(self) -> list[Any]:
    return [(self.group, "edge", self.open.tobytes())]

  @property
  def edges(self) -> list[int]:
    return [self.edge]

  def rows(self, genes, library):
    """Genes [..., 1] to choices [..., 1]."""
    return library.asarray(self.open.astype(np.int32))[genes]

  def values(self, choices):
    """Choices [..., 1] to genes [..., 1]; refuses what does not exist."""
    found = np.searchsorted(self.open, choices)
    known = self.open[np.minimum(found, len(self.open) - 1)]
    return found, (known == choices).all()

  def drawn(self, key, weights, size):
    """Genes i[size, 1] by weights f[E, K]."""
    logits = jnp.log(weights[self.edge, self.open])
    return jax.random.categorical(key, logits, shape=(size,))[:, None]

  def weights(self, hot, candidates):
    """Relaxed genes [..., 1, C] to weights [..., 1, K]."""
    table = np.eye(candidates, dtype=np.float32)[self.open]
    return hot[..., : len(self.open)] @ table


class _Set(NamedTuple):
  """Edges of which a fixed number is kept."""

  group: str
  own: tuple[int, ...]
  ways: np.ndarray  # bool[W, E]: those that the masks allow
  none: int
  # i[E, C]: each edge's candidates besides `none`, over and over.
  open: np.ndarray

  @property
  def slots(self) -> int:
    """How many edges are kept."""
    return int(self.ways[0].sum())

  @property
  def counts(self) -> list[int]:
    return [len(self.ways), *[self.open.shape[1]] * self.slots]

  @property
  def kinds(self) -> list[Any]:
    kept = (self.group, "kept", self.ways.tobytes())
    candidate = (self.group, "candidate", tuple(np.unique(self.open).tolist()))
    return [kept, *[candidate] * self.slots]

  @property
  def edges(self) -> list[int]:
    return list(self.own)

  def _places(self) -> np.ndarray:
    """i[W, S]: which edges are kept in each way."""
    return np.nonzero(self.ways)[1].reshape(len(self.ways), self.slots)

  def rows(self, genes, library):
    """Genes [..., 1 + S] to choices [..., E]."""
    places = library.asarray(self._places().astype(np.int32))[genes[..., 0]]
    table = library.asarray(self.open.astype(np.int32))
    at = library.asarray(np.eye(len(self.own), dtype=bool))
    found = library.full(
      (*genes.shape[:-1], len(self.own)), self.none, np.int32
    )
    for slot in range(self.slots):
      place = places[..., slot]
      chosen = table[place, genes[..., 1 + slot]]
      found = library.where(at[place], chosen[..., None], found)
    return found

  def values(self, choices):
    """Choices [..., E] to genes [..., 1 + S]."""
    real = choices != self.none
    same = (real[..., None, :] == self.ways).all(-1)  # [..., W]
    way = same.argmax(-1)
    found, good = [way], bool(same.any(-1).all())
    for slot in range(self.slots):
      place = self._places()[way, slot]
      chosen = np.take_along_axis(choices, place[..., None], -1)
      match = self.open[place] == chosen
      found.append(match.argmax(-1))
      good &= bool(match.any(-1).all())
    return np.stack(found, -1), good

  def drawn(self, key, weights, size):
    """Genes i[size, 1 + S] by weights f[E, K], as `kept_edges` has them."""
    first, second = jax.random.split(key)
    # Candidates that stand there over and over count once.
    seen = np.array(
      [[k in row[:c] for c, k in enumerate(row)] for row in self.open.tolist()]
    )
    own = np.take_along_axis(weights[list(self.own)], self.open, -1)
    own = np.where(seen | (self.open == self.none), 0.0, own)
    odds = np.where(self.ways, np.log(own.sum(-1)), 0.0).sum(-1)
    way = jax.random.categorical(first, jnp.asarray(odds), shape=(size,))
    place = self._places()[np.asarray(way)]  # [N, S]
    logits = jnp.log(jnp.asarray(own))[place]
    slots = jax.random.categorical(second, logits)
    return jnp.concatenate([way[:, None], slots], -1)

  def weights(self, hot, candidates):
    """Relaxed genes [..., 1 + S, C] to weights [..., E, K]."""
    share = hot[..., 0, : len(self.ways)]
    total = 0.0
    for slot in range(self.slots):
      # bool[W, E]: whether the slot's edge is this one.
      at = np.eye(len(self.own), dtype=np.float32)[self._places()[:, slot]]
      table = np.eye(candidates, dtype=np.float32)[self.open]  # [E, C, K]
      own = hot[..., 1 + slot, : self.open.shape[1]]
      candidate = jnp.einsum("...c,eck->...ek", own, table)
      total = total + (share @ at)[..., None] * candidate
    rest = 1.0 - total.sum(-1)
    return total + rest[..., None] * np.eye(candidates, dtype=np.float32)[
      self.none
    ].reshape((1,) * (total.ndim - 1) + (-1,))


def _parts(space: Any) -> list[_Edge | _Set]:
  """What decides a space's choices, in the order of its genes."""
  kept, found = kept_edges.kept_sets(space), []
  for name, mask in space.masks.items():
    mask = np.asarray(mask, bool)
    none, sets = kept.get(name, (0, ()))
    inside = {edge for edges, _ in sets for edge in edges}
    found += [
      _Edge(name, edge, np.flatnonzero(row))
      for edge, row in enumerate(mask)
      if edge not in inside
    ]
    for edges, count in sets:
      rows = mask[list(edges)]
      real = [np.setdiff1d(np.flatnonzero(row), [none]) for row in rows]
      most = max(map(len, real))
      ways = kept_edges.combinations(edges, count)
      # A way needs a candidate where it keeps an edge, and none elsewhere.
      some = np.array([len(row) > 0 for row in real])
      ways = ways[(np.where(ways, some, rows[:, none])).all(-1)]
      shown = [np.resize(row if len(row) else [none], most) for row in real]
      found.append(_Set(name, tuple(edges), ways, none, np.stack(shown)))
  return found


def cardinalities(space: Any) -> np.ndarray:
  """How many values each gene has.

  Args:
    space: a space, of which `masks`, and `groups` where it has `kept`, are
      read.

  Returns:
    i32[G]; gene g is 0 .. cardinalities[g] - 1.

  Raises:
    ValueError: an edge has no candidate.
  """
  counts = np.array([n for p in _parts(space) for n in p.counts], np.int32)
  if not counts.size or counts.min() < 1:
    raise ValueError("an edge has no candidate, or there is no edge")
  return counts


def kinds(space: Any) -> np.ndarray:
  """Which genes mean the same by their values: equal numbers, i32[G].

  Those of one group with the same open candidates do.
  """
  found: dict[Any, int] = {}
  return np.array(
    [
      found.setdefault(kind, len(found))
      for part in _parts(space)
      for kind in part.kinds
    ],
    np.int32,
  )


def to_choices(space: Any, genes: Any) -> dict[str, Any]:
  """Genes i32[..., G] as choices i32[..., E] a group; numpy or traced."""
  library = np if isinstance(genes, np.ndarray) else jnp
  columns: dict[str, list] = {
    n: [None] * len(m) for n, m in space.masks.items()
  }
  start = 0
  for part in _parts(space):
    end = start + len(part.counts)
    rows = part.rows(genes[..., start:end], library)
    for column, edge in enumerate(part.edges):
      columns[part.group][edge] = rows[..., column]
    start = end
  return {n: library.stack(rows, axis=-1) for n, rows in columns.items()}


def to_weights(space: Any, hot: Array) -> dict[str, Array]:
  """Weights of genes f32[..., G, C] as f32[..., E, K] a group; traced.

  Args:
    space: the space.
    hot: of each gene's values, one-hot or relaxed; C the largest cardinality.

  Returns:
    The weights, 0 where masked; what networks have on average whose genes are
    drawn on their own.
  """
  rows: dict[str, list] = {n: [None] * len(m) for n, m in space.masks.items()}
  start = 0
  for part in _parts(space):
    end = start + len(part.counts)
    candidates = np.shape(space.masks[part.group])[1]
    own = part.weights(hot[..., start:end, :], candidates)
    for row, edge in enumerate(part.edges):
      rows[part.group][edge] = own[..., row, :]
    start = end
  return {n: jnp.stack(found, axis=-2) for n, found in rows.items()}


def from_choices(space: Any, choices: Choices) -> np.ndarray:
  """Choices i32[..., E] a group as genes i32[..., G].

  Raises:
    ValueError: a choice that does not exist, or more or fewer edges of a set
      are kept than the space wants.
  """
  genes = []
  for part in _parts(space):
    rows = np.asarray(choices[part.group])[..., part.edges]
    values, good = part.values(rows)
    if not good:
      raise ValueError(
        f"choices {part.edges} of {part.group}: one does not exist there, or"
        " another number of edges is kept"
      )
    genes.append(values)
  return np.concatenate(genes, axis=-1).astype(np.int32)


def architecture(space: Any, genes: Any) -> Architecture:
  """The architecture that genes i32[G] name."""
  return Architecture(space, to_choices(space, np.asarray(genes)))


def drawn(space: Any, weights: Any, key: jax.Array, size: int) -> np.ndarray:
  """Networks drawn by relaxed weights, genes i32[size, G].

  Args:
    space: the space.
    weights: f[E, K] a group; a candidate of weight 0 is drawn with 1e-6 of
      what one of weight 1 is.
    key: consumed.
    size: N.

  Returns:
    Genes of networks; edges of which a fixed number is kept are drawn together,
    as `kept_edges` says.
  """
  floored = {n: np.asarray(w, np.float64) + 1e-6 for n, w in weights.items()}
  parts = _parts(space)
  keys = jax.random.split(key, len(parts))
  columns = [
    np.asarray(part.drawn(k, floored[part.group], size))
    for part, k in zip(parts, keys, strict=True)
  ]
  return np.concatenate(columns, axis=-1).astype(np.int32)


def uniform_path(space: Any, key: jax.Array) -> Sampled:
  """A network drawn uniformly among the space's, as `space.apply` takes it.

  Each gene is drawn on its own and uniformly (single-path one-shot training,
  Guo et al. 2020, section 3.2); traced.
  """
  genes = random(key, cardinalities(space), 1)[0]
  return one_path(space.masks, to_choices(space, genes))


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
