"""One search step, weight step + architecture step, against PyTorch's.

The same supernet on the same weights in both; outputs are compared first. Both
are warmed up and alternate on the same cores. PyTorch runs in both memory
formats and the faster counts. For gdas both run blocks of sampled paths and
their means are compared. A ratio over 1 says that nasjax is faster.

    python experiments/benchmarks/supernet_step.py [--json] [--only KEY]
        [--runs 7] [--pytorch PYTHON]
"""

import jax
import numpy as np
from harness import (
  LAYOUTS,
  Peer,
  alternate,
  arguments,
  flat,
  medians,
  report,
  timed,
)
from harness import peak as machine_peak

from nasjax import relaxations, search, spaces
from nasjax.types import Batch, Sampled

_BATCH = 64
_SPACES = {
  "nasbench201": ("nasbench201", dict(channels=16, cells=1), (32, 32, 3)),
  "nasbench201-n5": ("nasbench201", dict(channels=16, cells=5), (32, 32, 3)),
  "edge": ("edge", {}, (28, 28, 1)),
}
_RELAXATIONS = {"softmax": relaxations.softmax, "gdas": relaxations.gdas}
_GDAS_STEPS = 50
KEYS = tuple(f"{space}/{r}" for space in _SPACES for r in _RELAXATIONS)


def batches(shape):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2 * _BATCH, *shape)).astype(np.float32)
  labels = rng.integers(10, size=2 * _BATCH).astype(np.int32)
  train, valid = (
    Batch(jax.device_put(images[part]), jax.device_put(labels[part]))
    for part in (slice(0, _BATCH), slice(_BATCH, None))
  )
  return images, labels, train, valid


def compiled(space, relaxation, steps, train, valid):
  """A function that runs `steps` steps and returns the seconds of one."""
  made = search.differentiable(space, relaxation=relaxation)
  state = jax.jit(made.init)(jax.random.key(0))

  def block(state):
    return jax.lax.scan(
      lambda s, _: made.update(s, train, valid), state, length=steps
    )[0]

  lowered = jax.jit(block, donate_argnums=0).lower(state)
  program = []
  compile_s = timed(lambda: program.append(lowered.compile()))
  run = program[0]
  held = [state]

  def go():
    def once():
      held[0] = jax.block_until_ready(run(held[0]))

    return timed(once) / steps

  go()
  flops = run.cost_analysis()["flops"]  # a scan's body is counted once
  return go, compile_s, flops


def largest_difference(space, peer, ids, images):
  """Of the network's outputs on the same weights; all ids."""
  variables = space.init(jax.random.key(1))
  weights = {
    n: jax.nn.softmax(0.3 * jax.random.normal(jax.random.key(2), np.shape(m)))
    for n, m in space.masks.items()
  }
  logits = peer.save("logits", **{n: np.log(w) for n, w in weights.items()})
  ours = jax.jit(
    lambda v: space.apply(v, Sampled(weights, None), images, True)[0]
  )(variables)
  differences = []
  for number in ids:
    out = str(peer.folder / "outputs.npz")
    peer.ask("outputs", id=number, logits=logits, out=out)
    theirs = np.load(out)["outputs"]
    differences.append(float(np.abs(theirs - ours).max()))
  return max(differences)


def measure(key, peer, runs, machine):
  name, relaxation = key.rsplit("/", 1)
  kind, options, shape = _SPACES[name]
  space = getattr(spaces, kind)(**options)
  images, labels, train, valid = batches(shape)
  steps = _GDAS_STEPS if relaxation == "gdas" else 1
  data = peer.save("data", images=images, labels=labels)
  weights = peer.save("weights", **flat(space.init(jax.random.key(1))))
  ids = {
    layout: peer.ask(
      "build",
      name=kind,
      arguments={**options, "batch": _BATCH},
      data=data,
      weights=weights,
      layout=layout,
    )["id"]
    for layout in LAYOUTS
  }
  difference = largest_difference(space, peer, ids.values(), train.images)
  if not difference < 1e-4:
    raise SystemExit(f"{key}: outputs differ by {difference}")
  run, compile_s, flops = compiled(
    space, _RELAXATIONS[relaxation](), steps, train, valid
  )
  seeds = iter(range(10_000))

  def theirs(layout):
    answer = peer.ask(
      "step",
      id=ids[layout],
      relaxation=relaxation,
      steps=steps,
      seed=next(seeds),
    )
    return answer["seconds"] / steps

  for layout in LAYOUTS:
    theirs(layout)
  sides = {"nasjax": run}
  sides |= {layout: lambda x=layout: theirs(x) for layout in LAYOUTS}
  seconds = alternate(sides, runs)
  found = medians(seconds)
  if relaxation == "gdas":  # times depend on the paths: means over all blocks
    found = {side: float(np.mean(s)) for side, s in seconds.items()}
  best = min(LAYOUTS, key=found.get)
  figure = {
    "ratio": found[best] / found["nasjax"],
    "nasjax_s": found["nasjax"],
    "pytorch_s": found[best],
    "layout": best,
    "difference": difference,
    "compile_s": compile_s,
  }
  if relaxation == "softmax":  # of gdas the compiler counts every branch
    share = flops / found["nasjax"] / machine
    figure |= {"flops": flops, "peak_share": share}
  return figure


def main():
  found = arguments(__doc__, KEYS)
  machine = machine_peak()
  print(f"peak of a float32 matrix product: {machine / 1e9:.0f} GFLOP/s")
  figures = {}
  for key in [found.only] if found.only else KEYS:
    peer = Peer(found.pytorch)
    figures[key] = measure(key, peer, found.runs, machine)
    peer.close()
    report({key: figures[key]}, False)
  report(figures, found.json)


if __name__ == "__main__":
  main()
