"""Per-choice tables and their fit to whole networks."""

import csv
import gzip
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import hardware, spaces
from nasjax.cli import main as cli
from nasjax.errors import InputError
from nasjax.hardware import choices as choice_tables
from nasjax.hardware import fit, networks, scores
from nasjax.spaces import decision
from nasjax.spaces import space as space_module
from nasjax.types import Group

SPACE = spaces.nasbench201()
ENDS = choice_tables.ends_of(SPACE)
DATA = Path(os.environ.get("NASJAX_DATA", "../shared/data"))


def random_table(seed, counted="every_edge"):
  rng = np.random.default_rng(seed)
  table = rng.random((6, 5))
  table[:, 0] = 0.0
  return choice_tables.ChoiceTable(
    "table.csv",
    {"device": "pi"},
    "latency_ms",
    1.5,
    {"cell": table},
    SPACE.groups,
    counted,
  )


def brute_reaching(ends, on):
  """Whether each edge's end reaches the last node, by walking."""
  last = max(to for _, to in ends)
  reach = {last}
  for _ in ends:
    reach |= {i for e, (i, j) in enumerate(ends) if on[e] and j in reach}
  return [to in reach for _, to in ends]


def test_reaching_equals_a_walk_for_all_patterns():
  ends = ENDS["cell"]
  for pattern in range(2**6):
    on = np.array([pattern >> e & 1 for e in range(6)], float)
    found = choice_tables.reaching(on, ends)
    assert [bool(f) for f in found] == brute_reaching(ends, on)


@pytest.mark.parametrize("counted", choice_tables.COUNTED)
@given(seed=st.integers(0, 2**31))
def test_a_tables_metric_is_exact_at_one_hot_points(counted, seed):
  table = random_table(seed, counted)
  metric = table.metric(SPACE)
  rng = np.random.default_rng(seed)
  row = space_module.random_choices(SPACE, rng, 1)["cell"][0]
  architecture = spaces.architecture(SPACE, {"cell": row})
  on = row != 0
  counts = brute_reaching(ENDS["cell"], on)
  if counted == "every_edge":
    counts = [True] * 6
  entries = table.tables["cell"][np.arange(6), row]
  expected = 1.5 + sum(v for v, c in zip(entries, counts, strict=True) if c)
  assert metric.exact(architecture) == pytest.approx(expected, rel=1e-12)
  one_hot = {n: jnp.asarray(w) for n, w in architecture.one_hot().items()}
  assert float(metric.expected(one_hot)) == pytest.approx(expected, rel=1e-6)


def test_expected_is_the_mean_over_independent_choices():
  metric = random_table(3, "reaching_output").metric(SPACE)
  rng = np.random.default_rng(0)
  weights = rng.dirichlet(np.ones(5), 6).astype(np.float32)
  drawn = np.stack([rng.choice(5, 20_000, p=p / p.sum()) for p in weights], -1)
  values = random_table(3, "reaching_output").of({"cell": drawn}, ENDS)
  assert float(metric.expected({"cell": weights})) == pytest.approx(
    values.mean(), rel=0.01
  )
  gradient = jax.grad(lambda w: metric.expected({"cell": w}))(weights)
  assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_a_table_reads_back(tmp_path):
  table = random_table(1, "reaching_output")
  choice_tables.write(tmp_path / "t.csv", table)
  found = choice_tables.read(tmp_path / "t.csv")
  np.testing.assert_allclose(
    found.tables["cell"], table.tables["cell"], rtol=1e-8
  )
  assert found.counted == table.counted and found.constant == 1.5
  device = hardware.device(str(tmp_path / "t.csv"))
  assert device.name == "pi"
  assert device.latency(SPACE).name == "latency_ms"
  with pytest.raises(InputError, match="holds choices"):
    device.latency(spaces.edge())


@pytest.mark.parametrize(
  ("old", "new", "message"),
  [
    ("cell,3,nor_conv_1x1,", "cell,2,nor_conv_1x1,", "twice"),
    ("cell,3,nor_conv_1x1,", "cell,4000,nor_conv_1x1,", "no rows"),
    ("cell,5,nor_conv_3x3,", "cell,5,other,", "has no row"),
    ("counted: every_edge", "counted: some", "unknown 'some'"),
    ("constant_latency_ms: 1.5", "constant_latency_ms: -1", "below 0"),
    ("cell,0,none,0", "cell,0,none,nan", "not a finite number"),
  ],
)
def test_bad_tables_are_refused(tmp_path, old, new, message):
  text = choice_tables.text(random_table(0)).replace(old, new)
  (tmp_path / "t.csv").write_text(text)
  with pytest.raises(InputError, match=message):
    choice_tables.read(tmp_path / "t.csv")


