"""Chains: networks of layers that follow each other, each of several choices.

What a plan (`plan.py`) is for cells of edges, a chain is for factorised spaces:
one description from which come the decided network, its workloads and its peak
memory. Each layer has a block for every combination of the choices that shape
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from nasjax.hardware.products import Places, Product
from nasjax.hardware.workload import SpaceWorkloads, Workload
from nasjax.layers.blocks import Block
from nasjax.types import Array, Choices

__all__ = ["Link", "Network", "fixed", "workloads"]


class Link(NamedTuple):
  """One layer of a chain.

  Attributes:
    name: what networks call its variables.
    choices: group and row of each axis of `blocks`; () where nothing is chosen.
    blocks: object[K_1, ..., K_n]: a Block each, None where the layer is left
      out.
    residual: adds its input to the block's output.
  """

  name: str
  choices: Places
  blocks: np.ndarray
  residual: bool = False

  def chosen(self, choices: Choices) -> Block | None:
    """The block of an architecture's choices, i32[E] a group."""
    return self.blocks[tuple(int(choices[g][row]) for g, row in self.choices)]

  def cells(self) -> np.ndarray:
    """The workloads of each block, shaped like `blocks`."""
    found = np.empty(self.blocks.shape, object)
    for index in np.ndindex(found.shape):
      block, works = self.blocks[index], ()
      if block is not None:
        works = block.workloads
        if self.residual:
          works = (*works, _addition(block))
      found[index] = works
    return found


def _addition(block: Block) -> Workload:
  height, width, channels = block.output
  after = block.workloads[-1].kind
  return Workload("add", height, width, channels, channels, after=after)


def fixed(name: str, block: Block, residual: bool = False) -> Link:
  """A layer that every network has."""
  blocks = np.empty((), object)
  blocks[()] = block
  return Link(name, (), blocks, residual)


def workloads(chain: Sequence[Link]) -> SpaceWorkloads:
  """The workloads of a chain's networks, see `SpaceWorkloads`."""
  always = [w for link in chain if not link.choices for w in link.cells()[()]]
  products = [
    Product(link.choices, link.cells()) for link in chain if link.choices
  ]
  return SpaceWorkloads(tuple(always), {}, {}, tuple(products))


class Network(nn.Module):
  """A decided network; call with (images f32[B, H, W, C], train).

  Attributes:
    space: the space it comes from; it has a `chain`.
    choices: by group, the chosen candidate of each row.
    drop_path: in training a residual layer is left out for an image with this
      probability, and scaled by 1 / (1 - drop_path) otherwise (needs an rng of
      that name); may be traced, 0.0 for none.
  """

  space: Any
  choices: Mapping[str, tuple[int, ...]]
  drop_path: Any = 0.0

  @nn.compact
  def __call__(self, images: Array, train: bool = False) -> Array:
    """Returns logits f32[B, classes]."""
    x = images
    for link in self.space.chain:
      block = link.chosen(self.choices)
      if block is None:
        continue
      y = Block(block.workloads, block.saved, block.affine, name=link.name)(
        x, train
      )
      if link.residual:
        y = x + (self._drop(y) if train else y)
      x = y
    return x.reshape(images.shape[0], -1)

  def _drop(self, y: Array) -> Array:
    if isinstance(self.drop_path, float) and not self.drop_path:
      return y
    keep = 1.0 - self.drop_path
    shape = (y.shape[0], 1, 1, 1)
    kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
    return jnp.where(kept, y / keep, 0.0).astype(y.dtype)
