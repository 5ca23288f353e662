"""A user's own search space in one file: from its path to an ONNX file."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nasjax import export, hardware, testing
from nasjax.cli import own_spaces
from nasjax.cli.main import main
from nasjax.cli.parts import make_space
from nasjax.errors import InputError

EXAMPLE = Path(__file__).parent.parent / "experiments" / "my_space.py"
TEXT = EXAMPLE.read_text()


@pytest.fixture
def example(tmp_path):
  shutil.copy(EXAMPLE, tmp_path / "mine.py")
  return f"{tmp_path}/mine.py:chain"


def test_the_example_is_built_costed_and_decided(example):
  space = make_space(example, dict(cells=1, image_shape=(9, 8, 1)))
  assert space.name == example and len(TEXT.splitlines()) <= 66
  macs, latency = (
    hardware.macs(space),
    hardware.device("raspberry-pi-4").latency(space),
  )
  even = {"layers": np.full((2, 5), 0.2, np.float32)}
  # Stem 9x8x9x8, the strided convolution 5x4x9x8x16, and the head.
  fixed = 72 * 9 * 8 + 20 * 9 * 8 * 16 + 16 * 10
  dearest = 72 * 9 * 8 * 8 + 20 * 9 * 16 * 16  # of two 3x3 convolutions
  widest = {"layers": np.eye(5, dtype=np.float32)[[1, 1]]}
  assert macs.exact(space.decide(widest)) == fixed + dearest
  limit = float(macs.expected(even))
  decided = space.decide(widest, [(macs, limit), (latency, 1e3)])
  assert fixed <= macs.exact(decided) <= limit < fixed + dearest
  network = space.build(decided)
  own = network.init(jax.random.key(0), jnp.ones((2, 9, 8, 1)))
  assert network.apply(own, jnp.ones((2, 9, 8, 1))).shape == (2, 10)


def test_the_fields_of_a_space_that_is_asked_for_are_its_own(example):
  with pytest.raises(InputError, match="--nodes: the space .*has none"):
    make_space(example, dict(nodes=3))
  with pytest.raises(InputError, match="chain: channels=0 must be"):
    make_space(example, dict(channels=0))


HEAD = "from nasjax import spaces\nfrom nasjax.spaces import staged\n"
GOOD = "image_shape=(8, 8, 1), num_classes=10"


@pytest.mark.parametrize(
  "text, said",
  [
    ("def chian(): pass", "has no 'chain'; did you mean chian"),
    ("chain = 3", "is a int, not a function"),
    ("def chain(width): pass", "every argument needs a default"),
    ("def chain(num_classes=2): pass", "has no argument image_shape"),
    (f"def chain({GOOD}): return 3", "is a int without name, not a search"),
    (f"def chain({GOOD}): return 1 / 0", "raised ZeroDivisionError"),
    (f"def chain({GOOD}): raise ValueError('too wide')", "too wide"),
    (
      f"def chain({GOOD}): return spaces.edge(image_shape=image_shape)",
      "'channels', which it does not take",
    ),
    (
      f"def chain({GOOD}, k=1):\n  s = spaces.edge()\n"
      "  return staged.StagedSpace('x', {}, s.plan)",
      "its arguments have no image_shape",
    ),
    (
      f"def chain({GOOD}):\n  s = spaces.edge()\n  return staged.StagedSpace("
      "'x', dict(image_shape=(28, 28, 1), num_classes=9), s.plan)",
      r"apply: gave float32\[2, 10\], not float32\[2, 9\]",
    ),
    (
      f"def chain({GOOD}):\n  s = spaces.edge()\n  return staged.StagedSpace("
      "'x', dict(image_shape=(28, 28, 1), num_classes=10), s.plan)",
      "was asked for another image_shape",
    ),
    ("import nowhere_at_all", "ModuleNotFoundError"),
  ],
)
def test_files_that_hold_no_space_are_refused(tmp_path, text, said):
  (tmp_path / "mine.py").write_text(HEAD + text + "\n")
  with pytest.raises(InputError, match=said):
    make_space(
      f"{tmp_path}/mine.py:chain", dict(image_shape=(8, 8, 1), num_classes=10)
    )


def test_a_missing_file_is_refused(tmp_path, capsys):
  assert main(["search", "--space", f"{tmp_path}/no.py:chain"]) == 2
  assert "no.py: cannot be read" in capsys.readouterr().err
  assert main(["search", "--space", "edge:"]) == 2
  assert "--space: 'edge:' names no part" in capsys.readouterr().err


OPEN = {"layers": np.ones((4, 5), bool)}


class Broken:
  """A space with something else in place of one of its functions."""

  def __new__(cls, space, **changed):
    kind = type("Space", (type(space),), changed)
    own = {f: getattr(space, f) for f in space.__dataclass_fields__}
    return kind(**own)


@pytest.mark.parametrize(
  "changed, said",
  [
    (dict(decide=3), "decide is not a function"),
    (dict(groups={}), "groups are no mapping, or empty"),
    (
      dict(masks={"layers": np.ones((4, 4), bool)}),
      r"masks are not bool\[4, 5",
    ),
    (dict(masks={"layers": np.zeros((4, 5), bool)}), "without candidates"),
    (dict(skips={}), r"skips are not bool\[4, 5\]"),
    (
      dict(workloads=lambda self: None, skips=property(lambda self: OPEN)),
      "no SpaceWorkloads",
    ),
    (dict(workloads=lambda self: 1 / 0), "skips raised ZeroDivisionError"),
    (dict(init=lambda self, key: {}), "no params and batch_stats"),
    (
      dict(apply=lambda self, v, s, x, t: (jnp.zeros((2, 10)), {})),
      "changed the shapes of batch_stats",
    ),
    (
      dict(extract=lambda self, v, a: {"params": {}, "batch_stats": {}}),
      "extract gives another network's variables",
    ),
    (dict(build=lambda self, a: 1 / 0), "raised ZeroDivisionError"),
  ],
)
def test_what_breaks_the_contract_is_named(example, changed, said):
  space = make_space(example, {})
  testing.check_space(Broken(space))
  with pytest.raises(ValueError, match=said):
    testing.check_space(Broken(space, **changed))


def test_workloads_that_count_other_parameters_are_named(example):
  space = make_space(example, {})
  other = make_space(example, dict(num_classes=11)).workloads()
  broken = Broken(space, workloads=lambda self: other)
  with pytest.raises(ValueError, match="count 1... parameters, it has"):
    testing.check_space(broken)


def test_a_genotype_alone_runs_no_code(tmp_path, capsys):
  """Whoever sends a genotype.json does not choose what is imported."""
  (tmp_path / "mine.py").write_text("raise SystemExit('imported')\n")
  name = f"{tmp_path}/mine.py:chain"
  value = {
    "format": "nasjax.genotype/1",
    "space": {"name": name, "arguments": {}},
    "choices": {"layers": ["conv_3x3"]},
  }
  path = tmp_path / "genotype.json"
  path.write_text(json.dumps(value))
  with pytest.raises(InputError, match="only its run folder may name"):
    own_spaces.read_genotype(path)
  assert main(["show", str(path)]) == 0
  assert "conv_3x3" in capsys.readouterr().out
  assert main(["show", str(path), "--format", "nasbench201"]) == 2
  # Its run folder may.
  (tmp_path / "config.yaml").write_text(f"space: {name}\n")
  with pytest.raises(InputError, match="cannot be imported: SystemExit"):
    own_spaces.read_genotype(tmp_path)


@pytest.mark.slow
def test_the_example_is_searched_resumed_retrained_and_exported(
  example, tmp_path, capsys
):
  pytest.importorskip("onnxruntime")
  run = tmp_path / "run"
  small = ["--cells", "1", "--epochs", "2", "--limit", "macs=60000"]
  words = ["search", "--space", example, *small, "--out", str(run)]
  assert main(words) == 0
  found = (run / "genotype.json").read_text()
  assert json.loads(found)["space"]["name"] == example
  # Going on from the last checkpoint decides the same.
  (run / "genotype.json").unlink()
  assert main(["resume", str(run)]) == 0
  assert (run / "genotype.json").read_text() == found
  assert main(["show", str(run)]) == 0
  assert main(["retrain", str(run), "--epochs", "1", "--inherit"]) == 0
  assert json.loads((run / "retrained/retrained.json").read_text())
  decided, _ = own_spaces.read_genotype(run)
  network = decided.space.build(decided)
  images = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype("f4")
  own = network.init(jax.random.key(0), images)
  model = export.network(network, own, (8, 8, 1))
  assert export.parity(model, network, own, images) < 1e-5
  # Another program is another search.
  file = Path(example.rpartition(":")[0])
  file.write_text(TEXT.replace("depthwise(5)", "depthwise(7)"))
  (run / "genotype.json").unlink()
  assert main(["resume", str(run)]) == 2
  assert "was made with another part" in capsys.readouterr().err
