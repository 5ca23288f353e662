"""A controller that learns to propose architectures, by REINFORCE.

An LSTM names one decision after the other,

    P(A) = prod_t P(a_t | a_1 .. a_{t-1}),

and is moved along the policy gradient of E[R(A)] + w H(P) with a moving-average
baseline (Zoph and Le 2017, section 3.2; Pham et al. 2018, arXiv:1802.03268,
sections 2 and 3). It needs rewards alone, so they may be anything: a table, a
predictor, a supernet, or a device that was measured.

The rewards are a compiled function, and then so is the whole loop,

    state, found = controller.run(state, reward, 200)

or come from outside:

    genes, state = controller.ask(state)
    state, info = controller.tell(state, genes, rewards)

In the shapes below `N` is samples, `D` decisions, `K` the most candidates that
a decision has, `H` the LSTM's units, `G` kinds of decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from nasjax.types import Array, Key

__all__ = [
  "Controller",
  "ControllerInfo",
  "ControllerParams",
  "ControllerState",
  "Proposals",
  "controller",
]

_RANGE = 0.1  # weights start uniform in +-0.1 (Pham et al., section 3.1)


class ControllerParams(NamedTuple):
  """The weights of the LSTM and what stands around it."""

  candidates: Array  # f[G, K, H], embeddings of the decision before
  positions: Array  # f[D, H], embeddings of where the decision stands
  kernel: Array  # f[2 H, 4 H], from input and hidden values to four gates
  bias: Array  # f[4 H]
  head: Array  # f[G, H, K]


class ControllerState(NamedTuple):
  """Everything a controller carries. A pytree."""

  params: ControllerParams
  optimizer: Any
  baseline: Array  # f[], moving average of the rewards with their bonus
  asked: Array  # i32[], batches that were proposed
  told: Array  # i32[], batches whose rewards were learned from
  key: Key


class Proposals(NamedTuple):
  """Architectures that were drawn."""

  genes: Array  # i32[N, D]
  log_probability: Array  # f[N], log P(A), in nats
  entropy: Array  # f[N], sum_t H(P(. | a_1 .. a_{t-1})), in nats


class ControllerInfo(NamedTuple):
  """What an update reports."""

  reward: Array  # f[], mean of the batch
  best_reward: Array  # f[], of the batch
  entropy: Array  # f[], mean over the batch, in nats
  baseline: Array  # f[], that the rewards were compared with
  finite: Array  # bool[]: rewards, gradient and new state are finite


class RewardFn(Protocol):
  """How good architectures are; traced, if it is to run in a compiled loop."""

  def __call__(self, genes: Array) -> Array:
    """Genes i32[N, D] to rewards f[N], the larger the better."""


class Controller(NamedTuple):
  """A controller's pure functions; jit, scan or map them."""

  init: Callable[[Key], ControllerState]
  # (params, key, n) -> n proposals; n is static
  sample: Callable[[ControllerParams, Key, int], Proposals]
  # params -> genes i32[D]: the most probable candidate of each decision in
  # turn. P(A) may have its maximum elsewhere.
  greedy: Callable[[ControllerParams], Array]
  # (params, genes i32[N, D]) -> log P(A), f[N], in nats
  log_probability: Callable[[ControllerParams, Array], Array]
  # (params, genes, rewards f[N], baseline f[]) -> the estimated gradient of
  # E[R] + w H, shaped like the params: to ascend
  gradient: Callable[[ControllerParams, Array, Array, Array], ControllerParams]
  # state -> (genes i32[N, D], state)
  ask: Callable[[ControllerState], tuple[Array, ControllerState]]
  # (state, genes, rewards f[N]) -> (state, info). The gradient is that of the
  # policy as it is now: ask for the next batch after telling the last.
  tell: Callable[
    [ControllerState, Array, Array], tuple[ControllerState, ControllerInfo]
  ]
  # (state, reward) -> (state, info): ask, reward and tell in one
  update: Callable[
    [ControllerState, RewardFn], tuple[ControllerState, ControllerInfo]
  ]
  # (state, reward, updates) -> (state, (genes i32[U, N, D], rewards f[U, N],
  # infos with a leading axis U)): the whole loop, compiled
  run: Callable[[ControllerState, RewardFn, int], tuple[ControllerState, Any]]


