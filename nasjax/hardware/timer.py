"""Times the ONNX files of a bundle; needs onnxruntime and numpy alone.

`nasjax hw bundle` copies this file beside the models: copy the folder to the
device and run `python measure.py`; bring its CSV back to `nasjax hw import`.

Every sample is a loop of calls with inputs and outputs bound beforehand. The
empty call (a graph that only hands one number on) is timed the same way and
taken off. Samples of the items of one group are interleaved, with the anchor, a
block that never changes, around each: a time is the low percentile of its
samples over that of the anchors, times what the anchor takes where little
disturbs it (`anchor_ms`); median and minimum stand beside it. More samples are
taken if the process lost the processor meanwhile (wall clock over processor
time); a row whose odd and even samples disagree is measured again, then marked
noisy. All this is done in rounds, one row each, whose median counts.
Rows are written group by group: a run that was stopped goes on.
"""

import argparse
import csv
import glob
import io
import json
import os
import platform
import sys
import time

import numpy as np

MANIFEST, RESULTS = "manifest.json", "results.csv"
TIMES = (
  "latency_ms",  # see the header
  "minimum_ms",  # the fastest sample, without the empty call
  "median_ms",  # of the samples, without the empty call
  "spread",  # (90th - 10th percentile) / median of the samples
  "noisy",
  "anchor_drift",  # the anchor meanwhile, over anchor_ms
  "frequency_mhz",
  "temperature_c",
)
_GROUP = 24  # items alive at once
_SAMPLE_SECONDS = 5e-4
_NOISY = 0.1  # of odd and even samples
_TRIES = 3
_ANCHOR_SECONDS = 2.0  # to find what it takes where nothing disturbs it
_BUSY = 1.05  # wall clock over processor time of a disturbed sample


def _first_line(path):
  try:
    with open(path, encoding="utf-8") as file:
      return file.readline().strip()
  except OSError:
    return ""


def governor():
  """The governor of the processor's frequency, if the system tells."""
  folder = "/sys/devices/system/cpu/cpu0/cpufreq/"
  return _first_line(folder + "scaling_governor") or "unknown"


def frequency_mhz():
  """The processor's frequency now, as text; empty if not told."""
  text = _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
  return f"{int(text) / 1e3:.0f}" if text.isdigit() else ""


def temperature_c():
  """The hottest thermal zone, as text; empty if the system does not tell."""
  texts = [
    _first_line(p) for p in glob.glob("/sys/class/thermal/thermal_zone*/temp")
  ]
  found = [int(t) / 1e3 for t in texts if t.lstrip("-").isdigit()]
  return f"{max(found):.1f}" if found else ""


def pin(threads):
  """Pins the process to its last `threads` cores; says what it did."""
  if not hasattr(os, "sched_setaffinity"):
    return "not pinned: the system cannot"
  cores = sorted(os.sched_getaffinity(0))[-threads:]
  if len(cores) < threads:
    return f"not pinned: {len(cores)} cores for {threads} threads"
  os.sched_setaffinity(0, cores)
  return "pinned to cores " + " ".join(map(str, cores))


class Call:
  """One model with its inputs bound: call it to run the model once."""

  def __init__(self, model, shapes, batch, threads, optimization="all"):
    """Loads `model` (a path or bytes) for inputs [batch, *shape]."""
    import onnxruntime  # where the rest is of use without it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = {
      "all": levels.ORT_ENABLE_ALL,
      "extended": levels.ORT_ENABLE_EXTENDED,
      "none": levels.ORT_DISABLE_ALL,
    }[optimization]
    self._session = onnxruntime.InferenceSession(
      model, options, providers=["CPUExecutionProvider"]
    )
    self._binding = self._session.io_binding()
    self._kept = []
    rng = np.random.default_rng(0)
    for node, shape in zip(self._session.get_inputs(), shapes):  # noqa: B905
      x = rng.normal(size=(batch, *shape)).astype(np.float32)
      self._kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(x))
      self._binding.bind_ortvalue_input(node.name, self._kept[-1])
    name = self._session.get_outputs()[0].name
    self._binding.bind_output(name)
    self._session.run_with_iobinding(self._binding)
    # Written to the same memory every time, not to new memory.
    self._kept.append(self._binding.get_outputs()[0])
    self._binding.bind_ortvalue_output(name, self._kept[-1])
    self.times = 1

  def sample(self):
    """Runs `times` calls: (ms a call, whether something else ran)."""
    run, binding = self._session.run_with_iobinding, self._binding
    wall, own = time.perf_counter(), time.process_time()
    for _ in range(self.times):
      run(binding)
    own = time.process_time() - own
    wall = time.perf_counter() - wall
    return 1e3 * wall / self.times, wall > _BUSY * own + 2e-5

  def warm_up(self, seconds=_SAMPLE_SECONDS):
    """Runs until two samples agree, with calls enough for one sample."""
    before = np.inf
    for _ in range(20):
      found = self.sample()[0]
      self.times = max(1, min(10_000, int(1e3 * seconds / found) + 1))
      if abs(found - before) < 0.03 * found:
        break
      before = found


