"""Does a limit that tightens give better networks than one held from the start?

The 20th percentile of random networks' latency as the limit; mean of 5 seeds,
validation accuracy of the decided networks, all of them within it:

                 expected   decided   supernet   trained alone
    held         0.948      0.542     0.7926     0.9621 (deviates by 0.0125)
    tightened    0.992      0.612     0.8039     0.9652 (deviates by 0.0066)

So it is no worse, and comes closer to the limit; the difference in accuracy is
within what seeds differ by.

Run: python -m experiments.multi_objective.tightening [SEEDS]
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.multi_objective import common
from nasjax import constraints, relaxations, search
from nasjax.search import ranking

EPOCHS = 120
PERCENTILE = 20
NAME = "latency_ms"


def main(seeds: str = "5") -> None:
  made = common.setup()
  metric = made.metrics[NAME]
  (limit,) = common.limits_of(made, NAME, [PERCENTILE])
  each = common.steps_an_epoch(made)
  options = common.options(EPOCHS, each)
  steps = EPOCHS * each
  tau = (steps - options["arch_start"]) / 5.0
  schedules = {
    "held": None,
    "tightened": constraints.tighten(
      start=2.0, tau=tau, begin=options["arch_start"]
    ),
  }
  found = {n: [] for n in schedules}
  for name, schedule in schedules.items():
    searcher = search.differentiable(
      made.space,
      relaxation=relaxations.proxyless(),
      constraints=[
        constraints.at_most(
          metric,
          limit,
          penalty=constraints.augmented_lagrangian(),
          schedule=schedule,
        )
      ],
      **options,
    )
    run = common.runner(made, searcher, EPOCHS)
    for seed in range(int(seeds)):
      state, _ = run(seed)
      weights = common.expected(state)
      decided = made.space.decide(weights, [(metric, limit)])
      alone = ranking.standalone(
        made.space,
        made.train,
        made.valid,
        steps=500,
        batch_size=common.BATCH,
        learning_rate=0.05,
        seed=seed,
      )(decided)
      shared = common.accuracy(made, state)(decided)
      ratio = float(metric.expected(weights)) / limit
      after = metric.exact(decided) / limit
      found[name].append((ratio, after, shared, alone))
      print(
        f"{name} seed {seed}: expected {ratio:.3f} decided {after:.3f} x limit,"
        f" accuracy {shared:.4f} in the supernet, {alone:.4f} trained alone",
        flush=True,
      )
  for name, rows in found.items():
    mean = np.mean(rows, 0)
    print(
      f"{name}: expected {mean[0]:.3f}, decided {mean[1]:.3f} x limit,"
      f" accuracy {mean[2]:.4f} in the supernet, {mean[3]:.4f} trained alone"
      f" (standard deviation {np.std(rows, 0)[3]:.4f})"
    )


if __name__ == "__main__":
  main(*sys.argv[1:])
