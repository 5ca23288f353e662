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


# What `--space` calls the second.
CELL = f"{Path(__file__).resolve()}:cell"
EDGES = ((0, 1), (0, 2), (1, 2))


def cell(image_shape=(8, 8, 1), num_classes=4):
  """A stem, one cell of three edges that may all be none, and a head."""
  b = Builder(*image_shape).conv(4, 3)
  fixed = {"stem": b.block()}
  same = Builder(*b.shape)
  candidates = {
    "none": None,
    "skip_connect": same.block(),
    "conv_1x1": same.then("relu").conv(4).block(),
    "conv_3x3": same.then("relu").conv(4, 3).block(),
    "average_pool": same.then("average_pool", kernel=3).block(),
  }
  stage = plans.Stage(1, (candidates,) * len(EDGES), {}, ())
  head = same.then("global_average_pool").then("linear", num_classes)
  fixed["head"] = head.block()

  def trunk(images, fixed, stage):
    x = stage(0, fixed("stem", images))
    return fixed("head", x).reshape(images.shape[0], -1)

  def nodes(x, edge, link):
    del link
    return edge(1, x) + edge(2, edge(0, x))

  plan = plans.Plan(
    fixed, (), (stage,), trunk, nodes, "cell", lambda stage, repeat, edge: edge
  )
  arguments = {"image_shape": tuple(image_shape), "num_classes": num_classes}
  return staged.StagedSpace(
    "cell", arguments, plan, cut_edges=((0, 1), (1, 2)), node_pairs=EDGES
  )
