"""Gaussian process regression for few samples.

Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006):
algorithm 2.1 for the posterior, section 5.4.2 for the leave-one-out residuals
by which the hyper-parameters are chosen among few. The kernel is a squared
exponential plus a linear one on standardised features.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import linalg

__all__ = ["GaussianProcess", "fit"]

LENGTHS = (0.5, 1.0, 2.0, 4.0)  # in root mean squared distances
LINEAR = (0.0, 0.3, 1.0)
NOISES = (1e-4, 1e-3, 1e-2, 0.1, 0.3)
CHOOSING = 400  # the most values by which hyper-parameters are chosen


class GaussianProcess(NamedTuple):
  """A fitted process of features f[F]; float64 arrays."""

  center: np.ndarray  # [F], of the features
  scale: np.ndarray  # [F]
  inputs: np.ndarray  # [N, F], standardised
  solved: np.ndarray  # [N], inverse of the kernel matrix times the targets
  factor: np.ndarray  # [N, N], lower Cholesky factor of the kernel matrix
  mean: float  # of the targets
  deviation: float  # of the targets
  variance: float  # of the process, in deviations
  length: float
  linear: float
  noise: float
  left_out: np.ndarray  # [N], predictions of each target from the others

  def _kernel(self, x, inputs, np_or_jnp=jnp):
    return _kernel(x, inputs, self.length, self.linear, np_or_jnp)

  def predict(self, features: Any):
    """Mean f[...] of features f[..., F]; differentiable with JAX."""
    return self.predict_with_deviation(features, deviation=False)[0]

  def predict_with_deviation(self, features: Any, deviation: bool = True):
    """Mean and standard deviation f[...] of features f[..., F].

    The deviation is that of the function, without the noise of a
    measurement.
    """
    host = isinstance(features, np.ndarray)
    to = (lambda a: a) if host else (lambda a: jnp.asarray(a, jnp.float32))
    shape = features.shape[:-1]
    x = features.reshape(-1, features.shape[-1])
    x = (x - to(self.center)[None]) / to(self.scale)[None]
    kernel = self._kernel(x, to(self.inputs), np if host else jnp)
    mean = self.mean + self.deviation * (kernel @ to(self.solved))
    if not deviation:
      return mean.reshape(shape), None
    if host:
      turned = linalg.solve_triangular(self.factor, kernel.T, lower=True)
      explained = (turned**2).sum(0)
    else:
      inverse = linalg.solve_triangular(
        self.factor, np.eye(len(self.factor)), lower=True
      )
      explained = ((kernel @ to(inverse.T)) ** 2).sum(-1)
    own = 1.0 + self.linear * (x**2).mean(-1)
    library = np if host else jnp
    spread = self.deviation * library.sqrt(
      self.variance * library.maximum(own - explained, 1e-9)
    )
    return mean.reshape(shape), spread.reshape(shape)


def _kernel(x, inputs, length, linear, np_or_jnp=np):
  size = x.shape[-1]
  products = x @ inputs.T / size
  squares = (x**2).mean(-1)[:, None] + (inputs**2).mean(-1)[None]
  distance = np_or_jnp.maximum(squares - 2 * products, 0.0)
  return np_or_jnp.exp(-distance / (2 * length**2)) + linear * products


def fit(
  features: Any,
  values: Any,
  *,
  reference: Any = None,
  lengths=LENGTHS,
  linear=LINEAR,
  noises=NOISES,
) -> GaussianProcess:
  """Fits a process to N values.

  Args:
    features: f[N, F].
    values: f[N].
    reference: f[R, F], features by which to standardise (those of random
      architectures, where the N are few); default: `features`.
    lengths: of the squared exponential, those that are tried.
    linear: weights of the linear kernel beside it that are tried.
    noises: variances of the noise beside a variance of 1 that are tried.

  Returns:
    The process whose leave-one-out predictions have the smallest mean absolute
    error, of `CHOOSING` values where there are more.

  Raises:
    ValueError: fewer than 3 values, or numbers that are not finite.
  """
  features = np.asarray(features, np.float64)
  values = np.asarray(values, np.float64)
  if features.ndim != 2 or features.shape[:1] != values.shape:
    raise ValueError(f"shapes {features.shape} and {values.shape} do not fit")
  if len(values) < 3:
    raise ValueError(f"{len(values)} samples are given, 3 are needed")
  if not (np.isfinite(features).all() and np.isfinite(values).all()):
    raise ValueError("a feature or value is not finite")
  reference = features if reference is None else np.asarray(reference)
  center, scale = reference.mean(0), reference.std(0)
  # A feature that never varies says nothing; one that hardly does must not
  # be blown up.
  scale = np.where(scale > 1e-9, np.maximum(scale, 0.05 * scale.max()), 1.0)
  x = (features - center) / scale
  mean, deviation = values.mean(), values.std() or 1.0
  targets = (values - mean) / deviation
  if not targets.any():  # there is nothing to choose by
    lengths, linear, noises = lengths[:1], linear[:1], noises[:1]
  best = None
  # Decompositions take cubic time: of many values, some decide.
  some = np.arange(len(x))
  if len(x) > CHOOSING:
    some = np.linspace(0, len(x) - 1, CHOOSING).astype(int)
  for length, slope in itertools.product(lengths, linear):
    # One decomposition serves every noise.
    values_, vectors = linalg.eigh(
      _kernel(x[some], x[some], length, slope), driver="evd"
    )
    turned = vectors.T @ targets[some]
    for noise in noises:
      scaled = 1.0 / (np.maximum(values_, 0.0) + noise)
      solved = vectors @ (scaled * turned)
      residuals = solved / ((vectors**2) @ scaled)
      loss = np.abs(residuals).mean()
      if best is None or loss < best[0]:
        best = loss, length, slope, noise
  _, length, slope, noise = best
  kernel = _kernel(x, x, length, slope) + noise * np.eye(len(x))
  factor = linalg.cholesky(kernel, lower=True)
  solved = linalg.cho_solve((factor, True), targets)
  # The diagonal of the inverse, which dpotri leaves in one triangle.
  inverse, _ = linalg.lapack.dpotri(factor, lower=1)
  residuals = solved / np.diag(inverse)
  return GaussianProcess(
    center,
    scale,
    x,
    solved,
    factor,
    float(mean),
    float(deviation),
    float(targets @ solved / len(targets)),
    length,
    slope,
    noise,
    mean + deviation * (targets - residuals),
  )
