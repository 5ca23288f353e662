"""Conformance checks, for our tests and for users' own parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.errors import one_line
from nasjax.types import Relaxation, Sampled

__all__ = ["check_relaxation"]


def _masks():
  """A group of open candidates and one with closed ones."""
  closed = np.ones((2, 4), bool)
  closed[0, 1] = closed[1, 3] = False
  return {"open": np.ones((3, 5), bool), "partly": closed}


def check_relaxation(relaxation: Relaxation, name: str = "relaxation") -> None:
  """Checks a relaxation against its contract, on two small groups.

  Init, samples and expectation must have the logits' shapes and float32, be
  finite, be 0 where masked, have rows that sum to 1 (where `simplex`), have
  finite gradients that are not all zero, trace under jit, and give the same
  for the same key.

  Args:
    relaxation: to check.
    name: what the message calls it.

  Raises:
    ValueError: says everything that is wrong with it, in one line.
  """
  if not isinstance(relaxation, Relaxation):
    raise ValueError(
      f"{name}: is a {type(relaxation).__name__}, not a nasjax.types.Relaxation"
    )
  masks, key, step = _masks(), jax.random.key(3), jnp.int32(2)
  try:
    logits = relaxation.init(jax.random.key(1), masks)
  except Exception as error:  # noqa: BLE001 - a user's part may raise anything
    raise ValueError(f"{name}: init raised {_said(error)}") from error
  problems = _shapes("init", logits, masks)
  if problems:
    raise ValueError(f"{name}: " + "; ".join(problems))

  def sample(logits):
    return relaxation.sample(key, logits, masks, step)

  def expect(logits):
    return relaxation.expect(logits, masks, step)

  spread = jax.tree.map(
    lambda v: v + jnp.linspace(-1.0, 1.0, v.shape[-1])[None], logits
  )
  for part, function in (("sample", sample), ("expect", expect)):
    problems += _check_part(part, function, spread, masks, relaxation.simplex)
  if problems:
    raise ValueError(f"{name}: " + "; ".join(dict.fromkeys(problems)))


def _said(error: BaseException) -> str:
  return one_line(f"{type(error).__name__}: {error}")[:200]


def _check_part(part, function, logits, masks, simplex):
  try:
    eager = function(logits)
    again = function(logits)
    traced = jax.jit(function)(logits)
  except Exception as error:  # noqa: BLE001 - a user's part may raise anything
    return [f"{part} raised {_said(error)}"]
  problems = []
  if part == "sample":
    if not isinstance(eager, Sampled):
      return [f"sample returned {type(eager).__name__}, not Sampled"]
    problems += _check_paths(eager, masks)
    eager, again, traced = eager.weights, again.weights, traced.weights
  problems += _shapes(part, eager, masks)
  if problems:
    return problems
  for group, mask in masks.items():
    weights = np.asarray(eager[group])
    where = f"{part}: group of shape {mask.shape}"
    if not np.isfinite(weights).all():
      problems.append(f"{where} has NaN or infinite weights")
      continue
    if np.abs(weights[~mask]).max(initial=0.0) > 0:
      problems.append(f"{where} has weights that are not 0 where masked")
    sums = weights.sum(-1)
    if simplex and (np.abs(sums - 1).max() > 1e-4 or weights.min() < -1e-6):
      problems.append(
        f"{where} has rows that are not on the simplex (sums"
        f" {sums.min():.4g} to {sums.max():.4g}, least {weights.min():.4g})"
      )
    for other, how in ((again, "called again"), (traced, "under jit")):
      if not np.allclose(weights, np.asarray(other[group]), atol=1e-4):
        problems.append(f"{part} is not pure: it differs when {how}")
  return problems + _check_gradient(part, function, logits)


def _check_gradient(part, function, logits):
  def total(logits):
    weights = function(logits)
    if part == "sample":
      weights = weights.weights
    return sum(
      jnp.sum(w * jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape))
      for w in weights.values()
    )

  try:
    slopes = jax.tree.leaves(jax.grad(total)(logits))
  except Exception as error:  # noqa: BLE001 - a user's part may raise anything
    return [f"the gradient of {part} raised {_said(error)}"]
  if not all(np.isfinite(np.asarray(s)).all() for s in slopes):
    return [f"the gradient of {part} is not finite"]
  if not any(np.abs(np.asarray(s)).max() > 0 for s in slopes):
    return [f"the gradient of {part} is zero everywhere"]
  return []


def _shapes(part, weights, masks):
  if not hasattr(weights, "keys") or set(weights) != set(masks):
    return [f"{part} returned no array for each group"]
  problems = []
  for group, mask in masks.items():
    shape, dtype = jnp.shape(weights[group]), jnp.result_type(weights[group])
    if shape != mask.shape:
      problems.append(f"{part} returned shape {shape}, not {mask.shape}")
    elif dtype != jnp.float32:
      problems.append(f"{part} returned {dtype}, not float32")
  return problems


def _check_paths(sampled, masks):
  problems = []
  for group, paths in (sampled.paths or {}).items():
    rows, candidates = masks[group].shape
    if jnp.ndim(paths) != 2 or jnp.shape(paths)[0] != rows:
      problems.append(
        f"sample returned paths of shape {jnp.shape(paths)}, not ({rows}, P)"
      )
    elif not jnp.issubdtype(jnp.result_type(paths), jnp.integer):
      problems.append("sample returned paths that are not integers")
    elif not ((paths >= 0) & (paths < candidates)).all():
      problems.append("sample returned paths outside the candidates")
  return problems
