"""NSGA-II generations on a table of three objectives, against pymoo's.

The same table of 4^9 architectures, looked up inside the timed part of both;
uniform crossover at rate 0.9, mutation of a gene at rate 1/9, no duplicates,
from random populations. nasjax refuses every point that it evaluated before,
pymoo what is in its population. pymoo's compiled modules must be active. Both
are warmed up and alternate in one process, each with a fresh seed a run; a
ratio over 1 says that nasjax is faster, per generation. `sort` is the
non-dominated sort of 10,000 points of three objectives, against pymoo's default
(fast) and its efficient sort, on points of many fronts and on points that are
all one front.

Measured on one x86-64 core that other work shared (pymoo 0.6.2, its compiled
modules active, jax 0.10.2; medians of 9):

    population    nasjax      pymoo    ratio   hypervolume, both
           100    0.31 ms   12.2 ms     38.8   0.945  0.950
         1,000    10.5 ms    186 ms     17.8   0.956  0.956
    sort of 10,000, 46 fronts   0.215 s; pymoo 0.016 s fast, 0.018 s efficient
    sort of 10,000, one front   0.112 s; pymoo 0.008 s fast, 0.008 s efficient

Other work lengthens both sides, pymoo's more. In processor time of the process
a generation of 100 took 0.144 ms to pymoo's 7.16 (50 times) and one of 1,000
5.1 ms to 114 (22 times); where XLA had both cores, which costs it more in all
than it saves, 0.24 ms to 7.43 (31 times). Undisturbed runs of nasjax took
0.124 ms a generation at least, 0.144 with two cores. With nothing else running
pymoo took 2.96 and 4.39 ms on two days (nasjax in the second's run 0.22, 20.1
times less, before it stored its random bits). A quiet run on both cores since
(medians of 7): 0.233 ms to 6.51 at 100, 28.0 times, 4.62 to 68.3 at 1,000, 14.8
times; the sort 0.086 and 0.048 s.

Of a generation of 100, 0.07 ms are survival (crowding 0.035, most of it the
counting of orders; fronts 0.017, nearly all of it the bits of who dominates
whom; the last order 0.015) and 0.02 the children. Over 200 seeds the last
population's hypervolume is 0.9466, as it was (0.9465) when a generation took
three times as long.

    python experiments/benchmarks/evolution.py [--json] [--only KEY] [--runs 9]
"""

import argparse
import itertools
import time
from importlib import metadata

import jax
import jax.numpy as jnp
import numpy as np
from harness import alternate, medians, report, timed
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.mutation import Mutation
from pymoo.core.problem import Problem
from pymoo.functions import is_compiled
from pymoo.operators.crossover.ux import UniformCrossover
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nasjax import pareto
from nasjax.search import nsga2

KEYS = ("100", "1000", "sort")
_GENES, _VALUES, _OBJECTIVES = 9, 4, 3
_GENERATIONS = {100: 100, 1000: 20}
_POINTS = 10_000
_CROSSOVER_RATE, _MUTATION_RATE = 0.9, 1.0 / _GENES
_PLACES = _VALUES ** np.arange(_GENES)[::-1]


def table():
  """f32[4^9, 3]: sums over the genes that pull apart, with interactions."""
  rng = np.random.default_rng(0)
  costs = rng.random((_OBJECTIVES, _GENES, _VALUES))
  genes = np.indices([_VALUES] * _GENES).reshape(_GENES, -1)
  found = [
    sum(own[g][genes[g]] for g in range(_GENES))
    + sum(
      0.3 * np.sin(3.0 * own[g][genes[g]] + 5.0 * own[h][genes[h]])
      for g, h in itertools.pairwise(range(_GENES))
    )
    for own in costs
  ]
  return np.stack(found, -1).astype(np.float32)


class Reset(Mutation):
  """Another value of the gene, as nasjax mutates."""

  def _do(self, problem, X, random_state=None, **kwargs):
    hit = random_state.random(X.shape) < _MUTATION_RATE
    step = random_state.integers(1, _VALUES, X.shape)
    return np.where(hit, (X + step) % _VALUES, X)


class Lookup(Problem):
  """The table as pymoo's problem; evaluates whole populations."""

  def __init__(self, values):
    """Takes f32[4^9, 3]."""
    super().__init__(
      n_var=_GENES, n_obj=_OBJECTIVES, xl=0, xu=_VALUES - 1, vtype=int
    )
    self.values = values.astype(float)

  def _evaluate(self, x, out, *args, **kwargs):
    out["F"] = self.values[x @ _PLACES]


