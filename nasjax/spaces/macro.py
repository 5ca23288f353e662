"""NAS-Bench-Macro (Su et al., CVPR 2021): 8 layers, each one of three blocks.

A layer is left out (a 1x1 convolution where the shape changes) or an inverted
residual of kernel 3 and expansion 3, or of kernel 5 and expansion 6: 3^8 =
6,561 networks. The benchmark trained all of them on CIFAR-10.
"""

from __future__ import annotations

from nasjax.layers.blocks import Builder
from nasjax.layers.mixed import Candidates
from nasjax.spaces import chain as chains
from nasjax.spaces import staged

__all__ = ["macro"]

BLOCKS = {"mb3_k3": (3, 3), "mb6_k5": (5, 6)}  # kernel, expansion
SKIP = "identity"
DEPTHS = (2, 3, 3)  # layers of the stages, each of which begins with stride 2
HEAD = 40  # channels of the head over the stem's


def macro(
  *,
  channels: int = 32,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  activation: str = "relu",
  channel_multiple: int = 1,
) -> staged.StagedSpace:
  """The NAS-Bench-Macro space.

  Args:
    channels: of the stem, doubled by each stage; the benchmark has 32.
    image_shape: height, width, channels.
    num_classes: classes.
    activation: relu (the benchmark's), relu6 (bounded, so it quantises well) or
      hswish.
    channel_multiple: all channels are multiples of it, as a device's vectors
      want it.

  Returns:
    The space; its group is `layers`, 8 choices.

  Raises:
    ValueError: an unknown name, an argument out of range, or an image too small
      for strides of 8.
  """
  staged.check_positive(
    "macro",
    channels=channels,
    num_classes=num_classes,
    channel_multiple=channel_multiple,
  )
  chains.check_activation("macro", activation)
  staged.check_image_shape(image_shape, 2 ** len(DEPTHS), "macro")

  def width(factor):
    return chains.rounded(factor * channels, channel_multiple)

  def candidates(shape, channels, stride) -> Candidates:
    # The benchmark has no activation after the convolution of a layer left out.
    found = {SKIP: chains.skip(shape, channels, stride, None)}
    for name, (kernel, expansion) in BLOCKS.items():
      found[name] = chains.bottleneck(
        shape,
        channels,
        activation,
        kernel=kernel,
        expansion=expansion,
        stride=stride,
      )
    return found

  layers = [
    (width(2**stage), 2 if i == 0 else 1)
    for stage, depth in enumerate(DEPTHS, start=1)
    for i in range(depth)
  ]
  stem = Builder(*image_shape).conv(width(1), 3).then(activation)
  arguments = dict(
    channels=channels,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
    activation=activation,
    channel_multiple=channel_multiple,
  )
  return staged.StagedSpace(
    "macro",
    arguments,
    chains.chain(
      stem.block(),
      layers,
      candidates,
      lambda shape: chains.head(shape, width(HEAD), activation, num_classes),
    ),
    skip_names=(SKIP,),
  )
