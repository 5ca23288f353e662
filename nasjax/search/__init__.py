"""How an architecture is found."""

from nasjax.search.differentiable import (
  Info,
  default_arch_optimizer,
  differentiable,
)
from nasjax.search.epochs import Epoch, run_epochs
from nasjax.search.evaluation import population_accuracy, supernet_accuracy
from nasjax.search.front import differentiable_front, members
from nasjax.search.network_quantization import (
  population_quantization_error,
  quantization_error_metric,
)
from nasjax.search.skips import led_by_skips

__all__ = [
  "Epoch",
  "Info",
  "default_arch_optimizer",
  "differentiable",
  "differentiable_front",
  "led_by_skips",
  "members",
  "population_accuracy",
  "population_quantization_error",
  "quantization_error_metric",
  "run_epochs",
  "supernet_accuracy",
]
