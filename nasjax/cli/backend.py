"""The back end that JAX is to run on, started before anything needs it."""

from __future__ import annotations

import os

import jax

from nasjax.errors import InputError
from nasjax.reader import one_problem


def start() -> None:
  """Starts JAX's back end.

  Raises:
    InputError: the platform that the environment names is not on this machine.
  """
  try:
    jax.devices()
  # AssertionError: what JAX makes of a platform whose plugin is missing.
  except (RuntimeError, AssertionError) as error:
    asked = os.environ.get("JAX_PLATFORMS", "")
    raise InputError(
      f"JAX_PLATFORMS={asked}",
      f"JAX has no such platform here: {one_problem(error)}",
      "name a platform that this machine has, as cpu",
    ) from None
