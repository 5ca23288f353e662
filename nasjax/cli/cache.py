"""JAX's persistent compilation cache in the user's cache folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import jax


def folder() -> Path:
  """Where compiled programs are kept, as the XDG base directories say."""
  base = os.environ.get("XDG_CACHE_HOME")
  root = Path(base) if base and os.path.isabs(base) else Path.home() / ".cache"
  return root / "nasjax" / "compilations"


def configure(wanted: bool) -> None:
  """Turns the cache on or off for this process.

  A folder that the user gave JAX (`JAX_COMPILATION_CACHE_DIR`) is kept. One
  that cannot be written to costs a line, not the run.

  Args:
    wanted: False with `--no-compilation-cache`.
  """
  if not wanted:
    jax.config.update("jax_enable_compilation_cache", False)
    return
  if jax.config.jax_compilation_cache_dir:
    return
  try:
    path = folder()
    path.mkdir(parents=True, exist_ok=True)
    writable = os.access(path, os.W_OK)
  except (OSError, RuntimeError):  # RuntimeError: there is no home
    writable = False
  if not writable:
    print(
      "no compilation cache: the cache folder cannot be written to",
      file=sys.stderr,
    )
    return
  jax.config.update("jax_compilation_cache_dir", str(path))
  # JAX keeps what took a second to compile; a start compiles 40 small programs.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
