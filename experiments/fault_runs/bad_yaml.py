"""Malformed run configurations, given as --config."""

from __future__ import annotations

from collections.abc import Callable

from fault_runs.cases import Case, write

_BOMB = "a: &a [x, x]\n" + "".join(
  f"{b}: &{b} [*{a}, *{a}]\n"
  for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
_TEXTS: list[tuple[str, Callable[[], str | bytes] | str, str]] = [
  ("unknown key", "sped: 3", "did you mean seed?"),
  ("key of code", "__import__('os'): 3", "unknown key"),
  ("key with escapes", '"\\e[31m": 3', "unknown key"),
  ("key twice", "seed: 1\nseed: 2", ":2: key 'seed' stands there twice"),
  ("key a number", "1: 2", "unknown key"),
  ("key a list", "[1]: 2", "no name"),
  ("key a mapping", "? {a: b}\n: 2", "no name"),
  ("merge key", "<<: {seed: 1}", "unknown key"),
  ("nested mapping", "seed: {a: 1}", "seed"),
  ("a list", "[1, 2]", "not a mapping"),
  ("a word", "search", "not a mapping"),
  ("two documents", "seed: 1\n---\nseed: 2", "document"),
  ("open bracket", "limit: [macs=1", "run.yaml"),
  ("open quote", 'space: "edge', "run.yaml"),
  ("tabs", "seed:\n\t1", "run.yaml"),
  ("bad indentation", "seed: 1\n  epochs: 2", "run.yaml"),
  ("an alias", "seed: &a 1\nepochs: *a", "aliases are refused"),
  ("an unknown alias", "seed: *a", "aliases are refused"),
  ("an alias bomb", _BOMB, "aliases are refused"),
  ("an alias of itself", "limit: &a [*a]", "aliases are refused"),
  ("a Python tag", "seed: !!python/object/apply:os.system ['true']", "the tag"),
  ("a Python name", "seed: !!python/name:os.system ''", "the tag"),
  ("a Python tuple", "limit: !!python/tuple [a]", "the tag"),
  ("a binary tag", "space: !!binary ZWRnZQ==", "the tag"),
  ("a set tag", "limit: !!set {a, b}", "the tag"),
  ("an own tag", "seed: !mine 1", "the tag"),
  ("a string tag", "seed: !!str 1", "the tag"),
  ("an integer tag", 'seed: !!int "1"', "the tag"),
  ("a tagged mapping", "!!map {seed: 1}", "the tag"),
  ("a tag directive", "%TAG ! tag:x,2000:\n---\nseed: !a 1", "the tag"),
  ("YAML 9.0", "%YAML 9.0\n---\nseed: 1", "run.yaml"),
  ("deep lists", "limit: " + "[" * 100 + "]" * 100, "64 deep"),
  ("very deep lists", "limit: " + "[" * 10**5, "run.yaml"),
  ("deep mappings", "\n".join(" " * i + "a:" for i in range(200)), "64 deep"),
  *(
    (f"seed {text}", f"seed: {text}", "seed")
    for text in (
      ".nan",
      ".NaN",
      "nan",
      ".inf",
      "-.inf",
      "1e999",
      "1.0e+999",
      "1.5",
      "-1",
      "1_000",
      "1:30",
      "0x10",
      "0b1",
      "0o7",
      "many",
      "true",
      "no",
      "null",
      "''",
      "[1, 2]",
      "[]",
      "{}",
      "2026-11-24",
      "4294967296",
      "99999999999999999999",
      '"1\\e[31m"',
    )
  ),
  ("seed of 5000 digits", "seed: " + "9" * 5000, "run.yaml"),
  ("epochs 0", "epochs: 0", "epochs"),
  ("epochs 10^12", "epochs: 1000000000000", "epochs"),
  ("warmup 2", "warmup: 2", "warmup"),
  ("warmup below 0", "warmup: -0.1", "warmup"),
  ("learning rate a word", "learning_rate: fast", "learning_rate"),
  ("learning rate below 0", "learning_rate: -1", "learning_rate"),
  ("learning rate 1e300", "learning_rate: 1e300", "learning_rate"),
  ("penalty strength 0", "penalty_strength: 0", "strength"),
  ("channels 10^9", "channels: 1000000000", "channels"),
  ("cells 10^9", "space: nasbench201\ncells: 1000000000", "cells"),
  ("nodes 10^9", "nodes: 1000000000", "nodes"),
  ("image size 10^9", "image_size: 1000000000", "image_size"),
  ("temperature NaN", "temperature: .nan", "temperature"),
  ("stop_on_skips 3", "stop_on_skips: 3", "stop"),
  ("operation_dropout 3", "operation_dropout: 3", "dropout"),
  ("max_dataset_bytes 0", "max_dataset_bytes: 0", "max_dataset_bytes"),
  ("max_dataset_bytes too few", "max_dataset_bytes: 10", "at most 10"),
  ("space a list", "space: [edge]", "space"),
  ("space null", "space:", "space"),
  ("space true", "space: true", "space"),
  ("space unknown", "space: egde", "did you mean edge?"),
  ("limit of numbers", "limit: [1]", "limit"),
  ("limit nested", "limit: [[macs=1]]", "limit"),
  ("limit null", "limit: [null]", "limit"),
  ("limit NaN", "limit: [macs=nan]", "limit"),
  ("limit 1e999", "limit: [macs=1e999]", "limit"),
  ("device twice", "device: [x86-server, x86-server]", "twice"),
  ("objective empty", "objective: []", "objective"),
  ("objective unknown", "objective: [lose]", "unknown objective"),
  ("out a list", "out: [a]", "out"),
  ("out with NUL", 'out: "a\\0b"', "out"),
  ("out with escapes", 'out: "a\\eb"', "out"),
  ("latin-1", "space: é".encode("latin-1"), "not UTF-8"),
  ("UTF-16", "seed: 1".encode("utf-16"), "not UTF-8"),
  ("NUL", "seed: 1\0", "NUL"),
  ("a control character", "seed: 1\x07", "run.yaml"),
  ("a pickle", b"\x80\x04K\x01.", "not UTF-8"),
  ("huge", "# " + "x" * 2**21, "at most"),
  ("JSON with a key twice", '{"seed": 1, "seed": 2}', "twice"),
]


def _case(name, text, said) -> Case:
  def make(folder):
    path = write(folder / "run.yaml", text)
    return ["search", "--config", str(path)]

  return Case("YAML", name, make, said)


CASES = [_case(*case) for case in _TEXTS]
CASES += [
  Case("YAML", name, lambda f, p=path: ["search", "--config", p], said)
  for name, path, said in (
    ("no such file", "nowhere.yaml", "cannot be read"),
    ("a folder", "/tmp", "not a regular file"),
    ("a device file", "/dev/zero", "not a regular file"),
    ("an empty name", "", "not a regular file"),
  )
]
