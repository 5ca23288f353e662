"""Networks that keep a fixed number of the edges of a set, and no others.

In DARTS's space two edges into each node are kept (Liu et al. 2019, section
2.4); the others are `none`. Relaxed weights know nothing of that: each edge has
its own. What they say of networks is the distribution

    P(network) ~ prod over kept edges e of w[e, k_e],    k_e not none,

whose most probable network is what `decide` gives. Everything that is expected
of a network (costs, skips) is expected under it: an edge is kept with the
probability that this distribution gives it (the inclusion probability of
conditional Poisson sampling, Hajek 1964), and then is candidate k with
probability w[e, k] over the sum of the edge's candidates besides `none`.

In the shapes below `E` is a group's edges, `K` its candidates.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.types import Array, Weights

__all__ = ["Kept", "KeptSets", "combinations", "kept_sets", "probabilities"]

# Sets of edges, and how many of each are not `none`.
Kept = tuple[tuple[tuple[int, ...], int], ...]
# What the weights of an edge besides `none` sum to at least: the square of its
# inverse, which gradients hold, is a float32.
_SMALLEST = 1e-18


class KeptSets(NamedTuple):
  """The sets of one group, and which of its candidates is `none`."""

  none: int
  sets: Kept


def kept_sets(space: Any) -> dict[str, KeptSets]:
  """A space's `kept` with the index of `none`, one entry a group that has it.

  Args:
    space: the space; {} for one without `kept`.

  Raises:
    ValueError: a group that keeps edges has no candidate `none`.
  """
  found = {}
  for name, sets in getattr(space, "kept", {}).items():
    candidates = tuple(space.groups[name].candidates)
    if sets and "none" not in candidates:
      raise ValueError(
        f"space {space.name}: group {name} keeps a fixed number of edges, but"
        " has no candidate none for the others"
      )
    if sets:
      found[name] = KeptSets(candidates.index("none"), tuple(sets))
  return found


def combinations(edges: Sequence[int], count: int) -> np.ndarray:
  """bool[C, E]: every way to keep `count` of so many edges."""
  ways = list(itertools.combinations(range(len(edges)), count))
  found = np.zeros((len(ways), len(edges)), bool)
  np.put_along_axis(found, np.array(ways, int).reshape(len(ways), -1), True, -1)
  return found


def _strengths(rows: Array, none: int) -> tuple[Array, Array]:
  """(candidates besides `none` f[E, K], their sums f[E])."""
  real = rows * (np.arange(rows.shape[-1]) != none)[None]
  return real, jnp.maximum(real.sum(-1), _SMALLEST)


def _shares(strengths: Array, ways: np.ndarray) -> Array:
  """f[C]: the probability of each way to keep edges."""
  return jax.nn.softmax(jnp.where(ways, jnp.log(strengths)[None], 0.0).sum(-1))


def probabilities(weights: Weights, kept: Mapping[str, KeptSets]) -> Weights:
  """How probable each candidate is in a network, see the module.

  Args:
    weights: f32[E, K] a group, relaxed; of rows that are no distribution (see
      `relaxations.edge_normalized`) ratios count alone.
    kept: of the space, see `kept_sets`.

  Returns:
    f32[E, K] a group: edges of kept sets have the probabilities of their
    candidates, `none` that of not being kept; other edges as they were.
    Differentiable. A network's one-hot weights stay as they are.
  """
  found = dict(weights)
  for name, (none, sets) in kept.items():
    rows = jnp.asarray(weights[name])
    for edges, count in sets:
      index, ways = np.array(edges), combinations(edges, count)
      real, sums = _strengths(rows[index], none)
      included = jnp.where(ways, _shares(sums, ways)[:, None], 0.0).sum(0)
      own = real / sums[:, None] * included[:, None]
      own = own.at[:, none].set(1.0 - included)
      rows = rows.at[index].set(own)
    found[name] = rows
  return found


def below(rows: Array, inside: Any, none: int, sets: Kept) -> Array:
  """The probability that all entries of a network's choices are small enough.

  Args:
    rows: f32[E, K], a group's relaxed weights.
    inside: bool[L, E, K], whether an entry is within each of L levels.
    none: which candidate is `none`.
    sets: of the group.

  Returns:
    f32[L], under the module's distribution; edges of no set are drawn on
    their own.
  """
  inside = jnp.asarray(inside, rows.dtype)
  alone = np.ones(rows.shape[0], bool)
  for edges, _ in sets:
    alone[list(edges)] = False
  singly = (rows[None] * inside).sum(-1)  # [L, E]
  total = jnp.where(alone[None], singly, 1.0).prod(-1)
  for edges, count in sets:
    index, ways = np.array(edges), combinations(edges, count)
    real, sums = _strengths(rows[index], none)
    own = inside[:, index]
    kept = (real[None] * own).sum(-1) / sums[None]  # given that it is kept
    each = jnp.where(ways[None], kept[:, None], own[:, None, :, none]).prod(-1)
    total = total * (each * _shares(sums, ways)[None]).sum(-1)
  return total
