"""One search step, weight step + architecture step, against PyTorch's.

The same supernet on the same weights in both; outputs are compared first. Both
are warmed up and alternate on the same cores, three steps at a time, or one of
darts; nasjax runs them as one program, as a search does. PyTorch runs in both
memory formats and the faster counts; one that is clearly slower takes no more
turns. For gdas the means over 50 or more steps of sampled paths are compared,
run in blocks that alternate. A ratio over 1 says that nasjax is faster.
`overhead` is what metrics and limits add to a step (a ratio near 1 is good),
`epoch` steps dispatched from Python over the same steps in one scan.

Measured on 2 cores (x86-64 with AVX-512, shared with other machines), JAX
0.10.2, PyTorch 2.13, 7 runs, all keys in one run of 19 minutes; in brackets
such a run before the changes named below:

    nasbench201/softmax     1.85  (1.79)  0.488 against 0.903 s
    nasbench201/gdas        1.24  (1.23)  0.204 against 0.253 s
    nasbench201-n5/softmax  1.50  (1.32)  2.87 against 4.30 s
    nasbench201-n5/gdas     1.16  (0.93)  0.965 against 1.119 s
    darts/softmax           2.37  (2.39)  2.20 against 5.21 s
    edge/softmax            1.39  (1.26)  0.944 against 1.316 s
    edge/gdas               1.26  (1.17)  0.157 against 0.197 s

The changes: activations write padded what a depthwise convolution reads next,
and its gradient is stored padded alone (edge/softmax 1.09 times as fast);
partial sums are added up once more before they are copied together (1.03); the
gradient of a pointwise kernel is the product with more columns than rows
(1.02); a sampled candidate's normalisation is part of its branch, of which
nothing is kept in a loop over cells (n5/gdas 1.09, edge/gdas 1.04) and its last
convolution where there is no loop (nasbench201/gdas 1.06 to 1.07).

darts/softmax takes 34 to 38 s to lower and about two minutes to compile. That
the depthwise convolutions of its edges are functions of their own saves a
seventh of the compilation (139 against 163 s) and a quarter of the memory.
Before it, half of compiling were XLA's passes over the program, on one core.

What the others' time goes into, on one core (step_profile.py), %:

                            edge            nasbench201-n5
                            softmax  gdas   softmax  gdas
    convolutions, products       35    33        60    52
    elementwise                  21    27        12    26
    sums, maxima                 21    17         8     6
    copies                       16    13        13    10
    kept by loops                 8    10         8     6

Not recomputing edge's cells, run one after the other, saved 4 to 20% for four
times the memory and twice the time to compile; keeping convolutions' outputs
alone in the loop saved nothing, nor did keeping the moments of normalisations.

Tried on edge/softmax without gain: the moments and the gradient of a
normalisation after a 1x1 convolution from products of its input alone, without
a pass over its output (1.01 to 1.03, for a hundred lines); the gradient of a
depthwise convolution's input stored instead of computed in two passes (0.98);
an activation's input kept instead of which values passed (0.8).

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
  peak_memory,
  report,
  timed,
)
from harness import peak as machine_peak

from nasjax import (
  constraints,
  hardware,
  objectives,
  relaxations,
  search,
  spaces,
)
from nasjax.types import Batch, Sampled

_BATCH = {"darts": 16}
_SPACES = {
  "nasbench201": ("nasbench201", dict(channels=16, cells=1), (32, 32, 3)),
  "nasbench201-n5": ("nasbench201", dict(channels=16, cells=5), (32, 32, 3)),
  "darts": ("darts", dict(channels=16, cells=8), (32, 32, 3)),
  "edge": ("edge", {}, (28, 28, 1)),
}
RELAXATIONS = {"softmax": relaxations.softmax, "gdas": relaxations.gdas}
_GDAS_STEPS = 50  # at least, of all turns together
# In one program, as a search runs its epochs: a program's memory is faulted in
# anew in every call, a quarter of a step's time where that is 1.3 GB.
STEPS = 3
_STEPS = {"darts": 1}  # its memory is small beside its time
_SLOWER = 1.25  # a memory format that takes so much longer takes no more turns
_PEERS = tuple(
  f"{space}/{r}"
  for space in _SPACES
  for r in RELAXATIONS
  if (space, r) != ("darts", "gdas")  # the paper's own search is softmax
)
KEYS = (*_PEERS, "overhead", "epoch")
_PAIRS = 21


def batches(shape, size=64):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(2 * size, *shape)).astype(np.float32)
  labels = rng.integers(10, size=2 * size).astype(np.int32)
  train, valid = (
    Batch(jax.device_put(images[part]), jax.device_put(labels[part]))
    for part in (slice(0, size), slice(size, None))
  )
  return images, labels, train, valid


def lowered(space, relaxation, steps, train, valid, options=None):
  """(`steps` steps as one lowered program, the state that they start from).

  Args:
    space: the space.
    relaxation: its relaxation.
    steps: of one call.
    train: batch of the weight steps.
    valid: batch of the architecture steps.
    options: more of `search.differentiable`, by name.
  """
  made = search.differentiable(space, relaxation=relaxation, **(options or {}))
  state = jax.jit(made.init)(jax.random.key(0))

  def block(state):
    return jax.lax.scan(
      lambda s, _: made.update(s, train, valid), state, length=steps
    )[0]

  return jax.jit(block, donate_argnums=0).lower(state), state


def compiled(space, relaxation, steps, train, valid, options=None):
  """A function that runs `steps` steps and returns the seconds of one.

  Takes what `lowered` takes.

  Returns:
    (the function, seconds to compile it, its FLOPs, bytes that it needs).
  """
  whole, state = lowered(space, relaxation, steps, train, valid, options)
  program = []
  compile_s = timed(lambda: program.append(whole.compile()))
  run = program[0]
  held = [state]

  def go():
    def once():
      held[0] = jax.block_until_ready(run(held[0]))

    return timed(once) / steps

  go()
  flops = run.cost_analysis()["flops"]  # a scan's body is counted once
  memory = run.memory_analysis()
  needed = memory.temp_size_in_bytes + memory.argument_size_in_bytes
  return go, compile_s, flops, needed


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


def supernet(key):
  """A key's (space, image shape, images a batch, relaxation)."""
  name, relaxation = key.rsplit("/", 1)
  kind, options, shape = _SPACES[name]
  space = getattr(spaces, kind)(**options)
  return space, shape, _BATCH.get(name, 64), RELAXATIONS[relaxation]()


