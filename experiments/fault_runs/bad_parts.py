"""Users' own relaxations that break their contract, given as FILE.py:NAME."""

from __future__ import annotations

import os
from pathlib import Path

from fault_runs.cases import Case, search, write

_HEAD = """
import jax, jax.numpy as jnp, numpy as np, random, sys
from nasjax import relaxations
from nasjax.types import Relaxation, Sampled
good = relaxations.softmax()
calls = []

"""

# The body of f(key, logits[E, K], step), made a relaxation by from_function.
_FUNCTIONS: list[tuple[str, str, str]] = [
  ("wrong shape", "return jax.nn.softmax(logits)[:, :-1]", "shape"),
  ("transposed", "return jax.nn.softmax(logits).T", "shape"),
  ("a number as weights", "return 1.0", "shape"),
  ("nothing", "return None", "sample raised"),
  ("a word", "return 'softmax'", "sample raised"),
  ("float16", "return jax.nn.softmax(logits).astype(jnp.float16)", "float16"),
  ("integers", "return jnp.ones(logits.shape, int)", "simplex"),
  ("NaN", "return jax.nn.softmax(logits) * jnp.nan", "NaN"),
  ("infinite", "return jax.nn.softmax(logits) / 0.0", "NaN or infinite"),
  ("rows of 2", "return 2.0 * jax.nn.softmax(logits)", "simplex"),
  ("columns of 1", "return jax.nn.softmax(logits, axis=0)", "simplex"),
  ("sigmoid", "return jax.nn.sigmoid(logits)", "simplex"),
  (
    "negative weights",
    "p = jax.nn.softmax(logits); return 2 * p - p[:, ::-1]",
    "simplex",
  ),
  (
    "a branch on values",
    "return jax.nn.softmax(logits if logits[0, 0] > 0 else -logits)",
    "TracerBoolConversionError",
  ),
  ("numpy", "return np.exp(np.asarray(logits))", "TracerArrayConversionError"),
  ("a float of a value", "return logits / float(logits[0, 0])", "raised"),
  ("a step as a number", "return logits * [1, 2][int(step) % 2]", "raised"),
  ("a loop over the step", "for _ in range(step): pass", "raised"),
  (
    "values as a shape",
    "return logits[logits > 0].reshape(logits.shape)",
    "raised",
  ),
  (
    "random numbers of Python",
    "return jax.nn.softmax(logits * random.random())",
    "not pure",
  ),
  (
    "random numbers of numpy",
    "return jax.nn.softmax(logits * np.random.rand())",
    "not pure",
  ),
  (
    "a count of calls",
    "calls.append(1); return jax.nn.softmax(logits * len(calls))",
    "not pure",
  ),
  (
    "a shape that changes",
    "calls.append(1); p = jax.nn.softmax(logits);"
    " return p if len(calls) < 9 else p[:, :-1]",
    "",
  ),
  (
    "NaN gradient at a tie",
    "z = jnp.sqrt(jnp.var(logits, -1, keepdims=True));"
    " return jax.nn.softmax(logits) + 0.0 * z",
    "gradient",
  ),
  (
    "NaN gradient everywhere",
    "z = jnp.sqrt(jnp.maximum(-jnp.abs(logits), 0.0));"
    " return jax.nn.softmax(logits) + 0.0 * z",
    "gradient",
  ),
  (
    "NaN where logits are far apart",
    "e = jnp.exp(4.0 * logits); return e / e.sum(-1, keepdims=True)",
    "NaN",
  ),
  (
    "no gradient",
    "return jax.lax.stop_gradient(jax.nn.softmax(logits))",
    "zero",
  ),
  ("uniform", "return jnp.ones_like(logits) / logits.shape[-1]", "mine"),
  ("raises", "raise KeyError('lost')", "KeyError"),
  ("raises two lines", "raise RuntimeError('a\\nb\\x1b[2J')", "RuntimeError"),
  ("raises a megabyte", "raise RuntimeError('x' * 10**6)", "RuntimeError"),
  ("divides by zero", "return logits / (1 // 0)", "ZeroDivisionError"),
  ("a misspelt name", "return jax.nn.sofmax(logits)", "AttributeError"),
  ("for ever deeper", "return f(key, logits, step)", "RecursionError"),
  (
    "only small groups",
    "return jax.nn.softmax(logits) if logits.shape[0] < 6 else 1 / 0",
    "ZeroDivisionError",
  ),
  (
    "compiles at every step",
    "return jax.jit(lambda z: jax.nn.softmax(z * 1.0))(logits)",
    "compiles again",
  ),
]

