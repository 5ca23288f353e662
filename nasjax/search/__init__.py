"""How an architecture is found."""

from nasjax.search.differentiable import Info, differentiable
from nasjax.search.epochs import Epoch, run_epochs
from nasjax.search.evaluation import population_accuracy, supernet_accuracy
from nasjax.search.front import differentiable_front, members

__all__ = [
  "Epoch",
  "Info",
  "differentiable",
  "differentiable_front",
  "members",
  "population_accuracy",
  "run_epochs",
  "supernet_accuracy",
]
