"""Command lines that cannot be carried out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fault_runs.cases import Case, search, write

_MEASURE = ["hw", "measure", "--image-shape", "8x8x1"]


def _words(name: str, words: Sequence[str], said: str) -> Case:
  return Case("command line", name, lambda folder: words, said)


def _search(name: str, words: Sequence[str], said: str) -> Case:
  return Case("command line", name, lambda folder: search(folder, *words), said)


def _measure(name: str, words: Sequence[str], said: str) -> Case:
  return _words(f"hw measure: {name}", [*_MEASURE, *words], said)


_COMMANDS = [
  _words("unknown command", ["serch"], "did you mean search?"),
  _words("a command of code", ["__import__('os')"], "unknown command"),
  _words("a command with escapes", ["\x1b[31m"], "unknown command"),
  _words("a huge command", ["x" * 10**5], "unknown command"),
  _words("an empty command", [""], "unknown command"),
  _words("unknown tool", ["hw", "measur"], "did you mean measure?"),
  _words("no tool", ["hw"], "TOOL"),
  _words("a flag before the command", ["--dat", "search"], "--dat"),
  _words("unknown flag of doctor", ["doctor", "--debgu"], "mean --debug?"),
  _words("unknown flag of show", ["show", "a", "--fromat", "b"], "--format?"),
  _words("nothing to show", ["show"], "PATH-or-STRING"),
  _words("two things to show", ["show", "a", "b"], "unexpected 'b'"),
  _search("unknown flag", ["--learning-rat", "1"], "mean --learning-rate?"),
  _search("a flag of code", ["--__import__('os')"], "unknown flag"),
  _search("a flag with escapes", ["--\x1b[2J=1"], "unknown flag"),
  _search("a flag cut short", ["--lim", "macs=1"], "mean --limit?"),
  _search("one dash", ["-epochs", "3"], "mean --epochs?"),
  _search("a flag without its value", ["--epochs"], "--epochs"),
  _search("a list without values", ["--limit"], "--limit"),
  _search("a value too many", ["--epochs", "1", "2"], "unexpected '2'"),
  _search("a value of a switch", ["--force=1"], "--force"),
  _search("epochs of words", ["--epochs", "many"], "not a number"),
  _search("epochs with _", ["--epochs", "1_0"], "not a number"),
  _search("epochs in other digits", ["--epochs", "٣"], "not a number"),
  _search("epochs NaN", ["--epochs", "nan"], "not a finite number"),
  _search("epochs huge", ["--epochs", "9" * 5000], "--epochs"),
  _search("learning rate -1", ["--learning-rate", "-1"], "below 0"),
  _search("seed -1", ["--seed", "-1"], "below 0"),
  _search("seed of 33 bits", ["--seed", "4294967296"], "at most"),
  _search("batch size of all", ["--batch-size", "1000"], "training images"),
  _search("unknown relaxation", ["--relaxation", "gdsa"], "did you mean gdas?"),
  _search("unknown augmentation", ["--augment", "flop"], "did you mean flip?"),
  _search("another space's flag", ["--links", "dense"], "has none"),
  _search("a limit without value", ["--limit", "macs"], "has no value"),
  _search("a limit without name", ["--limit", "=1"], "NAME=VALUE"),
  _search("an unknown limit", ["--limit", "mcas=1"], "mean macs?"),
  _search("a limit of 0", ["--limit", "macs=0"], "above 0"),
  _search("a limit NaN", ["--limit", "macs=nan"], "not a finite"),
  _search("a limit beyond float32", ["--limit", "macs=1e300"], "at most"),
  _search("a coefficient of 1e300", ["--objective", "params=1e300"], "at most"),
  _search("a limit that nothing keeps", ["--limit", "macs=1"], "smallest"),
  _search("a limit twice", ["--limit", "macs=1e6", "macs=2e6"], "twice"),
  _search(
    "absent device", ["--device", "x86-servr"], "did you mean x86-server"
  ),
  _search("unknown device", ["--device", "toaster"], "no such device"),
  _search(
    "a limit on no device", ["--limit", "a:latency_ms=1"], "a:latency_ms"
  ),
  _measure("one side", ["--image-shape", "8"], "HEIGHTxWIDTHxCHANNELS"),
  _measure("a side of 0", ["--image-shape", "0x8x1"], "below 1"),
  _measure("a side of 1.5", ["--image-shape", "8x1.5x1"], "whole number"),
  _measure("a side of 10^9", ["--image-shape", "8x1000000000x1"], "at most"),
  _measure("a side NaN", ["--image-shape", "8xnanx1"], "finite"),
  _measure("channels of words", ["--channels", "many"], "not a number"),
  _measure("channels 10^9", ["--channels", "1000000000"], "at most"),
  _measure("one class", ["--num-classes", "1"], "below 2"),
  _measure("batch 10^9", ["--batch", "1000000000"], "at most"),
  _measure("unknown runtime", ["--runtime", "tflite"], "tflite"),
  _measure(
    "a device's name of code", ["--device", "a:b=c"], "no device's name"
  ),
  _measure("a device's name with escapes", ["--device", "a\x1b"], "--device"),
  _measure("no folder", ["--out", "nowhere/t.csv"], "does not exist"),
  _measure("another ending", ["--out", "t.json"], ".csv"),
]


def _existing(kind: str, words: Callable, said: str) -> Case:
  return Case("command line", f"out exists: {kind}", words, said)


def _out_of(folder, name: str, content: str = "x") -> list:
  (folder / "out").mkdir()
  write(folder / "out" / name, content)
  return search(folder)


def _out_file(folder):
  write(folder / "out", "")
  return search(folder)


def _out_link(folder):
  (folder / "out").symlink_to(folder / "nowhere")
  return search(folder)


def _out_table(folder):
  write(folder / "t.csv", "x")
  return [*_MEASURE, "--out", str(folder / "t.csv")]


def _append_to_text(folder):
  write(folder / "t.csv", "hello")
  return [*_MEASURE, "--append", "--out", str(folder / "t.csv")]


def _append_to_folder(folder):
  (folder / "t.csv").mkdir()
  return [*_MEASURE, "--append", "--out", str(folder / "t.csv")]


_OUTPUTS = [
  _existing("a run", lambda f: _out_of(f, "genotype.json"), "--force"),
  _existing("other files", lambda f: _out_of(f, "thesis.tex"), "--force"),
  _existing("a file", _out_file, "is a file"),
  _existing("a link to nothing", _out_link, "link"),
  _existing(
    "in a device", lambda f: search(f, "--out", "/dev/null/x"), "--out"
  ),
  _existing("a device", lambda f: search(f, "--out", "/dev/null"), "is a file"),
  _existing("a long name", lambda f: search(f, "--out", "x" * 5000), "--out"),
  _existing("NUL", lambda f: search(f, "--out", "a\0b"), "--out"),
  _existing("an empty name", lambda f: search(f, "--out", ""), "--out"),
  _existing("a table", _out_table, "--force"),
  _existing("append to a text", _append_to_text, "t.csv"),
  _existing("append to a folder", _append_to_folder, "t.csv"),
]

_STRING = "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|"


def _process(name: str, words, said="", code=2, shell="") -> Case:
  return Case("command line", name, lambda f: words, said, code, True, shell)


_PROCESSES = [
  _process("not UTF-8: command", [b"\xff\xfe"], "is not UTF-8"),
  _process("not UTF-8: data", ["search", "--data", b"\xff.npz"], "UTF-8"),
  _process("not UTF-8: out", ["search", "--out", b"\xff"], "UTF-8"),
  _process("not UTF-8: show", ["show", b"\x80"], "UTF-8"),
  _process(
    "closed pipe: show",
    ["show", _STRING],
    code=141,
    shell='"$@" | true; exit ${PIPESTATUS[0]}',
  ),
  _process(
    "closed pipe: doctor",
    ["doctor"],
    code=141,
    shell='"$@" | true; exit ${PIPESTATUS[0]}',
  ),
  _process(
    "closed pipe: help",
    ["search", "--help"],
    code=141,
    shell='"$@" | true; exit ${PIPESTATUS[0]}',
  ),
  _process(
    "closed pipe: main help",
    [],
    code=141,
    shell='"$@" | true; exit ${PIPESTATUS[0]}',
  ),
  _process("closed output: show", ["show", _STRING], code=0, shell='"$@" >&-'),
  _process("closed output: help", ["--help"], code=0, shell='"$@" >&-'),
  _process(
    "full output: show", ["show", _STRING], "No space", 4, '"$@" >/dev/full'
  ),
  _process("full output: doctor", ["doctor"], "No space", 4, '"$@" >/dev/full'),
  _process(
    "closed error output",
    ["serch"],
    code=2,
    shell='"$@" 2>&- ; echo e >&2; exit 2',
  ),
  _process(
    "an ASCII terminal",
    ["show", "é.json"],
    "neither",
    shell='LC_ALL=C PYTHONIOENCODING=ascii "$@"',
  ),
  _process(
    "absent JAX platform",
    ["doctor"],
    "JAX_PLATFORMS=cuda",
    shell='JAX_PLATFORMS=cuda "$@"',
  ),
  _process(
    "unknown JAX platform",
    ["search"],
    "JAX_PLATFORMS=toaster",
    shell='JAX_PLATFORMS=toaster "$@"',
  ),
]

CASES = [*_COMMANDS, *_OUTPUTS, *_PROCESSES]
