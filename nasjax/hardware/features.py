"""Features of relaxed architectures for predictors, differentiable.

Counts of operations, of all edges and of those that the cell's input reaches
or that reach its output; costs summed over the edges that do both; and how many
ways lead through the cell. Such hand-made features with a simple model rank
as well as learned encodings where samples are few (White et al., "How Powerful
are Performance Predictors in Neural Architecture Search?", NeurIPS 2021). All
are multilinear in the weights or the logarithm of such a sum, so at decided
architectures they are whole counts and between them smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from nasjax.hardware.choices import Ends, reaching
from nasjax.types import Group, Weights

__all__ = ["costs_of", "make", "ways"]

_MAX_WAYS = 64  # of a cell; more are not enumerated


def ways(ends: Sequence[tuple[int, int]]) -> list[tuple[int, ...]]:
  """The edges of each way from node 0 to the last node, shortest first.

  Raises:
    ValueError: there are more than 64.
  """
  last = max(to for _, to in ends)
  done, open_ = [], [((), 0)]
  while open_:
    taken, node = open_.pop()
    if node == last:
      done.append(taken)
      continue
    open_ += [
      ((*taken, e), to) for e, (start, to) in enumerate(ends) if start == node
    ]
    if len(done) + len(open_) > _MAX_WAYS:
      raise ValueError(f"a cell has more than {_MAX_WAYS} ways")
  return sorted(done, key=lambda way: (len(way), way))


def costs_of(space: Any) -> dict[str, dict[str, np.ndarray]]:
  """Multiply-adds and parameters of each choice: f64[E, K] a group.

  {} where several choices shape a layer: no choice has costs of its own.
  """
  works = space.workloads()
  if works.products:
    return {}
  groups = works.groups
  return {
    kind: {
      name: np.array(
        [
          [float(sum(getattr(w, kind) for w in cell)) for cell in row]
          for row in edges
        ]
      )
      for name, edges in groups.items()
    }
    for kind in ("macs", "params")
  }


def make(
  groups: Mapping[str, Group],
  *,
  ends: Ends | None = None,
  costs: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Callable[[Weights], Any]:
  """Makes the features of a space.

  Args:
    groups: of the space.
    ends: nodes of its edges where they form cells, see `choices.ends_of`.
    costs: f[E, K] a group by name, see `costs_of`.

  Returns:
    A function of weights f[..., E, K] a group, numpy or JAX, that gives
    features f[..., F].
  """
  ends = ends or {}
  scales = {
    kind: max(float(np.max(t)) for t in tables.values()) or 1.0
    for kind, tables in (costs or {}).items()
  }
  routes = {name: ways(ends[name]) for name in ends}

  def features(weights):
    np_or_jnp = (
      np if all(isinstance(w, np.ndarray) for w in weights.values()) else jnp
    )
    found = []
    for name, group in groups.items():
      w = weights[name]
      flat = (*w.shape[:-2], -1)
      found += [w.reshape(flat), w.sum(-2)]
      if name not in ends:
        continue
      none = group.candidates.index("none")
      real = [k for k in range(len(group.candidates)) if k != none]
      on = 1.0 - w[..., none]
      after = _stack(np_or_jnp, reaching(on, ends[name]), on)
      before = _stack(np_or_jnp, _reached(on, ends[name]), on)
      last = max(to for _, to in ends[name])
      arrives = _into(on, ends[name], last)[..., None]
      after_w = (w * after[..., None])[..., real]
      live = (w * (after * before)[..., None])[..., real]
      found += [after_w.sum(-2), live.sum(-2), arrives]
      found.append(sum(_open(on, way) for way in routes[name])[..., None])
      for kind, tables in (costs or {}).items():
        total = (live * tables[name][:, real].astype(w.dtype)).sum((-2, -1))
        found.append(np_or_jnp.log1p(10.0 * total / scales[kind])[..., None])
    for kind, tables in (costs or {}).items() if not ends else ():
      total = sum(
        (weights[n] * t.astype(weights[n].dtype)).sum((-2, -1))
        for n, t in tables.items()
      )
      found.append(np_or_jnp.log1p(10.0 * total / scales[kind])[..., None])
    return np_or_jnp.concatenate(found, axis=-1)

  return features


def _stack(np_or_jnp, values, like):
  shape = like[..., 0]
  return np_or_jnp.stack([v + 0.0 * shape for v in values], axis=-1)


def _reached(on, ends):
  """Probability that node 0 leads to each edge's start, as `reaching`."""
  known: dict[int, Any] = {}
  return [_into(on, ends, start, known) for start, _ in ends]


def _into(on, ends, node, known=None):
  known = {} if known is None else known
  if node == 0:
    return 1.0 + 0.0 * on[..., 0]
  if node not in known:
    missed = 1.0
    for edge, (start, to) in enumerate(ends):
      if to == node:
        missed = missed * (1.0 - on[..., edge] * _into(on, ends, start, known))
    known[node] = 1.0 - missed
  return known[node]


def _open(on, way):
  """Probability that no edge of a way is `none`."""
  product = on[..., way[0]]
  for edge in way[1:]:
    product = product * on[..., edge]
  return product
