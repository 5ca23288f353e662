"""SIGTERM and SIGINT: exit 143 and 130 soon, and nothing is lost."""

import random
import shutil
import signal
import threading
import time

from fault_runs.common import Bench, Table, differences, wait_for

SECONDS = 10.0  # to the exit; the cache is warm, so nothing compiles long


def run(tries):
  """Stops `tries` runs; returns the number of failures."""
  table, rng = Table("signal"), random.Random(0)
  with Bench() as bench:
    want = bench.undisturbed()
    number = late = 0
    while number < tries:
      kind = signal.SIGTERM if number % 2 == 0 else signal.SIGINT
      out = bench.folder / f"run{number + late}"
      process, sent = bench.start(*bench.search(out)), []

      def send(process=process, kind=kind, sent=sent):
        sent.append(time.monotonic())
        process.send_signal(kind)

      heard = []
      wait_for(process, "CHECKPOINT", heard)
      timer = threading.Timer(rng.uniform(0, 2.0), send)
      timer.start()
      heard += process.stdout.read().splitlines()
      code = process.wait()
      timer.cancel()
      failure = ""
      if "DONE" in heard:
        # The signal found nothing to stop: another try. It must be quiet.
        late += 1
        failure = differing(bench, out, want)
        if heard[-1] != "DONE":
          failure = f"said after its end: {heard[-1]}"
        table.add("after DONE", failure)
        shutil.rmtree(out)
        if late > tries:
          raise SystemExit("the run is too short to be stopped")
        continue
      number += 1
      taken = time.monotonic() - sent[0] if sent else 0.0
      if code != 128 + kind:
        failure = f"exit code {code}: {heard[-3:]}"
      elif taken > SECONDS:
        failure = f"took {taken:.1f} s"
      else:
        code, output = bench.call("resume", out)
        failure = f"resume: {code}: {output[-300:]}" if code else ""
      table.add(kind.name, failure or differing(bench, out, want))
      shutil.rmtree(out)
  return table.done()


def differing(bench, out, want):
  """What differs from the undisturbed run, or nothing."""
  different = differences(bench.result(out), want)
  return f"differs: {different}" if different else ""