def controller(
  counts: Sequence[int],
  *,
  kinds: Sequence[int] | None = None,
  samples: int = 10,
  hidden: int = 64,
  temperature: float = 5.0,
  tanh_constant: float | None = 2.5,
  entropy_weight: float = 1e-4,
  baseline_decay: float = 0.95,
  optimizer: optax.GradientTransformation | None = None,
) -> Controller:
  """An LSTM controller trained by REINFORCE.

  Logits l become c tanh(l / T), so that no candidate ever loses all its
  probability (Bello et al. 2017, section 3; Pham et al., section 3.1). A
  batch's rewards are compared with the moving average of those before it; the
  first batch, which has none before it, with its own mean.

  Args:
    counts: D numbers, how many candidates each decision has; gene d is one of
      0 .. counts[d] - 1.
    kinds: which of `G` kinds each decision is, 0 .. G - 1. Decisions of a kind
      have the same candidates, which means the same embeddings and the same
      weights from hidden values to logits. Default: all are alike.
    samples: N, architectures a batch.
    hidden: H, units of the LSTM.
    temperature: T.
    tanh_constant: c; None: the logits are l / T.
    entropy_weight: w, the reward of a nat.
    baseline_decay: of the moving average, 0..1.
    optimizer: of the controller; default Adam, rate 3.5e-4.

  Returns:
    The controller. Its arrays have JAX's default float type.

  Raises:
    ValueError: no decision, one without candidate, kinds of another length, or
      an argument out of range.
  """
  counts = np.asarray(counts, int)
  if counts.ndim != 1 or not counts.size or counts.min() < 1:
    raise ValueError(f"controller: counts {counts.tolist()} must be all >= 1")
  decisions, most = len(counts), int(counts.max())
  mask = np.arange(most)[None] < counts[:, None]
  kinds = np.zeros(decisions, int) if kinds is None else np.asarray(kinds, int)
  if kinds.shape != counts.shape or kinds.min() < 0:
    raise ValueError(
      f"controller: kinds {kinds.tolist()} must be {decisions} numbers >= 0"
    )
  for name, value in dict(samples=samples, hidden=hidden).items():
    if value < 1:
      raise ValueError(f"controller: {name}={value} must be >= 1")
  for name, value in dict(temperature=temperature, tanh=tanh_constant).items():
    if value is not None and not value > 0:
      raise ValueError(f"controller: {name}={value} must be above 0")
  if not (entropy_weight >= 0 and 0 <= baseline_decay < 1):
    raise ValueError(
      f"controller: entropy_weight={entropy_weight} must be >= 0 and"
      f" baseline_decay={baseline_decay} in 0..1"
    )
  optimizer = optax.adam(3.5e-4) if optimizer is None else optimizer
  # Of each decision: its kind, and that of the one before it.
  before = np.r_[kinds[:1], kinds[:-1]]

  def unroll(params, count, choose, inputs) -> Proposals:
    """Draws `count` architectures with `choose(log p f[N, K], input of t)`."""

    def step(carry, now):
      memory, output, gene, first = carry
      position, kind, kind_before, open_, given = now
      last = params.candidates[kind_before, gene]
      memory, output = _lstm(
        params,
        memory,
        output,
        # There is none before the first.
        jnp.where(first, 0.0, last) + position[None],
      )
      logits = output @ params.head[kind] / temperature
      if tanh_constant is not None:
        logits = tanh_constant * jnp.tanh(logits)
      least = jnp.finfo(logits.dtype).min
      log_p = jax.nn.log_softmax(jnp.where(open_[None], logits, least))
      gene = choose(log_p, given)
      # The inner `where` keeps the derivative at closed candidates finite.
      terms = jnp.exp(log_p) * jnp.where(open_[None], log_p, 0.0)
      taken = jnp.take_along_axis(log_p, gene[:, None], -1)[:, 0]
      carry = (memory, output, gene, jnp.zeros_like(first))
      return carry, (gene, taken, -terms.sum(-1))

    zeros = jnp.zeros((count, hidden), params.bias.dtype)
    carry = (zeros, zeros, jnp.zeros(count, jnp.int32), jnp.bool_(True))
    now = (params.positions, kinds, before, mask, inputs)
    now = jax.tree.map(jnp.asarray, now)
    _, (genes, log_p, entropy) = lax.scan(step, carry, now)
    return Proposals(genes.T, log_p.sum(0), entropy.sum(0))

  def init(key: Key) -> ControllerState:
    weights_key, key = jax.random.split(key)
    shapes = ControllerParams(
      candidates=(int(kinds.max()) + 1, most, hidden),
      positions=(decisions, hidden),
      kernel=(2 * hidden, 4 * hidden),
      bias=(4 * hidden,),
      head=(int(kinds.max()) + 1, hidden, most),
    )
    keys = jax.random.split(weights_key, len(shapes))
    params = ControllerParams(
      *(
        jax.random.uniform(k, s, minval=-_RANGE, maxval=_RANGE)
        for k, s in zip(keys, shapes, strict=True)
      )
    )
    params = params._replace(bias=jnp.zeros_like(params.bias))
    return ControllerState(
      params,
      optimizer.init(params),
      jnp.zeros((), params.bias.dtype),
      jnp.int32(0),
      jnp.int32(0),
      key,
    )

  def sample(params: ControllerParams, key: Key, n: int) -> Proposals:
    def choose(log_p, key):
      return jax.random.categorical(key, log_p).astype(jnp.int32)

    return unroll(params, n, choose, jax.random.split(key, decisions))

  def greedy(params: ControllerParams) -> Array:
    def choose(log_p, nothing):
      del nothing
      return jnp.argmax(log_p, -1).astype(jnp.int32)

    return unroll(params, 1, choose, None).genes[0]

  def score(params: ControllerParams, genes: Array) -> Proposals:
    genes = jnp.asarray(genes, jnp.int32)

    def choose(log_p, given):
      del log_p
      return given

    return unroll(params, len(genes), choose, genes.T)

  def log_probability(params: ControllerParams, genes: Array) -> Array:
    return score(params, genes).log_probability

  def surrogate(params, genes, rewards, baseline):
    """What has the estimator as its gradient, and (values, entropies).

    grad E[R + w S] = E[(R + w S - b) grad log P + w grad S], S being the sum
    of the conditional entropies, E[S] = H. `baseline` gets the values R + w S.
    """
    proposals = score(params, genes)
    values = rewards + entropy_weight * lax.stop_gradient(proposals.entropy)
    compared = baseline(values)
    total = (values - compared) * proposals.log_probability
    total += entropy_weight * proposals.entropy
    return total.mean(), (values, compared, proposals.entropy)

  def gradient(params, genes, rewards, baseline) -> ControllerParams:
    ascend = jax.grad(surrogate, has_aux=True)
    return ascend(params, genes, rewards, lambda values: baseline)[0]

  def ask(state: ControllerState) -> tuple[Array, ControllerState]:
    key = jax.random.fold_in(state.key, state.asked)
    genes = sample(state.params, key, samples).genes
    return genes, state._replace(asked=state.asked + 1)

  def tell(
    state: ControllerState, genes: Array, rewards: Array
  ) -> tuple[ControllerState, ControllerInfo]:
    rewards = jnp.asarray(rewards, state.baseline.dtype)
    ascent, (values, baseline, entropies) = jax.grad(surrogate, has_aux=True)(
      state.params,
      genes,
      rewards,
      lambda values: jnp.where(state.told == 0, values.mean(), state.baseline),
    )
    updates, optimizer_state = optimizer.update(
      jax.tree.map(jnp.negative, ascent), state.optimizer, state.params
    )
    mixed = baseline_decay * baseline + (1 - baseline_decay) * values.mean()
    new = ControllerState(
      optax.apply_updates(state.params, updates),
      optimizer_state,
      mixed,
      state.asked,
      state.told + 1,
      state.key,
    )
    found = (rewards, ascent, new.params, new.baseline)
    return new, ControllerInfo(
      reward=rewards.mean(),
      best_reward=rewards.max(),
      entropy=entropies.mean(),
      baseline=baseline,
      finite=jnp.stack(
        [jnp.isfinite(v).all() for v in jax.tree.leaves(found)]
      ).all(),
    )

  def rewarded(state, reward):
    genes, state = ask(state)
    rewards = reward(genes)
    state, info = tell(state, genes, rewards)
    return state, (genes, rewards, info)

  def update(
    state: ControllerState, reward: RewardFn
  ) -> tuple[ControllerState, ControllerInfo]:
    state, (_, _, info) = rewarded(state, reward)
    return state, info

  def run(state: ControllerState, reward: RewardFn, updates: int):
    return lax.scan(lambda s, _: rewarded(s, reward), state, length=updates)

  return Controller(
    init=jax.jit(init),
    sample=jax.jit(sample, static_argnums=2),
    greedy=jax.jit(greedy),
    log_probability=jax.jit(log_probability),
    gradient=jax.jit(gradient),
    ask=jax.jit(ask),
    tell=jax.jit(tell),
    update=update,
    run=jax.jit(run, static_argnums=(1, 2)),
  )


def _lstm(params, memory, output, inputs):
  """One step of an LSTM (Hochreiter and Schmidhuber 1997; Gers et al. 2000)."""
  gates = jnp.concatenate([inputs, output], -1) @ params.kernel
  taken, kept, shown, new = jnp.split(gates + params.bias[None], 4, -1)
  memory = jax.nn.sigmoid(kept) * memory + jax.nn.sigmoid(taken) * jnp.tanh(new)
  return memory, jax.nn.sigmoid(shown) * jnp.tanh(memory)
