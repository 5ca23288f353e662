"""A search space of one's own in one file: a chain of layers.

nasjax search --space experiments/my_space.py:chain --limit macs=100000

Nothing else has to be written: every layer's choice is searched, costed on any
device, decided within limits, retrained and exported. The arguments have
defaults; `image_shape` and `num_classes` come from the images, `cells` from
`--cells`, and whatever is not given is left at its default.
"""

from nasjax.layers.blocks import Builder, squeeze_excite
from nasjax.spaces.plan import Plan, Stage
from nasjax.spaces.staged import StagedSpace, check_image_shape, check_positive


def candidates(shape):
  """What each layer chooses from: a block by name, all of one output shape."""
  b, channels = Builder(*shape), shape[2]
  wide = b.conv(2 * channels).then("relu6").depthwise(3).then("relu6")
  return {
    "skip_connect": b.block(),
    "conv_3x3": b.conv(channels, 3).then("relu6").join("add", shape).block(),
    "sep_conv_5x5": b.depthwise(5).then("relu6").conv(channels).block(),
    "inverted_residual": wide.conv(channels).join("add", shape).block(),
    "squeeze_excite": squeeze_excite(shape, "relu6"),
  }


def chain(
  *, channels=8, cells=2, image_shape=(8, 8, 1), num_classes=10
) -> StagedSpace:
  """Two runs of `cells` layers, a strided convolution between them."""
  check_positive("chain", channels=channels, cells=cells)
  check_image_shape(image_shape, 2, "chain")
  stem = Builder(*image_shape).conv(channels, 3).then("relu6")
  down = Builder(*stem.shape).conv(2 * channels, 3, stride=2).then("relu6")
  head = Builder(*down.shape).then("global_average_pool")
  # What every network has, and two stages of `cells` equal layers.
  fixed = {"stem": stem.block(), "down": down.block()}
  fixed["head"] = head.then("linear", num_classes).block()
  stages = tuple(
    Stage(cells, (candidates(shape),), {}, ())
    for shape in (stem.shape, down.shape)
  )

  def network(images, fixed, stage):
    x = stage(0, fixed("stem", images))
    x = stage(1, fixed("down", x))
    return fixed("head", x).reshape(images.shape[0], -1)

  plan = Plan(
    fixed,
    joins=(),
    stages=stages,
    trunk=network,
    cell=lambda x, edge, link: edge(0, x),
    group="layers",
    place=lambda stage, repeat, edge: stage * cells + repeat,
  )
  arguments = dict(
    channels=channels,
    cells=cells,
    image_shape=tuple(image_shape),
    num_classes=num_classes,
  )
  return StagedSpace("chain", arguments, plan)
