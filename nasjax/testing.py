"""Conformance checks, for our tests and for users' own parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nasjax.errors import InputError, one_line
from nasjax.hardware.workload import SpaceWorkloads, params
from nasjax.reader import RAISED
from nasjax.spaces.space import Architecture, is_connected, random_choices
from nasjax.types import Group, Masks, Relaxation, Sampled

__all__ = ["check_relaxation", "check_space"]

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


_SPACE = (
  ("name", "arguments", "groups", "masks", "skips", "cuts"),
  ("init", "apply", "build", "extract", "workloads", "decide"),
)
_CHECKED_NETWORKS = 3  # random ones, beside the decided one


def check_space(space: Any, name: str = "space") -> None:
  """Checks a search space against its contract, `nasjax.spaces.space.Space`.

  Groups, masks and workloads must belong together; the supernet gives logits
  f32[B, num_classes] and keeps the shapes of its batch statistics; what is
  decided, and a few random architectures, can be built, have as many parameters
  as their workloads say, and inherit weights of the right shapes. Shapes alone
  are traced: nothing is compiled.

  Args:
    space: to check.
    name: what the message calls it.

  Raises:
    ValueError: says what is wrong with it, in one line.
  """
  for part in (*_SPACE[0], *_SPACE[1]):
    try:
      has = hasattr(space, part)
    except RAISED as error:
      raise ValueError(f"{name}: {part} raised {_said(error)}") from error
    if not has:
      raise ValueError(
        f"{name}: is a {type(space).__name__} without {part}, not a search"
        " space, see nasjax.spaces.space.Space"
      )
  for part in _SPACE[1]:
    if not callable(getattr(space, part)):
      raise ValueError(f"{name}: {part} is not a function")
  fields = dataclasses.fields(space) if dataclasses.is_dataclass(space) else ()
  if "name" not in [f.name for f in fields if f.init]:
    raise ValueError(f"{name}: is no dataclass with a field name")
  for check in (_check_groups, _check_arguments, _check_workloads):
    check(space, name)
  try:
    _check_networks(space, name)
  except InputError:  # of a check
    raise
  except RAISED as error:
    raise ValueError(f"{name}: raised {_said(error)}") from error


def _check_groups(space, name):
  if not isinstance(space.groups, Mapping) or not space.groups:
    raise ValueError(f"{name}: groups are no mapping, or empty")
  for group, choices in space.groups.items():
    where = f"{name}: group {group}"
    if not isinstance(choices, Group) or choices.edges < 1:
      raise ValueError(f"{where} is no nasjax.types.Group of 1 choice or more")
    words = choices.candidates
    if len(set(words)) != len(words) or not words:
      raise ValueError(f"{where} has candidates of one name, or none")
    for word in words:
      if not isinstance(word, str) or not word.isprintable() or " " in word:
        raise ValueError(f"{where}: candidate {word!r} is no word")
    for what, flags in (("masks", space.masks), ("skips", space.skips)):
      found = np.asarray(flags.get(group))
      if found.shape != (choices.edges, len(words)) or found.dtype != bool:
        raise ValueError(
          f"{where}: {what} are not bool[{choices.edges}, {len(words)}]"
        )
    if not np.asarray(space.masks[group]).any(-1).all():
      raise ValueError(f"{where}: masks leave a choice without candidates")


def _check_arguments(space, name):
  for argument in ("image_shape", "num_classes"):
    if argument not in space.arguments:
      raise ValueError(f"{name}: its arguments have no {argument}")
  for argument, value in space.arguments.items():
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(p, (int, str)) for p in parts):
      raise ValueError(
        f"{name}: argument {argument} is no word, whole number or tuple of them"
      )


def _check_workloads(space, name):
  try:
    works = space.workloads()
  except RAISED as error:
    raise ValueError(f"{name}: workloads raised {_said(error)}") from error
  if not isinstance(works, SpaceWorkloads) or set(works.groups) | {
    group for product in works.products for group, _ in product.choices
  } != set(space.groups):
    raise ValueError(f"{name}: workloads are no SpaceWorkloads of its groups")
  for product in works.products:
    sizes = [len(space.groups[g].candidates) for g, _ in product.choices]
    if product.cells.shape != tuple(sizes):
      raise ValueError(f"{name}: workloads of {product.choices} miss some")
  for group, rows in works.groups.items():
    edges, candidates = space.groups[group]
    if [len(row) for row in rows] != [len(candidates)] * edges:
      raise ValueError(f"{name}: workloads of group {group} miss some choice")


def _check_networks(space, name):
  """Traces the supernet and some networks of it."""
  key = jax.random.key(0)
  classes = int(space.arguments["num_classes"])
  shape = (2, *space.arguments["image_shape"])
  images = jax.ShapeDtypeStruct(shape, jnp.float32)
  masks = {n: np.asarray(m) for n, m in space.masks.items()}
  even = {
    n: (m / m.sum(-1, keepdims=True)).astype(np.float32)
    for n, m in masks.items()
  }
  variables = jax.eval_shape(space.init, key)
  if set(variables) != {"params", "batch_stats"}:
    raise InputError(name, "init made no params and batch_stats")
  logits, stats = jax.eval_shape(
    lambda v, x: space.apply(v, Sampled(even), x, True), variables, images
  )
  _check_logits(f"{name}: apply", logits, (2, classes))
  if _sizes(stats) != _sizes(variables["batch_stats"]):
    raise InputError(name, "apply changed the shapes of batch_stats")
  drawn = random_choices(space, np.random.default_rng(0), _CHECKED_NETWORKS)
  networks = [
    Architecture(space, {n: rows[i] for n, rows in drawn.items()})
    for i in range(_CHECKED_NETWORKS)
  ]
  networks = [a for a in networks if is_connected(a)]
  counted = params(space)
  for found in [space.decide(even), *networks]:
    network = space.build(found)
    logits, own = jax.eval_shape(
      lambda x, n=network: n.init_with_output(key, x, False), images
    )
    where = f"{name}: {' '.join(sum(found.names().values(), []))[:100]}"
    _check_logits(f"{where}: network", logits, (2, classes))
    inherited = jax.eval_shape(
      lambda v, a=found: space.extract(v, a), variables
    )
    if _sizes(inherited) != _sizes(own):
      raise InputError(where, "extract gives another network's variables")
    size = sum(v.size for v in jax.tree.leaves(own["params"]))
    if size != round(counted.exact(found)):
      raise InputError(
        where,
        f"its workloads count {counted.exact(found):.0f} parameters, it has"
        f" {size}",
      )


def _check_logits(where, logits, shape):
  if logits.shape != shape or logits.dtype != jnp.float32:
    raise InputError(
      where,
      f"gave {logits.dtype}{list(logits.shape)}, not float32{list(shape)}",
    )


def _sizes(tree):
  # Parts without entries may be left out.
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}
