"""Whether a gradient search is collapsing to skips."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nasjax import kept_edges

__all__ = ["led_by_skips"]


def led_by_skips(
  space: Any, weights: Mapping[str, np.ndarray], *, lead: float = 1.2
) -> float:
  """The share of edges that skips lead, for a search that stops early.

  DARTS+ (Liang et al. 2019) stops as skips take over. Logits begin as noise,
  in which skips are first by chance on many edges: they lead where their weight
  is `lead` times the best other candidate's.

  Args:
    space: the space.
    weights: expected ones, f[E, K] a group.
    lead: 1 or more.

  Returns:
    0..1; edges that must skip do not count, nor those that are not kept where
    a fixed number is: the strongest are, without regard to `none`.
  """
  led = edges = 0
  kept = kept_edges.kept_sets(space)
  for name, rows in weights.items():
    skips = np.asarray(space.skips[name])
    rows, mask = np.asarray(rows), np.array(space.masks[name])
    none, sets = kept.get(name, (0, ()))
    for own, count in sets:
      mask[list(own), none] = False
      strength = np.where(mask, rows, -np.inf)[list(own)].max(-1)
      weakest = np.argsort(-strength, kind="stable")[count:]
      mask[np.array(own)[weakest]] = False
    best = np.where(skips & mask, rows, 0.0).max(-1)
    other = np.where(~skips & mask, rows, 0.0).max(-1)
    free = (~skips & mask).any(-1)
    led += int((free & (best > lead * other)).sum())
    edges += int(free.sum())
  return led / max(edges, 1)
