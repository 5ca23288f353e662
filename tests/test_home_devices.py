"""What the study of home devices calls better."""

import pytest

from experiments import home_devices


def test_the_criterion_by_hand():
  """Each is (accuracy, latency over the limit)."""
  better = home_devices.better
  assert not better((0.9, 1.01), (0.1, 2.0))  # the own one breaks the limit
  assert better((0.5, 1.0), (0.9, 1.01))  # the other breaks it
  # Within it MnasNet's reward: twice the latency is worth 5 % of accuracy.
  assert better((0.87, 0.5), (0.9, 1.0))
  assert not better((0.85, 0.5), (0.9, 1.0))
  assert not better((0.9, 0.5), (0.9, 0.5))
  assert home_devices.reward(0.9, 0.5) == pytest.approx(0.9 * 2**0.07)
