"""Gradient search and NSGA-II in turn, on the same points and front.

Gradients find good networks fast and see one direction at a time; evolution
spreads over the front and needs no gradient. So gradient search proposes where
NSGA-II starts, NSGA-II explores for some generations, its best points are
refined by gradients, and so on. Whatever either proposes is evaluated and
enters the one archive from which NSGA-II selects.

`hybrid` takes any function that proposes. `through_predictor` is one: GDAS
(Dong and Yang 2019) through predictors of all objectives, from every point of
the front in its own direction. `refinement.through_supernet` is another: it
goes through the supernet's own loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import optax

from nasjax.search import archive as archives
from nasjax.search import genes as genetics
from nasjax.search import nsga2, promising
from nasjax.search import surrogate as surrogates
from nasjax.search.surrogate import Surrogate
from nasjax.types import Array, Evolution, Key

__all__ = ["Propose", "State", "Told", "hybrid", "through_predictor"]

# Of the augmented Chebyshev scalarisation: so much of the plain sum.
AUGMENTED = 0.05
SHARP = 3.0  # the logit of the point that a refinement starts from


class Told(NamedTuple):
  """All evaluations so far, on the host; E of them."""

  genes: np.ndarray  # i32[E, G]
  objectives: np.ndarray  # f64[E, M]
  violations: np.ndarray  # f64[E]
  survivors: np.ndarray  # i64[S], NSGA-II's population, the best first
  children: np.ndarray  # i32[N, G], their children, which were not told yet


# (key, what was told) -> genes i32[R, G], the most promising first; those that
# were told already are left out by the caller.
Propose = Callable[[Key, Told], np.ndarray]


class State(NamedTuple):
  """What the hybrid carries."""

  key: Key
  evolution: nsga2.State
  asked: np.ndarray  # i32[], batches asked

  @property
  def archive(self) -> archives.Archive:
    """All points told."""
    return self.evolution.archive


def hybrid(
  cardinalities: Any,
  propose: Propose,
  *,
  objectives: int,
  population: int = 50,
  batch: int | None = None,
  capacity: int = 750,
  period: int = 2,
  crossover: str = "uniform",
  crossover_rate: float = 0.9,
  mutation_rate: float | None = None,
  repair: Callable[[Key, Array], Array] | None = None,
) -> Evolution:
  """Makes the hybrid; `ask` and `tell` run outside compiled code.

  Args:
    cardinalities: i32[G], how many values each gene has.
    propose: the gradient search, called for every `period`th batch.
    objectives: M.
    population: N, NSGA-II's, also its children in a generation.
    batch: points that each `ask` gives, N or fewer; default N.
    capacity: the most points that are taken.
    period: of so many batches the last is refined by `propose`; 1: all but
      the first.
    crossover: see `nsga2.nsga2`, as the next three.
    crossover_rate: of the pairs.
    mutation_rate: of each gene.
    repair: where not every combination exists; proposals are not repaired.

  Returns:
    init, ask and tell. `init(key, points)` takes up to N first points, such as
    samples of a gradient search, or None for random ones, of which the first
    `batch` are asked. `state.evolution.archive` holds what was told;
    `nsga2.front` reads it.

  Raises:
    ValueError: an argument out of its range.
  """
  if period < 1:
    raise ValueError(f"period {period} must be at least 1")
  batch = population if batch is None else batch
  if not 1 <= batch <= population:
    raise ValueError(f"batch {batch} must be from 1 to {population}")
  inner = nsga2.nsga2(
    cardinalities,
    objectives=objectives,
    population=population,
    capacity=capacity,
    crossover=crossover,
    crossover_rate=crossover_rate,
    mutation_rate=mutation_rate,
    repair=repair,
  )
  counts = np.asarray(cardinalities, np.int32)
  unseen = jax.jit(lambda a, g: archives.first_seen(a, g, counts))

  def init(key: Key, points: Array | None = None) -> State:
    key, start = jax.random.split(key)
    return State(key, inner.init(start, points), np.array(0, np.int32))

  def ask(state: State) -> tuple[Array, State]:
    children, evolution = inner.ask(state.evolution)
    points, asked = children[:batch], int(state.asked)
    size = int(evolution.archive.size)
    if size and asked % period == period - 1:
      alive = np.asarray(evolution.population)
      told = Told(
        np.asarray(evolution.archive.genes)[:size],
        np.asarray(evolution.archive.objectives, np.float64)[:size],
        np.asarray(evolution.archive.violations, np.float64)[:size],
        alive[alive < size],
        np.asarray(children),
      )
      found = np.asarray(
        propose(jax.random.fold_in(state.key, asked), told), np.int32
      ).reshape(-1, len(counts))[:batch]
      # Where too few of them are new, NSGA-II's own children follow; then
      # repeats, which are not new, so that it compiles once.
      repeats = np.resize(np.asarray(points), (batch - len(found), len(counts)))
      pool = jnp.concatenate([found, points, repeats])
      order = jnp.argsort(~unseen(evolution.archive, pool), stable=True)
      points = pool[order[:batch]]
    return points, State(state.key, evolution, np.array(asked + 1, np.int32))

  def tell(state, points, values, violations=None) -> State:
    evolution = inner.tell(state.evolution, points, values, violations)
    return state._replace(evolution=evolution)

  return Evolution(init, ask, tell)


def through_predictor(
  surrogate: Surrogate,
  space: Any,
  *,
  capacity: int,
  count: int = 50,
  members: int = 64,
  steps: int = 30,
  learning_rate: float = 0.3,
  temperatures: tuple[float, float] = (1.0, 0.1),
) -> Propose:
  """GDAS through predictors, from the front's points in many directions.

  Each member starts at a point of the population, with a direction of its own:
  an augmented Chebyshev scalarisation of the objectives in units of the
  front's ranges. A step draws one-hot weights (Gumbel, straight-through) and
  follows the predictors' gradient. Of all architectures drawn on the way and
  NSGA-II's children those are proposed that are expected to add most
  hypervolume.

  Args:
    surrogate: of all objectives and limits; fitted anew at each call.
    space: the space, see `genes`.
    capacity: the most evaluations that it is ever fitted to.
    count: proposals.
    members: P.
    steps: of each member.
    learning_rate: of Adam, for the logits.
    temperatures: of Gumbel-softmax at the first and the last step; it falls by
      the same factor each step.

  Returns:
    What `hybrid` takes.

  Raises:
    ValueError: a temperature that is not above 0.
  """
  if min(temperatures) <= 0:
    raise ValueError(f"temperatures {temperatures} must be above 0")
  counts = genetics.cardinalities(space)
  optimizer = optax.adam(learning_rate)
  open_ = jnp.arange(int(counts.max()))[None] < counts[:, None]  # [G, K]

  @jax.jit
  def descend(key, state, starts, ideal, span, preference):
    """All architectures drawn, genes i32[steps, P, G]."""

    def loss(logits, noise, temperature):
      logits = jnp.where(open_[None], logits + noise, -jnp.inf)
      soft = jax.nn.softmax(logits / temperature)
      drawn = jnp.argmax(logits, -1)
      hard = genetics.one_hot(drawn, counts)
      weights = genetics.to_weights(
        space, hard + soft - jax.lax.stop_gradient(soft)
      )
      means, feasible = surrogate.expected(state, weights)
      scaled = preference * (means - ideal[None]) / span[None]
      total = scaled.max(-1) + AUGMENTED * scaled.sum(-1)
      return (total + jax.nn.relu(0.5 - feasible)).sum(), drawn

    def step(carry, now):
      logits, inner = carry
      noise = jax.random.gumbel(jax.random.fold_in(key, now), logits.shape)
      first, last = temperatures
      temperature = first * (last / first) ** (now / max(steps - 1, 1))
      slope, drawn = jax.grad(loss, has_aux=True)(logits, noise, temperature)
      changes, inner = optimizer.update(slope, inner)
      return (optax.apply_updates(logits, changes), inner), drawn

    logits = SHARP * genetics.one_hot(starts, counts)
    carry = (logits, optimizer.init(logits))
    return jax.lax.scan(step, carry, jnp.arange(steps))[1]

  def propose(key: Key, told: Told) -> np.ndarray:
    state = surrogate.fit(
      genetics.to_choices(space, told.genes), told.objectives, told.violations
    )
    kept = told.violations <= 0
    known = told.objectives[kept] if kept.any() else told.objectives
    front = known[moocore.is_nondominated(known, keep_weakly=False)]
    ideal, span = front.min(0), np.ptp(front, axis=0)
    span = np.where(span > 0, span, np.maximum(np.abs(ideal), 1.0))
    walk, direct, order = jax.random.split(key, 3)
    preference = jax.random.dirichlet(direct, jnp.ones(len(ideal)), (members,))
    starts = told.genes[np.resize(told.survivors, members)]
    drawn = descend(
      walk,
      surrogates.padded(state, capacity),
      starts,
      ideal.astype(np.float32),
      span.astype(np.float32),
      preference,
    )
    drawn = np.asarray(drawn).reshape(-1, len(counts))
    both = np.concatenate([told.genes, drawn, told.children])
    _, first = np.unique(both, axis=0, return_index=True)
    met = both[np.sort(first[first >= len(told.genes)])]
    if not len(met):
      return met
    chosen = promising.choose(
      order,
      surrogate.predict(state, genetics.to_choices(space, met)),
      told.objectives,
      told.violations,
      count,
      members * steps + len(told.children),
    )
    return met[chosen]

  return propose
