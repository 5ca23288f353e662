"""Without the extra [onnx] every module is imported, and commands say so."""

import subprocess
import sys

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
for words in sys.argv[1:]:
  try:
    print("CODE", main(words.split()), flush=True)
  except SystemExit as end:
    print("CODE", end.code, flush=True)
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


def test_commands_run_and_what_needs_the_extra_names_it(tmp_path):
  out = tmp_path / "out"
  shape = "--space edge --image-shape 8x8x1"
  done = program(
    RUN,
    "hw list",
    "hw show raspberry-pi-4",
    "hw time --help",
    "doctor",
    f"hw bundle {shape} --out {out}",
    f"hw measure {shape} --runtime onnxruntime --out {out}.csv",
  )
  codes = [
    line.split()[1]
    for line in done.stdout.splitlines()
    if line.startswith("CODE")
  ]
  assert codes == ["0", "0", "0", "0", "2", "2"], done.stderr[-600:]
  errors = done.stderr.splitlines()
  assert len(errors) == 2 and not list(tmp_path.iterdir())
  assert all("pip install 'nasjax[onnx]'" in line for line in errors)
