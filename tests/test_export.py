"""ONNX files say what the flax modules compute."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from nasjax import spaces
from nasjax.errors import InputError
from nasjax.hardware.workload import Workload
from nasjax.layers.blocks import Block, Builder
from nasjax.spaces import space as space_module

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from nasjax import export  # noqa: E402
from nasjax.layers import onnx_nodes  # noqa: E402

LINKS = ("residual", "dense", "linear_bottleneck")


def small(name, links="residual", **others):
  if name == "nasbench201":
    return spaces.nasbench201(channels=4, cells=1, image_shape=(9, 9, 3))
  return spaces.edge(
    channels=4,
    nodes=2,
    stages=2,
    image_shape=(9, 7, 1),
    conv_groups=2,
    expansion=2,
    links=links,
    **others,
  )


def random_variables(module, shape):
  """Variables with statistics and scales that are not 1 and 0."""
  x = jax.ShapeDtypeStruct((2, *shape), np.float32)
  shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    value = rng.normal(size=leaf.shape)
    if path[-1].key == "kernel":
      value *= (2 / max(1, np.prod(leaf.shape[:-1]))) ** 0.5
    return np.float32(np.abs(value) + 0.5 if path[-1].key == "var" else value)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def check(module, shape, tolerance=1e-5):
  variables = random_variables(module, shape)
  model = export.network(module, variables, shape)
  rng = np.random.default_rng(1)
  images = rng.normal(size=(3, *shape)).astype(np.float32)
  assert export.parity(model, module, variables, images) < tolerance
  run = export.session(model)
  whole, one = (run.run(None, {export.INPUT: images[:n]})[0] for n in (3, 1))
  np.testing.assert_allclose(one, whole[:1], rtol=1e-5, atol=1e-5)
  return model


def chosen(space, names):
  group = next(iter(space.groups))
  edges = space.groups[group].edges
  row = [names[i % len(names)] for i in range(edges)]
  return space.build(spaces.architecture(space, {group: row}))


@pytest.mark.parametrize("links", LINKS)
def test_every_candidate_of_edge_is_exported(links):
  space = small("edge", links, activation="hswish")
  candidates = space.groups["nodes"].candidates
  # Between the links only the last block, with its own addition, differs.
  for start in range(0 if links == "residual" else 8, len(candidates), 4):
    check(chosen(space, candidates[start : start + 4]), (9, 7, 1))


class Flat(nn.Module):
  """A block and its output without height and width."""

  block: Block

  def __call__(self, x, train):
    return self.block(x, train).reshape(x.shape[0], -1)


def test_a_constant_channel_takes_no_range_from_the_others():
  """Its folded kernel would be 316 times as large; one int8 step a tensor."""
  shape = (6, 6, 4)
  b = Builder(*shape).depthwise(3).then("relu6")
  module = Flat(b.then("global_average_pool").then("linear", 3).block())
  variables = random_variables(module, shape)
  images = np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)
  images[..., 2] = 0.0  # and so is its convolution
  for name, value in (("mean", 0.0), ("var", 1e-12)):
    variables["batch_stats"]["block"]["norm_0"][name][2] = value

  model = export.network(module, variables, shape)

  assert export.parity(model, module, variables, images) < 1e-5
  (kernel,) = (
    values
    for values in map(onnx.numpy_helper.to_array, model.graph.initializer)
    if values.shape == (4, 1, 3, 3)
  )
  assert not kernel[2].any() and np.abs(kernel).max() < 10


def test_every_operation_of_nasbench201_is_exported():
  space = small("nasbench201")
  check(chosen(space, space.groups["cell"].candidates), (9, 9, 3))


def test_a_cell_of_zeros_is_exported():
  for space in (small("nasbench201"), small("edge", "dense")):
    check(chosen(space, ["none"]), space.arguments["image_shape"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["edge", "nasbench201"])
def test_random_networks_of_the_default_size(name):
  space = getattr(spaces, name)()
  group = next(iter(space.groups))
  rows = space_module.random_choices(space, np.random.default_rng(0), 4)
  for row in rows[group]:
    module = space.build(spaces.architecture(space, {group: row}))
    check(module, space.arguments["image_shape"])


def test_normalisation_is_folded_and_nothing_dead_is_left():
  space = small("nasbench201")
  names = ["nor_conv_3x3", "none", "none", "none", "none", "nor_conv_1x1"]
  names[3] = "skip_connect"
  model = check(chosen(space, names), (9, 9, 3))
  kinds = [node.op_type for node in model.graph.node]
  assert "BatchNormalization" not in kinds
  used = {name for node in model.graph.node for name in node.input}
  assert all(t.name in used for t in model.graph.initializer)
  assert all(
    node.output[0] in used or node.output[0] == export.OUTPUT
    for node in model.graph.node
  )
  # Edge 5 reads a node of zeros; edges 0 and 3 alone carry the image.
  assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_every_workload_alone_equals_its_block():
  found = {}
  for space in (small("nasbench201"), small("edge", "dense")):
    for work in space.workloads().distinct():
      found[work.kind, work.kernel, work.stride, work.groups > 1] = work
  extra = [Workload(k, 5, 3, 4, 4) for k in ("relu", "hswish", "hsigmoid")]
  rng = np.random.default_rng(0)
  for work in (*found.values(), *extra):
    model = onnx_nodes.workload(work)
    shapes = onnx_nodes.input_shapes(work)
    arrays = [rng.normal(size=(2, *s)).astype(np.float32) for s in shapes]
    out = export.session(model).run(
      None, {f"x_{n}": a for n, a in enumerate(arrays)}
    )[0]
    wide = [np.moveaxis(a, 1, -1) for a in arrays]
    if work.kind == "add":
      wanted = wide[0] + wide[1]
    elif work.kind == "multiply":
      wanted = wide[0] * wide[1]
    elif work.kind == "concat":
      wanted = np.concatenate(wide, -1)
    elif work.kind == "broadcast":
      shape = (2, work.height, work.width, work.channels_in)
      wanted = np.broadcast_to(wide[0], shape)
    elif work.kind == "batch_norm":
      wanted = wide[0] / np.sqrt(1 + 1e-5)
    else:
      wanted = Block((work,)).apply(
        onnx_nodes._random_variables([work]), wide[0], False
      )
      if work.kind in ("convolution", "depthwise"):
        wanted = wanted / np.sqrt(1 + 1e-5)
    wanted = np.moveaxis(np.asarray(wanted), -1, 1)
    assert out.shape == wanted.shape, work
    np.testing.assert_allclose(out, wanted, atol=1e-5, err_msg=str(work))


def test_what_stands_outside_the_blocks_is_named():
  class Odd(small("edge").build.__func__.__globals__["network"].Network):
    def __call__(self, images, train=False):
      return jax.numpy.tanh(super().__call__(images, train))

  space = small("edge")
  module = Odd(space, {"nodes": (1,) * space.groups["nodes"].edges})
  with pytest.raises(InputError, match="tanh"):
    export.network(module, random_variables(module, (9, 7, 1)), (9, 7, 1))


def test_a_missing_library_names_the_extra():
  with pytest.raises(InputError, match=r"nasjax\[onnx\]"):
    onnx_nodes.need("onnx_that_is_not_there")
