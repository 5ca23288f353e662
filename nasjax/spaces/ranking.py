"""The decision under metrics that do not add up over the choices.

Architectures are visited from the most probable down, so the first that keeps
every limit is the answer, exactly. After a stated number of visits a local
search goes on from the one that was nearest: one choice after the other is
changed while that brings it nearer to the limits, and within them while it
makes it more probable. What it finds keeps the limits, but a more probable
network may too.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nasjax.errors import InputError
from nasjax.spaces.space import kept_of, log_weights
from nasjax.types import Metric, Weights

__all__ = ["decide", "descending"]

MAX_VISITS = 100_000


def descending(scores: Sequence[np.ndarray]) -> Iterator[tuple[int, ...]]:
  """Combinations of one entry a row, by falling sum of scores.

  Lawler, "A procedure for computing the K best solutions" (1972): a heap of
  combinations of ranks, each reached from one other.

  Args:
    scores: f64[K_i] of each row; -inf entries are left out.

  Yields:
    One index of each row.
  """
  orders = [
    [int(k) for k in np.argsort(-s, kind="stable") if s[k] > -np.inf]
    for s in scores
  ]
  if not all(orders):
    return
  # gaps[i][r]: what row i loses from its best entry to its r-th.
  gaps = [
    [float(s[o[0]] - s[k]) for k in o]
    for s, o in zip(scores, orders, strict=True)
  ]
  start = (0,) * len(orders)
  heap, seen = [(0.0, start)], {start}
  while heap:
    _, ranks = heapq.heappop(heap)
    yield tuple(o[r] for o, r in zip(orders, ranks, strict=True))
    for i in range(len(ranks)):
      if ranks[i] + 1 < len(orders[i]):
        ahead = (*ranks[:i], ranks[i] + 1, *ranks[i + 1 :])
        if ahead not in seen:
          seen.add(ahead)
          loss = sum(g[r] for g, r in zip(gaps, ahead, strict=True))
          heapq.heappush(heap, (loss, ahead))


def decide(
  space: Any,
  weights: Weights,
  limits: Sequence[tuple[Metric, float]],
  make: Any,
  smallest: float,
) -> Any:
  """The most probable architecture within any limits.

  Args:
    space: the space.
    weights: f32[E, K] a group.
    limits: pairs (metric, upper bound).
    make: `Architecture`.
    smallest: weights below it count as it.

  Returns:
    The architecture.

  Raises:
    InputError: none of those visited keeps the limits; says how near they
      come and whether all were visited.
  """
  parts = _parts(space, log_weights(space, weights, smallest))

  def built(chosen):
    """The network of one way of each part; None where it is not connected."""
    choices = {n: np.zeros(g.edges, np.int32) for n, g in space.groups.items()}
    for (ways, _), way in zip(parts, chosen, strict=True):
      for name, edge, k in ways[way]:
        choices[name][edge] = k
    return make(space, choices) if _connected(space, choices) else None

  def valued(found):
    """(how far over the limits, values); the former 0 or less within them."""
    values = [metric.exact(found) for metric, _ in limits]
    over = max(
      (v - bound) / max(abs(bound), 1e-30)
      for v, (_, bound) in zip(values, limits, strict=True)
    )
    return (np.inf if np.isnan(over) else over), values

  nearest, visits = None, 0
  for chosen in descending([scores for _, scores in parts]):
    found = built(chosen)
    if found is None:
      continue
    over, values = valued(found)
    if over <= 0:
      return found
    if nearest is None or over < nearest[0]:
      nearest = over, values, chosen
    visits += 1
    if visits == MAX_VISITS:
      break
  if visits == MAX_VISITS:
    scores = [scores for _, scores in parts]
    over, values, chosen = _local(nearest, scores, built, valued)
    if over <= 0:
      return built(chosen)
    nearest = over, values, chosen
  asked = " ".join(f"{m.name}={bound:g}" for m, bound in limits)
  shown = ", ".join(
    f"{m.name}={v:.6g}{' ' + m.unit if m.unit else ''}"
    for (m, _), v in zip(limits, nearest[1] if nearest else (), strict=False)
  )
  raise InputError(
    f"--limit {asked}",
    "no architecture of the space keeps it"
    if visits < MAX_VISITS
    else f"none of the {MAX_VISITS} most probable architectures keeps it, nor"
    " what a local search found",
    f"the nearest found is {shown}",
  )


def _local(start, scores, built, valued):
  """Changes one part after the other, first to the limits, then within them.

  Args:
    start: (how far over, values, ways) of a network.
    scores: f64[ways] of each part.
    built: ways -> network or None.
    valued: network -> (how far over, values).

  Returns:
    The same of the network found.
  """
  over, values, chosen = start
  moves = [
    (part, way)
    for part, row in enumerate(scores)
    for way in np.flatnonzero(row > -np.inf)
  ]
  order = np.random.default_rng(0)
  visits, better = 0, True
  while better and visits < MAX_VISITS:
    better = False
    for index in order.permutation(len(moves)):
      part, way = moves[index]
      gain = scores[part][way] - scores[part][chosen[part]]
      if way == chosen[part] or (over <= 0 and gain <= 0):
        continue
      other = (*chosen[:part], int(way), *chosen[part + 1 :])
      found = built(other)
      if found is None:
        continue
      visits += 1
      new, own = valued(found)
      if new <= 0 or (over > 0 and new < over):
        over, values, chosen, better = new, own, other, True
  return over, values, chosen


def _parts(space, logs):
  """What is decided on its own: (ways to decide it, their scores f64[N]).

  That is an edge, or a set of edges of which a fixed number is kept. A way
  is a list of (group, edge, candidate).
  """
  parts = []
  for name, group in space.groups.items():
    mask = np.asarray(space.masks[name])
    score = np.where(mask, logs[name], -np.inf)
    sets = kept_of(space).get(name, ())
    alone = set(range(group.edges)).difference(*(e for e, _ in sets))
    for edge in sorted(alone):
      ways = [[(name, edge, k)] for k in range(len(mask[0]))]
      parts.append((ways, score[edge]))
    for edges, count in sets:
      none = group.candidates.index("none")
      real = [k for k in range(len(group.candidates)) if k != none]
      ways, scores = [], []
      for kept in itertools.combinations(edges, count):
        left = [(name, e, none) for e in edges if e not in kept]
        for chosen in itertools.product(real, repeat=count):
          pairs = list(zip(kept, chosen, strict=True))
          ways.append([*left, *((name, e, k) for e, k in pairs)])
          scores.append(sum(score[e, k] for e, k in pairs))
      parts.append((ways, np.array(scores)))
  return parts


def _connected(space, choices) -> bool:
  for group, cuts in space.cuts.items():
    candidates = space.groups[group].candidates
    if "none" not in candidates:
      continue
    none = choices[group] == candidates.index("none")
    if any(none[list(cut)].all() for cut in cuts):
      return False
  return True
