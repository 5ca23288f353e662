"""What a second run compiles: nothing, whatever its seed and its images."""

import logging
import re

import jax
import numpy as np
import pytest
import toy_space

from nasjax.cli.main import main

LOUD = ("jax._src.compiler", "jax._src.dispatch")
MISS = re.compile(r"PERSISTENT COMPILATION CACHE MISS for '([^']+)'")
# Programs as a whole; the many small ones are compiled in no time.
OURS = re.compile(r"chunk|init|network_accuracy|population_scores|lambda|fit")


class Log(logging.Handler):
  """The programs that were compiled and not found in the cache."""

  def __init__(self):
    super().__init__(logging.DEBUG)
    self.missed = []

  def emit(self, record):
    found = MISS.search(record.getMessage())
    if found:
      self.missed.append(found.group(1))


@pytest.fixture
def missed(tmp_path):
  """Calls a command; the names of the programs that it compiles anew."""
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update(names[0], str(tmp_path / "cache"))
  jax.config.update(names[1], 0.0)
  jax.experimental.compilation_cache.compilation_cache.reset_cache()
  loggers = [logging.getLogger(name) for name in LOUD]
  levels = [logger.level for logger in loggers]

  def call(*words):
    log = Log()
    for logger in loggers:
      logger.setLevel(logging.DEBUG)
      logger.addHandler(log)
    try:
      assert main(list(words)) == 0
    finally:
      for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(log)
        logger.setLevel(level)
    return [name for name in log.missed if OURS.search(name)]

  yield call
  for name, value in before.items():
    jax.config.update(name, value)
  jax.experimental.compilation_cache.compilation_cache.reset_cache()


def images(path, seed, count):
  rng = np.random.default_rng(seed)
  scale = 60 + 50 * seed  # so that mean and deviation differ too
  np.savez(
    path,
    x_train=rng.integers(scale, size=(count, 8, 8, 1), dtype=np.uint8),
    y_train=np.arange(count) % 3,
    x_test=rng.integers(scale, size=(12, 8, 8, 1), dtype=np.uint8),
    y_test=np.arange(12) % 3,
  )
  return str(path)


@pytest.mark.parametrize("strategy", ["differentiable", "nsga2", "enas"])
def test_other_seeds_sets_limits_and_rates_compile_nothing(
  strategy, missed, tmp_path
):
  words = f"search --space {toy_space.NAME} --batch-size 8".split()
  words += ["--strategy", strategy]
  more = ["--epochs", "3", "--learning-rate", "0.1"]
  if strategy == "nsga2":
    words += "--population 4 --generations 1".split()
  else:
    more += ["--arch-learning-rate", "0.01"]

  def run(name, data, *more, macs=20000):
    folder = ["--data", data, "--out", str(tmp_path / name)]
    return missed(*words, *folder, "--limit", f"macs={macs}", *more)

  first = images(tmp_path / "first.npz", 0, 48)
  assert run("a", first, "--epochs", "2")
  assert run("b", first, "--epochs", "2", "--seed", "1") == []
  other = images(tmp_path / "other.npz", 1, 47)
  assert run("c", other, *more, macs=24000) == []
