"""A table's constant and fusion rules, and the metrics under them."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasjax import spaces
from nasjax.errors import InputError
from nasjax.hardware import bundle, calibrate, table
from nasjax.hardware.device import Device
from nasjax.spaces.space import architecture

SPACES = {
  "residual": spaces.edge(),
  "dense": spaces.edge(links="dense"),
  "nasbench201": spaces.nasbench201(cells=2),
}
RULES = table.Rules(
  0.5,
  {
    "convolution>relu6": 0.1,
    "none>add": 0.0,
    "*>add": 0.8,
    "relu>convolution": 0.7,
    ">convolution": 1.3,
  },
)


def costs(space):
  rng = np.random.default_rng(0)
  return {
    (w, 1): {"latency_ms": float(rng.uniform(0.01, 0.1))}
    for w in space.workloads().distinct()
  }


def device(space, rules=RULES):
  rows = table.Table("t.csv", {}, costs(space), {(32, 1): rules})
  return Device("d", rows)


def share(space, stage, edge):
  """Of an edge in its node's additions: three edges have two, and so on."""
  if not space.node_pairs:
    return sum(w.kind == "add" for w in stage.joins) / len(stage.edges)
  ends = [to for _, to in space.node_pairs]
  into = ends.count(ends[edge])
  return (into - 1) / into


def by_hand(space, rules, one):
  """A network's latency, workload by workload as its blocks run."""
  rows, plan = costs(space), space.plan

  def cost(work, after):
    named = f"{after}>{work.kind}"
    factor = rules.factors.get(named, rules.factors.get(f"*>{work.kind}", 1.0))
    return factor * rows[work.key, 1]["latency_ms"]

  def block(made):
    kinds = ["", *(w.kind for w in made.workloads)]
    return sum(cost(w, k) for w, k in zip(made.workloads, kinds, strict=False))

  total = rules.constant_ms + sum(block(b) for b in plan.fixed.values())
  total += sum(cost(w, "") for w in plan.joins)
  chosen = one.choices[plan.group]
  for s, stage in enumerate(plan.stages):
    for row in plan.rows(s):
      total += sum(cost(w, "") for w in stage.joins)
      total += sum(block(b) for b in stage.links.values())
      for e, edge in zip(row, stage.edges, strict=True):
        made = list(edge.values())[chosen[e]]
        total += 0.0 if made is None else block(made)
        last = "none"
        if made is not None:
          last = made.workloads[-1].kind if made.workloads else "skip"
        for add in [w for w in stage.joins if w.kind == "add"][:1]:
          total += share(space, stage, e) * (cost(add, last) - cost(add, ""))
  return total


@given(seed=st.integers(0, 2**31), name=st.sampled_from(sorted(SPACES)))
def test_expected_and_exact_apply_the_same_rules(seed, name):
  space = SPACES[name]
  metric = device(space).latency(space)
  group, rng = space.plan.group, np.random.default_rng(seed)
  size = space.groups[group]
  row = rng.integers(len(size.candidates), size=size.edges)
  one = architecture(space, {group: row})
  wanted = by_hand(space, RULES, one)
  assert metric.exact(one) == pytest.approx(wanted, rel=1e-9)
  weights = {n: jnp.asarray(w) for n, w in one.one_hot().items()}
  assert float(metric.expected(weights)) == pytest.approx(wanted, rel=1e-5)


def test_rules_survive_the_file(tmp_path):
  path, space = tmp_path / "t.csv", SPACES["residual"]
  rows = [
    (work, batch, {"latency_ms": repr(values["latency_ms"])})
    for (work, batch), values in costs(space).items()
  ]
  header = {table.rules_key(32, 1): RULES.text()}
  table.write(path, header, rows, ("latency_ms",))
  found = table.read(path)
  assert found.rules == {(32, 1): RULES}
  one = architecture(space, {"nodes": [5] * 9})
  assert Device("d", found).latency(space).exact(one) == pytest.approx(
    device(space).latency(space).exact(one)
  )
  # Energies and other settings have no such rules.
  assert Device("d", found).table.rules.get((8, 1)) is None


@pytest.mark.parametrize(
  "key, text, said",
  [
    ("rules bits=32", "constant_ms=1", "is not `rules"),
    ("rules bits=32 batch=1", "constant_ms=-1", "below 0"),
    ("rules bits=32 batch=1", "constant_ms=nan", "finite"),
    ("rules bits=32 batch=1", "constant=1", "'constant=1' is not"),
    ("rules bits=32 batch=1", "relu>convolutoin=1", "is not KIND"),
    ("rules bits=32 batch=1", "relo>convolution=1", "unknown kind 'relo'"),
    ("rules bits=32 batch=1", "relu>add=1 relu>add=2", "is not KIND"),
  ],
)
def test_bad_rules_are_refused(key, text, said, tmp_path):
  path = tmp_path / "t.csv"
  head = ",".join((*table.COLUMNS, "latency_ms"))
  path.write_text(
    f"# {key}: {text}\n{head}\nconvolution,8,8,3,4,3,1,1,32,1,0.5\n"
  )
  with pytest.raises(InputError, match=f"t.csv.*{said}"):
    table.read(path)


def synthetic(space, rules, count, noise=0.0, seed=0):
  """(table, networks timed under `rules`)."""
  metric = device(space, rules).latency(space)
  rng = np.random.default_rng(seed)
  networks = bundle.random_networks(space, count, seed)
  timed = [
    (n.choices, metric.exact(n) * float(np.exp(noise * rng.normal())))
    for n in networks
  ]
  return table.Table("t.csv", {}, costs(space)), timed


def test_known_rules_are_found_again():
  space = SPACES["residual"]
  rules = table.Rules(
    0.4, {"convolution>relu6": 0.0, "depthwise>relu6": 0.0, "none>add": 0.0}
  )
  plain, timed = synthetic(space, rules, 40)
  made = calibrate.calibrate(plain, space.workloads(), timed)
  assert made.within_10_percent == 1.0 and made.spearman > 0.999
  assert made.rules.constant_ms == pytest.approx(0.4, rel=0.2)


def test_others_are_predicted_better_than_by_the_plain_sum():
  space = SPACES["residual"]
  plain, timed = synthetic(space, RULES, 60, noise=0.03)
  made = calibrate.calibrate(plain, space.workloads(), timed[:30])
  rows = plain._replace(rules={(32, 1): made.rules})

  def errors(found):
    metric = Device("d", found).latency(space)
    return np.abs(
      [metric.exact(architecture(space, c)) / t - 1 for c, t in timed[30:]]
    )

  assert np.mean(errors(rows) < 0.1) >= 0.9
  assert np.mean(errors(rows)) < 0.5 * np.mean(errors(plain))


def test_too_few_networks_are_refused():
  space = SPACES["residual"]
  plain, timed = synthetic(space, RULES, 9)
  with pytest.raises(InputError, match="9 whole networks.*needs 10"):
    calibrate.calibrate(plain, space.workloads(), timed)


def test_a_space_without_joins_has_features_all_the_same():
  works = SPACES["residual"].workloads()._replace(joins={})
  choices = {n: np.zeros(len(e), int) for n, e in works.groups.items()}
  found = calibrate.features(works, choices, lambda work: 1.0)
  assert found and all(v > 0 for v in found.values())
