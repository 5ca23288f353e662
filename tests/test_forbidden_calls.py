"""No part of the package may run what a user's file holds."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nasjax

FOLDER = Path(nasjax.__file__).parent
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib"}
MODULES |= {"marshal", "shelve", "socket", "urllib", "http", "requests"}
BUILT_INS = {"eval", "exec", "compile"}
# PyYAML's own readers; the one strict loader derives from SafeLoader.
YAML = {"load", "load_all", "full_load", "full_load_all", "unsafe_load"}
YAML |= {"unsafe_load_all", "Loader", "FullLoader", "UnsafeLoader", "CLoader"}


def imported(node):
  if isinstance(node, ast.Import):
    return [name.name for name in node.names]
  if isinstance(node, ast.ImportFrom) and not node.level:
    return [node.module or ""]
  return []


def forbidden(tree):
  """Line and name of everything that the package may not use."""
  for node in ast.walk(tree):
    for module in imported(node):
      if module.partition(".")[0] in MODULES:
        yield node.lineno, module
    if isinstance(node, ast.ImportFrom) and node.module == "yaml":
      yield from ((node.lineno, n.name) for n in node.names if n.name in YAML)
    if isinstance(node, ast.Name) and node.id in BUILT_INS | {"__import__"}:
      yield node.lineno, node.id
    if isinstance(node, ast.Attribute):
      base = node.value.id if isinstance(node.value, ast.Name) else ""
      if (base == "yaml" and node.attr in YAML) or (
        base == "builtins" and node.attr in BUILT_INS
      ):
        yield node.lineno, f"{base}.{node.attr}"
    if isinstance(node, ast.Call):
      for word in node.keywords:
        allowed = isinstance(word.value, ast.Constant) and not word.value.value
        if word.arg == "allow_pickle" and not allowed:
          yield node.lineno, "allow_pickle"


@pytest.mark.parametrize(
  "text",
  [
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "import dill",
    "import socket",
    "from urllib.request import urlopen",
    "eval('1')",
    "run = exec",
    "__import__('pickle')",
    "import builtins; builtins.eval('1')",
    "import numpy; numpy.load('a', allow_pickle=True)",
    "import numpy; numpy.load('a', allow_pickle=flag)",
    "import yaml; yaml.load(text, yaml.SafeLoader)",
    "import yaml; yaml.unsafe_load(text)",
    "import yaml; loader = yaml.FullLoader",
    "from yaml import unsafe_load",
  ],
)
def test_the_walker_catches(text):
  assert list(forbidden(ast.parse(text)))


@pytest.mark.parametrize(
  "text",
  [
    "import numpy; numpy.load('a', allow_pickle=False)",
    "import yaml; yaml.safe_dump(1)",
    "model.eval()",
    "import re; re.compile('a')",
  ],
)
def test_the_walker_lets_be(text):
  assert not list(forbidden(ast.parse(text)))


def test_no_file_of_the_package_uses_them():
  files = sorted(FOLDER.rglob("*.py"))
  assert len(files) > 30
  found = [
    f"{path.relative_to(FOLDER)}:{line}: {name}"
    for path in files
    for line, name in forbidden(ast.parse(path.read_text("utf-8")))
  ]
  assert not found


def unshare():
  """Words that start a program without any network, or None."""
  for flags in ("-n", "-rn"):
    words = ["unshare", flags]
    if (
      shutil.which("unshare")
      and not (
        subprocess.run([*words, "true"], capture_output=True, check=False)
      ).returncode
    ):
      return words
  return None


@pytest.fixture
def offline():
  """Words before a program that start it without any network."""
  words = unshare()
  if words is None:
    pytest.skip("unshare is missing or not permitted here")
  return words


def test_a_search_is_prepared_without_a_network(offline):
  done = subprocess.run(
    [*offline, sys.executable, "-m", "nasjax", "search", "--limit", "macs=1"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2 and "smallest reachable" in done.stderr


@pytest.mark.slow
def test_a_search_runs_without_a_network(offline, tmp_path):
  rng = np.random.default_rng(0)
  np.savez(
    tmp_path / "a.npz",
    x_train=rng.integers(256, size=(16, 4, 4, 1), dtype=np.uint8),
    y_train=np.arange(16) % 2,
  )
  run = ["search", "--space", "nasbench201", "--cells", "1", "--channels", "2"]
  run += ["--epochs", "1", "--warmup", "0", "--hypergradient", "single_level"]
  run += ["--relaxation", "softmax", "--data", tmp_path / "a.npz"]
  done = subprocess.run(
    [*offline, sys.executable, "-m", "nasjax", *run, "--out", tmp_path / "run"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert (tmp_path / "run" / "genotype.json").exists()
