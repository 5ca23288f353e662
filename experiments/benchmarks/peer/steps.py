"""Search steps of the reference codes in PyTorch: first order, GDAS, DARTS."""

import copy

import torch
from torch import nn
from torch.nn import functional

RATE, MOMENTUM, DECAY = 0.025, 0.9, 3e-4


def gumbel(logits, temperature=5.0):
  """Hard Gumbel samples with a straight-through gradient (GDAS).

  Args:
    logits: [E, K].
    temperature: of the soft sample.

  Returns:
    (weights [E, K], indices, a list of E ints).
  """
  noise = -torch.empty_like(logits).exponential_().log()
  noisy = (functional.log_softmax(logits, dim=-1) + noise) / temperature
  return hard(functional.softmax(noisy, dim=-1))


def hard(soft, indices=None):
  """(one-hot weights with the gradient of `soft`, a list of indices)."""
  index = soft.argmax(-1) if indices is None else torch.tensor(indices)
  one_hot = torch.zeros_like(soft).scatter_(-1, index.long()[:, None], 1.0)
  return one_hot - soft.detach() + soft, index.tolist()


class Search:
  """A supernet with its logits, optimisers and two batches.

  Attributes:
    network: the supernet.
    run: calls it, compiled where that was asked for.
    logits: {group: [E, K]}.
    training: (images, labels) of weight steps.
    validation: (images, labels) of architecture steps.
  """

  def __init__(self, network, training, validation, compiled=False):
    """Makes the optimisers and logits of 1e-3 times normal noise."""
    self.network, self.training, self.validation = network, training, validation
    self.run = torch.compile(network) if compiled else network
    self.logits = {
      group: nn.Parameter(1e-3 * torch.randn(shape))
      for group, shape in network.groups.items()
    }
    self.weights_optimizer = torch.optim.SGD(
      network.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
    )
    self.logits_optimizer = torch.optim.Adam(
      self.logits.values(), lr=3e-4, betas=(0.5, 0.999)
    )

  def loss(self, batch, relaxation, network=None):
    """Cross entropy of a batch, with fresh samples for gdas."""
    weights, indices = {}, None
    if relaxation == "softmax":
      for group, logits in self.logits.items():
        weights[group] = functional.softmax(logits, dim=-1)
    elif relaxation == "gdas":
      indices = {}
      for group, logits in self.logits.items():
        weights[group], indices[group] = gumbel(logits)
    else:
      raise ValueError(f"relaxation {relaxation!r}: softmax or gdas")
    outputs = (network or self.run)(batch[0], weights, indices)
    return functional.cross_entropy(outputs, batch[1])

  def _zero_grad(self):
    self.weights_optimizer.zero_grad()
    self.logits_optimizer.zero_grad()

  def step(self, relaxation, second_order=False):
    """One architecture step, then one weight step.

    Args:
      relaxation: softmax or gdas.
      second_order: DARTS's unrolled architecture step, softmax only.

    Returns:
      The training loss.
    """
    self._zero_grad()
    if second_order:
      self._unrolled(relaxation)
    else:
      self.loss(self.validation, relaxation).backward()
    self.logits_optimizer.step()
    self._zero_grad()
    loss = self.loss(self.training, relaxation)
    loss.backward()
    nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
    self.weights_optimizer.step()
    return loss

  def _unrolled(self, relaxation):
    """Sets the logits' gradients by equations 7 and 8 of DARTS."""
    if relaxation != "softmax":
      raise ValueError("second order is for softmax")
    logits, theta = [*self.logits.values()], [*self.network.parameters()]
    virtual = copy.deepcopy(self.network)
    loss = self.loss(self.training, relaxation)
    found = torch.autograd.grad(loss, theta)
    with torch.no_grad():
      for q, p, g in zip(virtual.parameters(), theta, found, strict=True):
        state = self.weights_optimizer.state.get(p, {})
        buffer = state.get("momentum_buffer")
        change = g + DECAY * p
        if buffer is not None:
          change = change + MOMENTUM * buffer
        q.copy_(p - RATE * change)
    loss = self.loss(self.validation, relaxation, virtual)
    found = torch.autograd.grad(loss, [*logits, *virtual.parameters()])
    direct, vector = found[: len(logits)], found[len(logits) :]
    size = 0.01 / torch.cat([v.flatten() for v in vector]).norm()

    def moved(factor):
      with torch.no_grad():
        for p, v in zip(theta, vector, strict=True):
          p.add_(factor * size * v)

    def gradients():
      return torch.autograd.grad(self.loss(self.training, relaxation), logits)

    moved(1.0)
    above = gradients()
    moved(-2.0)
    below = gradients()
    moved(1.0)
    for a, d, up, down in zip(logits, direct, above, below, strict=True):
      a.grad = d - RATE * (up - down) / (2 * size)
