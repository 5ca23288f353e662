"""A fault at every file-system call of one save.

The calls under the checkpoint folder are counted by a preloaded library
(shim.c), whoever makes them: Python, Orbax or TensorStore. Each try is a fork
of one process, so that nothing is imported again.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KILL, TORN, FULL, BROKEN = range(4)
NAMES = ("kill", "torn write", "ENOSPC", "EIO")
SECONDS = 10.0
HERE = Path(__file__).parent


def run():
  """Builds the library and runs this file under it; counts failures."""
  with tempfile.TemporaryDirectory(prefix="nasjax-shim-") as held:
    shim = Path(held) / "shim.so"
    build = ["cc", "-O1", "-w", "-shared", "-fPIC", "-o", shim, HERE / "shim.c"]
    subprocess.run([*build, "-ldl"], check=True)
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
      "LD_PRELOAD": str(shim),
      "PYTHONPATH": os.pathsep.join(p for p in paths if p),
    }
    words = [sys.executable, "-u", "-m", "fault_runs.crash_points", str(shim)]
    return subprocess.run(words, env=environment, check=False).returncode


def _inside(shim):
  import numpy as np
  from fault_runs.common import Table

  from nasjax import checkpoint, errors, manifests

  library = ctypes.CDLL(shim)
  library.shim_arm.argtypes = [ctypes.c_char_p, ctypes.c_int, ctypes.c_int]

  def tree(step):
    rng = np.random.default_rng(step)
    weights = rng.normal(size=(60, 50)).astype(np.float32)
    return {"weights": weights, "step": np.array(step, np.int32)}

  def save(folder, step):
    checkpoint.save(folder, step, tree(step), {"fixed": {}, "machine": {}})

  def fork(work):
    """(exit code or minus signal, seconds); None for a hang."""
    start = time.monotonic()
    child = os.fork()
    if not child:
      code = 70
      try:
        code = work()
      except checkpoint.StorageError:
        code = errors.STORAGE
      finally:
        os._exit(code)
    while time.monotonic() - start < SECONDS:
      done, status = os.waitpid(child, os.WNOHANG)
      if done:
        return os.waitstatus_to_exitcode(status)
      time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None

  def prepare(folder):
    shutil.copytree(source, folder)

  def armed(folder, call, fault, report=None):
    def work():
      library.shim_arm(os.fsencode(folder), call, fault)
      save(folder, 4)
      if report:
        report.write_text(str(library.shim_calls()))
      return 0

    return work

  def after(folder, saved):
    """The next start; its exit code says what is wrong."""

    def work():
      checkpoint.clean(folder)
      left = [n for n in os.listdir(folder) if n.startswith(".")]
      if left:
        return 10
      said = []
      found = checkpoint.newest(folder, said.append)
      if found is None or found.step not in (3, 4):
        return 11
      if saved and found.step != 4:
        return 12
      same = checkpoint.fit(found, tree(found.step), "checkpoint")
      if manifests.flatten(same)[0] != manifests.flatten(tree(found.step))[0]:
        return 13
      for step in checkpoint.steps(folder):
        checkpoint.verify(folder, step)  # raises: exit code 70
      save(folder, 5)
      return 0 if checkpoint.newest(folder, said.append).step == 5 else 14

    return work

  wrong = {
    10: "leftovers after the next start",
    11: "no step restores",
    12: "the save said it was done and its step is not there",
    13: "the restored state differs",
    14: "a later save does not work",
    70: "an unexpected exception",
    None: f"no end after {SECONDS:.0f} s",
  }
  table = Table("crash points")
  with tempfile.TemporaryDirectory(prefix="nasjax-crash-") as held:
    source, count = Path(held) / "source", Path(held) / "count"

    def three():
      for step in (1, 2, 3):
        save(source, step)
      return 0

    if fork(three):
      raise SystemExit("the first saves failed")
    folder = Path(held) / checkpoint.FOLDER
    prepare(folder)
    if fork(armed(folder, -1, KILL, count)):
      raise SystemExit("the undisturbed save failed")
    shutil.rmtree(folder)
    calls = int(count.read_text())
    print(f"{calls} file-system calls in one save", flush=True)
    for call in range(calls):
      for fault in (KILL, TORN, FULL, BROKEN):
        prepare(folder)
        code = fork(armed(folder, call, fault))
        failure = ""
        if code not in (0, errors.STORAGE, -signal.SIGKILL):
          failure = f"the save: {wrong.get(code, code)}"
        else:
          then = fork(after(folder, code == 0))
          failure = "" if then == 0 else wrong.get(then, str(then))
        note = f"call {call}, exit code {code}: {failure}" if failure else ""
        table.add(NAMES[fault], note)
        shutil.rmtree(folder)
  return min(table.done(), 100)


if __name__ == "__main__":
  sys.exit(_inside(sys.argv[1]))
