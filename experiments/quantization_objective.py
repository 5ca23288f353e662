"""Does quantisation error as an objective make int8 cost less accuracy?

Fashion-MNIST, edge space. For each seed one supernet is trained on single
paths; from there two architecture searches go on, one for cross entropy alone
and one that also minimises `quantization.error_metric` of the supernet's
weights. Both networks are trained alone, exported to ONNX and quantised by ONNX
Runtime (static, int8, one scale a tensor, calibrated on training images); the
drop is measured on test images.

    python experiments/quantization_objective.py [--seeds 3] [--json]

No figures yet: it has not been run to its end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import jax
import numpy as np
import onnx
import onnxruntime
import optax
from onnxruntime import quantization as tools

from nasjax import (
  data,
  export,
  objectives,
  relaxations,
  search,
  spaces,
  training,
  weightings,
)
from nasjax.hardware import quantization
from nasjax.spaces import space as space_tools


class Calibration(tools.CalibrationDataReader):
  """Batches of training images."""

  def __init__(self, name: str, images: np.ndarray):
    """Takes images f32[N, H, W, C] in batches of 64."""
    self._batches = iter(
      [{name: images[i : i + 64]} for i in range(0, len(images), 64)]
    )

  def get_next(self):
    """The next batch, or None."""
    return next(self._batches, None)


def scaled(images, statistics):
  mean, std = statistics
  return ((images.astype(np.float32) / 255.0 - mean) / std).astype(np.float32)


def accuracy(path, images, labels):
  session = onnxruntime.InferenceSession(
    str(path), providers=["CPUExecutionProvider"]
  )
  name = session.get_inputs()[0].name
  hits = 0
  for i in range(0, len(labels), 250):
    (outputs,) = session.run(None, {name: images[i : i + 250]})
    hits += int((outputs.argmax(-1) == labels[i : i + 250]).sum())
  return hits / len(labels)


def measured(decided, variables, train, test, statistics):
  """(float accuracy, int8 accuracy) of a trained network."""
  network = decided.space.build(decided)
  shape = decided.space.arguments["image_shape"]
  images = scaled(test.images, statistics)
  with tempfile.TemporaryDirectory() as folder:
    whole, small = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
    model = export.network(network, variables, shape)
    onnx.save(model, whole)
    name = model.graph.input[0].name
    tools.quantize_static(
      str(whole),
      str(small),
      Calibration(name, scaled(train.images[:512], statistics)),
      quant_format=tools.QuantFormat.QDQ,
      per_channel=False,
    )
    return (
      accuracy(whole, images, test.labels),
      accuracy(small, images, test.labels),
    )


def searched(space, state, train, valid, found, seed, extra):
  """Goes on from a trained supernet; the decided architecture."""
  each = min(len(train.labels), len(valid.labels)) // 64
  made = search.differentiable(
    space,
    relaxation=relaxations.proxyless(),
    objectives=[objectives.cross_entropy(), *extra],
    weighting=weightings.constant(),
    preference=[1.0, *[found.coefficient] * len(extra)],
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0), optax.sgd(0.01, momentum=0.9)
    ),
    arch_optimizer=optax.adam(0.02, b1=0.5, b2=0.999),
  )
  start = jax.jit(made.init)(jax.random.key(seed))
  variables = jax.tree.map(lambda v: v.copy(), state.shared.variables)
  start = start._replace(shared=start.shared._replace(variables=variables))
  end = start
  for epoch in search.run_epochs(
    made,
    start,
    train,
    valid,
    epochs=max(1, found.arch_steps // each),
    batch_size=64,
    augmentation=data.Augmentation(),
    key=jax.random.key(seed + 100),
  ):
    end = epoch.state
  weights = relaxations.proxyless().expect(
    end.member.logits, end.masks, end.step
  )
  return space.decide({n: np.asarray(w) for n, w in weights.items()})


def supernet(space, train, valid, found, seed):
  each = min(len(train.labels), len(valid.labels)) // 64
  epochs = max(1, found.steps // each)
  made = search.differentiable(
    space,
    relaxation=relaxations.gdas(),
    optimizer=optax.chain(
      optax.clip_by_global_norm(5.0),
      optax.sgd(optax.cosine_decay_schedule(0.05, epochs * each), momentum=0.9),
    ),
    arch_start=10**9,
  )
  end = jax.jit(made.init)(jax.random.key(seed))
  for epoch in search.run_epochs(
    made,
    end,
    train,
    valid,
    epochs=epochs,
    batch_size=64,
    augmentation=data.Augmentation(),
    key=jax.random.key(seed + 1),
  ):
    end = epoch.state
  return end


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--images", type=int, default=6000)
  parser.add_argument("--channels", type=int, default=8)
  parser.add_argument("--steps", type=int, default=700, help="of the supernet")
  parser.add_argument("--arch-steps", type=int, default=300)
  parser.add_argument("--coefficient", type=float, default=1.0)
  parser.add_argument("--epochs", type=int, default=8, help="trained alone")
  parser.add_argument("--json", action="store_true")
  found = parser.parse_args()
  dataset = data.load("fashion-mnist")
  few = data.Images(*(a[: found.images] for a in dataset.train))
  test = data.Images(*(a[:5000] for a in dataset.test))
  space = spaces.edge(channels=found.channels, activation="relu6")
  rows = []
  for seed in range(found.seeds):
    train, valid = data.split(few, seed=seed)
    state = supernet(space, train, valid, found, seed)
    metric = quantization.error_metric(
      space, state.shared.variables["params"], 8, per_channel=False
    )
    drawn = space_tools.random_choices(space, np.random.default_rng(seed), 500)
    usual = np.median(space_tools.additive_costs(space, metric).of(drawn))
    row = {"seed": seed}
    for name, extra in (
      ("without", []),
      ("with", [objectives.metric(metric, reference=float(usual))]),
    ):
      decided = searched(space, state, train, valid, found, seed, extra)
      recipe = training.Recipe(epochs=found.epochs)
      begun = training.begin(
        jax.random.key(seed), decided, recipe, len(few.labels)
      )
      for epoch in training.epochs(
        decided, recipe, few, begun, key=jax.random.key(seed)
      ):
        begun = epoch.state
      whole, small = measured(
        decided, begun.variables, few, test, data.statistics(few)
      )
      row[name] = {
        "error_over_median": metric.exact(decided) / float(usual),
        "float_accuracy": whole,
        "int8_accuracy": small,
        "drop": whole - small,
        "choices": decided.names(),
      }
    rows.append(row)
    print(json.dumps(row), flush=True)
  report = {
    f"drop_{name}": [r[name]["drop"] for r in rows]
    for name in ("without", "with")
  }
  report |= {
    f"mean_drop_{n}": float(np.mean(report[f"drop_{n}"]))
    for n in ("without", "with")
  }
  print(json.dumps(report) if found.json else report)


if __name__ == "__main__":
  main()
