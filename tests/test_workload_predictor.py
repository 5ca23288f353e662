"""What is predicted of workloads: between the rows of a table, no further."""

import numpy as np
import pytest
import toy_space

from nasjax.errors import InputError
from nasjax.hardware import scores
from nasjax.hardware import table as tables
from nasjax.hardware import workload_predictor as module
from nasjax.hardware.device import Device
from nasjax.hardware.workload import Workload
from nasjax.hardware.workload_predictor import workload_predictor
from nasjax.spaces.space import Architecture

QUICK = dict(device="pi", steps=300, members=1)


def cost(work, batch=1):
  return 1e-3 + 1e-7 * batch * work.flops * (work.bits / 32)


def table_of(bits=(32,), batches=(1,), count=60):
  rng, rows = np.random.default_rng(0), {}
  for kind in ("convolution", "relu"):
    for _ in range(count):
      size, c = int(rng.choice([4, 8, 16, 32])), int(rng.choice([8, 16, 32]))
      kernel = int(rng.choice([1, 3, 5])) if kind == "convolution" else 1
      for b in bits:
        for batch in batches:
          work = Workload(kind, size, size, c, c, kernel, bits=b)
          rows[work, batch] = {"latency_ms": cost(work, batch)}
  return tables.Table("t.csv", {}, rows)


def test_it_fills_shapes_that_have_no_row():
  table = table_of()
  made = workload_predictor(table, **QUICK)
  assert made.errors.rows == len(table.rows)
  assert made.errors.spearman > 0.9
  new = Workload("convolution", 12, 12, 24, 24, 3)
  assert made.costs([new])[0] == pytest.approx(cost(new), rel=0.4)
  with pytest.raises(ValueError, match="10 are needed"):
    workload_predictor(table._replace(rows=dict(list(table.rows.items())[:5])))


@pytest.mark.parametrize(
  "change, said",
  [
    ({"kind": "depthwise"}, "no depthwise was measured"),
    ({"channels_in": 64}, "channels_in 64 is outside of the 8 to 32"),
    ({"height": 2, "width": 2}, "height 2 is outside"),
    ({"kernel": 7}, "kernel 7 is outside"),
    ({"stride": 2}, "stride 2 is outside"),
  ],
)
def test_what_lies_outside_of_the_rows_is_refused(change, said):
  made = workload_predictor(table_of(), **QUICK)
  work = Workload("convolution", 8, 8, 16, 16, 3)._replace(**change)
  with pytest.raises(InputError, match=said):
    made.costs([work])


def test_it_asks_for_the_bits_and_batch_that_it_was_fitted_at():
  """A table at 8 bits is asked for 8, whatever bits a space's workloads say."""
  made = workload_predictor(table_of((8,), (2, 8)), **QUICK)
  work = Workload("convolution", 8, 8, 16, 16, 3)
  at_8 = work._replace(bits=8)
  np.testing.assert_array_equal(
    made.costs([work], batch=8), made.costs([at_8], batch=8)
  )
  assert made.costs([work], batch=8)[0] == pytest.approx(
    cost(at_8, 8), rel=0.15
  )
  for given, said in (
    (dict(), "at batch 2, 8"),
    (dict(batch=1), "not 1"),
    (dict(batch=16), "not 16"),
    (dict(batch=8, bits=32), "at bits 8, not 32"),
  ):
    with pytest.raises(InputError, match=said):
      made.costs([work], **given)
  assert len(made.costs([work], batch=4, bits=8)) == 1
  both = workload_predictor(table_of((8, 32)), **QUICK)
  with pytest.raises(InputError, match="at bits 8, 32; say which"):
    both.costs([work])
  assert both.costs([work], bits=8)[0] < both.costs([work], bits=32)[0]


def test_the_metric_of_a_space_is_the_sum_of_what_is_predicted():
  space = toy_space.toy((8, 8, 3))
  works = space.workloads().distinct()
  rows = {
    (w._replace(bits=8), 1): {"latency_ms": cost(w._replace(bits=8))}
    for w in works
  }
  more = [  # so many rows that it can be fitted, between the space's own
    w._replace(height=h, width=h) for w in works for h in (8, 9, 10)
  ]
  rows |= {
    (w._replace(bits=8), 1): {"latency_ms": cost(w._replace(bits=8))}
    for w in more
  }
  rules = {(8, 1): tables.Rules(0.5, {"*>relu": 0.0})}
  table = tables.Table("t.csv", {}, rows, rules)
  made = workload_predictor(table, **QUICK)
  metric = made.metric(space)
  filled = table._replace(
    rows={(w, b): {"latency_ms": made.costs([w], b)[0]} for w, b in table.rows}
  )
  device = Device("pi", filled).latency(space, bits=8)
  for name in ("conv_3x3", "skip_connect"):
    k = space.groups["layers"].candidates.index(name)
    one = Architecture(space, {"layers": np.full(3, k)})
    assert metric.exact(one) == pytest.approx(device.exact(one), rel=1e-6)


def test_folds_keep_rows_that_are_alike_together():
  alike = [n // 3 for n in range(30)]
  seen = []
  for rest, held in scores.folds(30, 4, 0, alike):
    assert not {alike[i] for i in rest} & {alike[i] for i in held}
    seen += held.tolist()
  assert sorted(seen) == list(range(30))


def test_errors_are_those_of_workloads_that_were_not_seen():
  """One noise a workload, the same at all of its batches.

  Where a workload's batches lie on both sides, it is known and foretold.
  """
  rng = np.random.default_rng(1)
  rows = {}
  for size in range(4, 34):
    work = Workload("convolution", size, size, 16, 16, 3)
    noise = np.exp(0.5 * rng.normal())
    for batch in (1, 2, 4, 8):
      rows[work, batch] = {"latency_ms": noise * cost(work, batch)}
  made = workload_predictor(tables.Table("t.csv", {}, rows), **QUICK)
  assert made.errors.rows == 120
  assert made.errors.within_10_percent < 0.35


def test_rows_are_standardised_by_those_that_are_learned(monkeypatch):
  """Rows that are held out have no part in it, whatever they are."""
  seen, train = [], module._train

  def spied(x, y, used, *rest, **settings):
    rows = np.asarray(used) > 0
    seen.append((np.asarray(x), np.asarray(y), rows))
    return train(x, y, used, *rest, **settings)

  monkeypatch.setattr(module, "_train", spied)
  workload_predictor(table_of((8, 32)), steps=1, members=1)
  assert len(seen) == 6  # five folds and all rows
  assert [rows.all() for *_, rows in seen] == [False] * 5 + [True]
  for x, y, rows in seen:
    assert not x[~rows].any() and not y[~rows].any()
    np.testing.assert_allclose(x[rows].mean(0), 0.0, atol=1e-4)
    assert np.isclose(x[rows].std(0), 1.0, atol=1e-3).sum() > 5
    assert y[rows].mean() == pytest.approx(0.0, abs=1e-4)
    assert y[rows].std() == pytest.approx(1.0, abs=1e-3)
