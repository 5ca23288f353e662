"""The smallest space with every kind of candidate; quick to compile."""

from pathlib import Path

from nasjax.layers.blocks import Builder
from nasjax.spaces import plan as plans
from nasjax.spaces import staged

# What `--space` calls it.
NAME = f"{Path(__file__).resolve()}:toy"


def toy(image_shape=(8, 8, 1), num_classes=4):
  """A stem, three layers of four candidates each, and a head."""
  b = Builder(*image_shape).conv(4, 3)
  fixed = {"stem": b.block()}
  same = Builder(*b.shape)
  candidates = {
    "none": None,
    "skip_connect": same.block(),
    "conv_1x1": same.then("relu").conv(4).block(),
    "conv_3x3": same.then("relu").conv(4, 3).block(),
  }
  stage = plans.Stage(3, (candidates,), {}, ())
  head = same.then("global_average_pool").then("linear", num_classes)
  fixed["head"] = head.block()

  def trunk(images, fixed, stage):
    x = stage(0, fixed("stem", images))
    return fixed("head", x).reshape(images.shape[0], -1)

  plan = plans.Plan(
    fixed,
    (),
    (stage,),
    trunk,
    lambda x, edge, link: x + edge(0, x),
    "layers",
    lambda stage, repeat, edge: repeat,
  )
  arguments = {"image_shape": tuple(image_shape), "num_classes": num_classes}
  return staged.StagedSpace("toy", arguments, plan)
