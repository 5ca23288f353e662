"""Staged spaces: a plan with a name, and all that a space offers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.errors import InputError
from nasjax.hardware.workload import SpaceWorkloads
from nasjax.kept_edges import Kept, kept_sets
from nasjax.spaces import network, supernet
from nasjax.spaces.decision import decide
from nasjax.spaces.plan import Plan, workloads
from nasjax.spaces.space import Architecture, Limit
from nasjax.types import Array, Group, Key, Masks, Sampled, Weights

_MAX_SIZE = 4096  # of an image's sides and of channels
_HIGHEST = {"cells": 64, "nodes": 64, "stages": 16, "num_classes": 100_000}


@dataclasses.dataclass(frozen=True, eq=False)
class StagedSpace:
  """A search space made of a plan; has all that `spaces.Space` asks for.

  Attributes:
    name: as the command line spells it.
    arguments: of its constructor, to make it again.
    plan: how its networks are put together.
    skip_names: candidates that compute nothing where they can, `none` and
      skips.
    remat: rematerialisation, see `supernet.apply`.
    cut_edges: sets of edges that, all `none`, leave the output without input.
    node_pairs: nodes (from, to) of each edge, where edges may be `none`.
    allowed: bool[E, K] a group: what a device lets be chosen; None: everything.
  """

  name: str
  arguments: Mapping[str, Any]
  plan: Plan
  skip_names: tuple[str, ...] = ("none", "skip_connect")
  remat: bool | None = None
  cut_edges: tuple[tuple[int, ...], ...] = ()
  node_pairs: tuple[tuple[int, int], ...] = ()
  allowed: Mapping[str, np.ndarray] | None = None

  @property
  def groups(self) -> dict[str, Group]:
    """The plan's choice groups."""
    plan = self.plan
    candidates = {
      plan.group_of(s): tuple(stage.edges[0])
      for s, stage in enumerate(plan.stages)
    }
    return {n: Group(size, candidates[n]) for n, size in plan.sizes.items()}

  @property
  def masks(self) -> Masks:
    """bool[E, K]: all candidates exist on all edges, but what is closed."""
    if self.allowed is not None:
      return dict(self.allowed)
    return {
      n: np.ones((g.edges, len(g.candidates)), bool)
      for n, g in self.groups.items()
    }

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K]: which candidates compute nothing.

    Of edges of which a fixed number is kept `none` is not one of them: every
    network has as many.
    """
    works = self.workloads().groups
    found = {
      n: np.array(
        [
          [
            name in self.skip_names and not cell
            for name, cell in zip(group.candidates, row, strict=True)
          ]
          for row in works[n]
        ]
      )
      for n, group in self.groups.items()
    }
    for name, (none, sets) in kept_sets(self).items():
      for edges, _ in sets:
        found[name][list(edges), none] = False
    return found

  @property
  def cuts(self) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Sets of edges of the group that may not all be `none`."""
    return {self.plan.group: self.cut_edges} if self.cut_edges else {}

  @property
  def kept(self) -> Mapping[str, Kept]:
    """Sets of edges of which a fixed number is not `none`, by group."""
    return self.plan.kept

  @property
  def ends(self) -> dict[str, tuple[tuple[int, int], ...]]:
    """Nodes (from, to) of the group's edges; the last node is the output."""
    return {self.plan.group: self.node_pairs} if self.node_pairs else {}

  def init(self, key: Key) -> dict:
    """Variables of the supernet; those of a stage's cells are stacked."""
    return supernet.init(self.plan, key)

  def apply(
    self, variables: Mapping, sampled: Sampled, images: Array, train: bool
  ) -> tuple[Array, dict]:
    """Runs the supernet: (logits f32[B, classes], new batch statistics)."""
    return supernet.apply(
      self.plan, variables, sampled, images, train, self.remat
    )

  def build(self, architecture: Architecture) -> network.Network:
    """The decided network as a flax module, called with (images, train)."""
    choices = {
      n: tuple(int(k) for k in row) for n, row in architecture.choices.items()
    }
    return network.Network(self, choices)

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`.

    Raises:
      InputError: the supernet's operations see a part of the channels alone.
    """
    if any(stage.partial for stage in self.plan.stages):
      raise InputError(
        f"the space {self.name}",
        "its supernet has partial channels, whose weights are no network's",
        "train the network from fresh weights",
      )
    return network.extract(self.plan, variables, architecture)

  def workloads(self) -> SpaceWorkloads:
    """Which workloads each choice stands for, and the fixed ones."""
    return workloads(self.plan)._replace(kept=kept_sets(self))

  def decide(
    self, weights: Weights, limits: Sequence[Limit] = ()
  ) -> Architecture:
    """The most probable architecture within the limits, exactly."""
    return decide(self, weights, limits)


def check_image_shape(
  image_shape: tuple[int, int, int], stride: int, name: str
) -> None:
  """Refuses images that the strides would shrink to less than one pixel.

  Raises:
    ValueError: names the smallest size.
  """
  if len(image_shape) != 3 or any(int(n) < 1 for n in image_shape):
    raise ValueError(
      f"{name}: image_shape {image_shape} must be (height, width, channels)"
    )
  if max(image_shape) > _MAX_SIZE:
    raise ValueError(
      f"{name}: image_shape {image_shape} must be at most {_MAX_SIZE}"
    )
  height, width, _ = image_shape
  if min(height, width) < stride:
    raise ValueError(
      f"{name}: image {height}x{width} is too small for strides of {stride};"
      f" at least {stride}x{stride} is needed"
    )


def check_positive(name: str, **numbers: int) -> None:
  """Refuses arguments out of range before anything is made of them.

  Raises:
    ValueError: names the first that is no integer, below 1, or above what a
      network of this kind could have.
  """
  for argument, value in numbers.items():
    if not isinstance(value, (int, np.integer)) or value < 1:
      raise ValueError(f"{name}: {argument}={value} must be an integer >= 1")
    highest = _HIGHEST.get(argument, _MAX_SIZE)
    if value > highest:
      raise ValueError(f"{name}: {argument}={value} must be at most {highest}")
