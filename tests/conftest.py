"""Shared settings and small spaces: compilation is what tests cost."""

import os
import tempfile

# Read when the first array is made: compilation is most of a test's time,
# and these halve it.
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
  ]
).strip()

import jax
import numpy as np
import pytest
import toy_space
from hypothesis import settings

from nasjax import spaces
from nasjax.types import Batch

jax.config.update("jax_numpy_rank_promotion", "raise")
# Runs of one configuration share their compiled programs, in all processes of
# a test run: the first one makes the folder, and its environment is theirs.
_FOLDER = "NASJAX_TEST_COMPILATIONS"
if _FOLDER not in os.environ:
  _CACHE = tempfile.TemporaryDirectory(prefix="nasjax-tests-")
  os.environ[_FOLDER] = _CACHE.name
jax.config.update("jax_compilation_cache_dir", os.environ[_FOLDER])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
settings.register_profile("nasjax", deadline=None, max_examples=20)
settings.load_profile("nasjax")

# A file goes to one worker as a whole. These take longest: begun last, one of
# them would run while the other worker waits.
_FIRST = (
  "test_readme.py",
  "test_programs.py",
  "test_same_set.py",
  "test_imports.py",
  "test_differentiable.py",
  "test_cli_evolution.py",
  "test_quantization_of_networks.py",
)


def pytest_collection_modifyitems(items):
  """Begins with the files that take longest."""
  items.sort(key=lambda item: item.path.name not in _FIRST)


@pytest.fixture(scope="session")
def tiny_nasbench201():
  return spaces.nasbench201(
    channels=4, cells=1, image_shape=(8, 8, 3), num_classes=4
  )


@pytest.fixture(scope="session")
def tiny_edge():
  return spaces.edge(
    channels=4,
    nodes=1,
    stages=2,
    image_shape=(8, 8, 1),
    num_classes=4,
    conv_groups=2,
    expansion=2,
  )


@pytest.fixture(scope="session")
def toy():
  return toy_space.toy()


@pytest.fixture(scope="session")
def npz(tmp_path_factory):
  """A file of 54 tiny images, [8, 8, 3], of 3 classes."""
  rng = np.random.default_rng(0)
  path = tmp_path_factory.mktemp("data") / "images.npz"
  np.savez(
    path,
    x_train=rng.integers(256, size=(48, 8, 8, 3), dtype=np.uint8),
    y_train=np.arange(48) % 3,
    x_test=rng.integers(256, size=(6, 8, 8, 3), dtype=np.uint8),
    y_test=np.arange(6) % 3,
  )
  return str(path)


@pytest.fixture(scope="session")
def batches():
  """Makes (train, valid) batches for a space of image shape [H, W, C]."""

  def make(shape, size=8, classes=4):
    rng = np.random.default_rng(0)
    return tuple(
      Batch(
        rng.normal(size=(size, *shape)).astype(np.float32),
        rng.integers(classes, size=size).astype(np.int32),
      )
      for _ in range(2)
    )

  return make