def ours(values, population, generations):
  """A function of a seed that runs all generations; gives their objectives."""
  counts = np.full(_GENES, _VALUES)
  evolution = nsga2.nsga2(
    counts,
    objectives=_OBJECTIVES,
    population=population,
    capacity=population * generations,
    crossover_rate=_CROSSOVER_RATE,
    mutation_rate=_MUTATION_RATE,
  )
  known, places = jnp.asarray(values), jnp.asarray(_PLACES, jnp.int32)

  def evaluate(genes):
    return known[genes @ places], jnp.zeros(len(genes))

  @jax.jit
  def run(key):
    state = evolution.init(key)
    state = nsga2.evolve(evolution, state, evaluate, generations)
    return state.archive.objectives[state.population]

  return lambda seed: np.asarray(run(jax.random.key(seed)))


def theirs(values, population, generations):
  """The same of pymoo."""
  problem = Lookup(values)

  def run(seed):
    algorithm = NSGA2(
      pop_size=population,
      sampling=IntegerRandomSampling(),
      crossover=UniformCrossover(prob=_CROSSOVER_RATE),
      mutation=Reset(),
      eliminate_duplicates=True,
    )
    algorithm.setup(problem, termination=("n_gen", generations), seed=seed)
    while algorithm.has_next():
      algorithm.next()
    return algorithm.pop.get("F")

  return run


def generations(population, runs):
  """Seconds of a generation, and how good the last populations are."""
  values, count = table(), _GENERATIONS[population]
  # Where both measure quality: each objective's range on 0..1.
  low, high = values.min(0), values.max(0)
  made = {
    "nasjax": ours(values, population, count),
    "pymoo": theirs(values, population, count),
  }
  seeds = itertools.count()
  volumes = {name: [] for name in made}

  def side(name):
    def run():
      seed = next(seeds)
      start = time.perf_counter()
      found = made[name](seed)
      taken = time.perf_counter() - start
      points = (found - low) / (high - low)
      volumes[name].append(pareto.hypervolume(points, np.ones(_OBJECTIVES)))
      return taken / count

    return run

  sides = {name: side(name) for name in made}
  first_s = timed(sides["nasjax"])
  sides["pymoo"]()
  volumes = {name: [] for name in made}
  found = medians(alternate(sides, runs))
  return {
    "ratio": found["pymoo"] / found["nasjax"],
    "nasjax_s": found["nasjax"],
    "pymoo_s": found["pymoo"],
    "first_run_s": first_s,
    "nasjax_volume": float(np.median(volumes["nasjax"])),
    "pymoo_volume": float(np.median(volumes["pymoo"])),
    "generations": count,
    "runs": runs,
  }


def sorting(runs):
  """Seconds of the sort of 10,000 points."""
  rng = np.random.default_rng(1)
  many = rng.random((_POINTS, _OBJECTIVES)).astype(np.float32)
  one = many / np.linalg.norm(many, axis=1, keepdims=True)
  figure = {}
  for name, points in (("many", many), ("one", one)):
    device = jnp.asarray(points)
    exact = points.astype(float)
    fast = NonDominatedSorting(method="fast_non_dominated_sort")
    efficient = NonDominatedSorting(method="efficient_non_dominated_sort")
    ranks = np.asarray(pareto.non_dominated_sort(device))
    fronts = efficient.do(exact)
    for rank, front in enumerate(fronts):
      if not (ranks[front] == rank).all():
        raise SystemExit(f"sort: front {rank} of {name} is another one")
    sides = {
      "nasjax": lambda d=device: timed(
        lambda: jax.block_until_ready(pareto.non_dominated_sort(d))
      ),
      "fast": lambda p=exact, s=fast: timed(lambda: s.do(p)),
      "efficient": lambda p=exact, s=efficient: timed(lambda: s.do(p)),
    }
    for run in sides.values():
      run()
    found = medians(alternate(sides, runs))
    figure[f"{name}_fronts"] = len(fronts)
    figure |= {f"{name}_{side}_s": value for side, value in found.items()}
  return figure


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--json", action="store_true", help="one object at last")
  parser.add_argument("--only", choices=KEYS, metavar="KEY", help=str(KEYS))
  parser.add_argument("--runs", type=int, default=9, help="alternating runs")
  found = parser.parse_args()
  compiled = is_compiled()
  if not compiled:
    parser.exit(2, "error: pymoo's compiled modules are missing\n")
  settings = {
    "pymoo": metadata.version("pymoo"),
    "pymoo_compiled": compiled,
    "jax": jax.__version__,
  }
  print("  ".join(f"{name}={value}" for name, value in settings.items()))
  figures = {"settings": settings}
  for key in [found.only] if found.only else KEYS:
    if key == "sort":
      figures[key] = sorting(found.runs)
    else:
      figures[key] = generations(int(key), found.runs)
    report({key: figures[key]}, False)
  report(figures, found.json)


if __name__ == "__main__":
  main()
