"""The options of training for few bits, of a search and of a retraining.

A field belongs to one dataclass, so each option is a function that makes it. A
retraining's are open: what is not given is as the run had it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from nasjax.cli.flags import option
from nasjax.errors import InputError

_FLOAT = 32  # bits of a retraining in floating point


def quantize_bits(*, of_a_run: bool = False) -> Any:
  """Bits of a weight; None: floating point, of a retraining: as the run."""
  rest = "the run's; 32: not" if of_a_run else "not"
  return option(
    None,
    "weights are rounded to so many bits in each forward pass, straight through"
    f" in its gradient; default: {rest}",
    low=2,
    high=_FLOAT if of_a_run else 16,
  )


def quantize_scale(*, of_a_run: bool = False) -> Any:
  """What shares a step of the quantiser."""
  return option(
    None if of_a_run else "channel",
    "what shares a step of the quantiser: channel, tensor"
    + ("; default: the run's" if of_a_run else ""),
    choices=("channel", "tensor"),
  )


def asymmetry_penalty(*, of_a_run: bool = False) -> Any:
  """Coefficient of `quantization.asymmetry_penalty` in the weights' loss."""
  return option(
    None if of_a_run else 0.0,
    "of weights, coefficient in their loss: symmetric quantisers waste what a"
    " channel's range lacks on one side"
    + ("; default: the run's" if of_a_run else ""),
    low=0,
    high=1e6,
  )


def of_the_run(config: Any, searched: Any) -> Any:
  """A retraining's options, with those of its run where they are open.

  Args:
    config: a RetrainConfig.
    searched: the run's SearchConfig.

  Returns:
    The RetrainConfig; `quantize_bits` None is floating point.

  Raises:
    InputError: bits that no quantiser has, or a scale where nothing is rounded.
  """
  bits = config.quantize_bits
  if bits is not None and 16 < bits < _FLOAT:
    raise InputError(
      "--quantize-bits", f"{bits} is not 2 to 16", "32 is floating point"
    )
  bits = searched.quantize_bits if bits is None else bits
  bits = None if bits == _FLOAT else bits
  if bits is None and config.quantize_scale == "tensor":
    raise InputError(
      "--quantize-scale", "nothing is quantised", "add --quantize-bits"
    )
  penalty = config.asymmetry_penalty
  return dataclasses.replace(
    config,
    quantize_bits=bits,
    quantize_scale=config.quantize_scale or searched.quantize_scale,
    asymmetry_penalty=(
      searched.asymmetry_penalty if penalty is None else penalty
    ),
  )


def described(config: Any) -> str:
  """What the weights are rounded to, for a message; "" where they are not."""
  if config.quantize_bits is None:
    return ""
  return f"{config.quantize_bits} bits, a step for each {config.quantize_scale}"
