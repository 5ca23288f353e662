"""A front of 8 limits in one program, against 8 searches at equal time.

Time is the process's CPU time without compilation, as other work ran beside it.
The front gets 60 epochs (660 steps, half of them warm-up), each of the 8
searches 27, so that all 8 take at least what the front does. Every decided
network is trained alone (300 steps), and the hypervolume is that of (validation
error, latency over the widest limit) up to (1, 1.1). Edge of two stages (C = 8)
on digits, proxyless, limits at the 5th to 80th percentile of random networks;
`equality`, so that budgets are used:

    seed   CPU seconds            hypervolume          within their limits
           front  8 searches      front   8 searches   front  8 searches
    0      14.3   18.2            0.770   0.749        8      8
    1      16.4   18.7            0.770   0.740        8      8
    2      15.4   17.6            0.767   0.735        8      8

Of 8 searches of 60 epochs the front costs 0.35 to 0.39. With the augmented
Lagrangian of upper limits most budgets are left unused and what rounding does
decides: 0.765, 0.749 and 0.772 against 0.755, 0.779 and 0.748 (an earlier
build: 0.760, 0.778, 0.773 against 0.754, 0.759, 0.738, or 0.764, 0.759, 0.750
where the searches had 36 epochs each, 1.3 to 1.5 times the front's time). The
27 were chosen from the first run's times.

Run: python -m experiments.multi_objective.front [SEEDS] [PENALTY]
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.multi_objective import common
from nasjax import constraints, pareto, relaxations, search
from nasjax.search import ranking

EPOCHS, SEPARATE = 60, 27
MEMBERS = 8
NAME = "latency_ms"


def main(seeds: str = "3", kind: str = "equality") -> None:
  made = common.setup(channels=8, stages=2)
  metric = made.metrics[NAME]
  limits = common.limits_of(made, NAME, np.linspace(5, 80, MEMBERS))
  each = common.steps_an_epoch(made)
  penalty = getattr(constraints, kind)()
  parts = dict(
    relaxation=relaxations.proxyless(),
    constraints=[constraints.at_most(metric, limits[0], penalty=penalty)],
  )
  front = common.runner(
    made,
    search.differentiable_front(
      made.space,
      members=MEMBERS,
      limits={NAME: limits},
      **parts,
      **common.options(EPOCHS, each),
    ),
    EPOCHS,
  )
  single = common.runner(
    made,
    search.differentiable(
      made.space, **parts, **common.options(SEPARATE, each)
    ),
    SEPARATE,
  )
  train = ranking.standalone(
    made.space,
    made.train,
    made.valid,
    steps=300,
    batch_size=common.BATCH,
    learning_rate=0.05,
    seed=0,
  )
  for seed in range(int(seeds)):
    state, spent = front(seed)
    members = search.members(state)
    found = {"front": [common.expected(own) for own in members], "separate": []}
    total = 0.0
    for limit in limits:
      own, seconds = single(seed, [limit])
      found["separate"].append(common.expected(own))
      total += seconds
    whole = total * EPOCHS / SEPARATE
    print(
      f"seed {seed}: front {spent:.1f} s; {MEMBERS} searches of {SEPARATE}"
      f" epochs {total:.1f} s, so of {EPOCHS} {whole:.1f} s: the front is"
      f" {spent / whole:.2f} of them",
      flush=True,
    )
    for name, weights in found.items():
      points, kept = [], 0
      for own, limit in zip(weights, limits, strict=True):
        decided = made.space.decide(own, [(metric, limit)])
        cost = metric.exact(decided)
        kept += cost <= limit
        points.append((1 - train(decided), cost / limits[-1]))
      volume = pareto.hypervolume(np.array(points), np.array([1.0, 1.1]))
      shown = " ".join(f"{1 - e:.3f}@{c:.2f}" for e, c in points)
      print(
        f"  {name}: hypervolume {volume:.4f}, {kept} of {MEMBERS} within;"
        f" {shown}",
        flush=True,
      )


if __name__ == "__main__":
  main(*sys.argv[1:])
