"""Pareto fronts: dominance, sorting, indicators and the choice of a network.

`dominance` and `indicators.compiled_hypervolume` / `igd_plus` are compiled and
have static shapes, for use inside a search's own step. `hypervolume` is exact
in any dimension (moocore) and runs outside; so does `expected_improvement`,
which says which candidate promises most of it. `choice` looks at a finished
front.

Every objective is minimised. A point with a NaN is worse than every other.
"""

from nasjax.pareto.choice import (
  bands,
  choose,
  knee,
  slopes,
  trade_offs,
  unit_range,
)
from nasjax.pareto.dominance import (
  crowding_distance,
  dominates,
  front,
  front_mask,
  non_dominated_sort,
)
from nasjax.pareto.expected import expected_improvement, free_boxes
from nasjax.pareto.indicators import (
  compiled_hypervolume,
  hypervolume,
  igd_plus,
)

__all__ = [
  "bands",
  "choose",
  "compiled_hypervolume",
  "crowding_distance",
  "dominates",
  "expected_improvement",
  "free_boxes",
  "front",
  "front_mask",
  "hypervolume",
  "igd_plus",
  "knee",
  "non_dominated_sort",
  "slopes",
  "trade_offs",
  "unit_range",
]
