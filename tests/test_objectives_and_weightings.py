"""What a weighting needs of objectives, and hulls of many of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_space
from scipy.optimize import nnls

from nasjax import hardware, objectives, pareto, search, small_qp, weightings
from nasjax.cli.main import main

SPACE = toy_space.toy()
MACS, PARAMS = hardware.macs(SPACE), hardware.params(SPACE)
REWARDS = {
  "soft": objectives.mnasnet_soft(MACS, 1e4),
  "hard": objectives.mnasnet_hard(MACS, 1e4),
  "efficiency": objectives.efficiency(MACS, PARAMS),
}
ABOVE_ZERO = {
  "chebyshev": weightings.chebyshev(),
  "exact_pareto": weightings.exact_pareto(),
  "mgda by loss": weightings.mgda(normalization="loss"),
  "mgda by loss+": weightings.mgda(normalization="loss+"),
  "epsilon by loss": weightings.epsilon_constraint(normalization="loss"),
}
ANY = {
  "constant": weightings.constant(),
  "mgda": weightings.mgda(),
  "pcgrad": weightings.pcgrad(),
  "upgrad": weightings.upgrad(),
  "chebyshev from below": weightings.chebyshev(ideal=-1.0),
}


def searched(reward, weighting):
  return search.differentiable(
    SPACE,
    objectives=[reward, objectives.metric(PARAMS, reference=100.0)],
    weighting=weighting,
  )


@pytest.mark.parametrize("weighting", ABOVE_ZERO)
@pytest.mark.parametrize("reward", REWARDS)
def test_rewards_are_refused_where_values_must_be_above_zero(reward, weighting):
  with pytest.raises(ValueError, match="may lie below 0"):
    searched(REWARDS[reward], ABOVE_ZERO[weighting])


@pytest.mark.parametrize("weighting", ANY)
def test_where_they_may_be_below_they_are_taken(weighting):
  # The hard reward lies above -1.
  searched(REWARDS["hard"], ANY[weighting])


def test_a_users_objective_that_lies_below_what_it_states():
  own = objectives.metric(PARAMS)._replace(
    name="own", value=lambda task, costs: costs["params"] - 1e6
  )
  with pytest.raises(ValueError, match="below the low=0"):
    searched(own, weightings.constant())
  searched(own._replace(low=-np.inf), weightings.constant())


@pytest.mark.parametrize(
  "words, said",
  [
    ("--weighting chebyshev", "mnasnet_soft may lie below"),
    ("--weighting exact_pareto", "mnasnet_soft may lie below"),
    ("--weighting mgda --normalization loss", "mnasnet_soft may lie below"),
  ],
)
def test_the_command_line_refuses_them_too(words, said, npz, tmp_path, capsys):
  out = tmp_path / "run"
  given = ["search", "--data", npz, "--space", toy_space.NAME, "--limit"]
  given += ["macs=20000", "--objective", "mnasnet_soft", "params"]
  assert main([*given, *words.split(), "--out", str(out)]) == 2
  error = capsys.readouterr().err
  assert said in error and error.count("\n") == 1 and not out.exists()


@pytest.mark.parametrize(
  "words", ["--penalty equality", "--penalty-strength 3", "--penalty objective"]
)
def test_a_penalty_without_a_limit_is_refused(words, npz, tmp_path, capsys):
  out = tmp_path / "run"
  given = ["search", "--data", npz, "--space", toy_space.NAME, *words.split()]
  assert main([*given, "--out", str(out)]) == 2
  error = capsys.readouterr().err
  assert "there is no limit" in error and error.count("\n") == 1
  assert words.split()[0] in error and not out.exists()


def least_norm(jacobian):
  """By Lawson and Hanson's NNLS in float64: min |x J|^2 + (sum x - 1)^2.

  Its minimum is a multiple of the hull's point of least norm.
  """
  scaled = jacobian / np.linalg.norm(jacobian, axis=1).max()
  system = np.vstack([scaled.T, np.ones(len(jacobian))])
  right = np.append(np.zeros(jacobian.shape[1]), 1.0)
  found, _ = nnls(system, right, maxiter=10_000)
  return found / found.sum()


@pytest.mark.parametrize("count", [7, 9, 12])
def test_the_hull_of_many_gradients_of_any_size(count):
  found = jax.jit(small_qp.min_norm)
  for seed in range(40):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 60)) + (seed % 2) * rng.normal(size=60)
    rows *= 10.0 ** rng.uniform(0, 4, count)[:, None]
    rows = rows[:, : count // 2] if seed % 3 == 0 else rows
    norms = np.linalg.norm(rows, axis=1)
    own = np.asarray(found(jnp.asarray(rows @ rows.T, jnp.float32)), float)
    assert own.min() >= 0 and own.sum() == pytest.approx(1.0, abs=1e-5)
    direction = own @ rows
    least = np.linalg.norm(least_norm(rows) @ rows)
    slack = 1e-3 * norms.min()
    assert np.linalg.norm(direction) <= 1.001 * least + slack
    # To first order no objective rises along it.
    assert (rows @ direction / norms >= -slack).all()


def test_trade_offs_of_an_accuracy_have_the_sign_of_an_errors():
  """More latency buys accuracy: what is minimised falls, however written."""
  latency = np.array([1.0, 2.0, 4.0])
  accuracy = np.array([0.6, 0.7, 0.75])
  errors = np.stack([1.0 - accuracy, latency], -1)
  negative = np.stack([-accuracy, latency], -1)
  assert (pareto.trade_offs(errors, 0, 1) < 0).all()
  assert (pareto.trade_offs(negative, 0, 1) < 0).all()
  # (-.1 / .65) / (1 / 1.5) by hand.
  assert pareto.trade_offs(negative, 0, 1)[0] == pytest.approx(
    (-0.1 / 0.65) / (1.0 / 1.5)
  )
