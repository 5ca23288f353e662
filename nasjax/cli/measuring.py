"""`--measured`: costs that a device finds while an evolution runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nasjax.errors import InputError
from nasjax.hardware import bundle, in_loop, measured
from nasjax.reader import load_part
from nasjax.spaces.space import Architecture

ONNXRUNTIME = "onnxruntime"

Measure = Callable[[Architecture], dict[str, float]]


def make(reference: str, batch: int) -> Measure:
  """What a word of `--measured` names.

  Args:
    reference: `onnxruntime`, a command line with `{onnx}`, or
      path/to/file.py:name, a function of an architecture.
    batch: images in a call of onnxruntime.

  Returns:
    architecture -> {metric: value}.

  Raises:
    InputError: there is no such thing.
  """
  if reference == ONNXRUNTIME:
    return measured.function(in_loop.onnxruntime_latency(batch=batch))
  if measured.PLACE in reference:
    return measured.command(reference, model=bundle.decided_model)
  return measured.function(load_part(reference, "--measured"))


def names(measure: Measure, architecture: Any, used: list[str]) -> list[str]:
  """The metrics that it measures, by trying it once.

  Args:
    measure: of `make`.
    architecture: any.
    used: the metrics that the search minimises or limits.

  Returns:
    Those of them that are measured.

  Raises:
    InputError: none is.
  """
  given = measure(architecture)
  found = [name for name in used if name in given]
  if not found:
    raise InputError(
      "--measured",
      f"gives {', '.join(given)}, which is neither minimised nor limited",
      f"the search uses {', '.join(used)}",
    )
  return found
