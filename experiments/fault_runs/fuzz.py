"""Fuzz of the readers: mutated tables, genotypes and configurations.

A mutated input must be read or refused with InputError, within seconds, and
no number that is not finite may come through.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_runs import bad_genotypes, bad_tables
from fault_runs.cases import Hang, limit

SECONDS = 60.0  # for one input; a machine that is busy must not fail it

# Pieces that readers stumble over.
_PIECES = [
  *(
    b"nan NaN inf -inf Infinity 1e999 -1e999 1_000 0,5 -1 0 1e5 .5 5. 0x1f 1:30"
    b" true null ~ --- ... !!python/name:os.system &a *a << \xff \xc3\x28 \x00"
    b" \xef\xbb\xbf \x1b[31m \\u0000 \\ud800 \" ' , ; : \t # [ ] { } [[[[ }}}}"
    b" __import__('os') 99999999999999999999 1.7976931348623159e308 |none~0|"
    b" none latency_ms energy_mj % @ ` > | ? - = \r \x0b \x0c \xe2\x80\xa8"
  ).split(b" "),
  b"\n",
  b" ",
  b"\n\n",
  b"9" * 5000,
  b"[" * 200,
  b"{" * 200,
  b'"' * 3,
]


def mutate(data: bytes, rng: random.Random) -> bytes:
  """Some bytes changed, cut out, doubled, moved or put in."""
  found = bytearray(data)
  for _ in range(rng.choice((1, 1, 2, 3, 8))):
    at = rng.randrange(len(found) + 1)
    end = min(len(found), at + rng.choice((1, 1, 2, 5, 40)))
    kind = rng.randrange(7)
    if kind == 0 and at < len(found):
      found[at] = rng.randrange(256)
    elif kind == 1:
      del found[at:end]
    elif kind == 2:
      found[at:at] = found[at:end]
    elif kind == 3:
      found[at:end] = rng.choice(_PIECES)
    elif kind == 4:
      found[at:at] = rng.choice(_PIECES)
    elif kind == 5:
      del found[at:]
    else:
      _replace_word(found, rng)
  return bytes(found)


def _replace_word(found: bytearray, rng: random.Random) -> None:
  """Puts a piece in the place of a whole word or number."""
  place = rng.randrange(len(found) + 1)
  start = end = place
  while start and bytes(found[start - 1 : start]).isalnum():
    start -= 1
  while end < len(found) and bytes(found[end : end + 1]).isalnum():
    end += 1
  found[start:end] = rng.choice(_PIECES)


def infinite(value: Any) -> bool:
  """Whether a number anywhere in `value` is not finite."""
  if isinstance(value, float):
    return not math.isfinite(value)
  if isinstance(value, dict):
    return any(infinite(v) for v in (*value.keys(), *value.values()))
  if isinstance(value, (list, tuple)):
    return any(map(infinite, value))
  return False


def readers() -> dict[str, tuple[list[bytes], Callable[[Path], Any]]]:
  """What is fuzzed: good inputs, and the function that reads them."""
  from nasjax import spaces
  from nasjax.cli import config as configs
  from nasjax.cli.parts import built_ins
  from nasjax.hardware import table
  from nasjax.spaces import genotype

  config = configs.SearchConfig(
    limit=("macs=3e5", "params=4000"), warmup=0.25, temperature=2.0
  )

  def read_table(path):
    found = table.read(path)
    return list(found.rows.values()), dict(found.header)

  def read_config(path):
    found = configs.from_flags(configs.SearchConfig, {}, str(path))
    return dataclasses.asdict(found)

  def read_genotype(path):
    found, value = genotype.read(path, built_ins(spaces))
    return found.names(), value

  genotypes = (bad_genotypes.GOOD, bad_genotypes.EDGE)
  return {
    "table.csv": ([bad_tables.good().encode()], read_table),
    "genotype.json": (
      [json.dumps(g, indent=1).encode() for g in genotypes],
      read_genotype,
    ),
    "config.yaml": ([configs.to_yaml(config).encode()], read_config),
  }


def run(count: int, folder: Path, seed: int = 0) -> tuple[dict, list[str]]:
  """Reads `count` mutated inputs.

  Returns:
    ({file: (cases, read, refused, longest seconds)}, what went wrong).
  """
  from nasjax.errors import InputError, one_line

  rng, counts, wrong = random.Random(seed), {}, []
  kinds = readers()
  for name, (goods, read) in kinds.items():
    for good in goods:  # else every mutated input would be refused rightly
      (folder / name).write_bytes(good)
      read(folder / name)
  for number in range(count):
    name = list(kinds)[number % len(kinds)]
    goods, read = kinds[name]
    data = mutate(rng.choice(goods), rng)
    path = folder / name
    path.write_bytes(data)
    cases, took, refused, longest = counts.get(name, (0, 0, 0, 0.0))
    start, problem = time.monotonic(), ""
    try:
      with limit(SECONDS):
        value = read(path)
      took += 1
      if infinite(value):
        problem = "a number that is not finite was read"
    except InputError as error:
      refused += 1
      line = one_line(f"error: {error}")
      if not line.isprintable() or len(line) > 400 or name not in line:
        problem = f"a bad message: {line!r}"
    except Hang:
      problem = f"hangs: over {SECONDS:g} s"
    except Exception as error:  # a traceback is what we look for
      problem = f"{type(error).__name__}: {error}"
    longest = max(longest, time.monotonic() - start)
    counts[name] = (cases + 1, took, refused, longest)
    if problem:
      wrong.append(f"{name} case {number}: {problem}; {data[:3000]!r}")
  return counts, wrong
