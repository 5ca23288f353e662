"""Skips: when a search stops because of them."""

import dataclasses

import numpy as np

from nasjax import search, spaces


def test_noise_is_no_lead_but_a_preference_is():
  space = spaces.nasbench201(
    channels=2, cells=1, image_shape=(8, 8, 1), num_classes=3
  )
  skips = space.skips["cell"]  # none and skip_connect, 2 of 5
  noise = 1e-3 * np.random.default_rng(0).normal(size=(20, 6, 5))
  shares = np.exp(noise) / np.exp(noise).sum(-1, keepdims=True)
  first = [skips[np.arange(6), row.argmax(-1)].mean() for row in shares]
  assert np.mean(first) > 0.3  # by chance
  assert all(search.led_by_skips(space, {"cell": w}) == 0 for w in shares)
  clear = np.full((6, 5), 0.15)
  clear[:3, 1] = clear[3:, 2] = 0.4
  assert search.led_by_skips(space, {"cell": clear}) == 0.5
  # Two skips that share what is left do not lead alone.
  even = np.tile([0.21, 0.21, 0.2, 0.2, 0.18], (6, 1))
  assert search.led_by_skips(space, {"cell": even}) == 0
  assert search.led_by_skips(space, {"cell": even}, lead=1.01) == 1


def test_edges_that_must_skip_do_not_count():
  space = spaces.nasbench201(
    channels=2, cells=1, image_shape=(8, 8, 1), num_classes=3
  )
  allowed = {"cell": np.ones((6, 5), bool)}
  allowed["cell"][:2, 2:] = False
  space = dataclasses.replace(space, allowed=allowed)
  weights = np.where(allowed["cell"], 0.1, 0.0)
  weights[:3, 1] = 0.5
  assert search.led_by_skips(space, {"cell": weights}) == 0.25
