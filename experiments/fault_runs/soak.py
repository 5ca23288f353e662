"""A long search of a tiny space: memory, programs and files stay constant."""

import gc
import os
import tempfile
from pathlib import Path

import jax
import numpy as np
from fault_runs.common import Table

from nasjax import checkpoint, data, hypergradients, relaxations, search, spaces
from nasjax.search import epochs

STEPS, BATCH = 100, 4  # an epoch's steps, images a step
_PAGE = os.sysconf("SC_PAGE_SIZE")


def _resident():
  return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE / 2**20


def run(steps):
  """Runs `steps` steps with a checkpoint an epoch; counts failures."""
  programs = []

  def heard(name, seconds, **details):
    del seconds, details
    if name == "/jax/core/compile/backend_compile_duration":
      programs.append(name)

  jax.monitoring.register_event_duration_secs_listener(heard)
  space = spaces.nasbench201(
    channels=2, cells=1, image_shape=(8, 8, 1), num_classes=3
  )
  made = search.differentiable(
    space,
    relaxation=relaxations.softmax(),
    hypergradient=hypergradients.single_level(),
  )
  rng, size = np.random.default_rng(0), STEPS * BATCH
  images = data.Images(
    rng.integers(256, size=(size, 8, 8, 1), dtype=np.uint8),
    rng.integers(3, size=size).astype(np.int32),
  )
  state = jax.jit(made.init)(jax.random.key(0))
  count = max(3, steps // STEPS)
  samples = []
  with tempfile.TemporaryDirectory(prefix="nasjax-soak-") as held:
    loop = epochs.prepare(
      lambda _: made,
      (),
      images,
      images,
      batch_size=BATCH,
      augmentation=data.Augmentation(),
    )
    for now in epochs.run_chunks(
      loop, epochs.begin(loop, state), epochs=count, key=jax.random.key(1)
    ):
      if int(now.done) < STEPS:
        continue
      epochs.summary(now)
      checkpoint.save(Path(held), int(now.state.step), now, {})
      gc.collect()
      files = len(os.listdir("/proc/self/fd"))
      samples.append((_resident(), files, len(programs)))
      if int(now.epoch) % max(1, count // 10) == 0:
        print(
          f"step {int(now.state.step)}: {samples[-1][0]:.1f} MiB,"
          f" {files} files, {len(programs)} programs compiled",
          flush=True,
        )
  table = Table("soak")
  # The first tenth fills the allocators' pools.
  first = samples[max(1, count // 10)]
  last = samples[-1]
  growth = last[0] / first[0] - 1
  table.add("memory", f"grew by {growth:.1%}" if growth > 0.02 else "")
  table.add("files", f"{first[1]} -> {last[1]}" if last[1] != first[1] else "")
  new = last[2] - first[2]
  table.add("programs", f"{new} compiled later" if new else "")
  print(f"memory {growth:+.2%} from step {STEPS * max(2, count // 10 + 1)}")
  return table.done()
