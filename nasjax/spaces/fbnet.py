"""FBNet (Wu et al., CVPR 2019): 22 layers, each one of nine blocks.

Table 1 of the paper gives the layers' channels and strides, table 2 the blocks:
inverted residuals of kernel 3 or 5 and expansion 1, 3 or 6, or expansion 1 with
two groups, and a skip, which is a 1x1 convolution where the shape changes. For
images of 32x32 the benchmarks of the field (HW-NAS-Bench, Li et al. 2021) keep
three of the six strides.

Bounded activations (`activation="relu6"`) and channels in multiples of what a
device computes at once (`channel_multiple`) make networks that quantise and
vectorise well.
"""

from __future__ import annotations

from nasjax.errors import nearest
from nasjax.layers.blocks import Builder
from nasjax.layers.mixed import Candidates
from nasjax.spaces import chain as chains
from nasjax.spaces import staged

__all__ = ["fbnet"]

# Kernel, expansion, groups.
BLOCKS = {
  "k3_e1": (3, 1, 1),
  "k3_e1_g2": (3, 1, 2),
  "k3_e3": (3, 3, 1),
  "k3_e6": (3, 6, 1),
  "k5_e1": (5, 1, 1),
  "k5_e1_g2": (5, 1, 2),
  "k5_e3": (5, 3, 1),
  "k5_e6": (5, 6, 1),
}
SKIP = "skip"
WIDTHS = (16, 24, 32, 64, 112, 184, 352)  # of the stages
STEM, HEAD = 16, 1504
# Of the stem and of each stage's first layer.
STRIDES = {
  "imagenet": (2, 1, 2, 2, 2, 1, 2, 1),
  "cifar": (1, 1, 1, 2, 2, 1, 2, 1),
}
_SMALL = 64  # pixels: smaller images keep their size longer


def fbnet(
  *,
  channels: int = 16,
  cells: int = 4,
  image_shape: tuple[int, int, int] = (32, 32, 3),
  num_classes: int = 10,
  activation: str = "relu",
  strides: str = "auto",
  channel_multiple: int = 2,
) -> staged.StagedSpace:
  """The FBNet space.

  Args:
    channels: of the stem; the paper has 16, the other layers follow.
    cells: layers of each stage but the first and the last; the paper has 4.
    image_shape: height, width, channels.
    num_classes: classes.
    activation: relu (the paper's), relu6 (bounded, so it quantises well) or
      hswish.
    strides: imagenet (the paper's, 32 in all), cifar (8 in all), or auto: cifar
      for images below 64 pixels.
    channel_multiple: all channels are multiples of it; even, for the groups.

  Returns:
    The space; its group is `layers`, 2 + 5 `cells` choices.

  Raises:
    ValueError: an unknown name, an argument out of range, an odd
      `channel_multiple`, or an image too small for the strides.
  """
  staged.check_positive(
    "fbnet",
    channels=channels,
    cells=cells,
    num_classes=num_classes,
    channel_multiple=channel_multiple,
  )
  chains.check_activation("fbnet", activation)
  if strides not in ("auto", *STRIDES):
    close = nearest(strides, ("auto", *STRIDES))
    raise ValueError(f"fbnet: strides={strides!r}; {close}")
  if channel_multiple % 2:
    raise ValueError(
      f"fbnet: channel_multiple={channel_multiple} must be even: some blocks"
      " have two groups"
    )
  small = len(image_shape) == 3 and min(image_shape[:2]) < _SMALL
  chosen = ("cifar" if small else "imagenet") if strides == "auto" else strides
  first, *others = STRIDES[chosen]
  total = first
  for stride in others:
    total *= stride
  staged.check_image_shape(image_shape, total, "fbnet")

  def width(published):
    return chains.rounded(published * channels / STEM, channel_multiple)

  def candidates(shape, channels, stride) -> Candidates:
    found = {
      name: chains.bottleneck(
        shape,
        channels,
        activation,
        kernel=kernel,
        expansion=expansion,
        stride=stride,
        groups=groups,
      )
      for name, (kernel, expansion, groups) in BLOCKS.items()
    }
    return {**found, SKIP: chains.skip(shape, channels, stride, activation)}

  repeats = (1, *[cells] * (len(WIDTHS) - 2), 1)
  layers = [
    (width(published), stride if i == 0 else 1)
    for published, stride, count in zip(WIDTHS, others, repeats, strict=True)
    for i in range(count)
  ]
  stem = Builder(*image_shape).conv(width(STEM), 3, stride=first)
  arguments = dict(
    channels=channels,
    cells=cells,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
    activation=activation,
    strides=chosen,
    channel_multiple=channel_multiple,
  )
  return staged.StagedSpace(
    "fbnet",
    arguments,
    chains.chain(
      stem.then(activation).block(),
      layers,
      candidates,
      lambda shape: chains.head(shape, width(HEAD), activation, num_classes),
    ),
    skip_names=(SKIP,),
  )
