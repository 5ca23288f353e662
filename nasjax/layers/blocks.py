"""Blocks: short sequences of workloads that a flax module executes.

A block IS its workloads: the same list is run, counted and costed, so what the
hardware model sees cannot drift from what the network does. `add`, `multiply`
and `concat` join the running value with the one saved before workload number
`saved` (0: the block's input).
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.hardware.workload import Workload
from nasjax.layers import activations, convolution, normalization, pooling
from nasjax.layers.barrier import computed_once

ACTIVATIONS = ("relu6", "relu", "hswish")
PLATFORM_BLOCKS = (
  "separable_expansion_3",
  "group_conv_3x3_groups_4",
  "fused_inverted_residual_3",
)


def _hsigmoid(x):
  return activations.relu6(x + 3.0) / 6.0


POINTWISE = {
  "relu": activations.relu,
  "relu6": activations.relu6,
  "hswish": lambda x: x * _hsigmoid(x),
  "hsigmoid": _hsigmoid,
}
CLIPPED = ("relu", "relu6")  # one operation with what is before them


def subsample(x: jax.Array) -> jax.Array:
  """Even rows and columns beside odd ones: [B, H, W, C] to half, 2 C channels.

  A missing last odd row or column is 0.
  """
  height, width = x.shape[1:3]
  odd = x[:, 1::2, 1::2]
  odd = jnp.pad(odd, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
  return jnp.concatenate([x[:, ::2, ::2], odd], axis=-1)


def channel_shuffle(x: jax.Array, groups: int) -> jax.Array:
  """The channels of `groups` groups take turns (ShuffleNet, section 3.1).

  [..., C] as [..., groups, C / groups], with the two swapped.
  """
  grouped = x.reshape(*x.shape[:-1], groups, -1)
  return grouped.swapaxes(-1, -2).reshape(x.shape)


class Block(nn.Module):
  """Executes workloads one after the other.

  Attributes:
    workloads: what to execute; sizes must fit together.
    saved: before which workload the second operand of a join is taken.
    affine: whether normalisations have a trained scale and shift. Supernets
      go without: a scale would undo the architecture weight before it.
    seen_as: what is seen of the input and of each value computed, as where an
      integer network is tried out; default: all. Of what is clipped next only
      that is seen.
  """

  workloads: tuple[Workload, ...]
  saved: int = 0
  affine: bool = True
  seen_as: Callable[[jax.Array], jax.Array] | None = None

  @property
  def output(self) -> tuple[int, int, int]:
    """Height, width and channels of the output."""
    last = self.workloads[-1]
    return (*last.outputs, last.channels_out)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps f32[B, H, W, C_in] to f32[B, H', W', C_out].

    Args:
      x: the input.
      train: use and update batch statistics, not the running ones.

    Returns:
      The output of the last workload.
    """
    if self.seen_as is not None:
      x = self.seen_as(x)
    other, padded = x, 0
    height, width = x.shape[1:3]
    for i, work in enumerate(self.workloads):
      if i == self.saved:
        other = x
      if work.kind in CLIPPED:
        padded = self._padding_after(i)
        x = POINTWISE[work.kind](x, padded)
      elif work.kind in POINTWISE:
        x = POINTWISE[work.kind](x)
      elif work.kind in ("convolution", "depthwise"):
        padding, padded = work.padding - padded, 0
        x = nn.Conv(
          work.channels_out,
          (work.kernel, work.kernel),
          strides=work.stride,
          padding=[(padding, padding)] * 2,
          kernel_dilation=work.dilation,
          feature_group_count=work.groups,
          use_bias=False,
          kernel_init=nn.initializers.he_normal(),
          conv_general_dilated=convolution.conv,
          name=f"convolution_{i}",
        )(x)
      elif work.kind == "linear":
        x = nn.Dense(work.channels_out, name=f"linear_{i}")(x)
      elif work.kind == "average_pool":
        odd = work.kernel % 2  # an even window may reach over the edge
        padding = work.kernel // 2 if odd else 0
        x = pooling.avg_pool(x, work.kernel, work.stride, padding, not odd)
      elif work.kind == "max_pool":
        x = pooling.max_pool(x, work.kernel, work.stride, work.kernel // 2)
      elif work.kind == "global_average_pool":
        x = jnp.mean(x, axis=(1, 2), keepdims=True)
      elif work.kind == "broadcast":
        x = jnp.broadcast_to(x, (x.shape[0], height, width, x.shape[3]))
      elif work.kind == "add":
        x = x + other
      elif work.kind == "multiply":
        x = x * other
      elif work.kind == "concat":
        # Fused into what reads it, a concatenation is slow on CPU: it asks for
        # each element which part it is of.
        parts = [computed_once(part) for part in (other, x)]
        x = computed_once(jnp.concatenate(parts, axis=-1))
      elif work.kind == "subsample":
        x = subsample(x)
      elif work.kind == "channel_shuffle":
        x = channel_shuffle(x, work.groups)
      elif work.kind not in ("batch_norm", "normalize"):
        raise ValueError(f"no layer for workload {work}")
      if work.batch_norm or work.kind in ("batch_norm", "normalize"):
        affine = self.affine and work.kind != "normalize"
        x = normalization.BatchNorm(affine, name=f"norm_{i}")(x, train)
      after = self.workloads[i + 1].kind if i + 1 < len(self.workloads) else ""
      if self.seen_as is not None and after not in CLIPPED:
        x = self.seen_as(x)
    return x

  def _padding_after(self, i: int) -> int:
    """How far activation `i` pads for a depthwise convolution: in one pass."""
    if i + 1 in (self.saved, len(self.workloads)) or self.seen_as is not None:
      return 0
    after = self.workloads[i + 1]
    return after.padding if after.kind == "depthwise" else 0


class Builder:
  """Chains workloads from a shape; each call returns a longer builder."""

  def __init__(self, height: int, width: int, channels: int, work=()):
    """Starts at a shape, with the workloads so far."""
    self.shape = (height, width, channels)
    self.workloads: tuple[Workload, ...] = tuple(work)

  @property
  def _last(self) -> str:
    return self.workloads[-1].kind if self.workloads else ""

  def then(
    self,
    kind: str,
    channels_out: int | None = None,
    *,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    batch_norm: bool = False,
  ) -> Builder:
    """Appends one workload on the present shape."""
    height, width, channels = self.shape
    work = Workload(
      kind,
      height,
      width,
      channels,
      channels_out or channels,
      kernel,
      stride,
      groups,
      batch_norm=batch_norm,
      after=self._last,
      dilation=dilation,
    )
    return Builder(*work.outputs, work.channels_out, (*self.workloads, work))

  def conv(
    self,
    channels_out: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
  ) -> Builder:
    """A convolution with its batch normalisation."""
    return self.then(
      "convolution",
      channels_out,
      kernel=kernel,
      stride=stride,
      groups=groups,
      batch_norm=True,
    )

  def depthwise(
    self,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    batch_norm: bool = True,
  ) -> Builder:
    """A depthwise convolution, with its batch normalisation if wanted."""
    channels = self.shape[2]
    return self.then(
      "depthwise",
      kernel=kernel,
      stride=stride,
      groups=channels,
      dilation=dilation,
      batch_norm=batch_norm,
    )

  def broadcast(self, height: int, width: int) -> Builder:
    """Repeats a 1x1 map over `height` x `width`."""
    channels = self.shape[2]
    work = Workload(
      "broadcast", height, width, channels, channels, after=self._last
    )
    return Builder(height, width, channels, (*self.workloads, work))

  def join(self, kind: str, shape: tuple[int, int, int]) -> Builder:
    """`add`, `multiply` or `concat` with the saved value, giving `shape`."""
    height, width, channels = shape
    work = Workload(kind, *shape, channels, after=self._last)
    return Builder(height, width, channels, (*self.workloads, work))

  def block(self, saved: int = 0) -> Block:
    """The finished block."""
    return Block(self.workloads, saved)


def separable(
  start: Builder,
  channels_out: int,
  activation: str,
  *,
  kernels=(3,),
  stride: int = 1,
) -> Builder:
  """Depthwise convolutions, then a 1x1 one (MobileNet, section 3.1).

  Two 3x3 kernels see 5x5 pixels with 18 weights a channel instead of 25.
  """
  for i, kernel in enumerate(kernels):
    start = start.depthwise(kernel, stride=stride if i == 0 else 1)
    start = start.then(activation)
  return start.conv(channels_out)


def factorized_reduce(
  shape: tuple[int, int, int], channels_out: int
) -> Builder:
  """Halves height and width (DARTS's code, FactorizedReduce).

  ReLU, then two 1x1 convolutions of half the channels each, one over even rows
  and columns and one over odd ones: a convolution in two groups.
  """
  b = Builder(*shape).then("relu")
  b = b.then("subsample", 2 * shape[2], stride=2)
  return b.conv(channels_out, groups=2)


def inverted_residual(
  shape: tuple[int, int, int],
  activation: str,
  expansion: int,
  residual: bool,
) -> Block:
  """MobileNetV2's block (section 3.3): expand, depthwise 3x3, project.

  Args:
    shape: height, width, channels of input and output.
    activation: after the expansion and the depthwise convolution.
    expansion: hidden channels over input channels.
    residual: adds its input; False where the link around it already does.

  Returns:
    The block.
  """
  hidden = shape[2] * expansion
  b = Builder(*shape).conv(hidden).then(activation)
  b = b.depthwise(3).then(activation).conv(shape[2])
  return (b.join("add", shape) if residual else b).block()


def platform_block(
  name: str, shape: tuple[int, int, int], activation: str, residual: bool
) -> Block:
  """A block that some platform prefers to the inverted residual.

  Args:
    name: one of `PLATFORM_BLOCKS`: `separable_expansion_3`, depthwise separable
      with expansion 3, for CPUs; `group_conv_3x3_groups_4`, a regular
      convolution in 4 groups and a pointwise one, for GPUs;
      `fused_inverted_residual_3`, a full 3x3 convolution that expands, for NPUs
      (EdgeTPU's fused block, Gupta and Akin 2020).
    shape: height, width, channels of input and output.
    activation: between its convolutions.
    residual: adds its input.

  Returns:
    The block.
  """
  b, channels = Builder(*shape), shape[2]
  if name == "separable_expansion_3":
    return inverted_residual(shape, activation, 3, residual)
  if name == "group_conv_3x3_groups_4":
    b = b.conv(channels, 3, groups=4)
  else:
    b = b.conv(3 * channels, 3)
  b = b.then(activation).conv(channels)
  return (b.join("add", shape) if residual else b).block()


def ghost(shape: tuple[int, int, int], activation: str) -> Block:
  """Ghost module (GhostNet, section 3.1): half the maps from cheap 3x3s."""
  height, width, channels = shape
  b = Builder(*shape).conv(channels // 2).then(activation)
  return b.depthwise(3).join("concat", shape).block(saved=2)


def squeeze_excite(
  shape: tuple[int, int, int], activation: str, reduction: int = 4
) -> Block:
  """Light squeeze-and-excitation (MobileNetV3): hard sigmoid gates."""
  hidden = max(1, shape[2] // reduction)
  b = Builder(*shape).then("global_average_pool").then("linear", hidden)
  b = b.then(activation).then("linear", shape[2]).then("hsigmoid")
  return b.join("multiply", shape).block()
