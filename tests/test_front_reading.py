"""The reading of a front of error, latency and energy, by exact numbers."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import front_reading  # noqa: E402

# Six of a front by latency; the third is slow for its error but takes little
# energy, and so does the last but one.
FRONT = np.array(
  [
    # error, ms, mJ
    [0.40, 1.0, 10.0],
    [0.30, 2.0, 14.0],
    [0.35, 3.0, 11.0],
    [0.20, 4.0, 20.0],
    [0.20, 5.0, 18.0],
    [0.10, 8.0, 40.0],
  ]
)


def shuffled(seed):
  return FRONT[np.random.default_rng(seed).permutation(len(FRONT))]


@pytest.mark.parametrize("seed", range(3))
def test_bands_tell_their_ends(seed):
  found = front_reading.bands(shuffled(seed))
  assert found["low latency"] == {
    "networks": 2,
    "accuracy": [pytest.approx(0.6), pytest.approx(0.7)],
    "latency_ms": [1.0, 2.0],
    "energy_mj": [10.0, 14.0],
  }
  assert found["balanced"]["energy_mj"] == [11.0, 20.0]
  assert found["accurate"]["accuracy"] == [
    pytest.approx(0.8),
    pytest.approx(0.9),
  ]


@pytest.mark.parametrize("seed", range(3))
def test_slopes_lead_from_band_to_band(seed):
  found = front_reading.slopes(shuffled(seed))
  assert list(found) == ["low latency", "balanced", "accurate"]
  # 10 points for 1 ms and 4 mJ, 10 for 2 ms and 6 mJ, 10 for 4 ms and 20 mJ
  for name, ms, mj in (
    ("low latency", 0.1, 0.4),
    ("balanced", 0.2, 0.6),
    ("accurate", 0.4, 2.0),
  ):
    assert found[name]["ms_a_point"] == pytest.approx(ms)
    assert found[name]["mj_a_point"] == pytest.approx(mj)
    assert found[name]["mj_a_ms"] == pytest.approx(mj / ms)
  # (-0.1 / 0.35) / (1 / 1.5)
  assert found["low latency"][
    "error_percent_a_latency_percent"
  ] == pytest.approx(-3 / 7)


def test_a_band_that_buys_nothing_has_no_slope():
  worse = np.array([[0.2, 1.0, 9.0], [0.3, 2.0, 8.0], [0.1, 3.0, 7.0]])
  found = front_reading.slopes(worse)
  assert list(found) == ["accurate"]
  assert found["accurate"]["ms_a_point"] == pytest.approx(0.2)
  assert found["accurate"]["mj_a_ms"] == pytest.approx(-1.0)
  assert front_reading.slopes(worse[:1]) == {}


def test_exchange_of_time_for_energy_at_equal_accuracy():
  found = front_reading.exchange(FRONT)  # error 0.25 or less
  assert found["accuracy_at_least"] == pytest.approx(0.75)
  assert found["fastest"] == [4.0, 20.0] and found["thriftiest"] == [5.0, 18.0]
  assert found["mj_saved_a_ms"] == pytest.approx(2.0)
  assert front_reading.exchange(FRONT[[0, 1, 3, 5]]) is None


def test_choices_keep_their_limits():
  found = front_reading.choices(FRONT, latency_ms=4.5, energy_mj=12.0)
  assert found == {
    "real-time": (3, {"latency_ms": 4.5}),
    "battery": (2, {"energy_mj": 12.0}),
    "quality": (5, {}),
  }
  with pytest.raises(ValueError, match="no point is within the limits"):
    front_reading.choices(FRONT, latency_ms=0.5, energy_mj=12.0)


def test_covered_counts_what_is_dominated_or_equal():
  other = FRONT + np.array([[0.1], [0.0], [-0.01], [0.1], [0.1], [0.1]])
  assert front_reading.covered(FRONT, other) == pytest.approx(5 / 6)
  assert front_reading.covered(other, FRONT) == pytest.approx(2 / 6)
