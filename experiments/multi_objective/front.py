"""A front of 8 limits in one program, against 8 searches at equal time.

Time is the process's CPU time without compilation. The 8 searches get as many
epochs as cost what the front did; every decided network is trained alone, and
the hypervolume is that of (validation error, latency over the widest limit) up
to (1, 1.1).

No figures yet: it has not been run to its end.

Run: python -m experiments.multi_objective.front [SEEDS]
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.multi_objective import common
from nasjax import constraints, pareto, relaxations, search
from nasjax.search import ranking

EPOCHS = 60
MEMBERS = 8
NAME = "latency_ms"


def main(seeds: str = "3") -> None:
  made = common.setup()
  metric = made.metrics[NAME]
  limits = common.limits_of(made, NAME, np.linspace(5, 80, MEMBERS))
  each = common.steps_an_epoch(made)

  def constraint(limit):
    penalty = constraints.augmented_lagrangian()
    return constraints.at_most(metric, limit, penalty=penalty)

  def single(limit, epochs):
    return search.differentiable(
      made.space,
      relaxation=relaxations.proxyless(),
      constraints=[constraint(limit)],
      **common.options(epochs, each),
    )

  front = search.differentiable_front(
    made.space,
    members=MEMBERS,
    limits={NAME: limits},
    relaxation=relaxations.proxyless(),
    constraints=[constraint(limits[0])],
    **common.options(EPOCHS, each),
  )
  _, one = common.run(made, single(limits[3], EPOCHS), 0, EPOCHS)
  epochs = None
  for seed in range(int(seeds)):
    state, spent = common.run(made, front, seed, EPOCHS)
    ratio = spent / (MEMBERS * one)
    # The first seed's for all, so that a search compiles once.
    epochs = epochs or max(2, round(ratio * EPOCHS))
    print(
      f"seed {seed}: front {spent:.0f} s, one search {one:.0f} s: {ratio:.2f}"
      f" of {MEMBERS} searches, which get {epochs} epochs each",
      flush=True,
    )
    train = ranking.standalone(
      made.space,
      made.train,
      made.valid,
      steps=500,
      batch_size=common.BATCH,
      learning_rate=0.05,
      seed=seed,
    )
    both = {"front": [], "separate": []}
    for number, own in enumerate(search.members(state)):
      both["front"].append((common.expected(own), limits[number]))
    for limit in limits:
      own, _ = common.run(made, single(limit, epochs), seed, epochs)
      both["separate"].append((common.expected(own), limit))
    for name, weights in both.items():
      points, kept = [], 0
      for own, limit in weights:
        decided = made.space.decide(own, [(metric, limit)])
        kept += metric.exact(decided) <= limit
        cost = metric.exact(decided) / limits[-1]
        points.append((1 - train(decided), cost))
      volume = pareto.hypervolume(np.array(points), np.array([1.0, 1.1]))
      shown = " ".join(f"{1 - e:.3f}@{c:.2f}" for e, c in points)
      print(
        f"  {name}: hypervolume {volume:.4f}, {kept} of {MEMBERS} within;"
        f" {shown}",
        flush=True,
      )


if __name__ == "__main__":
  main(*sys.argv[1:])
