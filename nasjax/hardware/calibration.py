"""Calibration: a roofline's peak and bandwidth, fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from nasjax.hardware import roofline
from nasjax.hardware.profile import Profile
from nasjax.hardware.workload import Workload

_FLOOR_S = 1e-12  # of a time, for its logarithm


def calibrate(
  profile: Profile, measured: Sequence[tuple[Workload, float]]
) -> Profile:
  """Fits one factor of the peak, one of the bandwidths, and the overhead.

  Args:
    profile: the device by its datasheet.
    measured: (workload, ms for one image), at least three.

  Returns:
    The profile that minimises the squared logarithm of modelled over measured
    time; its `source` says `fitted, +-x%`, with the median deviation.

  Raises:
    ValueError: fewer than three measurements, or one that is not above 0.
  """
  if len(measured) < 3:
    raise ValueError(f"calibrate: {len(measured)} measurements, 3 are needed")
  if any(not ms > 0 for _, ms in measured):
    raise ValueError("calibrate: a measured time is not above 0")
  plain = profile._replace(overhead_us=0.0, control_us=0.0)
  took = [roofline.times(work, plain) for work, _ in measured]
  compute = np.array([t.compute_s * t.slowdown for t in took])
  memory = np.array([t.memory_s * t.slowdown for t in took])
  target = np.log(np.array([1e-3 * ms for _, ms in measured]))

  def modelled(logs):
    peak, bandwidth, overhead = np.exp(logs)
    busy = np.maximum(compute / peak, memory / bandwidth)
    return np.log(busy + overhead + _FLOOR_S)

  # The maximum has kinks: the best of several starts.
  starts = [(a, b, np.log(1e-7)) for a in (-3, 0, 2) for b in (-3, 0, 2)]
  fits = [
    least_squares(lambda x: modelled(x) - target, s, loss="soft_l1")
    for s in starts
  ]
  best = min(fits, key=lambda f: f.cost).x
  peak, bandwidth, overhead = (float(v) for v in np.exp(best))
  deviation = float(np.median(np.abs(np.expm1(modelled(best) - target))))
  return profile._replace(
    # Shares of the datasheet's numbers, which a fit may well exceed.
    utilisation={k: v * peak for k, v in profile.utilisation.items()},
    efficiency=profile.efficiency * bandwidth,
    overhead_us=1e6 * overhead,
    control_us=0.0,
    source=f"fitted, +-{100 * deviation:.0f}% (median)",
  )
