"""Conformance checks, for our tests and for users' own parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.errors import one_line
from nasjax.reader import RAISED
from nasjax.types import Masks, Relaxation, Sampled

__all__ = ["check_relaxation"]

_COMPILED = "/jax/core/compile/backend_compile_duration"


def _masks():
  """A group of open candidates and one with closed ones."""
  closed = np.ones((2, 4), bool)
  closed[0, 1] = closed[1, 3] = False
  return {"open": np.ones((3, 5), bool), "partly": closed}


def check_relaxation(
  relaxation: Relaxation,
  name: str = "relaxation",
  masks: Masks | None = None,
) -> None:
  """Checks a relaxation against its contract.

  Init, samples and expectation must have the logits' shapes and float32, be
  finite, be 0 where masked, have rows that sum to 1 (where `simplex`), have
  finite gradients that are not all zero, trace under jit, give the same for
  the same key, and compile once for all steps. All of it near the first
  logits, where they are tied, spread and far apart.

  Args:
    relaxation: to check.
    name: what the message calls it.
    masks: bool[E, K] a group, those of the space that it is meant for, checked
      beside a small group with closed candidates; default two small groups.

  Raises:
    ValueError: says everything that is wrong with it, in one line.
  """
  if not isinstance(relaxation, Relaxation):
    raise ValueError(
      f"{name}: is a {type(relaxation).__name__}, not a nasjax.types.Relaxation"
    )
  for field in ("init", "sample", "expect"):
    if not callable(getattr(relaxation, field)):
      raise ValueError(f"{name}: {field} is not a function")
  small = _masks()
  masks = small if masks is None else {**masks, "partly": small["partly"]}
  masks = {group: np.asarray(mask) for group, mask in masks.items()}
  key = jax.random.key(3)
  logits, problems = _check_init(relaxation.init, masks)
  if problems:
    raise ValueError(f"{name}: " + "; ".join(problems))

  def sample(logits, step):
    return relaxation.sample(key, logits, masks, step)

  def expect(logits, step):
    return relaxation.expect(logits, masks, step)

  spread = jax.tree.map(
    lambda v: v + jnp.linspace(-1.0, 1.0, v.shape[-1])[None], logits
  )
  tied = jax.tree.map(jnp.zeros_like, logits)
  far = jax.tree.map(lambda v: 30.0 * v, spread)
  for part, function in (("sample", sample), ("expect", expect)):
    found = _check_part(part, function, spread, masks, relaxation.simplex)
    for place, at in (("tied", tied), ("far", far)):
      # What is wrong anyway is said once.
      found = found or _check_finite(part, function, at, masks, place)
    problems += found or _check_compiles_once(part, function, spread)
  if problems:
    raise ValueError(f"{name}: " + "; ".join(dict.fromkeys(problems)))


def _check_init(init, masks):
  """(logits, problems) of a relaxation's parameters."""
  key = jax.random.key(1)
  try:
    logits, again = init(key, masks), init(key, masks)
    traced = jax.jit(lambda key: init(key, masks))(key)
  except RAISED as error:
    return None, [f"init raised {_said(error)}"]
  problems = _shapes("init", logits, masks)
  for group in masks if not problems else ():
    first = np.asarray(logits[group])
    if not np.isfinite(first).all():
      problems.append("init has NaN or infinite logits")
    for other, how in ((again, "called again"), (traced, "under jit")):
      if not np.allclose(first, np.asarray(other[group]), atol=1e-4):
        problems.append(f"init is not pure: it differs when {how}")
    if getattr(traced[group], "weak_type", False):
      # The optimiser makes them strong, and every step would compile again.
      problems.append("init has weakly typed logits, jnp.float32 is expected")
  return logits, list(dict.fromkeys(problems))


def _check_finite(part, function, logits, masks, place):
  """Values and gradients at logits where they overflow first."""
  try:
    weights = function(logits, jnp.int32(0))
  except RAISED as error:
    return [f"{part} raised {_said(error)}"]
  weights = weights.weights if part == "sample" else weights
  for group in masks:
    if not np.isfinite(np.asarray(weights[group])).all():
      return [f"{part} has NaN or infinite weights where logits are {place}"]
  return _check_gradient(part, function, logits, place)


def _check_compiles_once(part, function, logits):
  """A call of known shapes must not compile anything new."""
  compiled = []

  def listen(event, seconds, **more):
    del seconds, more
    if event == _COMPILED:
      compiled.append(event)

  function(logits, jnp.int32(0))
  steps = [jnp.int32(7), jnp.int32(8)]
  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    for step in steps:
      function(logits, step)
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  if len(compiled) >= len(steps):
    return [f"{part} compiles again at every step: jit its functions once"]
  return []


def _said(error: BaseException) -> str:
  return one_line(f"{type(error).__name__}: {error}")[:200]


def _check_part(part, function, logits, masks, simplex):
  try:
    step = jnp.int32(2)
    eager = function(logits, step)
    again = function(logits, step)
    traced = jax.jit(function)(logits, step)
  except RAISED as error:
    return [f"{part} raised {_said(error)}"]
  problems = []
  if part == "sample":
    if not isinstance(eager, Sampled):
      return [f"sample returned {type(eager).__name__}, not Sampled"]
    problems += _check_paths(eager, masks)
    eager, again, traced = eager.weights, again.weights, traced.weights
  for weights in (eager, again, traced):
    problems += _shapes(part, weights, masks)
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


def _check_gradient(part, function, logits, place="spread"):
  def total(logits):
    weights = function(logits, jnp.int32(2))
    if part == "sample":
      weights = weights.weights
    return sum(
      jnp.sum(w * jnp.cos(jnp.arange(w.size, dtype=w.dtype)).reshape(w.shape))
      for w in weights.values()
    )

  try:
    slopes = jax.tree.leaves(jax.grad(total)(logits))
  except RAISED as error:
    return [f"the gradient of {part} raised {_said(error)}"]
  if not all(np.isfinite(np.asarray(s)).all() for s in slopes):
    return [f"the gradient of {part} is not finite where logits are {place}"]
  # Far apart, and at a tie, a slope may rightly be 0.
  if place == "spread" and not any(
    np.abs(np.asarray(s)).max() > 0 for s in slopes
  ):
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
