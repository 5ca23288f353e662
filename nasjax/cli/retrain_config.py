"""The options of `nasjax retrain`."""

from __future__ import annotations

import dataclasses

from nasjax.cli import low_bits
from nasjax.cli.config import AUGMENT_HELP, MAX_SEED, option
from nasjax.defaults import AUTO


@dataclasses.dataclass(frozen=True)
class RetrainConfig:
  """What `nasjax retrain` is told."""

  epochs: int = option(60, "epochs", low=1, high=10**6)
  batch_size: int = option(64, "images a step", low=1, high=10**6)
  learning_rate: float = option(
    0.05, "at the start (SGD, cosine to 0)", low=1e-9, high=1e6
  )
  label_smoothing: float = option(
    0.1, "share of a label spread over all classes", low=0, high=0.99
  )
  drop_path: float = option(
    0.0, "rate at which edges are dropped in the end", low=0, high=0.99
  )
  auxiliary: float = option(
    0.0,
    "darts: weight of the loss of an auxiliary head, which is trained along and"
    " then left out; the paper has 0.4",
    low=0,
    high=10,
  )
  augment: str = option(
    AUTO,
    AUGMENT_HELP,
  )
  quantize_bits: int | None = low_bits.quantize_bits(of_a_run=True)
  quantize_scale: str | None = low_bits.quantize_scale(of_a_run=True)
  asymmetry_penalty: float | None = low_bits.asymmetry_penalty(of_a_run=True)
  inherit: bool = option(
    False, "start from the supernet's weights instead of fresh ones"
  )
  member: int | None = option(
    None, "of a run's front; default: the balanced one", low=0, high=10**6
  )
  seed: int = option(0, "of everything random", low=0, high=MAX_SEED)
  data: str | None = option(
    None, "the run's data, where it was moved; checked by its digest"
  )
  out: str | None = option(
    None,
    "run folder; default RUN/retrained, of a member RUN/members/N/retrained",
  )
