"""Weightings: how several objectives share one step."""

from __future__ import annotations

from nasjax.types import Weighting

__all__ = ["constant"]


def constant() -> Weighting:
  """The preference itself as coefficients, whatever the gradients are.

  Returns:
    A weighting whose state is the preference f32[M].
  """

  def init(key, preference):
    del key
    return preference

  def update(values, gramian, state):
    del values, gramian
    return state, state

  return Weighting(init, update)
