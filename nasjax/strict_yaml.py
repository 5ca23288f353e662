"""YAML as strictly read as JSON: plain words, no aliases, no key twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from nasjax.errors import InputError
from nasjax.reader import (
  MAX_CONFIG_BYTES,
  MAX_DEPTH,
  check_file,
  one_problem,
  read_text,
)


class _StrictLoader(yaml.SafeLoader):
  """PyYAML's safe loader without aliases, tags and repeated keys.

  Plain words are true, false, null, decimal numbers or text: YAML 1.1 takes
  `1_000`, `010`, `1:30` and `no` for other things than they look like.
  """

  yaml_implicit_resolvers: dict = {}

  def compose_node(self, parent, index):
    event = self.peek_event()
    if isinstance(event, yaml.events.AliasEvent):
      self._refuse("aliases are refused", event.start_mark)
    if getattr(event, "tag", None) is not None:
      self._refuse(f"the tag {event.tag[:40]} is refused", event.start_mark)
    self._depth += 1
    if self._depth > MAX_DEPTH:
      self._refuse(f"is nested more than {MAX_DEPTH} deep", event.start_mark)
    node = super().compose_node(parent, index)
    self._depth -= 1
    return node

  _depth = 0

  def _refuse(self, problem, mark):
    raise yaml.constructor.ConstructorError(None, None, problem, mark)

  def construct_mapping(self, node, deep=False):
    seen = set()
    for key_node, _ in node.value:
      key = key_node.value
      if not isinstance(key, str) or key in seen:
        self._refuse(
          f"key {str(key)[:40]!r} stands there twice or is no name",
          key_node.start_mark,
        )
      seen.add(key)
    return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
  ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
  ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
  ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
  (
    "float",
    r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?",
    "-+.0123456789",
  ),
):
  _StrictLoader.add_implicit_resolver(
    f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first)
  )


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
  """Reads a YAML mapping and the line of each of its top-level keys.

  Raises:
    InputError: no mapping, a key twice, an alias, a tag, bad syntax.
  """
  check_file(path, MAX_CONFIG_BYTES)
  text = read_text(path)
  try:
    loader = _StrictLoader(text)
    try:
      node = loader.get_single_node()
      if node is None:
        return {}, {}
      if not isinstance(node, yaml.MappingNode):
        raise InputError(str(path), "is not a mapping of names to values")
      for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
          line = key.start_mark.line + 1
          raise InputError(f"{path}:{line}", "a key is no name")
      lines = {k.value: k.start_mark.line + 1 for k, _ in node.value}
      return loader.construct_document(node), lines
    finally:
      loader.dispose()
  except yaml.MarkedYAMLError as error:
    mark = error.problem_mark or error.context_mark
    line = f":{mark.line + 1}" if mark else ""
    raise InputError(f"{path}{line}", error.problem or "bad YAML") from None
  except (yaml.YAMLError, RecursionError, ValueError) as error:
    if isinstance(error, InputError):
      raise
    raise InputError(str(path), one_problem(error)) from None
