"""Networks for microcontrollers: MobileNets of one width and one resolution.

MCUNet (Lin et al., NeurIPS 2020, section 3.1: TinyNAS) searches in two steps.
`shrink` fits the space to the device: of every width and resolution it samples
random networks, keeps those within the limits and takes the width and
resolution whose networks compute the most on average. More computing within the
same memory is more capacity, and a better network is likelier to be found
there. Then one network of the shrunk space is searched like any other.

The space is `mobilenet` with what microcontrollers run badly left out: all
activations are ReLU6, which is bounded and quantises well, and there is no
squeeze-and-excite. A device's metrics are those of the network in the device's
own bits: of a microcontroller weights and activations of 8 bits and biases of
32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nasjax.errors import InputError
from nasjax.hardware import workload
from nasjax.spaces import staged
from nasjax.spaces.chain import rounded
from nasjax.spaces.costs import ADDITIVE, additive_costs
from nasjax.spaces.mobilenet import (
  STEM,
  STRIDES,
  MobileNetSpace,
  assembled,
  strides_of,
)
from nasjax.spaces.mobilenet_arguments import check
from nasjax.spaces.space import Architecture, random_choices
from nasjax.types import Metric

__all__ = ["WIDTHS", "Configuration", "resolutions", "shrink", "tiny"]

WIDTHS = tuple(range(20, 101, 10))  # percent: TinyNAS's 0.2 to 1.0
_STEPS = 14  # of resolutions: TinyNAS's 48, 64 .. 224 of 224 pixels
_SMALLEST = 4  # pixels
_SAMPLES = 1000  # TinyNAS's
# Fewer networks within the limits leave next to nothing to search.
_LEAST_SHARE = 0.1


def tiny(
  *,
  width: int = 100,
  cells: int = 4,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  expansions: tuple[int, ...] = (3, 4, 6),
  kernels: tuple[int, ...] = (3, 5, 7),
  depth_choice: bool = True,
  stage_channels: tuple[int, ...] = (16, 24, 40, 80, 96, 192, 320),
  stage_depths: tuple[int, ...] = (1, 2, 3, 4, 3, 3, 1),
  stage_strides: tuple[int, ...] = (),
  head_channels: int = 320,
  activation: str = "relu6",
  channel_multiple: int = 8,
) -> MobileNetSpace:
  """The space of microcontrollers' networks, at one width and resolution.

  Args:
    width: percent of all channels.
    cells: most layers a stage.
    image_shape: height, width, channels: the resolution.
    num_classes: classes.
    expansions: candidates, hidden over input channels.
    kernels: candidates, of the depthwise convolution.
    depth_choice: layers after a stage's first may be skipped.
    stage_channels: of each stage at width 100; the first is one fixed layer.
    stage_depths: most layers of each stage, 1 of the first.
    stage_strides: of the stem and each stage; (): MobileNetV2's, the last of
      them left out where the image is small: large maps come first in memory.
    head_channels: of the last convolution at width 100.
    activation: relu6, or relu or hswish, which are not bounded.
    channel_multiple: all channels are multiples of it, as a device's vectors
      want it.

  Returns:
    The space; its groups are `depth`, `expansion` and `kernel`, those of one
    candidate left out.

  Raises:
    ValueError: as `mobilenet`, or a width that is not from 10 to 400.
  """
  staged.check_image_shape(image_shape, 1, "tiny")
  if not isinstance(width, (int, np.integer)) or not 10 <= width <= 400:
    raise ValueError(f"tiny: width={width} must be a whole percentage, 10..400")
  staged.check_positive(
    "tiny", head_channels=head_channels, channel_multiple=channel_multiple
  )
  if not stage_strides and len(stage_channels) == len(STRIDES) - 1:
    stage_strides = _strides(image_shape)
  own = dict(
    cells=cells,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
    expansions=tuple(expansions),
    kernels=tuple(kernels),
    depth_choice=bool(depth_choice),
    stage_channels=tuple(stage_channels),
    stage_depths=tuple(stage_depths),
    stage_strides=tuple(stage_strides),
    activation=activation,
    channel_multiple=channel_multiple,
  )
  whole = dict(
    channels=STEM,
    squeeze_excite=("no",),
    activations=(activation,),
    widths=(100,),
    head_channels=rounded(head_channels * width / 100, channel_multiple),
    shared_kernels=False,
    **own,
  )
  check(whole, "tiny")
  staged.check_image_shape(
    image_shape, int(np.prod(own["stage_strides"])), "tiny"
  )
  space = assembled({**whole, "channels": STEM * width / 100})
  arguments = dict(width=int(width), head_channels=head_channels, **own)
  return dataclasses.replace(space, name="tiny", arguments=arguments)


def _strides(image_shape: tuple[int, int, int]) -> tuple[int, ...]:
  """As many strides of 2 as `mobilenet` has, the first ones instead."""
  count = strides_of(image_shape).count(2)
  halving = [i for i, stride in enumerate(STRIDES) if stride == 2][:count]
  return tuple(2 if i in halving else 1 for i in range(len(STRIDES)))


class Configuration(NamedTuple):
  """A width and a resolution, and what random networks of them are like."""

  width: int  # percent
  resolution: int  # pixels of the longer side
  share: float  # of random networks within the limits
  mean_flops: float  # of those; NaN if there are none


def resolutions(side: int) -> tuple[int, ...]:
  """TinyNAS's resolutions of images of `side` pixels: 48, 64 .. 224 of 224."""
  step = max(1, side // _STEPS)
  found = range(side, max(_SMALLEST, 3 * step) - 1, -step)
  return tuple(found)[::-1] or (side,)


def shrink(
  make: Callable[[int, int], Any],
  limits: Callable[[Any], Sequence[tuple[Metric, float]]],
  *,
  sides: Iterable[int],
  widths: Iterable[int] = WIDTHS,
  samples: int = _SAMPLES,
  least_share: float = _LEAST_SHARE,
  seed: int = 0,
) -> tuple[Configuration, ...]:
  """The configurations of a space, that which suits the limits best first.

  Args:
    make: (width in percent, resolution in pixels) -> the space.
    limits: pairs (metric, upper bound) of a space.
    sides: resolutions to try, in pixels, see `resolutions`.
    widths: widths to try, in percent.
    samples: random networks of each configuration.
    least_share: where fewer of them keep the limits a configuration comes after
      all others: limits on the computing itself would else favour spaces of
      which the very smallest networks alone fit.
    seed: of the samples.

  Returns:
    All of them: those with enough networks by the mean FLOPs of the networks
    within the limits, falling, then the others by their share, falling.

  Raises:
    InputError: no sampled network of any configuration keeps the limits; names
      the least values that were met.
    ValueError: fewer than 1 sample, or nothing to try.
  """
  pairs = [(w, r) for r in sides for w in widths]
  if samples < 1 or not pairs:
    raise ValueError("shrink: needs a configuration and a sample at least")
  found, least = [], {}
  for width, resolution in pairs:
    space = make(width, resolution)
    choices = random_choices(space, np.random.default_rng(seed), samples)
    good = np.ones(samples, bool)
    for metric, bound in limits(space):
      values = _values(space, metric, choices)
      good &= values <= bound
      low = min(least.get(metric.name, (np.inf,))[0], float(values.min()))
      least[metric.name] = low, bound, metric.unit
    flops = _values(space, workload.flops(space), choices)
    mean = float(flops[good].mean()) if good.any() else np.nan
    found.append(Configuration(width, resolution, float(good.mean()), mean))
  if not any(c.share for c in found):
    asked = " ".join(f"{n}={bound:g}" for n, (_, bound, _) in least.items())
    values = ", ".join(
      f"{n}={low:.4g} {unit}".strip() for n, (low, _, unit) in least.items()
    )
    raise InputError(
      f"--limit {asked}",
      f"none of {samples} random networks of any of {len(pairs)} widths and"
      " resolutions keeps them all",
      f"the least that one of them has is {values}",
    )

  def order(one):
    enough = one.share >= least_share
    # Of equal ones that which sees more: a stride can hide a resolution.
    return (
      not enough,
      -one.mean_flops if enough else -one.share,
      -one.resolution,
    )

  return tuple(sorted(found, key=order))


def _values(space, metric: Metric, choices) -> np.ndarray:
  """A metric's values f64[N] of choices i32[N, E] a group."""
  if metric.form in ADDITIVE:
    return additive_costs(space, metric).of(choices)
  if metric.form == "max" and metric.tight and metric.terms:
    return metric.terms.largest(choices)
  count = len(next(iter(choices.values())))
  return np.array(
    [
      metric.exact(Architecture(space, {n: r[i] for n, r in choices.items()}))
      for i in range(count)
    ]
  )
