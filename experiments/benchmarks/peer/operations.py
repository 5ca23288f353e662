"""Candidate operations in eager PyTorch, NCHW, and how they take weights.

Layers carry the names that nasjax gives theirs (`convolution_1`, `norm_1`), so
that `load` can copy a supernet's variables across.
"""

from collections import OrderedDict

import numpy as np
import torch
from torch import nn


def conv(i, c_in, c_out, kernel=1, *, stride=1, groups=1, dilation=1):
  """A convolution that keeps the size at stride 1, named by its place."""
  layer = nn.Conv2d(
    c_in,
    c_out,
    kernel,
    stride,
    dilation * (kernel // 2),
    dilation,
    groups,
    bias=False,
  )
  return [(f"convolution_{i}", layer)]


def norm(i, channels, affine):
  """A batch normalisation, named by its place."""
  return [(f"norm_{i}", nn.BatchNorm2d(channels, affine=affine))]


def act(i, kind=nn.ReLU):
  """An activation, named by its place."""
  return [(f"activation_{i}", kind())]


def block(*parts):
  """Chains lists of named layers."""
  return nn.Sequential(OrderedDict(layer for part in parts for layer in part))


def relu_conv_norm(c_in, c_out, kernel, stride=1, affine=False, start=0):
  """ReLU, convolution, normalisation, as named layers."""
  return [
    *act(start),
    *conv(start + 1, c_in, c_out, kernel, stride=stride),
    *norm(start + 1, c_out, affine),
  ]


class Zero(nn.Module):
  """The candidate `none`, computed as the reference codes do."""

  def __init__(self, stride=1):
    """Takes every `stride`th row and column."""
    super().__init__()
    self.stride = stride

  def forward(self, x):
    if self.stride == 1:
      return x.mul(0.0)
    return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class FactorizedReduce(nn.Module):
  """Halves the size with two shifted 1x1 convolutions (DARTS)."""

  def __init__(self, c_in, c_out):
    """Maps `c_in` to an even number `c_out` of channels."""
    super().__init__()
    self.relu = nn.ReLU()
    self.convolution_2a = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
    self.convolution_2b = nn.Conv2d(c_in, c_out // 2, 1, 2, bias=False)
    self.norm = nn.BatchNorm2d(c_out, affine=False)

  def forward(self, x):
    x = self.relu(x)
    shifted = self.convolution_2b(x[:, :, 1:, 1:])
    return self.norm(torch.cat([self.convolution_2a(x), shifted], dim=1))


class GlobalPool(nn.Module):
  """The mean over the image, repeated to its size."""

  def forward(self, x):
    return x.mean((2, 3), keepdim=True).expand_as(x)


class SqueezeExcite(nn.Module):
  """Scales channels by hard sigmoid gates of their means."""

  def __init__(self, channels, activation, reduction=4):
    """Gates from channels / `reduction` hidden values."""
    super().__init__()
    hidden = max(1, channels // reduction)
    self.linear_1 = nn.Linear(channels, hidden)
    self.activation = activation()
    self.linear_3 = nn.Linear(hidden, channels)
    self.gate = nn.Hardsigmoid()

  def forward(self, x):
    y = self.linear_3(self.activation(self.linear_1(x.mean((2, 3)))))
    return x * self.gate(y)[:, :, None, None]


class Ghost(nn.Module):
  """Half the maps from a 1x1, the other half from 3x3s of them."""

  def __init__(self, channels, activation):
    """Keeps the number of channels, which is even."""
    super().__init__()
    half = channels // 2
    self.convolution_0 = nn.Conv2d(channels, half, 1, bias=False)
    self.norm_0 = nn.BatchNorm2d(half, affine=False)
    self.activation = activation()
    self.convolution_2 = nn.Conv2d(
      half, half, 3, padding=1, groups=half, bias=False
    )
    self.norm_2 = nn.BatchNorm2d(half, affine=False)

  def forward(self, x):
    x = self.activation(self.norm_0(self.convolution_0(x)))
    return torch.cat([x, self.norm_2(self.convolution_2(x))], dim=1)


def avg_pool(stride=1):
  """3x3 means; padding does not count."""
  return nn.AvgPool2d(3, stride, 1, count_include_pad=False)


def max_pool(stride=1):
  """3x3 maxima."""
  return nn.MaxPool2d(3, stride, 1)


def depthwise_separable(channels, kernel, stride=1, dilation=1, start=0):
  """ReLU, depthwise, 1x1, normalisation (DARTS), as named layers."""
  return [
    *act(start),
    *conv(
      start + 1,
      channels,
      channels,
      kernel,
      stride=stride,
      groups=channels,
      dilation=dilation,
    ),
    *conv(start + 2, channels, channels),
    *norm(start + 2, channels, False),
  ]


class Mixed(nn.Module):
  """One edge: its candidates in a ModuleList, weighted or one sampled."""

  def __init__(self, candidates):
    """Takes name -> module, in the order of the weights."""
    super().__init__()
    self.names = tuple(candidates)
    self.operations = nn.ModuleList(candidates.values())

  def forward(self, x, weights, index=None):
    """Sums the candidates by weight.

    Args:
      x: [B, C, H, W].
      weights: [K]; with `index` hard ones.
      index: the one candidate that runs; the others add their weight, which is
        0, so that its gradient is not lost (the trick of GDAS's code).

    Returns:
      [B, C, H', W'].
    """
    if index is None:
      return sum(
        w * op(x) for w, op in zip(weights, self.operations, strict=True)
      )
    return sum(
      weights[k] * op(x) if k == index else weights[k]
      for k, op in enumerate(self.operations)
    )

  def blocks(self, prefix, repeat):
    """(name, repeat, module) of each candidate, see `load`."""
    for name, op in zip(self.names, self.operations, strict=True):
      yield f"{prefix}/{name}", repeat, op


def _convert(array):
  """A flax kernel, scale or bias in PyTorch's order of axes."""
  if array.ndim == 4:
    array = array.transpose(3, 2, 0, 1)
  elif array.ndim == 2:
    array = array.T
  return torch.from_numpy(np.array(array, np.float32, order="C"))


def load(network, arrays):
  """Sets the parameters of a supernet from nasjax's variables.

  Args:
    network: has `blocks`, which yields (name, repeat, module); repeat is None
      for blocks that the network has once.
    arrays: "params/name/layer/kernel" -> array, with a leading axis of repeats
      where nasjax stacks them. Batch statistics are passed over.

  Raises:
    KeyError: an array is missing, or none of the parameters takes one.
    ValueError: a shape does not fit.
  """
  unused = {n for n in arrays if not n.startswith("batch_stats/")}
  kinds = {"convolution": "kernel", "linear": "kernel", "norm": "scale"}
  for prefix, repeat, module in network.blocks():
    for name, parameter in module.named_parameters():
      layer, _, part = name.partition(".")
      half = layer[-1] if layer[-1] in "ab" else ""
      layer = layer.removesuffix(half)
      leaf = "bias" if part == "bias" else kinds[layer.split("_")[0]]
      key = f"params/{prefix}/{layer}/{leaf}"
      array = arrays[key]
      unused.discard(key)
      if repeat is not None:
        array = array[repeat]
      if half:
        array = np.split(array, 2, axis=-1)["ab".index(half)]
      value = _convert(array)
      if value.shape != parameter.shape:
        raise ValueError(f"{key}: {value.shape}, not {parameter.shape}")
      with torch.no_grad():
        parameter.copy_(value)
  if unused:
    raise KeyError(f"not in the network: {sorted(unused)[:5]}")
