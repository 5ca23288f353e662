"""Calibration: recovers what it was made with, ranks networks as measured."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from nasjax import hardware, spaces
from nasjax.hardware import roofline
from nasjax.hardware.calibration import calibrate
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_module

DEVICE = hardware.device("x86-server")
ROWS = [(w, c["latency_ms"]) for (w, _), c in DEVICE.table.rows.items()]


def test_a_fit_recovers_factors():
  base = DEVICE.profile
  made = base._replace(
    utilisation={k: 0.4 * v for k, v in base.utilisation.items()},
    efficiency=0.25 * base.efficiency,
    overhead_us=0.7,
  )
  rows = [(w, roofline.latency_ms(w, made)) for w, _ in ROWS]
  found = calibrate(base, rows)
  assert found.efficiency == pytest.approx(made.efficiency, rel=0.02)
  assert found.utilisation["depthwise"] == pytest.approx(0.04, rel=0.02)
  assert found.overhead_us == pytest.approx(0.7, rel=0.02)
  assert found.source == "fitted, +-0% (median)"
  with pytest.raises(ValueError, match="3 are needed"):
    calibrate(base, rows[:2])
  with pytest.raises(ValueError, match="not above 0"):
    calibrate(base, [*rows[:3], (rows[0][0], 0.0)])


@pytest.mark.parametrize(
  "space", [spaces.edge(), spaces.nasbench201(channels=16)]
)
def test_it_ranks_networks_as_the_measured_table_does(space):
  own = set(space.workloads().distinct())
  fitted = calibrate(DEVICE.profile, [r for r in ROWS if r[0] not in own])
  latency = DEVICE._replace(table=None, profile=fitted).latency(space)
  assert "fitted, +-" in latency.source
  drawn = space_module.random_choices(space, np.random.default_rng(0), 30)
  modelled, measured = (
    cost_tables.additive_costs(space, m).of(drawn)
    for m in (latency, DEVICE.latency(space))
  )
  assert spearmanr(modelled, measured).statistic >= 0.90