# Whole modules with a part `mine`.
_MODULES: list[tuple[str, str, str]] = [
  ("no part of that name", "mien = good", "did you mean mien?"),
  ("a number", "mine = 3", "not a nasjax.types.Relaxation"),
  ("a class", "class mine: pass", "not a nasjax.types.Relaxation"),
  ("a function of a key", "mine = lambda k: k", "not a nasjax.types"),
  ("a constructor that raises", "def mine(): raise OSError('no')", "OSError"),
  ("a constructor of nothing", "def mine(): pass", "is a NoneType"),
  ("a constructor that exits", "def mine(): sys.exit(0)", "SystemExit"),
  ("no functions", "mine = Relaxation(1, 2, 3)", "init is not a function"),
  (
    "no Sampled",
    "mine = good._replace(sample=lambda k, l, m, s: good.expect(l, m, s))",
    "not Sampled",
  ),
  ("no groups", "mine = good._replace(init=lambda k, m: {})", "each group"),
  ("a list", "mine = good._replace(init=lambda k, m: [1.0])", "each group"),
  (
    "another group",
    "mine = good._replace(init=lambda k, m: {'a': jnp.ones((6, 5))})",
    "each group",
  ),
  (
    "NaN logits",
    "mine = good._replace(init=lambda k, m:"
    " {n: jnp.full(v.shape, jnp.nan) for n, v in m.items()})",
    "NaN",
  ),
  (
    "logits of random numbers of numpy",
    "mine = good._replace(init=lambda k, m: {n: jnp.asarray("
    "np.random.rand(*v.shape), jnp.float32) for n, v in m.items()})",
    "not pure",
  ),
  (
    "weakly typed logits",
    "mine = good._replace(init=lambda k, m:"
    " {n: jnp.full(v.shape, 0.0) for n, v in m.items()})",
    "weakly",
  ),
  (
    "logits of another shape",
    "mine = good._replace(init=lambda k, m:"
    " {n: jnp.zeros(v.shape[0]) for n, v in m.items()})",
    "shape",
  ),
  (
    "weights of closed candidates",
    "def e(l, m, s): return {n: jax.nn.softmax(v) for n, v in l.items()}\n"
    "mine = Relaxation(good.init, lambda k, l, m, s: Sampled(e(l, m, s)), e)",
    "not 0 where masked",
  ),
  (
    "paths outside",
    "mine = good._replace(sample=lambda k, l, m, s: Sampled("
    "good.expect(l, m, s), {n: jnp.full((len(v), 1), 99)"
    " for n, v in l.items()}))",
    "outside",
  ),
  (
    "paths of floats",
    "mine = good._replace(sample=lambda k, l, m, s: Sampled("
    "good.expect(l, m, s), {n: jnp.zeros((len(v), 1)) for n, v in l.items()}))",
    "not integers",
  ),
  (
    "an expectation that raises",
    "mine = good._replace(expect=lambda l, m, s: 1 / 0)",
    "expect raised ZeroDivisionError",
  ),
  ("bad syntax", "def mine(:", "SyntaxError"),
  ("bad indentation", "if True:\nmine = good", "IndentationError"),
  ("a missing module", "import tensorflux", "ModuleNotFoundError"),
  ("raises at import", "raise ValueError('no\\x1b[2J')", "ValueError"),
  ("exits at import", "sys.exit(0)", "SystemExit"),
]


def _module(
  name: str, text: str | bytes, said: str, group="user parts"
) -> Case:
  def make(folder):
    content = text if isinstance(text, bytes) else _HEAD + text + "\n"
    path = write(folder / "mine.py", content)
    return search(folder, "--relaxation", f"{path}:mine")

  return Case(group, name, make, said)


def _function(name: str, body: str, said: str) -> Case:
  text = f"def f(key, logits, step):\n  {body}\n"
  return _module(name, text + "mine = relaxations.from_function(f)", said)


def _reference(name: str, reference: str, said: str) -> Case:
  return Case(
    "user parts",
    name,
    lambda folder: search(folder, "--relaxation", reference),
    said,
  )


def _fifo(folder: Path):
  os.mkfifo(folder / "mine.py")
  return search(folder, "--relaxation", f"{folder}/mine.py:mine")


CASES = [
  *(_function(*case) for case in _FUNCTIONS),
  *(_module(*case) for case in _MODULES),
  _module("a NUL", b"mine = 1\0", "cannot be imported"),
  _module("latin-1", "mine = 'é'".encode("latin-1"), "cannot be imported"),
  _module("a pickle", b"\x80\x04K\x01.", "cannot be imported"),
  _reference("no file", "nowhere.py:mine", "cannot be read"),
  _reference("no name", "nowhere.py:", "names no part"),
  _reference("code as a name", "a.py:__import__('os')", "names no part"),
  _reference("a device file", "/dev/zero:mine", "not a regular file"),
  _reference("a text file", "/etc/passwd:mine", "not a Python file"),
  Case("user parts", "a FIFO", _fifo, "not a regular file"),
]
