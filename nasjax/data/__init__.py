"""Images and labels: from files, checked and split, to augmented batches."""

from nasjax.data.augmentation import (
  Augmentation,
  augment,
  epoch_indices,
  gather,
  normalize,
  statistics,
)
from nasjax.data.datasets import (
  FASHION_MNIST,
  FASHION_MNIST_VARIABLE,
  NAMES,
  Dataset,
  Images,
  check_disjoint,
  load,
  resize,
  shape,
  split,
)
from nasjax.types import Batch

__all__ = [
  "FASHION_MNIST",
  "FASHION_MNIST_VARIABLE",
  "NAMES",
  "Augmentation",
  "Batch",
  "Dataset",
  "Images",
  "augment",
  "check_disjoint",
  "epoch_indices",
  "gather",
  "load",
  "normalize",
  "resize",
  "shape",
  "split",
  "statistics",
]
