"""Layer-wise spaces on their published tables: FBNet and NAS-Bench-Macro.

python experiments/layerwise_tables.py fbnet --lut fbnet_lut.csv --device raspi4
python experiments/layerwise_tables.py macro --networks macro.csv.gz
python experiments/layerwise_tables.py table --lut fbnet_lut.csv --out pi.csv

`fbnet` looks for low latency above a floor of FLOPs by gradient, without a
network: Gumbel-softmax samples of the logits through the table (FBNet, Wu et
al. 2019, section 3.3), the floor as an augmented Lagrangian, then the exact
decision. Beside it stand the exact optimum, which costs that add up have, and
the share of random networks above the floor that are as fast.

`table` writes one device of the published table as the command line takes it:
`nasjax search --space fbnet --device pi.csv --limit latency_ms=30`.

`macro` looks for accuracy under a limit of FLOPs; each evaluation reveals the
table's accuracy of one network. `--strategy nsga2` evolves, `gradient` fits the
surrogate of `nasjax.search` to random networks and follows its gradient to the
networks that it evaluates next. Random search at as many evaluations stands
beside it; the share is that of the networks within the limit that are better.

fbnet, floor at the median FLOPs of random networks (130.9 M), seeds 0 to 9, no
option tuned:

    device  median of random  fastest of 10^6  found            optimum
    raspi4  37.58 ms          26.85 ms         24.23 to 26.30   23.71 ms
    fpga    27.59 ms          19.77 ms         18.43 to 19.94   17.64 ms

On raspi4 none of 10^6 random networks is as fast as what any seed found, on
fpga one is, as fast as seed 6's. It stays 2% to 13% over the optimum.

macro, limit at the median FLOPs (3,282 networks within, the best has 92.31%
test accuracy, the best percent 92.09% or more), how often the best of those
evaluated is in the best percent:

    evaluations  gradient  nsga2     random
    60           5 of 5    5 of 10   3 of 10
    100          5 of 5    9 of 10   7 of 10
    200          -         5 of 5    5 of 5

`gradient` found the best network of all on each of its seeds (0 to 4).
"""

from __future__ import annotations

import argparse
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tables

from nasjax import constraints, hardware, relaxations, spaces
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import features
from nasjax.hardware import fit as fitting
from nasjax.search import genes as genetics
from nasjax.search import nsga2
from nasjax.search import surrogate as surrogates
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_tools
from nasjax.types import Metric

STEPS, RATE = 1000, 0.05
FIRST, LAST = 5.0, 0.1  # temperature
_CHUNK = 20_000
START, ROUNDS = 0.5, 10  # gradient: share of random networks, batches after


def left_to(metric: Metric, highest: float) -> Metric:
  """How far a metric stays below `highest`: a limit on it is a floor."""
  return metric._replace(
    name=f"{metric.name}_left",
    expected=lambda weights: highest - metric.expected(weights),
    exact=lambda architecture: highest - metric.exact(architecture),
  )


def descend(space, value, constraint, key, *, steps=STEPS):
  """Logits that make `value` small while `constraint` is kept; one program.

  Args:
    space: the space.
    value: weights f32[E, K] a group -> f32[], differentiable, near 1.
    constraint: see `nasjax.constraints.at_most`.
    key: of the first logits and of every sample.
    steps: of Adam.

  Returns:
    Expected weights f32[E, K] a group.
  """
  relaxation = relaxations.gumbel_softmax(
    temperature=optax.exponential_decay(FIRST, steps, LAST / FIRST)
  )
  masks = space.masks
  start, draws = jax.random.split(key)
  logits = relaxation.init(start, masks)
  optimizer = optax.adam(RATE)

  def step(carry, number):
    logits, state, own = carry
    key = jax.random.fold_in(draws, number)

    def sampled(logits):
      return value(relaxation.sample(key, logits, masks, number).weights)

    def violation(logits):
      expected = relaxation.expect(logits, masks, number)
      return constraint.metric.expected(expected) / constraint.limit - 1.0

    over, push = jax.value_and_grad(violation)(logits)
    multiplier, own = constraint.update(over, own, number)
    gradient = jax.tree.map(
      lambda a, b: a + multiplier * b, jax.grad(sampled)(logits), push
    )
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(logits, updates), state, own), None

  own = constraint.init(jnp.float32(constraint.limit))
  carry = (logits, optimizer.init(logits), own)
  (logits, _, _), _ = jax.lax.scan(step, carry, jnp.arange(steps))
  return relaxation.expect(logits, masks, steps)


def random_above(space, costs, floor, rng, count):
  """FLOPs and cost of `count` random networks whose FLOPs reach the floor."""
  flops, cost = costs
  found, drawn = [], 0
  while sum(map(len, found)) < count:
    rows = space_tools.random_choices(space, rng, _CHUNK)
    found.append(cost.of(rows)[flops.of(rows) >= floor])
    drawn += _CHUNK
    if drawn > 1000 * count:
      raise SystemExit("error: --floor: under 0.1% of random networks reach it")
  return np.concatenate(found)[:count]


