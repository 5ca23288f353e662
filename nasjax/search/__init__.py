"""How an architecture is found."""

from nasjax.search.differentiable import Info, differentiable
from nasjax.search.epochs import Epoch, run_epochs
from nasjax.search.evaluation import supernet_accuracy

__all__ = [
  "Epoch",
  "Info",
  "differentiable",
  "run_epochs",
  "supernet_accuracy",
]
