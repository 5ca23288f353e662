"""Search in stages: guess from few evaluations, then evaluate what promises.

1. Random points are evaluated and predictors fitted to them. They screen ten
   thousand random points; the best hundred of the predicted front stay.
2. NSGA-II goes on from those on the predictions. Of all points that it met, a
   batch is evaluated: one after the other the point that is expected to add
   most hypervolume (`pareto.expected_improvement`), each taken as if it turned
   out as predicted. The predictors are fitted anew, and so on.

Choosing within limits and training fully, the third stage, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.search import archive as archives
from nasjax.search import genes as genetics
from nasjax.search import nsga2, promising
from nasjax.search.surrogate import Prediction
from nasjax.types import Array, Evolution, Key

__all__ = ["State", "staged"]

# genes i32[N, G] -> what they are expected to have
Predict = Callable[[np.ndarray], Prediction]
# (genes i32[N, G], objectives f64[N, M], violations f64[N]) -> Predict
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Predict]


class State(NamedTuple):
  """What the stages carry."""

  key: Key
  random: nsga2.State  # of the random points; its archive holds all
  kept: np.ndarray  # i32[kept, G], from where NSGA-II goes on
  screened: np.ndarray  # bool[], whether `kept` is filled

  @property
  def archive(self) -> archives.Archive:
    """All points told."""
    return self.random.archive


def staged(
  cardinalities: Any,
  fit: Fit,
  *,
  objectives: int,
  samples: int = 150,
  capacity: int = 360,
  batch: int = 15,
  screened: int = 10_000,
  kept: int = 100,
  generations: int = 10,
  repair: Callable[[Key, Array], Array] | None = None,
) -> Evolution:
  """Makes the first two stages; `ask` and `tell` run outside compiled code.

  Args:
    cardinalities: i32[G], how many values each gene has.
    fit: fits predictors, see `surrogate`.
    objectives: M.
    samples: random points at the start.
    capacity: the most points that are evaluated.
    batch: points between two fits.
    screened: random points that the first predictors look at.
    kept: points of the predicted front that NSGA-II goes on from.
    generations: of NSGA-II between two batches.
    repair: see `nsga2.nsga2`.

  Returns:
    init, ask and tell. `ask` gives `samples` points first, then `batch` or
    what is left of `capacity`, none at the end; `state.archive` holds what was
    told.

  Raises:
    ValueError: an argument below 1, or more samples than capacity.
  """
  for name, value in (
    ("samples", samples),
    ("batch", batch),
    ("screened", screened),
    ("kept", kept),
    ("generations", generations),
  ):
    if value < 1:
      raise ValueError(f"{name} {value} must be at least 1")
  if samples > capacity:
    raise ValueError(f"samples {samples} are more than capacity {capacity}")
  most = kept * (generations + 1)  # points that NSGA-II meets
  chance = nsga2.random_search(
    cardinalities,
    objectives=objectives,
    population=samples,
    capacity=capacity,
    repair=repair,
  )
  counts = np.asarray(cardinalities, np.int32)
  mend = repair or (lambda key, genes: genes)
  inner = nsga2.nsga2(
    counts,
    objectives=objectives,
    population=kept,
    capacity=most,
    repair=repair,
  )
  unseen = jax.jit(lambda a, g: archives.first_seen(a, g, counts))

  @jax.jit
  def draw(key):
    first, second = jax.random.split(key)
    return mend(second, genetics.random(first, counts, screened))

  def init(key: Key) -> State:
    key, start = jax.random.split(key)
    nothing = np.zeros((kept, len(counts)), np.int32)
    return State(key, chance.init(start), nothing, np.array(False))

  def screen(key, predict):
    """The best of random points by what is predicted."""
    first, second = jax.random.split(key)
    pool = np.unique(np.asarray(draw(first)), axis=0)
    guess = predict(pool)
    over = promising.violations(guess)
    best = promising.best(second, guess.mean, over, screened, kept)
    return np.resize(pool[best], (kept, len(counts)))

  def explore(key, start, predict):
    """All points that NSGA-II meets on the predictions, and the survivors."""
    state = inner.init(key, start)
    for _ in range(generations + 1):
      points, state = inner.ask(state)
      guess = predict(np.asarray(points))
      state = inner.tell(
        state,
        points,
        guess.mean.astype(np.float32),
        promising.violations(guess).astype(np.float32),
      )
    genes = np.asarray(state.archive.genes)
    alive = np.asarray(state.population)
    alive = np.where(alive < len(genes), alive, alive[0])
    return genes[: int(state.archive.size)], genes[alive]

  def ask(state: State) -> tuple[Array, State]:
    archive = state.archive
    size = int(archive.size)
    if not size:
      points, inside = chance.ask(state.random)
      return points, state._replace(random=inside)
    key, look, walk, order = jax.random.split(state.key, 4)
    genes, values, violations = (
      np.asarray(a)[:size]
      for a in (archive.genes, archive.objectives, archive.violations)
    )
    values = values.astype(np.float64)
    predict = fit(genes, values, violations)
    start = state.kept if state.screened else screen(look, predict)
    met, survived = explore(walk, start, predict)
    padded = np.pad(met, ((0, most - len(met)), (0, 0)))
    new = np.asarray(unseen(archive, padded))[: len(met)]
    pool = met[new]
    chosen = promising.choose(
      order,
      predict(pool),
      values,
      violations,
      min(batch, capacity - size),
      padded.shape[0],
    )
    state = state._replace(key=key, kept=survived, screened=np.array(True))
    return jnp.asarray(pool[chosen]), state

  def tell(state, points, values, violations=None) -> State:
    inside = chance.tell(state.random, points, values, violations)
    return state._replace(random=inside)

  return Evolution(init, ask, tell)
