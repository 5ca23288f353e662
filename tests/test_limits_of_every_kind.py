"""A limit on a metric of any kind bounds what is decided."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_space

from nasjax import constraints, hardware, search
from nasjax.errors import InputError
from nasjax.hardware import transfer
from nasjax.hardware.predictor import architecture_predictor
from nasjax.spaces import costs, ranking
from nasjax.spaces import space as space_tools
from nasjax.spaces.space import Architecture
from nasjax.types import Metric

SPACE = toy_space.cell()
ALL = [
  Architecture(SPACE, {"cell": np.array(row, np.int32)})
  for row in itertools.product(range(5), repeat=3)
]
ALL = [a for a in ALL if space_tools.is_connected(a)]


def measured(architecture):
  """What a device took: more than the sum of its parts."""
  row = architecture.choices["cell"]
  table = np.array([0.1, 0.2, 1.0, 3.0, 0.7])
  return float(1.0 + table[row].sum() + table[row[0]] * table[row[2]])


def predicted():
  some = ALL[::3]
  choices = {"cell": np.array([a.choices["cell"] for a in some])}
  values = np.array([measured(a) for a in some])
  made = architecture_predictor(SPACE, choices, values)
  return made.metric("latency_ms", "ms", deviations=1.0)


def transferred():
  some = ALL[::9]
  samples = transfer.Samples(
    {"cell": np.array([a.choices["cell"] for a in some])},
    np.array([measured(a) for a in some]),
  )
  made = transfer.transfer(
    SPACE.groups, samples, ends=SPACE.ends, gauge={"cell": 0}
  )
  return made.metric("latency_ms", "ms")


def own():
  """A user's metric of the default form, which is no sum."""

  def expected(weights):
    w = weights["cell"] @ jnp.array([0.1, 0.2, 1.0, 3.0, 0.7])
    return 1.0 + w.sum() + w[0] * w[2]

  return Metric("own_ms", "ms", None, expected, measured)


MADE = {"predicted": predicted, "transferred": transferred, "own": own}


@pytest.fixture(scope="module", params=MADE)
def metric(request):
  return MADE[request.param]()


def weights_of(seed):
  rng = np.random.default_rng(seed)
  return {"cell": rng.dirichlet(np.ones(5), 3).astype(np.float32)}


def test_what_is_decided_is_the_most_probable_within_it(metric):
  values = np.array([metric.exact(a) for a in ALL])
  for seed, share in itertools.product(range(5), (5, 30, 70)):
    bound = float(np.percentile(values, share))
    weights = weights_of(seed)
    found = SPACE.decide(weights, [(metric, bound)])
    assert metric.exact(found) <= bound
    logs = np.log(weights["cell"])
    score = [logs[np.arange(3), a.choices["cell"]].sum() for a in ALL]
    best = max(s for s, v in zip(score, values, strict=True) if v <= bound)
    own = logs[np.arange(3), found.choices["cell"]].sum()
    assert own == pytest.approx(best)
  with pytest.raises(InputError, match="no architecture of the space"):
    SPACE.decide(weights_of(0), [(metric, float(values.min()) * 0.5)])


def test_one_that_needs_a_local_search_is_found(metric, monkeypatch):
  values = np.array([metric.exact(a) for a in ALL])
  bound = float(np.percentile(values, 5))
  # The most probable networks are all over the limit.
  sure = np.full((3, 5), 1e-3)
  sure[:, 3] = 1.0
  sure /= sure.sum(-1, keepdims=True)
  monkeypatch.setattr(ranking, "MAX_VISITS", 20)
  found = SPACE.decide({"cell": sure}, [(metric, bound)])
  assert metric.exact(found) <= bound and space_tools.is_connected(found)
  with pytest.raises(InputError, match="nor what a local search found"):
    SPACE.decide({"cell": sure}, [(metric, float(values.min()) * 0.5)])


def test_its_form_is_found_out(metric):
  assert costs.resolved(SPACE, metric).form == "other"
  macs = hardware.macs(SPACE)
  assert costs.resolved(SPACE, macs).form == "sum"
  table = costs.costs(SPACE, metric)
  one = ALL[7]
  assert table.of(one.choices) == pytest.approx(metric.exact(one))


def test_what_a_measurement_raises_is_not_taken_for_an_answer():
  def exact(architecture):
    raise ValueError("the board does not answer")

  with pytest.raises(ValueError, match="does not answer"):
    costs.resolved(SPACE, own()._replace(exact=exact))


def test_a_search_takes_it_as_a_limit(metric):
  made = search.differentiable(
    SPACE, constraints=[constraints.at_most(metric, 4.0)]
  )
  jax.eval_shape(made.init, jax.random.key(0))


def raises(architecture):
  raise RuntimeError("no device is plugged in")


@pytest.mark.parametrize(
  "exact, said",
  [
    (raises, "no device is plugged in; a limit needs it"),
    (lambda a: float("nan"), "exact is not finite"),
    (lambda a: None, "exact returned NoneType"),
    (lambda a: 2.0 * measured(a), "tight=False"),
  ],
)
def test_one_that_cannot_is_refused_before_training(exact, said):
  metric = own()._replace(exact=exact)
  with pytest.raises(ValueError, match=said):
    search.differentiable(SPACE, constraints=[constraints.at_most(metric, 4.0)])
