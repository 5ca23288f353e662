"""Fronts against pymoo's and moocore's, on ties, duplicates and constants."""

import jax
import jax.numpy as jnp
import moocore
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pymoo.operators.survival.rank_and_crowding.metrics import (
  calc_crowding_distance,
)
from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

from nasjax import pareto

SIZE = 12  # one compiled shape for each number of objectives


@st.composite
def sets(draw, objectives=(2, 3)):
  """Points with ties, duplicates, constants and, at times, spread values."""
  count = draw(st.sampled_from(objectives))
  few = st.integers(0, 3).map(float)
  fine = st.floats(-100.0, 100.0, width=32, allow_subnormal=False)
  values = draw(st.sampled_from([few, fine, st.just(1.0), few | fine]))
  points = draw(hnp.arrays(np.float32, (SIZE, count), elements=values))
  for index in range(count):
    if draw(st.integers(0, 5)) == 0:
      points[:, index] = 2.0
  return points


def brute_force_ranks(points):
  """Peels fronts off, straight from the definition."""
  ranks, left, rank = np.zeros(len(points), int), set(range(len(points))), 0
  while left:
    now = {
      i
      for i in left
      if not any(
        (points[j] <= points[i]).all() and (points[j] < points[i]).any()
        for j in left
      )
    }
    for i in now:
      ranks[i] = rank
    left, rank = left - now, rank + 1
  return ranks


@given(sets((2, 3, 4)))
@example(np.ones((SIZE, 3), np.float32))
def test_ranks_equal_pymoo_and_moocore(points):
  ranks = np.asarray(pareto.non_dominated_sort(points))
  np.testing.assert_array_equal(ranks, moocore.pareto_rank(points))
  fronts = NonDominatedSorting().do(points.astype(float))
  want = np.zeros(SIZE, int)
  for rank, members in enumerate(fronts):
    want[members] = rank
  np.testing.assert_array_equal(ranks, want)
  np.testing.assert_array_equal(ranks, brute_force_ranks(points))


@given(sets())
@example(np.ones((SIZE, 2), np.float32))
@example(
  np.repeat(np.arange(6.0, dtype=np.float32), 2)[:, None]
  + np.zeros(2, np.float32)
)
def test_crowding_equals_pymoo(points):
  ranks = pareto.non_dominated_sort(points)
  got = np.asarray(pareto.crowding_distance(points, ranks))
  for rank in range(int(ranks.max()) + 1):
    own = np.asarray(ranks) == rank
    if own.sum() <= 2:
      assert np.isinf(got[own]).all()
      continue
    want = calc_crowding_distance(points[own].astype(float))
    np.testing.assert_allclose(got[own], want, rtol=1e-4, atol=1e-5)


@given(sets())
@example(np.ones((SIZE, 2), np.float32))
def test_fronts_equal_moocore_without_duplicates(points):
  mask = np.asarray(pareto.front_mask(points))
  want = moocore.is_nondominated(points.astype(float), keep_weakly=False)
  np.testing.assert_array_equal(mask, want)
  found = pareto.front(points)
  assert sorted(found) == list(np.flatnonzero(want))
  assert [tuple(p) for p in points[found]] == sorted(
    tuple(p) for p in points[found]
  )


@given(sets())
def test_dominates_is_a_strict_order(points):
  better = np.asarray(pareto.dominates(points[:6], points[6:]))
  worse = np.asarray(pareto.dominates(points[6:], points[:6]))
  assert not (better & worse).any()
  assert not np.asarray(pareto.dominates(points, points)).any()
  want = [
    (a <= b).all() and (a < b).any()
    for a, b in zip(points[:6], points[6:], strict=True)
  ]
  np.testing.assert_array_equal(better, want)


@given(sets(), st.sets(st.integers(0, SIZE - 1), min_size=1, max_size=4))
def test_nan_is_worst_and_changes_no_other_rank(points, where):
  where = sorted(where)
  broken = points.copy()
  broken[where, 0] = np.nan
  rest = np.setdiff1d(np.arange(SIZE), where)
  ranks = np.asarray(pareto.non_dominated_sort(broken))
  np.testing.assert_array_equal(ranks[rest], brute_force_ranks(points[rest]))
  if len(rest):
    assert (ranks[where] == ranks[rest].max() + 1).all()
    assert pareto.dominates(points[rest[0]], broken[where[0]])
  assert not pareto.dominates(broken[where[0]], points[0])
  assert not np.asarray(pareto.front_mask(broken))[where].any()
  room = np.asarray(pareto.crowding_distance(broken, ranks))
  assert not np.isnan(room).any() and (room[where] == 0).all()