@pytest.mark.parametrize("counted", choice_tables.COUNTED)
def test_a_fit_finds_the_table_that_made_the_networks(counted):
  table = random_table(5, counted)
  rng = np.random.default_rng(5)
  drawn = space_module.random_choices(SPACE, rng, 120)
  values = table.of(drawn, ENDS)
  found = fit.fit(
    SPACE.groups, drawn, values, ends=ENDS, ties=fit.ties_of(SPACE)
  )
  assert found.counted == counted
  np.testing.assert_allclose(
    found.tables["cell"], table.tables["cell"], atol=1e-5
  )
  assert found.constant == pytest.approx(1.5, abs=1e-5)
  assert found.errors.within_5_percent == 1.0 and found.errors.rows == 120


def test_ties_stand_in_for_what_no_network_has():
  groups = {"layers": Group(3, ("skip", "conv"))}
  rows = {"layers": np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])}
  values = np.array([1.0, 3.0, 3.0, 5.0])
  with pytest.raises(ValueError, match=r"layers\[2\] = conv"):
    fit.fit(groups, rows, values)
  alike = {"layers": [["skip", "conv"]] * 3}
  found = fit.fit(groups, rows, values, ties=alike, strengths=(1.0,))
  np.testing.assert_allclose(
    found.tables["layers"], [[0, 2], [0, 2], [0, 2]], atol=1e-6
  )


def test_entries_are_never_negative():
  groups = {"layers": Group(2, ("skip", "conv"))}
  rng = np.random.default_rng(0)
  rows = {"layers": rng.integers(2, size=(40, 2))}
  values = 5.0 - rows["layers"][:, 0] + 0.1 * rng.random(40)
  found = fit.fit(groups, rows, values)
  assert min(t.min() for t in found.tables.values()) >= 0.0


