"""Strategies that evaluate architectures one by one in a trained supernet.

The epochs train the supernet on uniformly sampled single paths; then points
are asked, scored with batch statistics of their own and told, generation after
generation. `evaluations.csv` has every point, `front.csv` the best of them and
`hypervolume.csv` how far each generation came.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nasjax import data, pareto, run_folder
from nasjax.cli import baselines, populations, training
from nasjax.search import evaluation
from nasjax.search import genes as genetics
from nasjax.signals import Stop
from nasjax.spaces import space as spaces
from nasjax.spaces.space import Architecture

_CHUNK = 10  # architectures scored before a signal is looked for
_CALIBRATION = 2  # batches of 256


class Found(NamedTuple):
  """What an evolution found."""

  architecture: Architecture
  accuracy: Callable[[Architecture], float]  # how it scored
  # Title and best network of as many random points; None where there is none.
  chance: tuple[str, Architecture] | None


class Evaluator:
  """Scores points at a supernet's weights; remembers nothing."""

  def __init__(
    self, problem, measured, variables: Any, stop: Stop, *, anew: bool = False
  ):
    """Compiles when the first points are scored.

    Args:
      problem: what is searched.
      measured: what measures costs, see `populations.check`.
      variables: of the trained supernet.
      stop: says when a signal has come.
      anew: on as many images, with as many batches for their statistics, as
        decided networks are scored; else as many as points are.
    """
    self.problem, self.costs = problem, populations.costs(problem)
    self._measured = measured
    self._stop = stop
    self._variables = variables
    self._scoring = evaluation.scoring(
      problem.train,
      problem.valid,
      data.statistics(problem.train),
      most=evaluation.SCORED if anew else problem.scored,
      calibration_batches=(
        evaluation.CALIBRATION_BATCHES if anew else _CALIBRATION
      ),
    )
    self._accuracy = jax.jit(
      partial(evaluation.population_scores, problem.space)
    )

  def accuracies(self, points: np.ndarray) -> np.ndarray:
    """f64[N] in 0..1 of genes i32[N, G]."""
    found = []
    for start in range(0, len(points), _CHUNK):
      self._stop.check()
      part = points[start : start + _CHUNK]
      # One shape, so that one program serves all.
      rows = np.resize(part, (_CHUNK, part.shape[1]))
      choices = genetics.to_choices(self.problem.space, rows)
      scores = self._accuracy(
        self._variables,
        {n: jnp.asarray(c) for n, c in choices.items()},
        self._scoring,
      )
      found.append(np.asarray(scores, np.float64)[: len(part)])
    return np.concatenate(found)

  def __call__(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(objectives f64[N, M], violations f64[N]): error first."""
    errors, costs, over = 1.0 - self.accuracies(points), [], []
    for point in points:
      self._stop.check()
      one = genetics.architecture(self.problem.space, point)
      # A network whose output does not see its input is none.
      whole = spaces.is_connected(one)
      known = self._measured.measure(one) if self._measured and whole else {}
      values = {
        m.name: known[m.name] if m.name in known else m.exact(one)
        for m in [*self.costs, *(m for m, _ in self.problem.limits)]
      }
      costs.append([values[m.name] for m in self.costs])
      over.append(
        (0.0 if whole else 1.0)
        + sum(
          max(0.0, values[m.name] / bound - 1.0)
          for m, bound in self.problem.limits
        )
      )
    return np.column_stack([errors, np.array(costs)]), np.array(over)


def generations(
  made, state: Any, evaluate: Evaluator, first: int, last: int
) -> Iterator[tuple[Any, int]]:
  """Asks, evaluates and tells; yields (state, generations told)."""
  for generation in range(first, last):
    points, asked = made.ask(state)
    if not len(points):  # every architecture that promises was evaluated
      yield asked, last
      return
    values, violations = evaluate(np.asarray(points))
    state = made.tell(
      asked,
      points,
      jnp.asarray(values, jnp.float32),
      jnp.asarray(violations, jnp.float32),
    )
    yield state, generation + 1


def told(state: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(genes, objectives, violations) of all points, in their order."""
  archive = state.archive
  size = int(archive.size)
  return tuple(
    np.asarray(a)[:size]
    for a in (archive.genes, archive.objectives, archive.violations)
  )


class Volumes:
  """Hypervolumes of a problem: error and costs over the largest usual ones."""

  def __init__(self, problem):
    """Finds the scale: the most expensive of the random architectures."""
    self._scale = np.array(
      [1.0]
      + [
        max(float(problem.random_values(m.name).max()), 1e-30)
        for m in populations.costs(problem)
      ]
    )

  def of(self, values: np.ndarray, violations: np.ndarray) -> float:
    """Of the feasible points, up to (1, 1, ...)."""
    points = (values / self._scale)[violations <= 0]
    if not len(points):
      return 0.0
    return pareto.hypervolume(points, np.ones(len(self._scale)))


def run(
  problem,
  measured: populations.Measured | None,
  carried: training.Carried,
  recorder,
  folder: Path,
  stop: Stop,
  weights: Mapping[str, np.ndarray] | None = None,
) -> Found:
  """Runs the generations that are left and writes what they found.

  Args:
    problem: what is searched.
    measured: what measures costs, see `populations.check`.
    carried: after the epochs; holds the evolution.
    recorder: of the run, for its checkpoints.
    folder: of the run.
    stop: says when a signal has come.
    weights: of a gradient search, f32[E, K] a group, from whose samples the
      evolution starts.

  Returns:
    What was found.

  Raises:
    Stopped: a signal has come; where the evolution stands is saved.
  """
  config = problem.config
  variables = training.variables(problem, carried.progress.state)
  evaluate = Evaluator(problem, measured, variables, stop)
  made = populations.make(problem, measured, variables)
  volumes = Volumes(problem)
  evolving, last = carried.evolution, len(populations.ends(problem))
  if weights is not None and not evolving.generation:
    start, draw = jax.random.split(
      jax.random.fold_in(jax.random.key(config.seed), 2)
    )
    points = populations.sampled_points(problem, weights, draw)
    evolving = evolving._replace(state=made.init(start, points))

  def log(text):
    print(text, flush=True)

  try:
    for state, done in generations(
      made,
      evolving.state,
      evaluate,
      int(evolving.generation),
      last,
    ):
      evolving = populations.Evolving(state, jnp.int32(done))
      carried = carried._replace(evolution=evolving)
      _, values, violations = told(state)
      good = values[violations <= 0]
      best = 1.0 - good[:, 0].min() if len(good) else math.nan
      log(
        f"generation {done}/{last}  {len(values)} evaluated"
        f"  best accuracy {best:.4f}"
        f"  hypervolume {volumes.of(values, violations):.4f}"
      )
      if done == last or recorder.due(config.checkpoint_minutes):
        recorder.save(carried, log)
  finally:
    # A signal between two generations: what they found is not lost.
    if stop.signal is not None and evolving.generation:
      recorder.save(carried, log)
  rivals = chance = None
  # What a device measures is too dear to be done for comparison.
  if config.strategy != "random" and measured is None:
    key = jax.random.key(config.seed)
    points = populations.random_points(problem, key)
    rivals = evaluate(points)
    chance = _chance(problem, points, *rivals)
  found = told(evolving.state)
  front = _front(*found[1:])
  if config.strategy == "hybrid":
    scorer = Evaluator(problem, None, variables, stop, anew=True)
    found, front = _anew(scorer, found, front)
  _write(
    problem, measured, evolving.state, found, front, rivals, volumes, folder
  )
  # Of points that are scored anew only those of the front were.
  chosen = front if len(front) else np.arange(len(found[0]))
  decided = _decide(problem, *(part[chosen] for part in found))
  return Found(decided, _scorer(problem, evaluate), chance)


def _chance(problem, points, values, violations):
  """(title, architecture) of the best random point; None: none is feasible."""
  order = np.lexsort((values[:, 1], values[:, 0], violations))
  if violations[order[0]] > 0:
    return None
  best = genetics.architecture(problem.space, points[order[0]])
  return f"best of {len(points)} random", best


def _scorer(problem, evaluate) -> Callable[[Architecture], float]:
  def accuracy(architecture):
    point = genetics.from_choices(problem.space, architecture.choices)
    return float(evaluate.accuracies(point[None])[0])

  return accuracy


def _front(values, violations) -> np.ndarray:
  """i64[F]: the feasible points that none dominates, by their error."""
  good = np.flatnonzero(violations <= 0)
  front = good[pareto.front(values[good])] if len(good) else good
  return front[np.argsort(values[front, 0], kind="stable")]


def _anew(scorer: Evaluator, found, front):
  """What was told with the front's errors evaluated anew, and its new front."""
  if not len(front):
    return found, front
  points, values, violations = found
  values = values.copy()
  values[front, 0] = 1.0 - scorer.accuracies(points[front])
  inside = _front(values[front], violations[front])
  print(
    f"front of {len(front)} points evaluated anew: {len(inside)} are on it",
    flush=True,
  )
  return (points, values, violations), front[inside]


def _decide(problem, points, values, violations) -> Architecture:
  """The feasible point of least error; the nearest to the best if none is."""
  order = np.lexsort((values[:, 1], values[:, 0], violations))
  best = genetics.architecture(problem.space, points[order[0]])
  if violations[order[0]] <= 0:
    return best
  # Some architecture keeps the limits, or the search had been refused.
  near = {
    n: 0.9 * w + 0.1 * problem.space.masks[n] for n, w in best.one_hot().items()
  }
  near = {n: w / w.sum(-1, keepdims=True) for n, w in near.items()}
  return problem.space.decide(near, problem.limits)


def _write(
  problem, measured, state, found, front, rivals, volumes, folder: Path
) -> None:
  """Writes what was evaluated, the front and its hypervolume.

  Args:
    problem: what is searched.
    measured: what measured costs, see `populations.check`.
    state: of the evolution, with what was told.
    found: (points, values, violations) as the front has them.
    front: i64[F], the points on it.
    rivals: (values, violations) of random points; None: there are none.
    volumes: of the problem.
    folder: of the run.
  """
  points, values, violations = told(state)
  ends = populations.ends(problem)
  taken = [
    (f"measured_{metric.name}", column + 1)
    for column, metric in enumerate(populations.costs(problem))
    if measured is not None and metric.name in measured.names
  ]
  rows = [
    {
      "evaluation": i,
      "generation": int(np.searchsorted(ends, i, "right")),
      "valid_accuracy": 1.0 - float(values[i, 0]),
      "violation": float(violations[i]),
      **baselines.row_of(problem, genetics.architecture(problem.space, point)),
      **{name: float(values[i, column]) for name, column in taken},
    }
    for i, point in enumerate(points)
  ]
  _csv(folder / run_folder.EVALUATIONS, rows)
  chosen = [
    {**rows[i], "valid_accuracy": 1.0 - float(found[1][i, 0]), "on_front": 1}
    for i in front
  ]
  _csv(folder / run_folder.FRONT, chosen or [{**rows[0], "on_front": 0}])
  history = []
  for generation, end in enumerate(ends.tolist()):
    row = {
      "generation": generation + 1,
      "evaluations": min(end, len(points)),
      "hypervolume": volumes.of(values[:end], violations[:end]),
    }
    if rivals is not None:
      others, over = rivals
      row["random_hypervolume"] = volumes.of(others[:end], over[:end])
    history.append(row)
  _csv(folder / run_folder.HYPERVOLUME, history)
  last = history[-1]
  text = f"hypervolume {last['hypervolume']:.4f}"
  if rivals is not None:
    text += f", of as many random points {last['random_hypervolume']:.4f}"
  print(f"{text}; {len(front)} points on the front", flush=True)


def _csv(path: Path, rows) -> None:
  run_folder.write_atomic(path, run_folder.csv_text(list(rows[0]), rows))
