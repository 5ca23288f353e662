"""What a finished search says of its result, and cures that it did not have."""

from __future__ import annotations

from typing import Any

import numpy as np

from nasjax.cli.metrics import GRADIENT, LEARNT
from nasjax.spaces import space as spaces

_FAR_BELOW = 0.7  # of what is allowed


def collapse(problem: Any, decided: Any) -> str | None:
  """A warning where more than half of the choices are skips; else None."""
  skips, edges = spaces.count_skips(decided)
  if 2 * skips <= edges:
    return None
  return (
    f"collapsed, {skips} of {edges} choices are skip or none; try"
    f" {', '.join(cures(problem.config, edges))}"
  )


def cures(config: Any, edges: int) -> list[str]:
  """What helps against a collapse and the run did not have, most first."""
  found = []
  learnt, gradient = config.strategy in LEARNT, config.strategy in GRADIENT
  if learnt and config.warmup < 0.5:
    found.append("--warmup 0.5")
  if gradient and not config.operation_dropout:
    found.append("--operation-dropout 0.3")
  if learnt and config.stop_on_skips is None:
    found.append("--stop-on-skips 0.4")
  if not any(text.startswith("skips=") for text in config.limit):
    found.append(f"--limit skips={max(1, edges // 4)}")
  found.append(f"--epochs {2 * config.epochs}")
  return found


def unfilled(problem: Any, decided: Any, limits: Any) -> list[str]:
  """A line for each limit of which a network takes far less than it may."""
  lines = []
  learnt = problem.config.strategy in LEARNT
  for metric, bound in limits:
    value = float(metric.exact(decided))
    most = min(bound, _largest(problem, metric))
    if not value < _FAR_BELOW * most:
      continue
    line = (
      f"{metric.name} of {value:.4g} is far below the limit of {bound:.4g}"
      f"{' ' + metric.unit if metric.unit else ''}"
    )
    if learnt and problem.config.penalty != "equality":
      line += "; --penalty equality fills it"
    lines.append(line)
  return lines


def _largest(problem, metric) -> float:
  """The largest value that is known of a network of the space."""
  return float(np.max(problem.random_values(metric.name)))


def dominated(rows: Any) -> str | None:
  """Which members of a front others are better than in all; None: none is."""
  names = [str(row["member"]) for row in rows if not row["on_front"]]
  if not names:
    return None
  are = "member {} is" if len(names) == 1 else "members {} are"
  return (
    are.format(", ".join(names))
    + " dominated: another member is at least as accurate and costs no more"
  )
