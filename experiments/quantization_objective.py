"""Does quantisation error as an objective make int8 cost less accuracy?

For each seed one supernet of the edge space is trained on single paths; from
there two architecture searches go on that differ in one number: the coefficient
of `quantization.error_metric` (8 bits, one step a tensor, normalisation folded
in, over its median of random networks) beside cross entropy, 0 without and
`--coefficient` with. Each network is trained alone several times, exported to
ONNX and quantised by ONNX Runtime (static, int8, one scale a tensor, calibrated
on training images). The drop is float less int8 accuracy on the test images,
and the same for kernels alone at `--bits` by `quantization.quantize`, one step
a tensor, in the exported file.

    python -m experiments.quantization_objective [--seeds 0 1 2] [--json]

Space and images are those of `small_fashion`.

It does not, on two seeds (coefficient 0.3, 1000 steps, 6 trainings each, points
of 10,000 test images):

                          without          with
    float                 83.5  80.4       75.0  75.0
    drop, int8            0.07  0.11       0.09  0.15
    drop, 5-bit kernels   3.0   3.5        9.3   6.9

Int8 costs these networks next to nothing: 13 of 14 random ones of convolutions
alone drop by -0.1 to 0.5 points, which neither the sum of errors nor that of
errors relative to each channel ranks (Spearman -.2 to .25, at 8 and 5 bits).
The objective leads to candidates without parameters, whose error is 0, and
there the layers that every network has lose more. What did cost accuracy was
one thing: channels that are constant behind a saturated activation. Their
folded kernels are 316 times as large, and one scale a tensor leaves nothing of
the others: .837 to .1, .844 to .232, .784 to .175 on three networks. The
fourteenth of the random ones lost 61 points. Exported networks have such
channels as constants now: the first two reach .837 and .843 in int8.

Looked for besides, a setting where int8 costs something that kernels' errors
say. Networks of one candidate all through, with trained scales (`training`, 12
epochs of 12,000 images), drop by, in points, one figure a training:

                 inverted    separable    1x1         squeeze-    others
                 residual    3x3                      and-excite
    8 channels
      relu6      -.07 -.08   .26 .25      .16 -.03    .09 .04
      relu       .12         .10          .12         .66
      hswish     .12         .42          .38         .28
    4 channels
      hswish     .38 .29     .12 .03      .73                     grouped .19
                 .10         .29 .24                              .07 .15,
                                                                  ghost 1.48

(relu, and the second of each pair at relu6, with learning rate 0.3 and weight
decay 1e-3, the others 0.1 and 3e-4.) Linear bottlenecks drop by .07 and -.06; a
weight decay of 3e-3 leaves .14 (separable), one of 1e-2, .69, ends channels;
without trained scales it is -.27 to .18. Nearly every kernel loses .003 to .015
of its norm, so their sum hardly tells more than how many there are, and a
network's own trainings differ as much as candidates do. At 8 channels inverted
residuals drop least (but for relu) and are the most accurate: a search for
accuracy chooses them anyway. With weights inherited from a supernet and
statistics taken anew, networks of 33 to 57% accuracy drop by up to 7.8 points;
those of less error drop more (Spearman -.43 over 17), among them pools and
skips. An error of whole networks, with the statistics of their own path and the
layers that all have, was not tried.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime import quantization as tools

from experiments import small_fashion
from nasjax import data, export
from nasjax.hardware import quantization
from nasjax.search import ranking
from nasjax.spaces import costs as cost_tables


class Calibration(tools.CalibrationDataReader):
  """Batches of training images."""

  def __init__(self, images: np.ndarray):
    """Takes images f32[N, H, W, C] in batches of 64."""
    self._batches = iter(
      [{export.INPUT: images[i : i + 64]} for i in range(0, len(images), 64)]
    )

  def get_next(self):
    """The next batch, or None."""
    return next(self._batches, None)


def scaled(images, statistics):
  mean, std = statistics
  return ((images.astype(np.float32) / 255.0 - mean) / std).astype(np.float32)


def accuracy(model, images, labels):
  session = onnxruntime.InferenceSession(
    model.SerializeToString(), providers=["CPUExecutionProvider"]
  )
  hits = 0
  for i in range(0, len(labels), 250):
    (outputs,) = session.run(None, {export.INPUT: images[i : i + 250]})
    hits += int((outputs.argmax(-1) == labels[i : i + 250]).sum())
  return hits / len(labels)


def with_few_bits(model, bits):
  """The model with kernels at `bits`, one step a tensor; biases stay."""
  few = onnx.ModelProto()
  few.CopyFrom(model)
  for tensor in few.graph.initializer:
    values = onnx.numpy_helper.to_array(tensor)
    if values.ndim >= 2 and values.dtype == np.float32:
      rounded = quantization.quantize(values, bits, per_channel=False)
      tensor.CopyFrom(
        onnx.numpy_helper.from_array(np.asarray(rounded), tensor.name)
      )
  return few


def with_int8(model, images):
  """The model's static int8 form."""
  logging.getLogger().setLevel(logging.ERROR)
  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "int8.onnx"
    given = Path(folder) / "float.onnx"  # the model itself would be changed
    onnx.save(model, given)
    tools.quantize_static(
      str(given),
      str(path),
      Calibration(images),
      quant_format=tools.QuantFormat.QDQ,
      per_channel=False,
    )
    return onnx.load(path)