@given(sets((3,)), hnp.arrays(np.float32, SIZE, elements=st.integers(0, 3)))
def test_violations_follow_constrained_dominance(points, violations):
  ranks = np.asarray(pareto.non_dominated_sort(points, violations))
  good = violations <= 0
  want = np.zeros(SIZE, int)
  want[good] = brute_force_ranks(points[good])
  start = want[good].max() + 1 if good.any() else 0
  levels = np.unique(violations[~good])
  for rank, level in enumerate(levels):
    want[~good & (violations == level)] = start + rank
  np.testing.assert_array_equal(ranks, want)


@pytest.mark.parametrize("size", [0, 1])
def test_empty_and_single_sets(size):
  points = np.ones((size, 3), np.float32)
  assert pareto.non_dominated_sort(points).tolist() == [0] * size
  assert pareto.front(points).tolist() == list(range(size))
  assert pareto.crowding_distance(points).tolist() == [np.inf] * size


def test_a_chain_and_a_front_map_and_trace_once():
  """One program for all values, and under vmap."""
  chain = np.arange(SIZE)[:, None] * np.ones((1, 2), np.float32)
  line = np.stack([np.arange(SIZE), -np.arange(SIZE)], -1).astype(np.float32)
  both = jax.vmap(pareto.non_dominated_sort)(jnp.stack([chain, line]))
  assert both.tolist() == [list(range(SIZE)), [0] * SIZE]


@given(sets((2, 3)))
def test_hypervolume_equals_moocore(points):
  reference = np.quantile(points, 0.9, axis=0).astype(np.float32) + 0.5
  want = moocore.hypervolume(points.astype(float), ref=reference)
  assert pareto.hypervolume(points, reference) == pytest.approx(want)
  got = float(pareto.compiled_hypervolume(points, reference))
  box = float(np.prod(reference - np.minimum(points.min(0), reference)))
  assert got == pytest.approx(want, rel=1e-4, abs=1e-5 * max(box, 1.0))


@given(sets(), st.randoms())
def test_igd_plus_equals_moocore(points, random):
  reference = points[[random.randrange(SIZE) for _ in range(5)]] + 0.25
  want = moocore.igd_plus(points.astype(float), ref=reference.astype(float))
  got = float(pareto.igd_plus(points, reference))
  assert got == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_indicators_leave_out_nan_and_refuse_other_shapes():
  points = np.array([[0.0, 1.0], [np.nan, 0.0], [1.0, 0.5]], np.float32)
  reference = np.array([2.0, 2.0], np.float32)
  good = points[[0, 2]]
  want = pareto.hypervolume(good, reference)
  assert want == pytest.approx(2.5)
  assert pareto.hypervolume(points, reference) == want
  assert float(pareto.compiled_hypervolume(points, reference)) == want
  assert float(pareto.igd_plus(points, good)) == 0.0
  assert pareto.hypervolume(points + 9, reference) == 0.0
  with pytest.raises(ValueError, match="2 or 3"):
    pareto.compiled_hypervolume(np.ones((3, 4)), np.ones(4))
  with pytest.raises(ValueError, match=r"\[N, M\]"):
    pareto.hypervolume(points, np.ones(3))
  with pytest.raises(ValueError, match="finite"):
    pareto.hypervolume(points, np.array([1.0, np.inf]))


# A front of (error, latency): steep first, flat after (0.10, 2).
FRONT = np.array([[0.08, 6.0], [0.4, 1.0], [0.1, 2.0], [0.09, 4.0]])


def test_slopes_and_trade_offs():
  np.testing.assert_allclose(
    pareto.slopes(FRONT, 0, 1), [-0.3, -0.005, -0.005], rtol=1e-12
  )
  got = pareto.trade_offs(FRONT, 0, 1)
  assert got[0] == pytest.approx((-0.3 / 0.25) / (1.0 / 1.5))
  # A power law y = c x^-2 loses about 2 % a 1 %, wherever it is.
  x = np.geomspace(1, 10, 400)
  rates = pareto.trade_offs(np.stack([3 * x**-2, x], -1), 0, 1)
  np.testing.assert_allclose(rates, -2.0, rtol=1e-3)


