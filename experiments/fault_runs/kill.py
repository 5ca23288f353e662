"""SIGKILL at random moments; every run must end as if nothing had been."""

import random
import shutil
import signal
import threading

from fault_runs.common import Bench, Table, differences, wait_for


def run(tries):
  """Kills `tries` times; returns the number of failures."""
  table, rng = Table("kill"), random.Random(0)
  with Bench() as bench:
    want = bench.undisturbed()
    done = number = 0
    while done < tries:
      number += 1
      out, words, kills = bench.folder / f"run{number}", None, 0
      words = bench.search(out)
      while True:
        process, heard = bench.start(*words), []
        # After the first checkpoint since this start.
        if done + kills < tries and wait_for(process, "CHECKPOINT", heard):
          timer = threading.Timer(rng.uniform(0, 2.5), process.kill)
          timer.start()
          heard += process.stdout.read().splitlines()
          timer.cancel()
        else:
          heard += process.stdout.read().splitlines()
        code = process.wait()
        if code == -signal.SIGKILL:
          kills, words = kills + 1, ["resume", out]
          continue
        break
      failure = f"exit code {code}: {heard[-3:]}" if code else ""
      if not code:
        different = differences(bench.result(out), want)
        failure = f"differs: {different}" if different else ""
        left = list((out / "checkpoints").glob(".*"))
        failure = failure or (f"left: {left}" if left else "")
      for _ in range(kills):
        table.add("SIGKILL", failure)
      table.add("runs to the end", failure)
      print(f"run {number}: {kills} kills {failure or 'identical'}", flush=True)
      done += max(kills, 1 if failure else 0)
      shutil.rmtree(out)
  return table.done()
