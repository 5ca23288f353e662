"""The interfaces of nasjax: NamedTuples of pure functions.

No base classes and no hidden state. State is a pytree, randomness an explicit
key. Each function's contract is the Protocol beside it. What is carried
(State) and what is only reported (Info) are two types.

In every shape below `E` is the edges (or layers) of a choice group, `K` its
candidates, `P` the executed paths of an edge, `M` the objectives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax

Array = jax.Array
Key = jax.Array
Scalar = jax.Array
Step = jax.Array
Masks = Mapping[str, Array]  # bool[E, K]: the candidates that exist
Logits = Mapping[str, Array]  # f32[E, K]: the architecture parameters
Weights = Mapping[str, Array]  # f32[E, K]: relaxed choices, 0 where masked
Choices = Mapping[str, Any]  # i32[E]: decided choices
Params = Any
BatchStats = Any
Task = Mapping[str, Scalar]  # task scalars: cross_entropy, ...
Costs = Mapping[str, Scalar]  # expected metrics, by name


class Group(NamedTuple):
  """A block of like decisions: `edges` of them among `candidates`."""

  edges: int
  candidates: tuple[str, ...]


class Batch(NamedTuple):
  """Images and labels on the device."""

  images: Array  # f32[B, H, W, C]
  labels: Array  # i32[B]


class Sampled(NamedTuple):
  """What a forward pass uses of the architecture."""

  weights: Weights
  # i32[E, P]: only these candidates are executed (P = 1 gdas; P = 2 proxyless's
  # steps of the architecture, column 0 the active one); None: all are.
  paths: Mapping[str, Array] | None = None


class LogitsInitFn(Protocol):
  """Makes the architecture parameters."""

  def __call__(self, key: Key, masks: Masks) -> Logits:
    """Returns f32[E, K] for each group of `masks`; `key` is consumed."""


class SampleFn(Protocol):
  """Relaxed choices for one forward pass."""

  def __call__(
    self, key: Key, logits: Logits, masks: Masks, step: Step
  ) -> Sampled:
    """Returns weights f32[E, K], 0 where masked; differentiable in logits."""


class ExpectFn(Protocol):
  """The probabilities of the candidates, used by metrics."""

  def __call__(self, logits: Logits, masks: Masks, step: Step) -> Weights:
    """Returns f32[E, K] on the simplex, 0 where masked; differentiable."""


class RescaleFn(Protocol):
  """What follows a step of the architecture."""

  def __call__(
    self,
    before: Logits,
    after: Logits,
    masks: Masks,
    paths: Mapping[str, Array],
  ) -> Logits:
    """Logits `after` the step, changed; `paths` i32[E, P] were sampled."""


class Relaxation(NamedTuple):
  """Logits -> architecture weights.

  Attributes:
    init: makes the logits.
    sample: what a forward pass runs.
    expect: the probabilities, from which networks are decided.
    simplex: whether the rows of weights sum to 1.
    arch_sample: what a step of the architecture runs; None: `sample`.
    rescale: what follows a step of the architecture; None: nothing.
    estimate: what costs within a step read; None: `expect`. Without bias where
      `expect` is too dear to be read at every step.
    b1: of the architecture's Adam, unless another optimiser is given.
    weight_decay: of the logits, likewise.
  """

  init: LogitsInitFn
  sample: SampleFn
  expect: ExpectFn
  simplex: bool = True
  arch_sample: SampleFn | None = None
  rescale: RescaleFn | None = None
  estimate: ExpectFn | None = None
  b1: float = 0.5
  weight_decay: float = 0.0


class Metric(NamedTuple):
  """A named, unit-carrying cost of an architecture."""

  name: str
  unit: str
  device: str | None
  # Traced and differentiable; a decided network is expected(one_hot).
  expected: Callable[[Weights], Scalar]
  # numpy; equals `expected` at every one-hot point where `tight`.
  exact: Callable[[Any], float]
  tight: bool = True
  source: str = ""  # where its numbers come from, shown beside them
  # How choices make it: "sum" of one number each, "products": a sum of one
  # number for each combination of some, "max": replacing a choice by the
  # smallest never raises it, or "other": architectures are looked through
  # where it has a limit. A "sum" that is none counts as "other".
  form: str = "sum"
  # Where combinations of choices count: `hardware.products.Terms`.
  terms: Any = None


class Objective(NamedTuple):
  """What is minimised: a function of task scalars and expected metrics."""

  name: str
  task: tuple[str, ...]  # the task scalars it reads
  value: Callable[[Task, Costs], Scalar]
  metrics: tuple[Metric, ...] = ()  # the metrics whose costs it reads
  low: float = 0.0  # it never lies below; -inf where nothing is known


class Weighting(NamedTuple):
  """How M objectives share a step: coefficients for their gradients."""

  # (key, preference f32[M]) -> state; the preference is traced.
  init: Callable[[Key, Array], Any]
  # (values f32[M], Gramian f32[M, M], state) -> (coefficients f32[M], state)
  update: Callable[[Array, Array, Any], tuple[Array, Any]]
  # All objectives must lie above it.
  low: float = -math.inf


class Penalty(NamedTuple):
  """How a violation turns into a multiplier."""

  init: Callable[[Scalar], Any]  # limit -> state
  # (violation, state, step) -> (multiplier, state); below 0 it pulls up
  update: Callable[[Scalar, Any, Step], tuple[Scalar, Any]]


class Constraint(NamedTuple):
  """An upper bound on a metric and how it pushes back.

  The multiplier scales the gradient of the relative violation,
  `metric / limit - 1`.
  """

  metric: Metric
  limit: float | Array  # where a search starts; it carries its own
  init: Callable[[Scalar], Any]
  update: Callable[[Scalar, Any, Step], tuple[Scalar, Any]]


class SearchState(NamedTuple):
  """Everything a gradient search carries."""

  shared: Any  # network parameters, batch statistics, weight optimiser
  member: Any  # logits, architecture optimiser, weighting, constraints, key
  masks: Masks
  step: Array  # i32[]


class Search(NamedTuple):
  """A gradient search: `update` is pure; jit, scan or map it."""

  init: Callable[[Key], SearchState]
  update: Callable[
    [SearchState, Batch, Batch], tuple[SearchState, Any]
  ]  # (state, train batch, validation batch) -> (state, Info)


class Evolution(NamedTuple):
  """A search by points: evaluation may happen outside compiled code."""

  # (key, first points i32[S, G] or None) -> state
  init: Callable[..., Any]
  # state -> (points i32[N, G], state)
  ask: Callable[[Any], tuple[Array, Any]]
  # (state, points i32[K, G], objectives f32[K, M], violations f32[K] or None)
  # -> state
  tell: Callable[..., Any]


class LossFn(Protocol):
  """A loss of weights and architecture on one batch."""

  def __call__(
    self,
    params: Params,
    batch_stats: BatchStats,
    logits: Logits,
    batch: Batch,
    key: Key,
  ) -> tuple[Scalar, Any]:
    """Returns (loss f32[], auxiliary output)."""


class Hypergradient(Protocol):
  """The gradient of the outer loss with respect to the logits."""

  def __call__(
    self,
    inner: LossFn,
    outer: LossFn,
    optimizer: Any,
    optimizer_state: Any,
    params: Params,
    batch_stats: BatchStats,
    logits: Logits,
    train: Batch,
    valid: Batch,
    key: Key,
  ) -> tuple[Scalar, Logits, Any]:
    """Returns (outer loss, gradient shaped like `logits`, outer's aux)."""