def test_knee():
  assert pareto.knee(FRONT) == 2
  assert pareto.knee(FRONT * [7.0, 0.1] + 3.0) == 2  # whatever the units
  assert pareto.knee(np.ones((3, 2))) == 0


def test_bands():
  found = pareto.bands(FRONT, 1)
  assert {n: i.tolist() for n, i in found.items()} == {
    "low latency": [1, 2],
    "balanced": [3],
    "accurate": [0],
  }


@given(sets((2, 3)), st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_a_choice_is_dominated_by_none_within_the_limits(points, preference):
  points = points.astype(float)
  bound = float(np.median(points[:, 1]))
  preference = preference[: points.shape[1]]
  preference[0] += 1
  chosen = pareto.choose(points, {1: bound}, preference)
  assert points[chosen, 1] <= bound
  within = points[points[:, 1] <= bound]
  better = (within <= points[chosen]).all(-1) & (within < points[chosen]).any(
    -1
  )
  assert not better.any()


def test_choice_by_limits_and_preferences():
  assert pareto.choose(FRONT, {1: 1.5}) == 1
  assert pareto.choose(FRONT, preference=[1.0, 0.0]) == 0
  assert pareto.choose(FRONT, preference=[0.0, 1.0]) == 1
  assert pareto.choose(FRONT) == 2
  with pytest.raises(ValueError, match="objective 1 = 1"):
    pareto.choose(FRONT, {1: 0.5})
  with pytest.raises(ValueError, match="objective 2"):
    pareto.choose(FRONT, {2: 0.5})
  with pytest.raises(ValueError, match="preference"):
    pareto.choose(FRONT, preference=[0.0, 0.0])
  with pytest.raises(ValueError, match="finite"):
    pareto.knee(np.array([[np.nan, 1.0]]))


@given(sets((2, 3, 4)))
def test_free_boxes_are_what_is_not_dominated(points):
  """With the dominated volume they fill a box, and none overlaps a point."""
  points = points.astype(float)
  reference = np.quantile(points, 0.9, axis=0) + 0.5
  lows, highs = pareto.free_boxes(points, reference)
  floor = points.min(0) - 1.0
  sides = np.maximum(highs - np.maximum(lows, floor), 0.0)
  want = np.prod(reference - floor) - pareto.hypervolume(points, reference)
  assert sides.prod(-1).sum() == pytest.approx(want)
  for point in points[(points < reference).all(-1)]:
    assert not (highs > point).all(-1).any()


def test_expected_improvement_equals_sampling():
  rng = np.random.default_rng(0)
  for count in (2, 3):
    points, reference = rng.random((6, count)), np.ones(count)
    mean = rng.uniform(0.0, 1.1, (4, count))
    deviation = rng.uniform(0.05, 0.3, (4, count))
    got = pareto.expected_improvement(mean, deviation, points, reference)
    known = pareto.hypervolume(points, reference)
    draws = rng.normal(mean[:, None], deviation[:, None], (4, 4000, count))
    for row, sample in zip(got, draws, strict=True):
      gains = [
        pareto.hypervolume(np.vstack([points, s]), reference) - known
        for s in sample
      ]
      error = 4 * np.std(gains) / np.sqrt(len(gains)) + 1e-9
      assert row == pytest.approx(np.mean(gains), abs=error)
    # Without doubt it is the improvement itself.
    sure = pareto.expected_improvement(mean, 0 * mean, points, reference)
    for row, point in zip(sure, mean, strict=True):
      gain = pareto.hypervolume(np.vstack([points, point]), reference) - known
      assert row == pytest.approx(gain, abs=1e-9)
  with pytest.raises(ValueError, match="0 or more"):
    pareto.expected_improvement(mean, -deviation, points, reference)
  with pytest.raises(ValueError, match="finite"):
    pareto.expected_improvement(mean * np.nan, deviation, points, reference)
  with pytest.raises(ValueError, match=r"\[M\]"):
    pareto.expected_improvement(mean, deviation, points, np.ones(5))