def measured(decided, trained, train, test, bits):
  """Accuracies of a network trained alone: float, int8, kernels at `bits`."""
  space = decided.space
  model = export.network(
    space.build(decided),
    space.extract(trained(decided), decided),
    space.arguments["image_shape"],
  )
  statistics = data.statistics(train)
  images = scaled(test.images, statistics)
  calibration = scaled(train.images[:512], statistics)
  return {
    "float": accuracy(model, images, test.labels),
    "int8": accuracy(with_int8(model, calibration), images, test.labels),
    "few_bits": accuracy(with_few_bits(model, bits), images, test.labels),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--coefficient", type=float, default=0.3)
  parser.add_argument("--steps", type=int, default=1500, help="trained alone")
  parser.add_argument("--repeats", type=int, default=2, help="trained alone")
  parser.add_argument("--bits", type=int, default=5)
  parser.add_argument("--json", action="store_true")
  found = parser.parse_args()
  made = small_fashion.setup()
  rows = []
  for seed in found.seeds:
    state, halves = small_fashion.warm(made, seed)
    variables = state.shared.variables
    metric = quantization.error_metric(
      made.space,
      variables["params"],
      8,
      per_channel=False,
      batch_stats=variables["batch_stats"],
    )
    costs = cost_tables.additive_costs(made.space, metric)
    usual = float(np.median(costs.of(made.random)))
    row = {"seed": seed}
    for name, coefficient in (("without", 0.0), ("with", found.coefficient)):
      cost = small_fashion.Cost(costs, usual, coefficient, False)
      weights = small_fashion.searched(made, state, halves, cost, seed)
      network = made.space.decide(weights)
      scores = [
        measured(
          network,
          ranking.trainer(
            made.space,
            made.images,
            steps=found.steps,
            batch_size=small_fashion.BATCH,
            learning_rate=0.05,
            seed=100 * seed + i,
          ),
          made.images,
          made.test,
          found.bits,
        )
        for i in range(found.repeats)
      ]
      mean = {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}
      row[name] = {
        "error_over_median": metric.exact(network) / usual,
        "drop_int8": mean["float"] - mean["int8"],
        "drop_few_bits": mean["float"] - mean["few_bits"],
        "accuracies": mean,
        "each": scores,
        "choices": network.names()["nodes"],
      }
      print(json.dumps({"seed": seed, name: row[name]}), flush=True)
    rows.append(row)
  report = {}
  for what in ("drop_int8", "drop_few_bits"):
    for name in ("without", "with"):
      values = [row[name][what] for row in rows]
      report[f"{what}_{name}"] = values
      report[f"mean_{what}_{name}"] = float(np.mean(values))
  for name in ("without", "with"):
    report[f"float_{name}"] = [r[name]["accuracies"]["float"] for r in rows]
  print(json.dumps(report) if found.json else report)


if __name__ == "__main__":
  main()
