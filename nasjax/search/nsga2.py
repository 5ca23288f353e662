"""NSGA-II (Deb et al., IEEE Trans. Evol. Comp. 2002) on categorical genes.

Pure functions with a pytree state: `ask` says which points to evaluate, `tell`
takes their objectives. Where an evaluation can be compiled (a table, a
predictor, a supernet) `evolve` puts all generations into one program; where it
cannot (a measured device) ask and tell are called from Python.

    random search       random_search(...)
    NSGA-II             nsga2(...)
    a warm start        nsga2(...).init(key, points)

Every objective is minimised. Infeasible points come after all feasible ones, by
their violation (section VI A). No point is evaluated twice: what `ask` gives is
new to the archive of everything told, as long as it finds anything new.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from nasjax.pareto import crowding_distance, non_dominated_sort
from nasjax.pareto.dominance import first_fronts, lexical_order
from nasjax.search import archive as archives
from nasjax.search import draws
from nasjax.search import genes as genetics
from nasjax.types import Array, Evolution, Key

__all__ = [
  "CROSSOVERS",
  "Front",
  "State",
  "evolve",
  "front",
  "nsga2",
  "random_search",
  "survivors",
]

CROSSOVERS = ("uniform", "one_point")


class State(NamedTuple):
  """What an evolution carries."""

  key: Key
  start: Array  # i32[N, G], what is asked first
  archive: archives.Archive  # all points told
  # i32[N], the archive's index of each survivor, the best first; A where there
  # is none yet.
  population: Array


class Front(NamedTuple):
  """The best points told, on the host."""

  genes: np.ndarray  # i32[F, G]
  objectives: np.ndarray  # f32[F, M]
  violations: np.ndarray  # f32[F]
  feasible: bool  # False: no point told was; these violate least


Evaluate = Callable[[Array], tuple[Array, Array]]


def survivors(
  key: Key,
  objectives: Array,
  violations: Array,
  alive: Array,
  keep: int | None = None,
) -> Array:
  """The order of survival: by rank, then by crowding, the best first.

  Args:
    key: decides between equals; consumed.
    objectives: f32[N, M].
    violations: f32[N], 0 or less where all constraints hold.
    alive: bool[N]; the others come last.
    keep: of how many the order matters; those after them come in any. None:
      of all.

  Returns:
    i32[N], indices.
  """
  size = alive.shape[0]
  unknown = jnp.isnan(objectives).any(-1, keepdims=True)
  points = jnp.where(unknown, jnp.inf, objectives)
  over = jnp.where(jnp.isnan(violations), jnp.inf, jnp.maximum(violations, 0.0))
  feasible = alive & (over <= 0)
  ranks = first_fronts(points, feasible, size if keep is None else keep)
  # Of numbers above 0 the bits stand in the order of the numbers.
  level = size + 1 + lax.bitcast_convert_type(over, jnp.int32)
  ranks = jnp.where(feasible, ranks, level)
  ranks = jnp.where(alive, ranks, np.int32(2**31 - 1))
  points = jnp.where(alive[:, None], points, jnp.inf)
  crowding = crowding_distance(points, ranks)
  chance = draws.bits(key, alive.shape)
  return lexical_order([ranks, -crowding, chance])


def _swap_uniform(words):
  return words < np.uint32(2**31)


def _swap_one_point(words):
  length = words.shape[1]
  # Cut between two genes: both parents give at least one.
  cut = 1 + draws.below(words[:, :1], jnp.int32(max(length - 1, 1)))
  return jnp.arange(length)[None] >= cut


def _check(counts, **sizes):
  counts = np.asarray(counts)
  if counts.ndim != 1 or not counts.size or counts.min() < 1:
    raise ValueError(
      f"cardinalities {counts.shape} must be one number >= 1 a gene"
    )
  for name, size in sizes.items():
    if size < 1:
      raise ValueError(f"{name} {size} must be at least 1")
  return counts.astype(np.int32)


def _evolution(
  counts, objectives, population, capacity, oversampling, repair, breed
):
  """init, ask and tell around `breed`.

  `breed` is (key, survivors i32[N, G], how many they are, size) -> so many
  children; None where all points are random.
  """
  mend = repair or (lambda key, genes: genes)
  made = min(2, oversampling) * population
  turns = -(-oversampling * population // made)

  def strangers(key, parents, alive, size):
    del parents, alive
    return genetics.random(key, counts, size)

  def first_new(archive, pool):
    """The first N of a pool that are new, and how many they are.

    Where they are fewer the others are known.
    """
    new = archives.first_seen(archive, pool, counts)
    place = jnp.where(new, jnp.cumsum(new) - 1, population)
    at = jnp.zeros(population, jnp.int32)
    at = at.at[place].set(jnp.arange(len(pool)), mode="drop")
    return pool[at], jnp.minimum(new.sum(), population)

  def fill(key, archive, points, makers, parents=None, alive=None):
    """N points that are new: those given, then what the makers make.

    Two children a point are made at a time, as long as some are wanting: most
    often that is enough, and all at once would cost a multiple.
    """
    makers = [functools.partial(make, size=made) for make in makers]

    def look(carry):
      turn, points, _ = carry
      draw, fix = jax.random.split(jax.random.fold_in(key, turn))
      children = lax.switch(turn // turns, makers, draw, parents, alive)
      pool = jnp.concatenate([points, mend(fix, children)])
      return turn + 1, *first_new(archive, pool)

    def wanting(carry):
      turn, _, found = carry
      return (turn < turns * len(makers)) & (found < population)

    carry = look((jnp.int32(0), points, None))
    return lax.while_loop(wanting, look, carry)[1]

  def init(key: Key, points: Array | None = None) -> State:
    key, draw = jax.random.split(key)
    archive = archives.empty(counts, objectives, capacity)
    if points is None:
      points = jnp.zeros((0, len(counts)), jnp.int32)
    points = jnp.asarray(points, jnp.int32)
    chex.assert_shape(points, (None, len(counts)))
    if len(points) > population:
      raise ValueError(f"{len(points)} points do not fit into {population}")
    nobody = jnp.full(population, capacity, jnp.int32)
    return State(key, fill(draw, archive, points, [strangers]), archive, nobody)

  def ask(state: State) -> tuple[Array, State]:
    key, draw = jax.random.split(state.key)
    parents = state.archive.genes[state.population]
    points = fill(
      draw,
      state.archive,
      parents[:0],
      [strangers] if breed is None else [breed, strangers],
      parents,
      (state.population < capacity).sum(),
    )
    points = jnp.where(state.archive.size == 0, state.start, points)
    return points, state._replace(key=key)

  def tell(
    state: State,
    points: Array,
    values: Array,
    violations: Array | None = None,
  ) -> State:
    points = jnp.asarray(points, jnp.int32)
    values = jnp.asarray(values, jnp.float32)
    if violations is None:
      violations = jnp.zeros(points.shape[:1], jnp.float32)
    violations = jnp.asarray(violations, jnp.float32)
    key, chance = jax.random.split(state.key)
    archive, index = archives.add(
      state.archive, points, values, violations, counts
    )
    everyone = jnp.concatenate([state.population, index])
    order = survivors(
      chance,
      archive.objectives[everyone],
      archive.violations[everyone],
      everyone < capacity,
      population,
    )
    return State(key, state.start, archive, everyone[order[:population]])

  return Evolution(jax.jit(init), jax.jit(ask), jax.jit(tell))


def nsga2(
  cardinalities: Any,
  *,
  objectives: int,
  population: int = 50,
  capacity: int = 1500,
  crossover: str = "uniform",
  crossover_rate: float = 0.9,
  mutation_rate: float | None = None,
  oversampling: int = 4,
  repair: Callable[[Key, Array], Array] | None = None,
) -> Evolution:
  """Makes NSGA-II.

  Args:
    cardinalities: i32[G], how many values each gene has; of a space see
      `genes.cardinalities`.
    objectives: M.
    population: N, also the points that each `ask` gives.
    capacity: the most points that are taken; past them `tell` ignores points.
    crossover: "uniform", or "one_point" where neighbouring genes belong
      together.
    crossover_rate: of the children, the others are copies of one parent.
    mutation_rate: of each gene; default 1 / G.
    oversampling: so many times N children are made at most, of which the first
      N that are new are asked; where fewer are, random points that are new
      follow.
    repair: (key, genes i32[K, G]) -> the genes that are meant, for spaces
      where not every combination exists; all points but those given to `init`
      or `tell` go through it.

  Returns:
    init, ask and tell. `init(key, points)` takes up to N first points i32[S, G]
    or None. `tell(state, points i32[K, G], values f32[K, M], violations f32[K]
    or None)` takes any number of points, also others than asked; those known
    already change nothing.

  Raises:
    ValueError: an argument out of its range.
  """
  counts = _check(
    cardinalities,
    objectives=objectives,
    population=population,
    capacity=capacity,
    oversampling=oversampling,
  )
  if crossover not in CROSSOVERS:
    raise ValueError(f"crossover {crossover!r} must be one of {CROSSOVERS}")
  rate = 1.0 / len(counts) if mutation_rate is None else mutation_rate
  for name, value in (
    ("crossover_rate", crossover_rate),
    ("mutation_rate", rate),
  ):
    if not 0.0 <= value <= 1.0:
      raise ValueError(f"{name} {value} must be from 0 to 1")
  swaps = {"uniform": _swap_uniform, "one_point": _swap_one_point}[crossover]
  genes = len(counts)

  def breed(key, parents, alive, size):
    words = draws.bits(key, (size, 5 + 2 * genes))
    # Survivors stand by rank and crowding: the better of two random ones is
    # the one with the smaller index.
    drawn = draws.below(words[:, :4], jnp.maximum(alive, 1))
    first = parents[jnp.minimum(drawn[:, 0], drawn[:, 1])]
    second = parents[jnp.minimum(drawn[:, 2], drawn[:, 3])]
    crossed = draws.uniform(words[:, 4:5]) < crossover_rate
    swap = crossed & swaps(words[:, 5 : 5 + genes])
    child = jnp.where(swap, second, first)
    return genetics.mutated_by(words[:, 5 + genes :], child, counts, rate)

  return _evolution(
    counts, objectives, population, capacity, oversampling, repair, breed
  )


def random_search(
  cardinalities: Any,
  *,
  objectives: int,
  population: int = 50,
  capacity: int = 1500,
  oversampling: int = 8,
  repair: Callable[[Key, Array], Array] | None = None,
) -> Evolution:
  """Makes random search: uniform points, none twice.

  Args:
    cardinalities: i32[G], how many values each gene has.
    objectives: M.
    population: N, the points that each `ask` gives.
    capacity: the most points that are taken.
    oversampling: so many times N points are drawn, of which the first N that
      are new are asked.
    repair: see `nsga2`.

  Returns:
    init, ask and tell as `nsga2` has them.

  Raises:
    ValueError: an argument out of its range.
  """
  counts = _check(
    cardinalities,
    objectives=objectives,
    population=population,
    capacity=capacity,
    oversampling=oversampling,
  )

  return _evolution(
    counts, objectives, population, capacity, oversampling, repair, None
  )


def evolve(
  evolution: Evolution, state: Any, evaluate: Evaluate, generations: Any
) -> Any:
  """Generations of ask, evaluate and tell as one program; jit or vmap it.

  Args:
    evolution: of `nsga2` or `random_search`.
    state: of its init, or of an evolution that goes on.
    evaluate: genes i32[N, G] -> (objectives f32[N, M], violations f32[N]),
      traced.
    generations: how many, may be traced.

  Returns:
    The state; `evolve(a)` and then `evolve(b)` is `evolve(a + b)`.
  """

  def generation(_, state):
    points, state = evolution.ask(state)
    return evolution.tell(state, points, *evaluate(points))

  return lax.fori_loop(0, generations, generation, state)


def front(state: State) -> Front:
  """The non-dominated feasible points told, or those that violate least.

  Args:
    state: of an evolution to which at least one point was told.

  Returns:
    The front by the first objective; of points with equal objectives all.
    NaN is infinite. Where no point is feasible: all of the least violation.

  Raises:
    ValueError: no point was told.
  """
  size = int(state.archive.size)
  if not size:
    raise ValueError("no point was told")
  found = state.archive
  genes, objectives, violations = (
    np.asarray(a)[:size]
    for a in (found.genes, found.objectives, found.violations)
  )
  ranks = np.asarray(non_dominated_sort(objectives, violations))
  best = np.flatnonzero(ranks == 0)
  order = best[np.lexsort(objectives[best].T[::-1])]
  return Front(
    genes[order],
    objectives[order],
    violations[order],
    bool((violations <= 0).any()),
  )
