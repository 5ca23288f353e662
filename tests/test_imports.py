"""Every module can be the first one that a program imports."""

import subprocess
import sys

ALONE = """
import importlib, pkgutil, sys
import nasjax

names = [
  m.name
  for m in pkgutil.walk_packages(nasjax.__path__, "nasjax.")
  if not m.name.endswith("__main__")
]
for name in names:
  for known in [k for k in sys.modules if k.split(".")[0] == "nasjax"]:
    del sys.modules[known]
  importlib.import_module(name)
print(len(names))
"""


def test_every_module_may_be_imported_first():
  done = subprocess.run(
    [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-600:]
  assert int(done.stdout) > 80
