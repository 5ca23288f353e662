"""Without the extra [onnx] every module is imported, and commands say so."""

import subprocess
import sys

import pytest

PLAIN = """
import sys
for name in ("onnx", "onnxruntime", "onnxruntime.quantization", "pymoo"):
  sys.modules[name] = None  # as if it were not installed
"""
ALL = (
  PLAIN
  + """
import importlib, pkgutil
import nasjax
for module in pkgutil.walk_packages(nasjax.__path__, "nasjax."):
  if not module.name.endswith("__main__"):
    importlib.import_module(module.name)
"""
)
RUN = (
  PLAIN
  + """
from nasjax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
)


def program(text, *words):
  return subprocess.run(
    [sys.executable, "-c", text, *words],
    capture_output=True,
    text=True,
    check=False,
  )


def test_every_module_is_imported():
  done = program(ALL)
  assert done.returncode == 0, done.stderr[-600:]


@pytest.mark.parametrize(
  "words", ["hw list", "hw show raspberry-pi-4", "hw time --help", "doctor"]
)
def test_commands_run(words):
  done = program(RUN, *words.split())
  assert done.returncode == 0 and not done.stderr, done.stderr[-600:]


@pytest.mark.parametrize(
  "words",
  [
    "hw bundle --space edge --image-shape 8x8x1 --out OUT",
    "hw measure --space edge --image-shape 8x8x1 --runtime onnxruntime"
    " --out OUT.csv",
  ],
)
def test_what_needs_the_extra_names_it(words, tmp_path):
  out = str(tmp_path / "out")
  done = program(RUN, *words.replace("OUT", out).split())
  assert done.returncode == 2
  assert "pip install 'nasjax[onnx]'" in done.stderr
  assert done.stderr.count("\n") == 1 and not list(tmp_path.iterdir())