def measure(key, peer, runs, machine):
  name, relaxation = key.rsplit("/", 1)
  kind, options, _ = _SPACES[name]
  space, shape, batch, relaxed = supernet(key)
  images, labels, train, valid = batches(shape, batch)
  # Shares of the steps take turns: whole blocks would outlast the 25 minutes.
  share = -(-_GDAS_STEPS // runs)
  steps = share if relaxation == "gdas" else _STEPS.get(name, STEPS)
  data = peer.save("data", images=images, labels=labels)
  weights = peer.save("weights", **flat(space.init(jax.random.key(1))))
  ids = {
    layout: peer.ask(
      "build",
      name=kind,
      arguments={**options, "batch": batch},
      data=data,
      weights=weights,
      layout=layout,
    )["id"]
    for layout in LAYOUTS
  }
  difference = largest_difference(space, peer, ids.values(), train.images)
  if not difference < 1e-4:
    raise SystemExit(f"{key}: outputs differ by {difference}")
  run, compile_s, flops, needed = compiled(space, relaxed, steps, train, valid)
  seeds = iter(range(10_000))

  def theirs(layout, steps=steps):
    answer = peer.ask(
      "step",
      id=ids[layout],
      relaxation=relaxation,
      steps=steps,
      seed=next(seeds),
    )
    return answer["seconds"] / steps

  for layout in LAYOUTS:
    theirs(layout, 1)
  tries = STEPS if relaxation == "gdas" else 1  # sampled steps differ
  tried = {layout: theirs(layout, tries) for layout in LAYOUTS}
  layouts = [x for x in LAYOUTS if tried[x] < _SLOWER * min(tried.values())]
  sides = {"nasjax": run}
  sides |= {layout: lambda x=layout: theirs(x) for layout in layouts}
  seconds = alternate(sides, runs)
  found = medians(seconds)
  if relaxation == "gdas":  # times depend on the paths: means over all steps
    found = {side: float(np.mean(s)) for side, s in seconds.items()}
  best = min(layouts, key=found.get)
  figure = {
    "ratio": found[best] / found["nasjax"],
    "nasjax_s": found["nasjax"],
    "pytorch_s": found[best],
    "layout": best,
    "difference": difference,
    "compile_s": compile_s,
    "nasjax_gb": needed / 1e9,  # of the program; the process compiled it too
    "nasjax_process_gb": peak_memory() / 1e9,
    "pytorch_process_gb": peer.ask("memory")["peak_bytes"] / 1e9,
  }
  if relaxation == "softmax":  # of gdas the compiler counts every branch
    rate = flops / found["nasjax"]
    figure |= {"flops": flops, "peak_share": rate / machine}
  return figure


def overhead():
  """Three metrics as objectives and two limits over cross entropy alone."""
  space = spaces.edge()
  _, _, train, valid = batches((28, 28, 1))
  metrics = (
    hardware.device("x86-server").latency(space),
    hardware.macs(space),
    hardware.params(space),
  )
  more = dict(
    objectives=[
      objectives.cross_entropy(),
      *(objectives.metric(m, reference=1e6) for m in metrics),
    ],
    constraints=[
      constraints.at_most(metrics[0], 0.2),
      constraints.at_most(metrics[1], 1e6),
    ],
  )
  sides, flops = {}, {}
  for name, options in (("alone", {}), ("all", more)):
    sides[name], _, flops[name], _ = compiled(
      space, relaxations.softmax(), 1, train, valid, options
    )
  seconds = alternate(sides, _PAIRS)
  pairs = zip(seconds["all"], seconds["alone"], strict=True)
  return {
    "ratio": float(np.median([a / b for a, b in pairs])),
    "flops_ratio": flops["all"] / flops["alone"],
    **medians(seconds),
  }


def epoch(runs):
  """Ten steps as one scan over ten dispatched from Python, one program each."""
  space, steps = spaces.nasbench201(channels=4, cells=1), 10
  _, _, train, valid = batches((8, 8, 3))
  scan, *_ = compiled(space, relaxations.softmax(), steps, train, valid)
  one, *_ = compiled(space, relaxations.softmax(), 1, train, valid)

  def guarded():
    with jax.transfer_guard("disallow"):
      return scan()

  def dispatched():
    return sum(one() for _ in range(steps)) / steps

  found = medians(
    alternate({"scan_s": guarded, "python_s": dispatched}, 3 * runs)
  )
  return {"ratio": found["python_s"] / found["scan_s"], **found}


def main():
  found = arguments(__doc__, KEYS)
  machine = machine_peak()
  print(f"peak of a float32 matrix product: {machine / 1e9:.0f} GFLOP/s")
  figures = {}
  for key in [found.only] if found.only else KEYS:
    if key == "overhead":
      figures[key] = overhead()
    elif key == "epoch":
      figures[key] = epoch(found.runs)
    else:
      peer = Peer(found.pytorch)
      figures[key] = measure(key, peer, found.runs, machine)
      peer.close()
    report({key: figures[key]}, False)
  report(figures, found.json)


if __name__ == "__main__":
  main()
