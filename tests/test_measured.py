"""A user's measurements in the loop."""

import json
import sys

import numpy as np
import pytest

from nasjax import spaces
from nasjax.cli.main import main
from nasjax.errors import InputError
from nasjax.hardware import bundle, measured
from nasjax.spaces import genotype

SPACE = spaces.edge(
  channels=4, nodes=1, stages=1, image_shape=(6, 6, 1), conv_groups=2
)
ONE, OTHER = bundle.random_networks(SPACE, 2, 0)


def test_an_architecture_is_measured_once(tmp_path):
  asked = []

  def measure(architecture):
    asked.append(architecture)
    return {"latency_ms": np.float32(1.5), "energy_mj": 2}

  cache = tmp_path / "cache.json"
  found = measured.function(measure, cache=cache)
  assert found(ONE) == found(ONE) == {"latency_ms": 1.5, "energy_mj": 2.0}
  assert len(asked) == 1
  found(OTHER)
  again = measured.function(measure, cache=cache)
  assert again(ONE)["latency_ms"] == 1.5 and len(asked) == 2

  def another(architecture):
    return {"latency_ms": 2.0}

  with pytest.raises(InputError, match="was measured by"):
    measured.function(another, cache=cache)
  cache.write_text("{}")
  with pytest.raises(InputError, match="format"):
    measured.function(measure, cache=cache)


def test_failures_are_tried_again_and_then_named():
  calls = []

  def shaky(architecture):
    calls.append(1)
    if len(calls) < 3:
      raise RuntimeError("no route to host")
    return {"latency_ms": 1.0}

  with pytest.raises(InputError, match="shaky.*failed 2 times.*no route"):
    measured.function(shaky, retries=1)(ONE)
  assert measured.function(shaky, retries=0)(ONE) == {"latency_ms": 1.0}


@pytest.mark.parametrize(
  "value", [{}, None, 3, {"latency_ms": float("nan")}, {"a b": 1.0}]
)
def test_what_is_no_measurement_is_refused(value):
  with pytest.raises(InputError):
    measured.function(lambda architecture: value)(ONE)


def test_a_function_that_hangs_is_left():
  import threading

  release = threading.Event()
  slow = measured.function(lambda a: release.wait(30), timeout_seconds=0.05)
  with pytest.raises(InputError, match="longer than 0.05 s"):
    slow(ONE)
  release.set()


def script(tmp_path, text):
  path = tmp_path / "measure it.py"
  path.write_text(text)
  return f"'{sys.executable}' '{path}' {{onnx}}"


def test_a_command_gets_the_networks_file(tmp_path):
  pytest.importorskip("onnx")
  line = script(
    tmp_path,
    "import sys, os, json\n"
    "print('warming up')\n"
    "print(json.dumps({'latency_ms': os.path.getsize(sys.argv[1]) / 1e3}))\n",
  )
  found = measured.command(line, model=bundle.decided_model)
  size = len(bundle.decided_model(ONE).SerializeToString())
  assert found(ONE) == {"latency_ms": pytest.approx(size / 1e3)}


@pytest.mark.parametrize(
  "text, said",
  [
    ("import sys; sys.exit('no such board')", "exit code 1, no such board"),
    ("print('done')", "no JSON: 'done'"),
    ("import time; time.sleep(60)", "longer than 1 s"),
  ],
)
def test_a_command_that_fails_says_why(text, said, tmp_path):
  pytest.importorskip("onnx")
  found = measured.command(
    script(tmp_path, text),
    model=bundle.decided_model,
    timeout_seconds=1.0 if "sleep" in text else 60.0,
    retries=0,
  )
  with pytest.raises(InputError, match=said):
    found(ONE)


def test_commands_that_cannot_be_are_refused():
  pytest.importorskip("onnx")
  for line, said in (("time it", "names no {onnx}"), ("'{onnx}", "quotation")):
    with pytest.raises(InputError, match=said):
      measured.command(line, model=bundle.decided_model)
  gone = measured.command("no-such-program {onnx}", model=bundle.decided_model)
  with pytest.raises(InputError, match="cannot be run"):
    gone(ONE)


def test_the_cache_is_json_that_people_can_read(tmp_path):
  cache = tmp_path / "c.json"
  measured.function(lambda a: {"latency_ms": 1.0}, cache=cache)(ONE)
  found = json.loads(cache.read_text())
  assert list(found["values"].values()) == [{"latency_ms": 1.0}]


def test_the_command_line_times_a_genotype(tmp_path, capsys):
  path = tmp_path / "genotype.json"
  value = genotype.to_json(ONE, metrics={}, limits={}, seed=0)
  path.write_text(json.dumps(value))
  part = tmp_path / "mine.py"
  part.write_text(
    "def read(architecture):\n"
    "  return {'latency_ms': len(architecture.names()['nodes'])}\n"
  )
  words = ["hw", "time", str(path)]
  assert main([*words, "--measure", f"{part}:read"]) == 0
  assert capsys.readouterr().out == "latency_ms 1\n"
  assert main(words) == 2
  assert "--measure: is missing" in capsys.readouterr().err
