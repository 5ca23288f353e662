"""What every search space offers, and architectures.

A space is a frozen dataclass; a user's own needs no base class, only the
functions of `Space`. See `plan.py` for the machinery that staged spaces
share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from nasjax.errors import InputError, nearest
from nasjax.hardware.workload import SpaceWorkloads
from nasjax.types import (
  Array,
  Constraint,
  Group,
  Key,
  Masks,
  Metric,
  Sampled,
  Weights,
)

Limit = Constraint | tuple[Metric, float]


class Architecture(NamedTuple):
  """A decided network (genotype): choices i32[E] for each group."""

  space: Any
  choices: dict[str, np.ndarray]

  def names(self) -> dict[str, list[str]]:
    """The candidates chosen, by name."""
    return {
      group: [self.space.groups[group].candidates[int(k)] for k in row]
      for group, row in self.choices.items()
    }

  def one_hot(self) -> dict[str, np.ndarray]:
    """Weights f32[E, K] that say the same."""
    return {
      group: np.eye(len(self.space.groups[group].candidates), dtype=np.float32)[
        row
      ]
      for group, row in self.choices.items()
    }

  def sampled(self) -> Sampled:
    """For `space.apply`: only the chosen candidates are executed."""
    paths = {
      g: np.asarray(r, np.int32)[:, None] for g, r in self.choices.items()
    }
    return Sampled(self.one_hot(), paths)


class Space(Protocol):
  """The contract of a search space."""

  @property
  def name(self) -> str:
    """As the command line spells it."""

  @property
  def arguments(self) -> dict[str, Any]:
    """What to call the space's constructor with to get this one again."""

  @property
  def groups(self) -> dict[str, Group]:
    """The choices: edges and candidate names of each group."""

  @property
  def masks(self) -> Masks:
    """bool[E, K] a group: the candidates that exist."""

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K] a group: candidates without parameters that do nothing.

    Not `none` on edges of `kept`.
    """

  @property
  def cuts(self) -> Mapping[str, tuple[tuple[int, ...], ...]]:
    """Sets of edges that may not all be `none`, by group; mostly empty."""

  @property
  def kept(self) -> Mapping[str, tuple[tuple[tuple[int, ...], int], ...]]:
    """Sets of edges of which a fixed number is not `none`, by group.

    A space without such sets need not have it.
    """

  def init(self, key: Key) -> dict:
    """Variables of the supernet: {"params", "batch_stats"}."""

  def apply(
    self, variables: Mapping, sampled: Sampled, images: Array, train: bool
  ) -> tuple[Array, Any]:
    """Runs the supernet: (logits f32[B, classes], new batch statistics)."""

  def build(self, architecture: Architecture) -> Any:
    """The decided network as a flax module, called with (images, train)."""

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`."""

  def workloads(self) -> SpaceWorkloads:
    """Which workloads each choice stands for, and the fixed ones."""

  def decide(
    self, weights: Weights, limits: Sequence[Limit] = ()
  ) -> Architecture:
    """The most probable architecture within the limits."""


def architecture(space: Space, choices: Mapping[str, Any]) -> Architecture:
  """An architecture from indices or candidate names.

  Args:
    space: the space.
    choices: for each group, E indices or E names.

  Returns:
    The architecture.

  Raises:
    InputError: a group is missing or unknown, has another number of edges, or
      a choice does not exist.
  """
  if set(choices) != set(space.groups):
    raise InputError(
      "choices",
      f"has groups {sorted(choices)}",
      f"the space {space.name} has {sorted(space.groups)}",
    )
  decided = {}
  for name, group in space.groups.items():
    row = list(choices[name])
    if len(row) != group.edges:
      raise InputError(
        f"choices.{name}", f"has {len(row)} choices, {group.edges} are needed"
      )
    mask = np.asarray(space.masks[name])
    indices = []
    for edge, choice in enumerate(row):
      where = f"choices.{name}[{edge}]"
      if isinstance(choice, str):
        if choice not in group.candidates:
          raise InputError(
            where,
            f"unknown candidate {choice!r}",
            nearest(choice, group.candidates),
          )
        choice = group.candidates.index(choice)
      if not 0 <= int(choice) < len(group.candidates) or not mask[edge][choice]:
        raise InputError(where, f"candidate {choice} does not exist here")
      indices.append(int(choice))
    decided[name] = np.array(indices, np.int32)
  return Architecture(space, decided)


def kept_of(space: Any) -> Mapping[str, tuple]:
  """A space's `kept`; {} where it has none."""
  return getattr(space, "kept", {})


def log_weights(
  space: Any, weights: Weights, smallest: float
) -> dict[str, np.ndarray]:
  """Log weights f64[E, K] a group; 0 for `none` on edges of kept sets."""
  found = {
    n: np.log(np.maximum(np.asarray(weights[n], np.float64), smallest))
    for n in space.groups
  }
  for name, sets in kept_of(space).items():
    none = space.groups[name].candidates.index("none")
    for edges, _ in sets:
      found[name][list(edges), none] = 0.0
  return found


def check_connected(architecture: Architecture) -> None:
  """Refuses a network whose output does not depend on its input.

  Raises:
    InputError: `none` was chosen all across one of the space's cuts, or more
      or fewer edges of a set are kept than the space wants.
  """
  space = architecture.space
  for group, sets in kept_of(space).items():
    names = architecture.names()[group]
    for edges, count in sets:
      found = sum(names[edge] != "none" for edge in edges)
      if found != count:
        raise InputError(
          f"choices.{group}",
          f"{found} of choices {', '.join(map(str, edges))} are not none,"
          f" {count} are needed",
        )
  for group, cuts in space.cuts.items():
    names = architecture.names()[group]
    for cut in cuts:
      if all(names[edge] == "none" for edge in cut):
        raise InputError(
          f"choices.{group}",
          "no way leads from the input to the output: choices"
          f" {', '.join(map(str, cut))} are none",
          "choose an operation for one of them",
        )


def is_connected(architecture: Architecture) -> bool:
  """Whether `check_connected` has nothing to say."""
  try:
    check_connected(architecture)
  except InputError:
    return False
  return True


def random_choices(
  space: Space, rng: np.random.Generator, count: int
) -> dict[str, np.ndarray]:
  """Uniform random choices, i32[count, E] a group, among those that exist."""
  drawn = {}
  for name, group in space.groups.items():
    mask = np.asarray(space.masks[name])
    scores = rng.random((count, group.edges, len(group.candidates)))
    scores = np.where(mask, scores, -1.0)
    for edges, kept in kept_of(space).get(name, ()):
      none = group.candidates.index("none")
      own = scores[:, edges]
      own[..., none] = -1.0
      # The edges whose best candidate scores highest are kept: any, alike.
      order = own.max(-1).argsort(-1)
      leave = order[:, : len(edges) - kept]
      np.put_along_axis(own[..., none], leave, 2.0, -1)
      scores[:, edges] = own
    drawn[name] = scores.argmax(-1).astype(np.int32)
  return drawn


def count_skips(architecture: Architecture) -> tuple[int, int]:
  """How many of the choices are skips or none, and of how many.

  Of edges of which a fixed number is kept only those kept are choices.
  """
  skips = total = 0
  for name, row in architecture.choices.items():
    mask = np.asarray(architecture.space.skips[name])
    skips += int(mask[np.arange(len(row)), row].sum())
    sets = kept_of(architecture.space).get(name, ())
    total += len(row) - sum(len(edges) - count for edges, count in sets)
  return skips, total
