"""Staged spaces: a plan with a name, and all that a space offers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nasjax.hardware.workload import SpaceWorkloads
from nasjax.spaces import network, supernet
from nasjax.spaces.plan import Plan, workloads
from nasjax.spaces.space import Architecture, Limit, decide
from nasjax.types import Array, Group, Key, Masks, Sampled, Weights


@dataclasses.dataclass(frozen=True, eq=False)
class StagedSpace:
  """A search space made of a plan; has all that `spaces.Space` asks for.

  Attributes:
    name: as the command line spells it.
    arguments: of its constructor, to make it again.
    plan: how its networks are put together.
    skip_names: candidates that compute nothing, `none` and skips.
    remat: rematerialisation, see `supernet.apply`.
  """

  name: str
  arguments: Mapping[str, Any]
  plan: Plan
  skip_names: tuple[str, ...] = ("none", "skip_connect")
  remat: bool | None = None

  @property
  def groups(self) -> dict[str, Group]:
    """The plan's one choice group."""
    candidates = tuple(self.plan.stages[0].edges[0])
    return {self.plan.group: Group(self.plan.size, candidates)}

  @property
  def masks(self) -> Masks:
    """bool[E, K]: all candidates exist on all edges."""
    return {
      n: np.ones((g.edges, len(g.candidates)), bool)
      for n, g in self.groups.items()
    }

  @property
  def skips(self) -> dict[str, np.ndarray]:
    """bool[E, K]: which candidates compute nothing."""
    return {
      n: np.tile([c in self.skip_names for c in g.candidates], (g.edges, 1))
      for n, g in self.groups.items()
    }

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
    choices = architecture.choices[self.plan.group]
    return network.Network(self, tuple(int(k) for k in choices))

  def extract(self, variables: Mapping, architecture: Architecture) -> dict:
    """The supernet's weights as variables of `build(architecture)`."""
    return network.extract(self.plan, variables, architecture)

  def workloads(self) -> SpaceWorkloads:
    """Which workloads each choice stands for, and the fixed ones."""
    return workloads(self.plan)

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
  height, width, _ = image_shape
  if min(height, width) < stride:
    raise ValueError(
      f"{name}: image {height}x{width} is too small for strides of {stride};"
      f" at least {stride}x{stride} is needed"
    )


def check_positive(name: str, **numbers: int) -> None:
  """Refuses arguments below 1; raises ValueError naming the first."""
  for argument, value in numbers.items():
    if not isinstance(value, (int, np.integer)) or value < 1:
      raise ValueError(f"{name}: {argument}={value} must be an integer >= 1")
