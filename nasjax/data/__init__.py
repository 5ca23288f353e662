"""Images and labels: from files, checked and split, to augmented batches."""

from nasjax.data.augmentation import (
  AUTO,
  Augmentation,
  augment,
  augmentation_text,
  epoch_indices,
  gather,
  normalize,
  resolve_augmentation,
  statistics,
)
from nasjax.data.datasets import Dataset, dataset, everything, load, resize
from nasjax.data.duplicates import check_disjoint
from nasjax.data.inputs import (
  ROW_ORDER,
  Images,
  digests,
  joined,
  order,
  ordered,
  shape,
  stratified,
  take,
)
from nasjax.data.sources import FASHION_MNIST, FASHION_MNIST_VARIABLE, NAMES
from nasjax.data.splits import split, split_notes
from nasjax.types import Batch

__all__ = [
  "AUTO",
  "FASHION_MNIST",
  "FASHION_MNIST_VARIABLE",
  "NAMES",
  "ROW_ORDER",
  "Augmentation",
  "Batch",
  "Dataset",
  "Images",
  "augment",
  "augmentation_text",
  "check_disjoint",
  "dataset",
  "digests",
  "epoch_indices",
  "everything",
  "gather",
  "joined",
  "load",
  "normalize",
  "order",
  "ordered",
  "resize",
  "resolve_augmentation",
  "shape",
  "split",
  "split_notes",
  "statistics",
  "stratified",
  "take",
]