def fbnet(arguments) -> dict:
  space = spaces.fbnet(num_classes=100)
  flops = hardware.flops(space)
  table = tables.layerwise(arguments.lut, arguments.device, space.groups)
  latency = table.metric(space, device=arguments.device)
  costs = [cost_tables.additive_costs(space, m) for m in (flops, latency)]
  rng = np.random.default_rng(arguments.seed)
  drawn = costs[0].of(space_tools.random_choices(space, rng, _CHUNK))
  floor = float(np.quantile(drawn, arguments.floor))
  _, highest = costs[0].extremes(space.masks)
  left = left_to(flops, 1.001 * highest)
  limit = 1.001 * highest - floor
  chance = random_above(space, costs, floor, rng, arguments.random)
  # Of entries that add up the exact optimum is a decision, too.
  cheap = {n: np.exp(-t) for n, t in table.tables.items()}
  best = latency.exact(space.decide(cheap, [(left, limit)]))
  reference = float(np.median(chance))
  search = jax.jit(
    functools.partial(
      descend,
      space,
      lambda weights: latency.expected(weights) / reference,
      constraints.at_most(
        left, limit, penalty=constraints.augmented_lagrangian()
      ),
    )
  )
  head = {
    "device": arguments.device,
    "floor_mflops": floor / 1e6,
    "random_networks": len(chance),
    "random_median_ms": reference,
    "random_fastest_ms": float(chance.min()),
    "optimum_ms": best,
  }
  rows = []
  for seed in range(arguments.seed, arguments.seed + arguments.seeds):
    weights = jax.tree.map(np.asarray, search(jax.random.key(seed)))
    likeliest = space_tools.Architecture(
      space, {n: w.argmax(-1) for n, w in weights.items()}
    )
    decided = space.decide(weights, [(left, limit)])
    found = latency.exact(decided)
    rows.append(
      {
        "seed": seed,
        "latency_ms": found,
        "mflops": flops.exact(decided) / 1e6,
        "share_as_fast": float((chance <= found).mean()),
        "over_optimum": found / best - 1.0,
        "undecided_ms": latency.exact(likeliest),
        "undecided_mflops": flops.exact(likeliest) / 1e6,
      }
    )
  return {"head": head, "rows": rows}


class Accuracies:
  """NAS-Bench-Macro's networks: what an evaluation reveals, and the ranking."""

  def __init__(self, path: str, column: str, quantile: float):
    """Reads the table; the limit is a quantile of all networks' FLOPs."""
    self.space = spaces.macro()
    columns = tables.read(path)
    problem = tables.Problem("macro")
    choices = tables.choices(columns, problem, path)["layers"]
    flops = hardware.flops(self.space)
    costs = cost_tables.additive_costs(self.space, flops)
    self.flops, counts = flops, (3,) * choices.shape[1]
    accuracy = np.full(3 ** len(counts), np.nan)
    accuracy[np.ravel_multi_index(choices.T, counts)] = tables.column(
      columns, column
    )
    if np.isnan(accuracy).any():
      raise SystemExit(f"error: {path} misses some of the networks")
    self.choices = np.stack(np.unravel_index(np.arange(3**8), counts), -1)
    self.accuracy = accuracy
    amounts = costs.of({"layers": self.choices})
    self.limit = float(np.quantile(amounts, quantile))
    self.violation = amounts / self.limit - 1.0
    self.within = self.violation <= 0

  def row(self, choices):
    """Rows i[...] of choices i32[..., 8]."""
    return (choices * 3 ** np.arange(7, -1, -1)).sum(-1)

  def best(self, rows) -> dict:
    """The best network within the limit among those evaluated."""
    rows = np.unique(rows)
    rows = rows[self.within[rows]]
    row = rows[self.accuracy[rows].argmax()]
    among = self.accuracy[self.within]
    return {
      "architecture": "".join(map(str, self.choices[row])),
      "accuracy": float(self.accuracy[row]),
      "share_better": float((among > self.accuracy[row]).mean()),
    }


