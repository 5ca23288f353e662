"""The factorised MobileNet supernet against its largest network.

`supernet`: a weight step with every candidate in play, and the whole update,
weights and architecture, both over training the space's largest network alone
(expansion 6, 7x7 kernels, squeeze-and-excite, h-swish, no skips). `apart`: a
weight step of a supernet of one layer that evaluates all 36 combinations and
mixes their outputs, over the factorised one's. All sides are compiled, warmed
up, and alternate on the same cores.

    python experiments/benchmarks/mobilenet_supernet.py [--json] [--only KEY]
        [--runs 7]

Two x86-64 cores, JAX 0.10.2, nothing else running, medians of 7 turns of 4
steps each:

    weight step / largest network's   0.178 s / 0.176 s   1.01   (at most 1.3)
    whole update / largest network's  0.324 s / 0.176 s   1.83   (at most 2.1)
    apart / factorised, one layer     1.198 s / 0.103 s   11.6   (at least 10)

With one step a turn the last was 7.8 (0.145 s): the first step after `apart`
asks the system for the memory that its 36 combinations had.
"""

import argparse

import jax
import numpy as np
import optax
from harness import alternate, medians, report, timed

from nasjax import relaxations, search, spaces
from nasjax.hardware.workload import Workload
from nasjax.layers.blocks import Builder
from nasjax.spaces import plan as plans
from nasjax.spaces import staged
from nasjax.types import Batch, Sampled

KEYS = ("supernet", "apart")
_IMAGE = (32, 32, 3)
# Six searched layers, half of which may be skipped; 36 combinations each.
_SPACE = dict(
  channels=32,
  image_shape=_IMAGE,
  stage_channels=(16, 24, 40, 80),
  stage_depths=(1, 2, 2, 2),
  stage_strides=(2, 1, 1, 2, 2),
  head_channels=256,
)
# One layer whose input and output have one shape, between stem and head.
_ONE = dict(
  channels=32,
  image_shape=_IMAGE,
  stage_channels=(32, 32),
  stage_depths=(1, 1),
  stage_strides=(2, 1, 1),
  head_channels=64,
)
_LARGEST = dict(
  depth="keep",
  expansion="6",
  kernel="7",
  squeeze_excite="yes",
  activation="hswish",
)
_BATCH = 32
# In a row in each turn: the first after another side's pays for its memory.
_STEPS = 4


def batch(seed):
  rng = np.random.default_rng(seed)
  return Batch(
    jax.device_put(rng.normal(size=(_BATCH, *_IMAGE)).astype(np.float32)),
    jax.device_put(rng.integers(10, size=_BATCH).astype(np.int32)),
  )


def held(step, state):
  """A function that takes some steps and returns seconds a step, warmed up."""
  program = jax.jit(step, donate_argnums=0).lower(state).compile()
  state = [state]

  def go():
    def some():
      for _ in range(_STEPS):
        state[0] = jax.block_until_ready(program(state[0]))

    return timed(some) / _STEPS

  go()
  return go


def weight_step(forward, variables):
  """Training by SGD with momentum.

  Args:
    forward: (variables, images) -> (logits, new batch statistics).
    variables: {"params", "batch_stats"}.
  """
  train, optimizer = batch(0), optax.sgd(0.05, momentum=0.9)

  def step(state):
    (params, stats), moments = state

    def loss(params):
      variables = {"params": params, "batch_stats": stats}
      logits, new = forward(variables, train.images)
      cross_entropy = optax.softmax_cross_entropy_with_integer_labels(
        logits, train.labels
      )
      return cross_entropy.mean(), new

    gradient, new = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(gradient, moments)
    return (optax.apply_updates(params, updates), new), moments

  params, stats = variables["params"], variables["batch_stats"]
  return held(step, ((params, stats), optimizer.init(params)))


def supernet_step(space):
  """A weight step of a supernet at soft weights."""
  weights = {
    n: jax.nn.softmax(0.3 * jax.random.normal(jax.random.key(2), np.shape(m)))
    for n, m in space.masks.items()
  }
  return weight_step(
    lambda v, x: space.apply(v, Sampled(weights), x, True),
    space.init(jax.random.key(0)),
  )


def largest_step(space):
  """A step of training the largest network alone."""
  network = space.build(
    spaces.architecture(
      space, {n: [_LARGEST[n]] * g.edges for n, g in space.groups.items()}
    )
  )
  variables = jax.jit(network.init)(jax.random.key(0), batch(0).images)

  def forward(variables, images):
    logits, new = network.apply(
      variables, images, True, mutable=["batch_stats"]
    )
    return logits, new["batch_stats"]

  return weight_step(forward, variables)


def whole_update(space):
  """A weight step and an architecture step."""
  made = search.differentiable(
    space, relaxation=relaxations.softmax(), optimizer=optax.sgd(0.05, 0.9)
  )
  train, valid = batch(0), batch(1)
  return held(
    lambda state: made.update(state, train, valid)[0],
    jax.jit(made.init)(jax.random.key(0)),
  )


def apart(space):
  """The same space with each layer's combinations as blocks of their own."""
  (layer,) = (link for link in space.chain if link.choices)
  candidates = {str(i): b for i, b in enumerate(layer.blocks.flat)}
  fixed = {link.name: link.blocks[()] for link in space.chain if link != layer}
  shape = fixed["first"].output
  stage = plans.Stage(
    1, (candidates,), {}, (Workload("add", *shape, shape[2]),)
  )
  residual = {link.name: link.residual for link in space.chain}

  def trunk(images, fixed, stage):
    x = fixed("stem", images)
    x = x + fixed("first", x) if residual["first"] else fixed("first", x)
    return fixed("head", stage(0, x)).reshape(len(images), -1)

  plan = plans.Plan(
    fixed,
    (),
    (stage,),
    trunk,
    lambda x, edge, link: edge(0, x),
    "layers",
    lambda stage, repeat, edge: repeat,
  )
  assert Builder(*shape).shape == layer.blocks.flat[0].output
  return staged.StagedSpace("apart", {"image_shape": _IMAGE}, plan)


def measure(key, runs):
  if key == "apart":
    one = spaces.mobilenet(**_ONE)
    sides = {
      "apart": supernet_step(apart(one)),
      "factorised": supernet_step(one),
    }
    found = medians(alternate(sides, runs))
    return {"ratio": found["apart"] / found["factorised"], **found}
  space = spaces.mobilenet(**_SPACE)
  sides = {
    "weight": supernet_step(space),
    "update": whole_update(space),
    "largest": largest_step(space),
  }
  seconds = alternate(sides, runs)

  def ratio(name):
    pairs = zip(seconds[name], seconds["largest"], strict=True)
    return float(np.median([a / b for a, b in pairs]))

  return {
    "weight_ratio": ratio("weight"),
    "update_ratio": ratio("update"),
    **{f"{n}_s": s for n, s in medians(seconds).items()},
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawTextHelpFormatter
  )
  parser.add_argument("--json", action="store_true", help="one object at last")
  parser.add_argument("--only", choices=KEYS, metavar="KEY", help=str(KEYS))
  parser.add_argument("--runs", type=int, default=7, help="alternating runs")
  found = parser.parse_args()
  figures = {}
  for key in [found.only] if found.only else KEYS:
    figures[key] = measure(key, found.runs)
    report({key: figures[key]}, False)
  report(figures, found.json)


if __name__ == "__main__":
  main()
