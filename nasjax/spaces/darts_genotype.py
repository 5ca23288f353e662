"""Genotypes of DARTS cells in the field's form, read by a strict grammar.

    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ...],
             normal_concat=[2, 3, 4, 5], reduce=[...], reduce_concat=[...])

as `str` of the reference code's named tuple gives it: two pairs (operation,
node that it reads) for each node of a cell, nodes 0 and 1 being the outputs of
the two cells before. Nothing is evaluated.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from nasjax.errors import InputError, nearest
from nasjax.spaces import space as spaces
from nasjax.spaces.darts import INPUTS, KEPT, OPERATIONS, edges

__all__ = ["DARTS_V2", "Genotype", "from_genotype", "parse", "to_genotype"]

_REAL = tuple(name for name in OPERATIONS if name != "none")
_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_WHERE = "genotype"
_LONGEST = 20_000  # characters
_PAIR = re.compile(r"\(\s*(['\"])([^'\"()]{0,64})\1\s*,\s*(\d{1,4})\s*,?\s*\)")
_NODE = re.compile(r"\d{1,4}")
_RANGE = re.compile(r"range\(\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)")
_SPACE = re.compile(r"\s*")

# The cells found by second-order DARTS on CIFAR-10 (the paper's figure 5, and
# the reference code's genotypes.py).
DARTS_V2 = (
  "Genotype("
  "normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
  "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), "
  "('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], "
  "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
  "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), "
  "('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


class Genotype(NamedTuple):
  """Two cells; str() of it is the field's form."""

  normal: list[tuple[str, int]]
  normal_concat: list[int]
  reduce: list[tuple[str, int]]
  reduce_concat: list[int]


class _Text:
  """A place in a text; every step says where it is wrong."""

  def __init__(self, text: str):
    self.text, self.at = text, 0

  def fail(self, wanted: str) -> InputError:
    found = self.text[self.at : self.at + 20]
    return InputError(
      _WHERE,
      f"character {self.at + 1}: {wanted} is needed, not"
      + (f" {found!r}" if found else " the end"),
    )

  def skip(self) -> None:
    self.at = _SPACE.match(self.text, self.at).end()

  def has(self, word: str) -> bool:
    """Takes `word` if it stands here."""
    self.skip()
    found = self.text.startswith(word, self.at)
    self.at += len(word) if found else 0
    return found

  def take(self, word: str) -> None:
    if not self.has(word):
      raise self.fail(repr(word))

  def match(self, pattern: re.Pattern, wanted: str) -> re.Match:
    self.skip()
    found = pattern.match(self.text, self.at)
    if found is None:
      raise self.fail(wanted)
    self.at = found.end()
    return found

  def items(self, pattern: re.Pattern, wanted: str) -> list[re.Match]:
    """A list in brackets."""
    self.take("[")
    found: list[re.Match] = []
    while not self.has("]"):
      if found:
        self.take(",")
        if self.has("]"):  # Python allows a comma at the end
          break
      found.append(self.match(pattern, wanted))
    return found


def parse(text: str) -> Genotype:
  """Reads a genotype's text; `range(2, 6)` may stand for a list of nodes.

  Raises:
    InputError: names the character at which it is no genotype, or the
      operation that does not exist and the nearest one that does.
  """
  if len(text) > _LONGEST:
    raise InputError(
      _WHERE, f"has {len(text)} characters, at most {_LONGEST} are read"
    )
  place = _Text(text)
  place.take("Genotype")
  place.take("(")
  values = {}
  for number, field in enumerate(_FIELDS):
    if number:
      place.take(",")
    place.take(field)
    place.take("=")
    if field.endswith("_concat"):
      values[field] = _nodes(place)
    else:
      values[field] = _pairs(place, field)
  place.has(",")
  place.take(")")
  place.skip()
  if place.at != len(text):
    raise place.fail("the end")
  return Genotype(**values)


def _nodes(place: _Text) -> list[int]:
  place.skip()
  if place.text.startswith("range", place.at):
    found = place.match(_RANGE, "range(FIRST, LAST + 1)")
    return list(range(int(found[1]), int(found[2])))
  return [int(n[0]) for n in place.items(_NODE, "a node's number")]


def _pairs(place: _Text, field: str) -> list[tuple[str, int]]:
  found = place.items(_PAIR, "('operation', node)")
  for number, pair in enumerate(found):
    if pair[2] not in _REAL:
      raise InputError(
        f"{_WHERE} {field}[{number}]",
        f"unknown operation {pair[2][:40]!r}",
        nearest(pair[2], _REAL),
      )
  return [(pair[2], int(pair[3])) for pair in found]


def from_genotype(space, genotype: Genotype | str) -> spaces.Architecture:
  """The architecture of `space` that a genotype names.

  Args:
    space: of `darts`, with as many nodes.
    genotype: the genotype or its text.

  Returns:
    The architecture.

  Raises:
    InputError: names what is wrong and where: another number of nodes, a node
      that reads itself, a later one or one twice, or other nodes at the end.
  """
  if isinstance(genotype, str):
    genotype = parse(genotype)
  nodes = space.arguments["nodes"]
  choices = {
    "normal": _choices(genotype.normal, nodes, "normal"),
    "reduce": _choices(genotype.reduce, nodes, "reduce"),
  }
  for field in ("normal_concat", "reduce_concat"):
    found = list(getattr(genotype, field))
    wanted = list(range(INPUTS, INPUTS + nodes))
    if sorted(found) != wanted:
      raise InputError(
        f"{_WHERE} {field}", f"is {str(found)[:60]}, {wanted} is needed"
      )
  return spaces.architecture(space, choices)


def _choices(pairs, nodes: int, field: str) -> list[str]:
  if len(pairs) != KEPT * nodes:
    raise InputError(
      f"{_WHERE} {field}",
      f"has {len(pairs)} pairs, {KEPT * nodes} are needed: {KEPT} for each of"
      f" the space's {nodes} nodes",
    )
  ends = edges(nodes)
  row = ["none"] * len(ends)
  for number, (name, source) in enumerate(pairs):
    node, where = INPUTS + number // KEPT, f"{_WHERE} {field}[{number}]"
    if (source, node) not in ends:
      raise InputError(
        where,
        f"node {node} reads node {source}",
        f"it can read 0 to {node - 1}",
      )
    edge = ends.index((source, node))
    if row[edge] != "none":
      raise InputError(where, f"node {node} reads node {source} twice")
    row[edge] = name
  return row


def to_genotype(architecture: spaces.Architecture) -> Genotype:
  """The genotype of an architecture of `darts`.

  Raises:
    InputError: a node does not read exactly two others.
  """
  spaces.check_connected(architecture)
  names, nodes = architecture.names(), architecture.space.arguments["nodes"]
  concat = list(range(INPUTS, INPUTS + nodes))
  pairs = {
    group: [
      (name, source)
      for name, (source, _) in zip(names[group], edges(nodes), strict=True)
      if name != "none"
    ]
    for group in ("normal", "reduce")
  }
  return Genotype(pairs["normal"], concat, pairs["reduce"], list(concat))
