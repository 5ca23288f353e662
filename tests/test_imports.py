"""Every module can be the first one that a program imports."""

import ast
import subprocess
import sys
from pathlib import Path

import nasjax

ROOT = Path(nasjax.__file__).parent
ALONE = """
import importlib, sys

for name in sys.argv[1:]:
  for known in [k for k in sys.modules if k.split(".")[0] == "nasjax"]:
    del sys.modules[known]
  importlib.import_module(name)
"""


def modules():
  """{name: path} of all modules but the programs."""
  found = {}
  for path in ROOT.rglob("*.py"):
    parts = ("nasjax", *path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] != "__main__":
      found[".".join(parts).removesuffix(".__init__")] = path
  return found


def read(node, names):
  """The modules that a file imports when it is imported itself."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import):
      yield from (alias.name for alias in child.names)
    elif isinstance(child, ast.ImportFrom):
      assert not child.level, "imports are absolute here"
      yield child.module
      for alias in child.names:
        if f"{child.module}.{alias.name}" in names:
          yield f"{child.module}.{alias.name}"
    elif not isinstance(child, (ast.FunctionDef, ast.Lambda)):
      yield from read(child, names)


def graph():
  """{module: those that its import runs}, packages of each included."""
  names, found = modules(), {}
  for name, path in names.items():
    wanted = set(read(ast.parse(path.read_text()), names))
    wanted |= {w.rpartition(".")[0] for w in [*wanted, name]}
    found[name] = {w for w in wanted if w in names} - {name}
  return found


def in_circles(edges):
  """The modules that reach themselves: of others the order plays no part."""
  reached = {name: set(own) for name, own in edges.items()}
  while True:
    more = {n: r.union(*(reached[m] for m in r)) for n, r in reached.items()}
    if more == reached:
      return sorted(n for n, r in reached.items() if n in r)
    reached = more


def test_every_module_may_be_imported_first():
  edges = graph()
  assert len(edges) > 80
  # One that reads no circle imports what it needs, whatever came before.
  names = in_circles(edges)
  done = subprocess.run(
    [sys.executable, "-c", ALONE, *names],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-600:]


def test_circles_are_seen():
  edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}
  assert in_circles(edges) == ["b", "c"]
