"""Are limits hit without tuning? Ten limits each, from tight to loose.

All ten are members of one front (edge, C = 16, digits, proxyless, 1650 steps,
half of them warm-up, default penalties, one seed; about 100 s of CPU). Expected
over limit before deciding, by the percentile of random networks that the limit
is at; hits are those in [0.93, 1.02]. All decided networks keep their limits.

    metric           penalty               hits
    latency_ms       equality              10
    energy_mj        equality              10
    peak_sram_bytes  equality              8
    latency_ms       augmented_lagrangian  7
    latency_ms       quadratic             5

`equality`, the augmented Lagrangian of `metric == limit`: 0.999 to 1.002 each,
but .880 and .885 for the two lowest limits of peak_sram_bytes, which hardly any
network is under. augmented_lagrangian: .942 .948 .956 .951 .959 .952 .890 .938
.755 .676; quadratic: .995 .991 .993 .984 .966 .907 .868 .869 .787 .722.

Nothing pulls a cost up to a limit that is kept but `equality`; the other two
miss the loose limits from below. Decided networks lie further below (0.22 to
1.0 of the limit): the most probable one within it is cheaper than the mean.
Supernet accuracy of the decided networks: 0.70 to 0.79 under every penalty.

A later run of augmented_lagrangian with an eleventh member that no limit binds:
5 hits (.939 .942 .943 .951 .937 .880 .820 .730 .737 .641), accuracies 0.91 to
0.94. That member's expected latency is 0.91, 0.85, 0.80 and 0.74 of the four
loosest limits: accuracy alone does not want what they allow, so a penalty that
only pushes down cannot come to 0.93 of them.

Run: python -m experiments.multi_objective.target_hit [METRIC] [PENALTY]
"""

from __future__ import annotations

import sys

import numpy as np

from experiments.multi_objective import common
from nasjax import constraints, relaxations, search

EPOCHS = 150
FREE = 100.0  # times the loosest limit: the last member's, which never binds


def main(
  name: str = "latency_ms",
  kind: str = "augmented_lagrangian",
  epochs: str = str(EPOCHS),
  warmup: str = "0.5",
) -> None:
  made = common.setup()
  metric = made.metrics[name]
  percentiles = np.linspace(5, 80, 10)
  limits = common.limits_of(made, name, percentiles)
  bounds = [*limits, FREE * limits[-1]]
  each = common.steps_an_epoch(made)
  penalty = getattr(constraints, kind)()
  searcher = search.differentiable_front(
    made.space,
    members=len(bounds),
    limits={name: bounds},
    relaxation=relaxations.proxyless(),
    constraints=[constraints.at_most(metric, limits[0], penalty=penalty)],
    **common.options(int(epochs), each, warmup=float(warmup)),
  )
  state, spent = common.runner(made, searcher, int(epochs))(0)
  accuracy = common.accuracy(made, state)
  print(f"{name} {kind}: {int(epochs) * each} steps, {spent:.0f} s of CPU")
  hits = kept = 0
  *members, free = search.members(state)
  used = float(metric.expected(common.expected(free)))
  print(
    f"  without a limit: expected {used:.5g}, {used / limits} of the limits"
  )
  for percentile, limit, own in zip(percentiles, limits, members, strict=True):
    weights = common.expected(own)
    before = float(metric.expected(weights)) / limit
    decided = made.space.decide(weights, [(metric, limit)])
    after = metric.exact(decided) / limit
    hits += 0.93 <= before <= 1.02
    kept += after <= 1.0
    print(
      f"  {percentile:5.1f}th  limit {limit:.5g}  expected {before:.3f}"
      f"  decided {after:.3f}  accuracy {accuracy(decided):.3f}"
    )
  print(f"  expected in [0.93, 1.02]: {hits}/10; decided within: {kept}/10")


if __name__ == "__main__":
  main(*sys.argv[1:])
