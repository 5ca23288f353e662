"""Decided networks timed on this machine."""

import numpy as np
import pytest

from nasjax.hardware import bundle, in_loop


def test_a_network_is_timed(tiny_nasbench201):
  pytest.importorskip("onnxruntime")
  measure = in_loop.onnxruntime_latency(batch=2, repeats=3)
  (one,) = bundle.random_networks(tiny_nasbench201, 1, 0)
  found = measure(one)
  assert list(found) == ["latency_ms"]
  assert np.isfinite(found["latency_ms"]) and found["latency_ms"] > 0