def by_nsga2(problem: Accuracies, budget: int):
  """Constraint domination keeps the limit; the first generation is random."""
  population = max(10, budget // 10)
  error = jnp.asarray(100.0 - problem.accuracy, jnp.float32)
  over = jnp.asarray(np.maximum(problem.violation, 0.0), jnp.float32)
  evolution = nsga2.nsga2(
    genetics.cardinalities(problem.space),
    objectives=1,
    population=population,
    capacity=budget,
  )

  def evaluate(genes):
    rows = problem.row(genes)
    return error[rows][:, None], over[rows]

  run = jax.jit(
    lambda key: nsga2.evolve(
      evolution, evolution.init(key), evaluate, budget // population
    )
  )

  def search(key):
    archive = run(key).archive
    return problem.row(np.asarray(archive.genes)[: int(archive.size)])

  return search


def by_gradient(problem: Accuracies, budget: int):
  """Half of the budget at random within the limit, then where the slope leads.

  Each round fits the surrogate and descends from as many starts as it may
  evaluate networks; what is known already is decided next best, by chance.
  """
  space, flops = problem.space, problem.flops
  constraint = constraints.at_most(
    flops, problem.limit, penalty=constraints.augmented_lagrangian()
  )
  made = surrogates.surrogate(
    space.groups,
    ["error"],
    {"layers": problem.choices[::3]},
    ties=fitting.ties_of(space),
    costs=features.costs_of(space),
  )
  first = round(START * budget)
  batch = (budget - first) // ROUNDS

  @jax.jit
  def slopes(state, reference, keys):
    def value(weights):
      (mean,), _ = made.expected(state, weights)
      return mean / reference

    return jax.lax.map(
      lambda key: descend(space, value, constraint, key, steps=300), keys
    )

  def search(key):
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    inside = np.flatnonzero(problem.within)
    rows = rng.choice(inside, first, replace=False)
    for number in range(ROUNDS):
      state = made.fit(
        {"layers": problem.choices[rows]},
        100.0 - problem.accuracy[rows][:, None],
        np.zeros(len(rows)),
      )
      keys = jax.random.split(jax.random.fold_in(key, number), batch)
      reference = np.float32(np.median(100.0 - problem.accuracy[rows]))
      found = slopes(surrogates.padded(state, budget), reference, keys)
      for member in np.asarray(found["layers"]):
        row = problem.row(_decided(problem, member))
        while row in rows:  # known: somewhere beside it
          member = 0.9 * member + 0.1 * rng.dirichlet(np.ones(3), 8)
          row = problem.row(_decided(problem, member * rng.random((8, 3))))
        rows = np.append(rows, row)
    return rows

  return search


def _decided(problem, weights):
  decided = problem.space.decide(
    {"layers": weights}, [(problem.flops, problem.limit)]
  )
  return decided.choices["layers"]


def macro(arguments) -> dict:
  problem = Accuracies(arguments.networks, arguments.column, arguments.limit)
  strategy = {"nsga2": by_nsga2, "gradient": by_gradient}[arguments.strategy]
  search = strategy(problem, arguments.evaluations)
  among = problem.accuracy[problem.within]
  head = {
    "strategy": arguments.strategy,
    "limit_mflops": problem.limit / 1e6,
    "networks_within": int(problem.within.sum()),
    "best_accuracy": float(among.max()),
    "top_1_percent": float(np.quantile(among, 0.99)),
  }
  rows = []
  for seed in range(arguments.seed, arguments.seed + arguments.seeds):
    key = jax.random.key(seed)
    looked = np.unique(search(key))
    rng = np.random.default_rng(seed)
    chance = rng.choice(np.flatnonzero(problem.within), len(looked), False)
    rows.append(
      {
        "seed": seed,
        "evaluations": len(looked),
        **problem.best(looked),
        "random_accuracy": problem.best(chance)["accuracy"],
        "random_share_better": problem.best(chance)["share_better"],
      }
    )
  return {"head": head, "rows": rows}


def write_table(arguments) -> dict:
  """One device of a published table as a table of choices."""
  groups = spaces.fbnet().groups
  table = tables.layerwise(arguments.lut, arguments.device, groups)
  choice_tables.write(arguments.out, table)
  return {
    "head": {"device": arguments.device, "out": arguments.out},
    "rows": [],
  }


def _shown(row) -> str:
  return "  ".join(
    f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}"
    for k, v in row.items()
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  kinds = parser.add_subparsers(dest="space", required=True)
  first = kinds.add_parser("fbnet")
  first.add_argument("--lut", required=True, help="device,layer,op,latency_ms")
  first.add_argument("--device", default="raspi4")
  first.add_argument(
    "--floor", type=float, default=0.5, help="quantile of random FLOPs"
  )
  first.add_argument("--random", type=int, default=10**6)
  second = kinds.add_parser("macro")
  second.add_argument("--networks", required=True, metavar="FILE.csv[.gz]")
  second.add_argument("--column", default="test_acc")
  second.add_argument(
    "--strategy", default="gradient", choices=("nsga2", "gradient")
  )
  second.add_argument(
    "--limit", type=float, default=0.5, help="quantile of all networks' FLOPs"
  )
  second.add_argument("--evaluations", type=int, default=100)
  third = kinds.add_parser("table")
  third.add_argument("--lut", required=True, help="device,layer,op,latency_ms")
  third.add_argument("--device", default="raspi4")
  third.add_argument("--out", required=True, metavar="FILE.csv")
  third.set_defaults(json=False)
  for one in (first, second):
    one.add_argument("--seeds", type=int, default=5)
    one.add_argument("--seed", type=int, default=0)
    one.add_argument("--json", action="store_true", help="JSON lines")
  arguments = parser.parse_args()
  runs = {"fbnet": fbnet, "macro": macro, "table": write_table}
  result = runs[arguments.space](arguments)
  for row in (result["head"], *result["rows"]):
    print(json.dumps(row) if arguments.json else _shown(row))


if __name__ == "__main__":
  main()
