"""The roofline beside the measured table of x86-server.

30 random networks of each space; latency by the table (the sum of measured
workloads) against the roofline, Spearman's rank correlation, three draws. The
calibration fits peak, bandwidth and overhead to the table's rows that are NOT
workloads of the space it is tested on (`outside`) or to all (`all`).

    space             uncalibrated       all                outside
    edge 28x28x1      0.951 0.952 0.958  0.938 0.946 0.923  0.951 0.954 0.941
    nasbench201 C=16  0.992 0.991 0.989  0.992 0.991 0.989  0.992 0.992 0.989
    edge 8x8x1        0.874 0.844 0.842  0.883 0.768 0.708  0.711 0.715 0.726

On 8x8 images an operation takes about a microsecond and what a call costs,
which differs by kind, decides the order: the model does not have that.

    python experiments/roofline_spearman.py
"""

import numpy as np
from scipy.stats import spearmanr

from nasjax import hardware, spaces
from nasjax.hardware.calibration import calibrate
from nasjax.spaces import space as space_module

SPACES = {
  "edge 28x28x1": spaces.edge(),
  "nasbench201 C=16": spaces.nasbench201(channels=16),
  "edge 8x8x1": spaces.edge(image_shape=(8, 8, 1)),
}


def correlations(device, profile, space, draws=3, networks=30):
  modelled = device._replace(table=None, profile=profile).latency(space)
  modelled = space_module.additive_costs(space, modelled)
  measured = space_module.additive_costs(space, device.latency(space))
  found = []
  for seed in range(draws):
    rng = np.random.default_rng(seed)
    drawn = space_module.random_choices(space, rng, networks)
    found.append(
      float(spearmanr(modelled.of(drawn), measured.of(drawn)).statistic)
    )
  return found


def main():
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