def _low(values):
  """What a time is where little disturbs it: a low percentile."""
  return float(np.percentile(values, 10))


def _relative(pairs):
  """Low percentile of the samples over that of the anchors beside them."""
  own, anchors = zip(*pairs)  # noqa: B905
  return _low(own) / _low(anchors)


def quiet(anchor):
  """The anchor's time where little disturbs it, ms."""
  anchor.warm_up()
  end, found = time.perf_counter() + _ANCHOR_SECONDS, []
  while time.perf_counter() < end:
    found.append(anchor.sample()[0])
  return _low(found)


def time_group(calls, anchor, empty, repeats, unit):
  """Times calls, interleaved, each in units of the anchor beside it.

  A neighbour on the same core, memory or frequency budget slows both for a
  while: the tenth percentile of a call's samples over that of its anchors
  differed by 1.5% from run to run on a busy machine, the median of samples by
  20%, of ratios by 4%, the minimum by 2 to 19%.

  Args:
    calls: what to time.
    anchor: the call that should not change.
    empty: the call that does nothing.
    repeats: samples of each during which the process kept the processor; at
      most `_TRIES` times as many are taken.
    unit: the anchor's time where little disturbs it, ms.

  Returns:
    ([(latency, minimum, median, spread, difference of odd and even samples) of
    each call, the empty call taken off, ms], low percentile of the anchor and
    of the empty call, ms).
  """
  for call in (*calls, anchor, empty):
    call.warm_up()
  every = [*calls, empty]
  samples, anchors = [[] for _ in every], []
  left = [repeats] * len(every)
  for _ in range(_TRIES * repeats):
    if not any(left):
      break
    before = anchor.sample()
    for n, call in enumerate(every):
      if not left[n]:
        continue
      own, busy = call.sample()
      after = anchor.sample()
      samples[n].append((own, (before[0] + after[0]) / 2))
      left[n] -= not (busy or before[1] or after[1])
      anchors.append(after[0])
      before = after
  base = unit * _relative(samples[-1])
  least = min(own for own, _ in samples[-1])
  rows = []
  for pairs in samples[:-1]:
    latency = unit * _relative(pairs)
    odd, even = _relative(pairs[::2]), _relative(pairs[1::2])
    low, median, high = np.percentile([own for own, _ in pairs], [10, 50, 90])
    minimum = min(own for own, _ in pairs)
    # A cost of 0 would say that the operation is free.
    rows.append(
      (
        max(latency - base, 0.01 * latency),
        max(minimum - least, 0.01 * minimum),
        max(median - base, 0.01 * median),
        float((high - low) / median),
        abs(odd - even) * unit / latency,
      )
    )
  return rows, _low(anchors), base


