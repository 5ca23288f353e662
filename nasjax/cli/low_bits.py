"""The options of training for few bits, of a search and of a retraining.

A field belongs to one dataclass, so each option is a function that makes it.
"""

from __future__ import annotations

from typing import Any

from nasjax.cli.flags import option


def quantize_bits() -> Any:
  """Bits of a weight; None: floating point."""
  return option(
    None,
    "weights are rounded to so many bits in each forward pass, straight through"
    " in its gradient; default: not",
    low=2,
    high=16,
  )


def quantize_scale() -> Any:
  """What shares a step of the quantiser."""
  return option(
    "channel",
    "what shares a step of the quantiser: channel, tensor",
    choices=("channel", "tensor"),
  )


def asymmetry_penalty() -> Any:
  """Coefficient of `quantization.asymmetry_penalty` in the weights' loss."""
  return option(
    0.0,
    "of weights, coefficient in their loss: symmetric quantisers waste what a"
    " channel's range lacks on one side",
    low=0,
    high=1e6,
  )