@pytest.mark.parametrize("values", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_bad_values_are_refused(values):
  groups = {"layers": Group(1, ("skip", "conv"))}
  rows = {"layers": np.zeros((len(values), 1), int)}
  with pytest.raises(ValueError, match="measured"):
    fit.fit(groups, rows, values)


def test_errors_of_predictions():
  found = scores.prediction_errors([1.04, 2.18, 3.6], [1.0, 2.0, 3.0])
  assert found.within_5_percent == pytest.approx(1 / 3)
  assert found.within_10_percent == pytest.approx(2 / 3)
  assert found.rmse == pytest.approx(np.sqrt((0.04**2 + 0.18**2 + 0.6**2) / 3))
  assert found.spearman == pytest.approx(1.0)
  held = np.concatenate([h for _, h in scores.folds(23, 5)])
  assert sorted(held) == list(range(23))
  for rest, part in scores.folds(23, 5):
    assert not set(rest) & set(part)


def test_forms_of_an_architecture():
  text = "|none~0|+|skip_connect~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"
  assert networks.parse(text, SPACE.groups, "f") == [0, 1, 0, 0, 0, 3]
  assert networks.parse("010003", SPACE.groups, "f") == [0, 1, 0, 0, 0, 3]
  words = "none skip_connect none none none nor_conv_3x3"
  assert networks.parse(words, SPACE.groups, "f") == [0, 1, 0, 0, 0, 3]
  for bad, message in (
    ("010009", "digit 5 is 9"),
    ("01", "names 1 choices"),
    ("a b c d e f", "unknown candidate"),
  ):
    with pytest.raises(InputError, match=message):
      networks.parse(bad, SPACE.groups, "f")


def test_hw_fit_writes_a_table_that_a_device_reads(tmp_path, capsys):
  table = random_table(2)
  drawn = space_module.random_choices(SPACE, np.random.default_rng(2), 60)
  lines = ["arch,latency_ms__pi"]
  for row, value in zip(drawn["cell"], table.of(drawn, ENDS), strict=True):
    lines.append("".join(map(str, row)) + f",{value}")
  path, out = tmp_path / "networks.csv", tmp_path / "fitted.csv"
  path.write_text("\n".join(lines))
  command = ["hw", "fit", "--measurements", str(path), "--out", str(out)]
  command += ["--space", "nasbench201", "--image-shape", "32x32x3"]
  assert cli.main([*command, "--column", "latency_ms__pi"]) == 0
  assert "cross-validated: within 5% 100.0%" in capsys.readouterr().out
  found = hardware.device(str(out)).latency(SPACE)
  architecture = spaces.architecture(SPACE, {"cell": drawn["cell"][0]})
  assert found.exact(architecture) == pytest.approx(
    table.metric(SPACE).exact(architecture), rel=1e-5
  )
  assert cli.main([*command, "--column", "latency_ms__pi"]) == 2
  assert "exists" in capsys.readouterr().err
  path.write_text("arch,latency_ms\n010003,1\n01000x,2\n")
  assert cli.main([*command, "--force"]) == 2
  assert f"{path}:3 arch" in capsys.readouterr().err


def test_the_decision_under_a_table_that_does_not_add_up():
  """Equals the best of all 15,625 by enumeration."""
  metric = random_table(4, "reaching_output").metric(SPACE)
  rng = np.random.default_rng(4)
  weights = {"cell": rng.dirichlet(np.ones(5), 6).astype(np.float32)}
  grid = np.stack(
    np.meshgrid(*[np.arange(5)] * 6, indexing="ij"), axis=-1
  ).reshape(-1, 6)
  costs = random_table(4, "reaching_output").of({"cell": grid}, ENDS)
  logs = np.log(weights["cell"])[np.arange(6), grid].sum(-1)
  linked = np.ones(len(grid), bool)
  for cut in SPACE.cuts["cell"]:
    linked &= (grid[:, list(cut)] != 0).any(-1)
  limit = float(np.quantile(costs[linked], 0.02))
  found = decision.decide(SPACE, weights, [(metric, limit)])
  best = grid[np.argmax(np.where(linked & (costs <= limit), logs, -np.inf))]
  np.testing.assert_array_equal(found.choices["cell"], best)


def test_a_limit_that_nothing_keeps_names_the_nearest(toy):
  """The toy space has 4^3 architectures: all are visited."""

  def exact(architecture):
    row = architecture.choices["layers"]
    return float(2 + (row == 3).sum() * (row == 1).sum() + row.max())

  metric = hardware.params(toy)._replace(
    name="odd", unit="", exact=exact, form="other"
  )
  weights = {"layers": np.full((3, 4), 0.25, np.float32)}
  with pytest.raises(InputError, match=r"no architecture .* is odd=2"):
    decision.decide(toy, weights, [(metric, 1.0)])
  found = decision.decide(toy, weights, [(metric, 2.0)])
  np.testing.assert_array_equal(found.choices["layers"], 0)


@pytest.mark.skipif(
  not (DATA / "nasbench201_devices.csv.gz").exists(), reason="no tables"
)
def test_sixty_cells_rank_the_others():
  path = DATA / "nasbench201_devices.csv.gz"
  with gzip.open(path, "rt", encoding="utf-8") as file:
    rows = list(csv.DictReader(file))[::5]
  parsed = [networks.parse(r["arch"], SPACE.groups, "f") for r in rows]
  choices = networks.stack(parsed, SPACE.groups)
  order = np.random.default_rng(0).permutation(len(rows))
  for device, least in (("fpga", 0.999), ("gold_6226", 0.98)):
    values = np.array([float(r[f"latency_ms__{device}"]) for r in rows])
    seen, rest = order[:60], order[60:]
    found = fit.fit(
      SPACE.groups,
      {"cell": choices["cell"][seen]},
      values[seen],
      ends=ENDS,
      ties=fit.ties_of(SPACE),
    )
    table = random_table(0)._replace(
      tables=found.tables, constant=found.constant, counted=found.counted
    )
    predicted = table.of({"cell": choices["cell"][rest]}, ENDS)
    errors = scores.prediction_errors(np.round(predicted, 4), values[rest])
    assert errors.spearman >= least


def test_entries_that_the_networks_do_not_tell_apart_are_named():
  """Two operations that always come together share their cost, and it is said.

  Without ties; with them equal workloads need not be told apart.
  """
  rng = np.random.default_rng(30)
  rows = space_module.random_choices(SPACE, rng, 200)["cell"]
  both = {"cell": rows}
  clear = fit.fit(SPACE.groups, both, costs_of(both), counted=("every_edge",))
  assert clear.collinear == ()
  # Edges 0 and 1 always have the same operation.
  rows[:, 1] = rows[:, 0]
  found = fit.fit(SPACE.groups, both, costs_of(both), counted=("every_edge",))
  names = {name.split()[0] for name in found.collinear}
  assert names == {"cell[0]", "cell[1]"}
  assert len(found.collinear) == 2 * (len(SPACE.groups["cell"].candidates) - 1)


def costs_of(choices):
  rng = np.random.default_rng(0)
  table = rng.uniform(1.0, 2.0, (6, 5))
  table[:, 0] = 0.0
  return 1.0 + table[np.arange(6), choices["cell"]].sum(-1)
