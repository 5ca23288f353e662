"""Relaxations: architecture parameters -> architecture weights.

Known methods are combinations of these with the other parts:

* DARTS = softmax + unrolled + constant weighting
* GDAS = gdas + first_order + constant
* ProxylessNAS = proxyless + first_order + (cross entropy, latency, params)
* DrNAS = dirichlet + first_order
* FBNet = gumbel_softmax + single_level + a latency term
* PC-DARTS = edge_normalized(softmax) + first_order, in a space of partial
  channels

Temperatures are optax schedules of the step, floored at `MIN_TEMPERATURE`:
in float32 the gradients of a Gumbel-softmax vanish or overflow below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nasjax.relaxed import (
  CLOSED,
  each,
  expect_softmax,
  init,
  probabilities,
  straight_through,
)
from nasjax.two_paths import proxyless
from nasjax.types import (
  Array,
  ExpectFn,
  Key,
  Masks,
  Relaxation,
  Sampled,
  SampleFn,
  Step,
)

__all__ = [
  "dirichlet",
  "edge_normalized",
  "from_function",
  "gdas",
  "gumbel_softmax",
  "operation_dropout",
  "proxyless",
  "softmax",
  "sparsemax",
]

MIN_TEMPERATURE = 0.01
_AT_ONCE = 256  # draws of a user's function that are made together
Temperature = float | optax.Schedule


def _schedule(temperature: Temperature) -> Callable[[Step], Array]:
  def at(step):
    value = temperature(step) if callable(temperature) else temperature
    return jnp.maximum(jnp.asarray(value, jnp.float32), MIN_TEMPERATURE)

  if not callable(temperature) and not temperature > 0:
    raise ValueError(f"temperature={temperature} must be above 0")
  return at


def softmax(*, temperature: Temperature = 1.0) -> Relaxation:
  """Softmax over the candidates (DARTS, Liu et al. 2019, equation 2).

  Args:
    temperature: divides the logits; a number or a schedule of the step.

  Returns:
    A relaxation whose weights are their own expectation, and whose logits decay
    by DARTS's 1e-3 (section 3.1.1).
  """
  at = _schedule(temperature)

  def expect(logits, masks, step):
    t = at(step)
    return {n: probabilities(v / t, masks[n]) for n, v in logits.items()}

  def sample(key, logits, masks, step):
    del key
    return Sampled(expect(logits, masks, step))

  return Relaxation(init, sample, expect, weight_decay=1e-3)


def gumbel_softmax(*, temperature: Temperature = 1.0) -> Relaxation:
  """Softmax of logits + Gumbel noise (Jang et al. 2017; FBNet, equation 5).

  Args:
    temperature: of the relaxed sample; a number or a schedule of the step.

  Returns:
    A relaxation that expects the softmax of its logits, the probabilities of
    its samples' largest entries.
  """
  at = _schedule(temperature)

  def sample(key, logits, masks, step):
    t = at(step)

    def one(key, logits, mask):
      noise = jax.random.gumbel(key, logits.shape, logits.dtype)
      return probabilities((logits + noise) / t, mask)

    return Sampled(each(one, key, logits, masks))

  return Relaxation(init, sample, expect_softmax)


def gdas(*, temperature: Temperature = 10.0) -> Relaxation:
  """Hard Gumbel samples, straight through (GDAS, Dong and Yang 2019).

  Only the sampled candidate of each edge is executed; the gradient reaches
  the logits through its weight, with the Jacobian of the soft sample.

  Args:
    temperature: of the soft sample; a number or a schedule of the step.

  Returns:
    A relaxation with one path an edge.
  """
  soft = gumbel_softmax(temperature=temperature)

  def sample(key, logits, masks, step):
    weights, paths = {}, {}
    for name, row in soft.sample(key, logits, masks, step).weights.items():
      index = jnp.argmax(row, axis=-1)
      hard = jax.nn.one_hot(index, row.shape[-1], dtype=row.dtype)
      weights[name] = straight_through(hard, row)
      paths[name] = index[:, None].astype(jnp.int32)
    return Sampled(weights, paths)

  return Relaxation(init, sample, expect_softmax)


def sparsemax(*, temperature: Temperature = 1.0) -> Relaxation:
  """Euclidean projection onto the simplex (Martins and Astudillo 2016).

  Args:
    temperature: divides the logits; a number or a schedule of the step.

  Returns:
    A relaxation whose weights can be exactly 0.
  """
  at = _schedule(temperature)

  def project(logits, mask):
    z = jnp.where(mask, logits, CLOSED)
    # Relative to the largest, so that no digits are lost.
    z = z - lax.stop_gradient(z.max(-1, keepdims=True))
    ordered = -jnp.sort(-z, axis=-1)
    sums = jnp.cumsum(ordered, axis=-1)
    rank = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)[None]
    support = 1.0 + rank * ordered > sums
    size = support.sum(-1, keepdims=True)
    inside = jnp.take_along_axis(sums, size - 1, axis=-1)
    threshold = (inside - 1.0) / size.astype(z.dtype)
    return jnp.where(mask, jnp.maximum(z - threshold, 0.0), 0.0)

  def expect(logits, masks, step):
    t = at(step)
    return {n: project(v / t, jnp.asarray(masks[n])) for n, v in logits.items()}

  def sample(key, logits, masks, step):
    del key
    return Sampled(expect(logits, masks, step))

  return Relaxation(init, sample, expect)


def dirichlet() -> Relaxation:
  """Dirichlet samples (DrNAS, Chen et al. 2021), concentration elu(x) + 1.

  Returns:
    A relaxation with pathwise (implicit) gradients; it expects the mean.
  """

  def concentration(logits, mask):
    return jnp.where(mask, jax.nn.elu(logits) + 1.0 + 1e-3, 1.0)

  def one(key, logits, mask):
    gammas = jax.random.loggamma(key, concentration(logits, mask))
    return probabilities(gammas, mask)

  def sample(key, logits, masks, step):
    del step
    return Sampled(each(one, key, logits, masks))

  def expect(logits, masks, step):
    del step
    weights = {}
    for name, row in logits.items():
      mask = jnp.asarray(masks[name])
      mean = jnp.where(mask, concentration(row, mask), 0.0)
      weights[name] = mean / mean.sum(-1, keepdims=True)
    return weights

  return Relaxation(init, sample, expect)


def from_function(
  function: Callable[[Key, Array, Step], Array],
  *,
  expect: Callable[[Array, Step], Array] | None = None,
  samples: int = 65_536,
  step_samples: int = 256,
  simplex: bool = True,
) -> Relaxation:
  """A relaxation from `f(key, logits[E, K], step) -> weights[E, K]`.

  Candidates that do not exist are given to `function` with a logit of -1e9,
  and their weights are set to 0.

  Args:
    function: pure and traceable; row by row a relaxed choice.
    expect: g(logits[E, K], step) -> the mean of `function` over its keys,
      [E, K], where it is known. Without it the expectation is a mean of draws,
      with keys of the step.
    samples: so many of them decide: a weight within 0..1 is off by less than
      1 / (2 sqrt(samples)) (one standard deviation), .002 by default.
    step_samples: so many of them stand for the costs within a step of a search,
      without bias.
    simplex: whether its rows sum to 1.

  Returns:
    The relaxation.

  Raises:
    ValueError: fewer than 1 sample; at the first trace, if `function` or
      `expect` changes the shape.
  """
  if samples < 1 or step_samples < 1:
    raise ValueError(
      f"from_function: samples={samples} and step_samples={step_samples} must"
      " be at least 1"
    )

  def checked(part, weights, logits, mask):
    if jnp.shape(weights) != logits.shape:
      raise ValueError(
        f"from_function: {getattr(part, '__name__', 'the function')}"
        f" returned shape {jnp.shape(weights)} for logits {logits.shape}"
      )
    return jnp.where(mask, weights, 0.0)

  def one(key, logits, mask, step):
    weights = function(key, jnp.where(mask, logits, CLOSED), step)
    return checked(function, weights, logits, mask)

  def sample(key, logits, masks, step):
    return Sampled(each(lambda k, v, m: one(k, v, m, step), key, logits, masks))

  def mean(count, salt):
    part = min(count, _AT_ONCE)

    def expected(logits, masks, step):
      keys = jax.random.split(
        jax.random.fold_in(jax.random.key(salt), step), -(-count // part) * part
      )

      # A gradient draws anew instead of keeping all draws.
      @jax.checkpoint
      def add(total, keys):
        drawn = jax.vmap(lambda k: sample(k, logits, masks, step).weights)(keys)
        return jax.tree.map(lambda t, v: t + v.sum(0), total, drawn), None

      zeros = jax.tree.map(jnp.zeros_like, dict(logits))
      total, _ = lax.scan(add, zeros, keys.reshape(-1, part))
      return jax.tree.map(lambda v: v / keys.size, total)

    return jax.jit(expected)

  if expect is None:
    return Relaxation(
      init, sample, mean(samples, 0), simplex, estimate=mean(step_samples, 1)
    )

  def known(logits, masks, step):
    return {
      n: checked(
        expect,
        expect(jnp.where(masks[n], v, CLOSED), step),
        v,
        jnp.asarray(masks[n]),
      )
      for n, v in logits.items()
    }

  return Relaxation(init, sample, known, simplex)


def _resampled(
  relaxation: Relaxation, change: Callable[[SampleFn], SampleFn]
) -> Relaxation:
  """The relaxation with all of its samplers changed."""
  own = relaxation.arch_sample
  return relaxation._replace(
    sample=change(relaxation.sample),
    arch_sample=None if own is None else change(own),
  )


def operation_dropout(
  relaxation: Relaxation, candidates: Masks, rate: Temperature
) -> Relaxation:
  """Closes some candidates at random while sampling.

  Against the collapse to skip connections: P-DARTS (Chen et al. 2019, section
  3.3) drops them from the forward pass, at a rate that decays.

  Args:
    relaxation: the one to wrap.
    candidates: bool[E, K] a group: those that may be closed.
    rate: probability for each, a number or a schedule of the step.

  Returns:
    A relaxation with the same parameters and expectation.
  """

  def dropped(sample: SampleFn) -> SampleFn:
    def sample_of_the_rest(key, logits, masks, step):
      key, drop = jax.random.split(key)
      probability = rate(step) if callable(rate) else rate

      def close(key, mask, may_close):
        off = jax.random.bernoulli(key, probability, mask.shape) & may_close
        rest = mask & ~off
        return jnp.where(rest.any(-1, keepdims=True), rest, mask)

      return sample(key, logits, each(close, drop, masks, candidates), step)

    return sample_of_the_rest

  return _resampled(relaxation, dropped)


def edge_normalized(
  relaxation: Relaxation,
  kept: Mapping[str, tuple[tuple[tuple[int, ...], int], ...]],
) -> Relaxation:
  """Weighs edges against each other, beside their candidates.

  Edge normalisation (PC-DARTS, Xu et al. 2020, section 3.3): the weights of an
  edge are multiplied by its share of its node, and shares of a node's edges sum
  to 1. The paper has parameters of their own for them. Here the share is the
  softmax of what a softmax over the candidates leaves free, a constant of all
  logits of an edge: share = sum_k exp(logit_k) over the node's edges. So a
  softmax becomes one over all candidates of all edges into a node.

  Args:
    relaxation: the one to wrap; a constant added to a row of its logits must
      change nothing, as with all here but `dirichlet`.
    kept: by group, sets of edges and how many of each a network keeps, the
      space's `kept`.

  Returns:
    A relaxation with the same parameters. Rows of its samples sum to the edge's
    share; what it expects sums to the number of edges kept, so that expected
    costs are those of so many edges.
  """

  def shares(logits, masks):
    found = {}
    for name, sets in kept.items():
      closed = jnp.where(masks[name], logits[name], CLOSED)
      total = jax.nn.logsumexp(closed, axis=-1)
      share = count = jnp.ones_like(total)
      for edges, number in sets:
        rows = np.array(edges)
        share = share.at[rows].set(jax.nn.softmax(total[rows]))
        count = count.at[rows].set(float(number))
      found[name] = share[:, None], count[:, None]
    return found

  def shared(sample: SampleFn) -> SampleFn:
    def sample_shares(key, logits, masks, step):
      sampled = sample(key, logits, masks, step)
      weights = dict(sampled.weights)
      for name, (share, _) in shares(logits, masks).items():
        weights[name] = weights[name] * share
      return sampled._replace(weights=weights)

    return sample_shares

  def counted(expect: ExpectFn) -> ExpectFn:
    def expect_counts(logits, masks, step):
      weights = dict(expect(logits, masks, step))
      for name, (share, count) in shares(logits, masks).items():
        weights[name] = weights[name] * share * count
      return weights

    return expect_counts

  own = relaxation.estimate
  return _resampled(relaxation, shared)._replace(
    expect=counted(relaxation.expect),
    estimate=None if own is None else counted(own),
    simplex=False,
  )
