"""Run folders that cannot be gone on with.

Damaged checkpoint files are a fault run of their own, `faults.py damage`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fault_runs.cases import Case, images, write

_CONFIG = """\
space: nasbench201
data: {data}
channels: 4
cells: 1
epochs: 1
batch_size: 8
row_order: 1
"""


def _folder(folder: Path, config: str | bytes | None = _CONFIG) -> Path:
  """A run folder as a search that was killed early leaves it."""
  run = folder / "run"
  (run / "checkpoints").mkdir(parents=True)
  write(run / ".lock", "")
  if config is not None:
    if isinstance(config, str):
      config = config.replace("{data}", images(folder / "images.npz"))
    write(run / "config.yaml", config)
  return run


def _case(name: str, make: Callable[[Path], list[str]], said: str) -> Case:
  return Case("checkpoints", name, make, said)


def _config(name: str, config: str | bytes | None, said: str) -> Case:
  return _case(
    f"resume: {name}", lambda f: ["resume", str(_folder(f, config))], said
  )


def _each(name: str, path: Callable[[Path], Path], said: str) -> list[Case]:
  """The same wrong folder for every command that takes one."""
  commands = (["resume"], ["checkpoint", "list"], ["checkpoint", "verify"])
  return [
    _case(f"{' '.join(c)}: {name}", lambda f, c=c: [*c, str(path(f))], said)
    for c in commands
  ]


def _without_config(folder: Path) -> Path:
  return _folder(folder, None)


def _linked(folder: Path) -> Path:
  link = folder / "link"
  link.symlink_to(folder / "nowhere")
  return link


CASES = [
  *_each("no such folder", lambda f: f / "nothing", "is not a run folder"),
  *_each("a file", lambda f: write(f / "file", "x"), "is not a run folder"),
  *_each("an empty folder", lambda f: f, "no config.yaml"),
  *_each("no config.yaml", _without_config, "no config.yaml"),
  *_each("a dangling link", _linked, "is not a run folder"),
  *_each("escapes", lambda f: f / "\x1b[2J", "is not a run folder"),
  _config("an empty config.yaml of NUL", b"\0\0", "config.yaml"),
  _config("config.yaml in Latin-1", b"data: \xe9\n", "config.yaml"),
  _config("an unknown key", _CONFIG + "epohcs: 3\n", "epochs"),
  _config("a key twice", _CONFIG + "channels: 8\n", "channels"),
  _config("a tag", "!!python/object:os.system {}\n", "config.yaml"),
  _config("a list", "- 1\n- 2\n", "config.yaml"),
  _config("data that is gone", "data: gone.npz\nrow_order: 1\n", "gone.npz"),
  _config("a space that is gone", _CONFIG + "device: nowhere\n", "nowhere"),
  _config("a seed of words", _CONFIG + "seed: many\n", "seed"),
  _config("NaN", _CONFIG + "learning_rate: .nan\n", "learning_rate"),
  _case("nothing to resume", lambda f: ["resume"], "RUN"),
  _case("two runs to resume", lambda f: ["resume", "a", "b"], "unexpected 'b'"),
  _case(
    "unknown flag of resume",
    lambda f: ["resume", "a", "--allow-change"],
    "did you mean --allow-changed?",
  ),
  _case(
    "unknown look at checkpoints",
    lambda f: ["checkpoint", "verfy", "a"],
    "did you mean verify?",
  ),
]
