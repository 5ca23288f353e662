"""Workloads, metrics, tables, devices, measuring."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, spaces
from nasjax.errors import InputError
from nasjax.hardware import measure, table
from nasjax.hardware.workload import Workload, additive_metric
from nasjax.spaces import costs as cost_tables
from nasjax.spaces import space as space_module

HEAD = ",".join((*table.COLUMNS, "latency_ms"))
ROW = "convolution,8,8,3,4,3,1,1,32,1,0.5"


def every_metric(space):
  rng = np.random.default_rng(0)
  costs = {w: float(rng.random()) for w in space.workloads().distinct()}
  latency = additive_metric(
    "latency_ms", "ms", space.workloads(), lambda w: costs[w.key], constant=0.3
  )
  return [
    latency,
    hardware.params(space),
    hardware.macs(space),
    hardware.flops(space),
  ]


@given(seed=st.integers(0, 2**31))
def test_expected_equals_exact_at_one_hot_points(seed):
  for space in (spaces.nasbench201(cells=2), spaces.edge(links="dense")):
    group = next(iter(space.groups))
    rng = np.random.default_rng(seed)
    row = space_module.random_choices(space, rng, 1)[group][0]
    architecture = spaces.architecture(space, {group: row})
    weights = {n: jnp.asarray(w) for n, w in architecture.one_hot().items()}
    for metric in every_metric(space):
      assert float(metric.expected(weights)) == pytest.approx(
        metric.exact(architecture), rel=2e-6
      )


def test_expected_is_the_mean_over_the_weights():
  space = spaces.nasbench201(cells=1)
  rng = np.random.default_rng(0)
  weights = {"cell": rng.dirichlet(np.ones(5), 6).astype(np.float32)}
  for metric in every_metric(space):
    drawn = np.stack(
      [rng.choice(5, 4000, p=p / p.sum()) for p in weights["cell"]], -1
    )
    values = cost_tables.additive_costs(space, metric).of({"cell": drawn})
    assert float(metric.expected(weights)) == pytest.approx(
      values.mean(), rel=0.03
    )
    gradient = jax.grad(lambda w, m=metric: m.expected({"cell": w}))(
      jnp.asarray(weights["cell"])
    )
    np.testing.assert_allclose(gradient[:, 0], 0.0, atol=1e-6)


def test_costs_that_are_not_finite_are_refused():
  with pytest.raises(ValueError, match="is nan"):
    additive_metric(
      "latency_ms", "ms", spaces.edge().workloads(), lambda w: float("nan")
    )


def test_shipped_table_covers_the_default_spaces():
  device = hardware.device("x86-server")
  for space in (
    spaces.edge(image_shape=(8, 8, 1)),
    spaces.edge(image_shape=(28, 28, 1)),
    spaces.nasbench201(channels=8, image_shape=(32, 32, 3)),
    spaces.nasbench201(channels=16, cells=1, image_shape=(32, 32, 3)),
  ):
    metric = device.latency(space)
    low, high = cost_tables.additive_costs(space, metric).extremes(space.masks)
    assert 0 < low < high
  header = device.table.header
  assert header["command"].startswith("nasjax hw measure")
  assert {"device", "runtime", "date", "threads", "versions"} <= set(header)


def test_a_missing_row_is_named():
  device = hardware.device("x86-server")
  with pytest.raises(InputError, match="no row for .* 9x9"):
    device.latency(spaces.edge(image_shape=(9, 9, 1)))
  # A table alone has no model to take the place of what it lacks.
  with pytest.raises(InputError, match="no column energy_mj"):
    device._replace(profile=None).energy(spaces.edge())
  assert "unverified" in device.energy(spaces.edge()).source


def test_unknown_devices_name_the_nearest():
  with pytest.raises(InputError, match="did you mean x86-server"):
    hardware.device("x86-servers")
  with pytest.raises(InputError, match="cannot be read"):
    hardware.device("./nowhere.csv")


def test_table_round_trip(tmp_path):
  work = Workload("depthwise", 8, 8, 4, 4, 3, 1, 4)
  path = tmp_path / "t.csv"
  rows = [(work, 1, {"latency_ms": "0.25", "spread": "0.1"})]
  table.write(path, {"device": "mine"}, rows, ("latency_ms", "spread"))
  found = table.read(path)
  assert found.header == {"device": "mine"}
  assert found.cost(work._replace(batch_norm=True), "latency_ms") == 0.25
  assert hardware.device(str(path)).name == "mine"


@pytest.mark.parametrize(
  "text, said",
  [
    ("", "is empty"),
    (HEAD, "no rows"),
    (HEAD.replace(",kernel", "") + "\n" + ROW, "'kernel' is missing"),
    (HEAD.replace("latency_ms", "latency") + "\n" + ROW, "no cost column"),
    (HEAD + ",kernel\n" + ROW + ",3", "twice"),
    (f"{HEAD}\n{ROW}\n{ROW}", ":3.*stands there twice"),
    (f"{HEAD}\n{ROW.replace('0.5', '-1')}", ":2 latency_ms.*below 0"),
    (f"{HEAD}\n{ROW.replace('0.5', 'nan')}", "not a finite"),
    (f"{HEAD}\n{ROW.replace('0.5', '1e999')}", "not a finite"),
    (f"{HEAD}\n{ROW.replace('0.5', '1_0')}", "not a number"),
    (f"{HEAD}\n{ROW.replace('0.5', '0,5')}", "12 cells"),
    (f"{HEAD}\n{ROW.replace('8,8', '8,-8')}", "whole number"),
    (f"{HEAD}\n{ROW.replace('convolution', 'convolutoin')}", "convolution"),
    (f'{HEAD}\n"{ROW}', "unexpected end"),
    (f"{HEAD}\n{ROW.replace('0.5', '1e300')}", ":2 latency_ms.*at most"),
    (f"{HEAD},latency_us\n{ROW},500", "'latency_us' has no unit"),
    (f"{HEAD},\n{ROW},500", "no name"),
    (f"{HEAD}\n{ROW.replace('8,8', '8,' + '9' * 5000)}", "between"),
    (f"# device: a\n# device: b\n{HEAD}\n{ROW}", "'device' stands there twice"),
    (f"# runtime: \x1b[2J\n{HEAD}\n{ROW}", "control characters"),
  ],
)
def test_bad_tables_are_refused(text, said, tmp_path):
  path = tmp_path / "t.csv"
  path.write_text(text)
  with pytest.raises(InputError, match=f"(?s)t.csv.*{said}"):
    table.read(path)


@pytest.mark.parametrize("name", ["", "x" * 65, "a:b", "a=b", "[/b]", "a\x1bb"])
def test_names_that_a_limit_cannot_carry_are_refused(name, tmp_path):
  with pytest.raises(InputError, match="device's name"):
    table.check_device_name(name, "here")
  path = tmp_path / "t.csv"
  path.write_text(f"# device: {name}\n{HEAD}\n{ROW}")
  with pytest.raises(InputError, match="t.csv"):
    hardware.device(str(path))


def test_measure_times_every_kind_of_workload():
  work = {
    w.kind: w
    for w in spaces.edge(channels=4, image_shape=(8, 8, 1), links="dense")
    .workloads()
    .distinct()
  }
  work |= {
    w.kind: w
    for w in spaces.nasbench201(channels=4, image_shape=(8, 8, 1))
    .workloads()
    .distinct()
  }
  found = measure.measure(work.values(), repeats=3, seconds=1e-3)
  assert [m.workload.kind for m in found] == list(work)
  assert all(0 < m.minimum <= m.median for m in found)


def test_flops_count_a_multiply_add_as_two():
  work = Workload("convolution", 8, 8, 3, 4, 3, 2)
  assert work.outputs == (4, 4)
  assert work.macs == 4 * 4 * 4 * 3 * 9
  assert work.flops == 2 * work.macs
  assert Workload("add", 2, 3, 4, 4).flops == 24
  assert Workload("linear", 1, 1, 8, 3).params == 27