def _write(path, header, columns, rows):
  text = io.StringIO()
  for key, value in header.items():
    text.write(f"# {key}: {value}\n")
  writer = csv.DictWriter(text, columns, lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  temporary = f"{path}.{os.getpid()}.tmp"
  with open(temporary, "w", encoding="utf-8", newline="") as file:
    file.write(text.getvalue())
  os.replace(temporary, path)


def _read(path):
  with open(path, encoding="utf-8", newline="") as file:
    lines = file.read().split("\n")
  header = {}
  while lines and lines[0].startswith("#"):
    key, _, value = lines.pop(0)[1:].partition(":")
    header[key.strip()] = value.strip()
  return header, list(csv.DictReader(lines))


def run(
  folder,
  out,
  *,
  threads=1,
  repeats=15,
  rounds=9,
  retries=1,
  device="",
  pinned=True,
  optimization="all",
  progress=lambda done, total, text: None,
):
  """Times every item of a bundle at every batch size and writes a CSV.

  Args:
    folder: of the bundle.
    out: the CSV; what is in it already, made alike, is not measured again.
    threads: of one operation.
    repeats: samples of each item.
    rounds: passes over all of them, one row each; `nasjax hw import` takes
      the median.
    retries: how often a noisy row is measured again.
    device: its name, for the header.
    pinned: whether to stay on the last `threads` cores.
    optimization: of the graph: all, extended, none.
    progress: called with (done, total, text) after each group; what it raises
      ends the run, and a later one goes on.
  """
  with open(os.path.join(folder, MANIFEST), encoding="utf-8") as file:
    manifest = json.load(file)
  import onnxruntime

  items = manifest["items"]
  columns = (*items[0]["row"], "batch", "round", *TIMES)
  header = {
    "format": "nasjax.measurements/1",
    **manifest["header"],
    "device": device or manifest["header"].get("device", "this-machine"),
    "processor": f"{processor()}, {os.cpu_count()} cores",
    "runtime": f"onnxruntime {onnxruntime.__version__}",
    "optimization": optimization,
    "threads": str(threads),
    "pinning": pin(threads) if pinned else "not pinned",
    "governor": governor(),
    "versions": f"onnxruntime {onnxruntime.__version__}, numpy"
    f" {np.__version__}, python {platform.python_version()}",
    "latency_ms": f"median of {rounds} rounds, each the 10th percentile of"
    f" {repeats} samples over that of the anchor beside them, times anchor_ms;"
    " per call, without the empty call",
  }
  made_alike = ("bundle", "device", "runtime", "optimization", "threads")
  rows, done = [], set()
  if os.path.exists(out):
    before, rows = _read(out)
    for key in made_alike:
      if before.get(key) != header[key]:
        raise ValueError(
          f"{out} was measured with {key} {before.get(key)!r}, not"
          f" {header[key]!r}: name another file with --out"
        )
    kept = ("date", "anchor_ms", "empty_call_ms")
    header |= {key: before[key] for key in kept if key in before}
    done = {(r["item"], r["batch"], r["round"]) for r in rows}
  header.setdefault("date", time.strftime("%Y-%m-%d"))

  def load(item, batch):
    path = os.path.join(folder, item["file"])
    return Call(path, item["inputs"], batch, threads, optimization)

  anchor, empty = load(manifest["anchor"], 1), load(manifest["empty"], 1)
  header.setdefault("anchor_ms", f"{quiet(anchor):.6g}")
  unit = float(header["anchor_ms"])
  todo = [
    (item, batch, number)
    for number in range(1, rounds + 1)
    for batch in manifest["batches"]
    for item in items
    if (item["row"]["item"], str(batch), str(number)) not in done
  ]
  # Another order in each round: no item always has the same company.
  for number in range(1, rounds + 1):
    own = [n for n, entry in enumerate(todo) if entry[2] == number]
    mixed = np.random.default_rng(number).permutation(own)
    for n, entry in zip(own, [todo[int(m)] for m in mixed]):  # noqa: B905
      todo[n] = entry
  total, drifts = len(todo) + len(done), [1.0]
  tries = {}
  while todo:
    group, todo = todo[:_GROUP], todo[_GROUP:]
    calls = [load(item, batch) for item, batch, _ in group]
    found, middle, base = time_group(calls, anchor, empty, repeats, unit)
    header.setdefault("empty_call_ms", f"{base:.6g}")
    drift = middle / unit
    drifts.append(drift)
    again = []
    for (item, batch, number), times in zip(group, found):  # noqa: B905
      key = (item["row"]["item"], batch, number)
      least = min([*tries.get(key, []), times], key=lambda t: t[4])
      tries.setdefault(key, []).append(times)
      noisy = least[4] > _NOISY
      if noisy and len(tries[key]) <= retries:
        again.append((item, batch, number))
        continue
      values = [f"{t:.6g}" for t in least[:3]] + [f"{least[3]:.3g}"]
      values += [str(int(noisy)), f"{drift:.3f}", frequency_mhz()]
      values += [temperature_c()]
      cells = {**item["row"], "batch": str(batch), "round": str(number)}
      rows.append({**cells, **dict(zip(TIMES, values))})  # noqa: B905
    todo += again
    low, high = min(drifts), max(drifts)
    header["anchor_drift"] = f"{low:.3f} to {high:.3f}"
    header["noisy"] = f"{sum(r['noisy'] == '1' for r in rows)} rows"
    _write(out, header, columns, rows)
    progress(
      len(rows), total, f"{len(again)} noisy again" if again else "measured"
    )


def processor():
  """The processor's name, as the system tells it."""
  try:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
      lines = [n for n in file if n.startswith(("model name", "Model"))]
  except OSError:
    lines = []
  names = [n.partition(":")[2].strip() for n in lines]
  return names[0] if names else platform.machine()


def main():
  """The command line on the device."""
  here = os.path.dirname(os.path.abspath(__file__))
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--out", default=os.path.join(here, RESULTS))
  parser.add_argument("--device", default="", help="its name in the table")
  parser.add_argument("--threads", type=int, default=1)
  parser.add_argument("--repeats", type=int, default=15)
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument("--no-pin", action="store_true")
  parser.add_argument(
    "--optimization", default="all", choices=("all", "extended", "none")
  )
  found = parser.parse_args()
  start, begun = time.time(), []

  def progress(done, total, text):
    begun.append(done)
    rate = (time.time() - start) / max(1, done - begun[0] + 24)
    left = (total - done) * rate
    print(f"{done}/{total}  {text}  about {left:.0f} s left", flush=True)

  try:
    run(
      here,
      found.out,
      threads=found.threads,
      repeats=found.repeats,
      rounds=found.rounds,
      device=found.device,
      pinned=not found.no_pin,
      optimization=found.optimization,
      progress=progress,
    )
  except (OSError, ValueError) as error:
    sys.exit(f"error: {error}")
  print(f"written to {found.out}; bring it to: nasjax hw import")


if __name__ == "__main__":
  main()
