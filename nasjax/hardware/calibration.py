"""Calibration: a roofline's peak and bandwidth, fitted to measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import least_squares

from nasjax.hardware import roofline
from nasjax.hardware.profile import Profile
from nasjax.hardware.workload import Workload

_FLOOR_S = 1e-12  # of a time, for its logarithm
_SHRINKAGE = 0.3  # residual of a kind whose factor is e times the others'


def calibrate(
  profile: Profile, measured: Sequence[tuple[Workload, float]]
) -> Profile:
  """Fits the peak by kind of operation, the bandwidths, and the overhead.

  The utilisation of each kind gets a factor of its own, drawn to the common
  one where its measurements say little; so do convolutions of several groups,
  which kernels run far from their peak. The bandwidths share one factor.

  Args:
    profile: the device by its datasheet.
    measured: (workload, ms for one image), at least three; kinds that the
      device fuses are left out.

  Returns:
    The profile that minimises the squared logarithm of modelled over measured
    time; its `source` says `fitted, +-x%`, with the median deviation.

  Raises:
    ValueError: fewer than three measurements, or one that is not above 0.
  """
  if any(not ms > 0 for _, ms in measured):
    raise ValueError("calibrate: a measured time is not above 0")
  measured = [(w, ms) for w, ms in measured if w.kind not in profile.fused]
  if len(measured) < 3:
    raise ValueError(f"calibrate: {len(measured)} measurements, 3 are needed")
  shares = dict(profile.utilisation)
  shares.setdefault("grouped", profile.by_kind(shares, "convolution"))
  plain = profile._replace(overhead_us=0.0, control_us=0.0, utilisation=shares)
  took = [roofline.times(work, plain) for work, _ in measured]
  compute = np.array([t.compute_s * t.slowdown for t in took])
  memory = np.array([t.memory_s * t.slowdown for t in took])
  target = np.log(np.array([1e-3 * ms for _, ms in measured]))
  kinds = [roofline.utilisation_kind(work, plain) for work, _ in measured]
  known = sorted(set(kinds))
  which = np.array([known.index(kind) for kind in kinds])

  def modelled(logs):
    bandwidth, overhead, peaks = np.exp(logs[0]), np.exp(logs[1]), logs[2:]
    busy = np.maximum(compute / np.exp(peaks)[which], memory / bandwidth)
    return np.log(busy + overhead + _FLOOR_S)

  def residuals(logs):
    peaks = logs[2:]
    return np.append(
      modelled(logs) - target, _SHRINKAGE * (peaks - peaks.mean())
    )

  # The maximum has kinks: the best of several starts.
  starts = [
    [b, np.log(1e-7), *[a] * len(known)] for a in (-3, 0, 2) for b in (-3, 0, 2)
  ]
  fits = [least_squares(residuals, s, loss="soft_l1") for s in starts]
  best = min(fits, key=lambda f: f.cost).x
  bandwidth, overhead, *peaks = (float(v) for v in np.exp(best))
  # Kinds that were not measured go with the others.
  common = float(np.exp(best[2:].mean()))
  factors = dict(zip(known, peaks, strict=True))
  deviation = float(np.median(np.abs(np.expm1(modelled(best) - target))))
  return profile._replace(
    # Shares of the datasheet's numbers, which a fit may well exceed.
    utilisation={k: v * factors.get(k, common) for k, v in shares.items()},
    efficiency=profile.efficiency * bandwidth,
    overhead_us=1e6 * overhead,
    control_us=0.0,
    source=f"fitted, +-{100 * deviation:.0f}% (median)",
  )
