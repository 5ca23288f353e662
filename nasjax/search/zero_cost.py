"""Zero-cost proxies: scores of untrained networks, to screen before a search.

All networks share one random initialisation, that of the supernet, and are
mapped over by `vmap`: a decided network is a one-hot row of weights. Gradients
are those of the kernels, since a supernet's candidates are not scaled.

* `synflow`: sum of |parameter times gradient| at absolute parameters and
  images of ones, normalisation left out (Tanaka et al., "Pruning neural
  networks without any data by iteratively conserving synaptic flow", NeurIPS
  2020, equation 1), as its logarithm.
* `gradient_norm`: the Euclidean norm of the loss's gradient (Abdelfattah et
  al., "Zero-Cost Proxies for Lightweight NAS", ICLR 2021).
* `jacobian_covariance`: how unlike the network's linear maps are at the images
  of a batch, -sum(log(v + k) + 1 / (v + k)) of the eigenvalues of their
  correlations (Mellor et al., "Neural Architecture Search without Training",
  ICML 2021; its first version, to which NASWOT's activation codes are kin).

Higher is meant to be better. How well they rank depends on the space; counting
multiply-adds is the baseline that they have to beat.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nasjax.types import Batch, Choices, Key, Sampled

__all__ = ["PROXIES", "proxies"]

PROXIES = ("synflow", "gradient_norm", "jacobian_covariance")
_RIDGE = 1e-5  # k of the Jacobians' score


def _kernels(tree):
  found = jax.tree_util.tree_leaves_with_path(tree)
  return [leaf for path, leaf in found if path[-1].key == "kernel"]


def _synflow(space, variables, sampled, images):
  params = jax.tree.map(jnp.abs, variables["params"])
  # At the initial statistics (mean 0, variance 1) normalisation is no more
  # than a constant factor.
  stats = variables["batch_stats"]

  def flow(params):
    logits, _ = space.apply(
      {"params": params, "batch_stats": stats},
      sampled,
      jnp.ones_like(images[:1]),
      False,
    )
    return jnp.sum(logits)

  gradient = jax.grad(flow)(params)
  pairs = zip(_kernels(params), _kernels(gradient), strict=True)
  return jnp.log(sum(jnp.sum(jnp.abs(p * g)) for p, g in pairs) + 1e-30)


def _gradient_norm(space, variables, sampled, batch):
  def loss(params):
    logits, _ = space.apply(
      {**variables, "params": params}, sampled, batch.images, True
    )
    losses = optax.losses.softmax_cross_entropy_with_integer_labels(
      logits, batch.labels
    )
    return losses.mean()

  gradient = _kernels(jax.grad(loss)(variables["params"]))
  return jnp.sqrt(sum(jnp.sum(g**2) for g in gradient))


def _jacobian_covariance(space, variables, sampled, images):
  def total(images):
    return jnp.sum(space.apply(variables, sampled, images, True)[0])

  jacobians = jax.grad(total)(images).reshape(images.shape[0], -1)
  jacobians = jacobians - jacobians.mean(axis=1, keepdims=True)
  norms = jnp.sqrt(jnp.sum(jacobians**2, axis=1, keepdims=True))
  # A network that does not read its input has no Jacobian: all alike.
  unit = jnp.where(norms > 0, jacobians / jnp.maximum(norms, 1e-30), 1.0)
  unit = unit / jnp.sqrt(jnp.sum(unit**2, axis=1, keepdims=True))
  values = jnp.maximum(jnp.linalg.eigvalsh(unit @ unit.T), 0.0)
  return -jnp.sum(jnp.log(values + _RIDGE) + 1.0 / (values + _RIDGE))


def proxies(
  space: Any,
  choices: Choices,
  batch: Batch,
  key: Key,
  *,
  names: tuple[str, ...] = PROXIES,
  at_once: int = 4,
) -> dict[str, np.ndarray]:
  """Scores of untrained networks.

  Args:
    space: the space.
    choices: i32[N, E] a group, the networks.
    batch: images f32[B, H, W, C] and labels i32[B].
    key: of the initialisation; consumed.
    names: of `PROXIES`.
    at_once: networks that one step maps over; memory goes with it.

  Returns:
    f64[N] by name. A score may be -inf or very large where a network has no
    way from its input to its output: rank them, do not average them.

  Raises:
    ValueError: an unknown name.
  """
  for name in names:
    if name not in PROXIES:
      raise ValueError(f"unknown proxy {name!r}; known: {', '.join(PROXIES)}")
  weights = {
    n: jnp.asarray(
      np.eye(len(space.groups[n].candidates), dtype=np.float32)[rows]
    )
    for n, rows in choices.items()
  }

  @jax.jit
  def score(variables, weights, batch):
    def one(weights: Mapping[str, jax.Array]):
      sampled = Sampled(weights, None)
      found = {}
      if "synflow" in names:
        found["synflow"] = _synflow(space, variables, sampled, batch.images)
      if "gradient_norm" in names:
        found["gradient_norm"] = _gradient_norm(
          space, variables, sampled, batch
        )
      if "jacobian_covariance" in names:
        found["jacobian_covariance"] = _jacobian_covariance(
          space, variables, sampled, batch.images
        )
      return found

    return jax.lax.map(one, weights, batch_size=at_once)

  found = score(space.init(key), weights, batch)
  return {n: np.asarray(found[n], np.float64) for n in names}
