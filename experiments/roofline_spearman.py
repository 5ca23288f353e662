"""The roofline beside the measured table of x86-server.

30 random networks of each space; latency by the table (the sum of measured
workloads) against the roofline, Spearman's rank correlation, three draws. The
calibration fits peak, bandwidth and overhead to the table's rows that are NOT
workloads of the space it is tested on (`outside`) or to all (`all`).

    space             uncalibrated       all                outside
    edge 28x28x1      0.951 0.952 0.958  0.974 0.971 0.984  0.976 0.980 0.979
    nasbench201 C=16  0.992 0.991 0.989  0.983 0.988 0.975  0.983 0.989 0.975
    edge 8x8x1        0.874 0.844 0.842  0.891 0.872 0.886  0.836 0.809 0.856

On 8x8 images an operation takes about a microsecond and what a call costs,
which differs by kind, decides the order: the model does not have that.

`--measured FOLDER` of `measured_table.py` takes its whole networks instead,
30 and 30, timed by ONNX Runtime; the calibration sees its rows alone. On two
virtual cores of a server, edge 28x28x1:

    seed of the networks  uncalibrated  calibrated   the table itself
    2                     0.889 0.871   0.944 0.944  0.984 0.982
    3                     0.917 0.941   0.968 0.973  0.996 0.995
    4                     0.934 0.871   0.957 0.935  0.996 0.994

That convolutions of several groups have a utilisation of their own was added
after looking at these networks: without it 0.871 to 0.947.

    python experiments/roofline_spearman.py [--measured FOLDER]
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from nasjax import hardware, spaces
from nasjax.cli.parts import make_space
from nasjax.hardware import bundle, timer
from nasjax.hardware.calibration import calibrate
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_module
from nasjax.spaces.space import Architecture

SPACES = {
  "edge 28x28x1": spaces.edge(),
  "nasbench201 C=16": spaces.nasbench201(channels=16),
  "edge 8x8x1": spaces.edge(image_shape=(8, 8, 1)),
}


def correlations(device, profile, space, draws=3, networks=30):
  modelled = device._replace(table=None, profile=profile).latency(space)
  modelled = cost_tables.additive_costs(space, modelled)
  measured = cost_tables.additive_costs(space, device.latency(space))
  found = []
  for seed in range(draws):
    rng = np.random.default_rng(seed)
    drawn = space_module.random_choices(space, rng, networks)
    found.append(
      float(spearmanr(modelled.of(drawn), measured.of(drawn)).statistic)
    )
  return found


def of_networks(folder):
  """Whole networks that were timed, 30 and 30, and the table's own figure."""
  results = Path(folder) / timer.RESULTS
  measured, space = bundle.read(results, make_space)
  table = hardware.device(str(Path(folder) / "table.csv"))
  rows = [(w, c["latency_ms"]) for (w, b), c in table.table.rows.items()]
  # ONNX Runtime runs an activation with the operation before it.
  profile = hardware.device("x86-server").profile
  profile = profile._replace(fused=("relu", "relu6"))
  networks = [Architecture(space, choices) for choices, *_ in measured.networks]
  times = np.array([time for *_, time in measured.networks])
  for label, own in (
    ("uncalibrated", profile),
    ("calibrated", calibrate(profile, rows)),
    ("table", None),
  ):
    device = table
    if own is not None:
      device = table._replace(table=None, profile=own)
    latency = device.latency(space)
    found = np.array([latency.exact(one) for one in networks])
    halves = [
      float(spearmanr(found[half], times[half]).statistic)
      for half in (slice(0, 30), slice(30, 60))
    ]
    print(label, *(f"{r:.3f}" for r in halves))


def main():
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--measured", help="folder of measured_table.py")
  folder = parser.parse_args().measured
  if folder is not None:
    of_networks(folder)
    return
  device = hardware.device("x86-server")
  rows = [(w, c["latency_ms"]) for (w, b), c in device.table.rows.items()]
  for name, space in SPACES.items():
    own = set(space.workloads().distinct())
    outside = [row for row in rows if row[0] not in own]
    for label, profile in (
      ("uncalibrated", device.profile),
      ("all", calibrate(device.profile, rows)),
      ("outside", calibrate(device.profile, outside)),
    ):
      found = correlations(device, profile, space)
      print(name, label, *(f"{r:.3f}" for r in found), profile.source)


if __name__ == "__main__":
  main()
