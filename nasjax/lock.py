"""A run folder belongs to one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

NAME = ".lock"


class InUseError(RuntimeError):
  """Another process works in the run folder; exit code 5."""


@contextlib.contextmanager
def hold(folder: str | Path) -> Iterator[None]:
  """Holds the folder's lock; the system drops it when the process ends.

  Raises:
    InUseError: a live process has it.
    OSError: the lock cannot be made.
  """
  path = Path(folder) / NAME
  flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
  descriptor = os.open(path, flags, 0o644)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(descriptor, 200).decode("utf-8", "replace").strip()
      raise InUseError(
        f"{folder}: is in use by {holder or 'another process'}"
      ) from None
    # The file stays: removing it would let two processes lock two files.
    os.ftruncate(descriptor, 0)
    text = f"process {os.getpid()} on {platform.node()}\n"
    os.pwrite(descriptor, text.encode(), 0)
    try:
      yield
    finally:
      os.ftruncate(descriptor, 0)
  finally:
    os.close(descriptor)
