"""Signals: the first asks for an orderly stop, the second ends at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

_CAUGHT = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
  """A signal asked for a stop and what had to be saved is saved."""

  def __init__(self, number: int):
    """Makes it of the signal's number."""
    self.code = 128 + number  # the exit code
    super().__init__(f"stopped by {signal.Signals(number).name}")


class Stop:
  """Whether a signal has come."""

  def __init__(self):
    """No signal yet."""
    self.signal: int | None = None

  def check(self) -> None:
    """Raises Stopped if a signal has come."""
    if self.signal is not None:
      raise Stopped(self.signal)


class Ending:
  """The handler of a process that ends when its work is done.

  Once a block of `caught` is left, a signal has nothing to stop any more and
  is ignored; before the first, it ends the process as it does by default.
  """

  def __init__(self):
    """Work is to come; handles the signals from now on."""
    self.worked = False
    for number in _CAUGHT:
      signal.signal(number, self)

  def __call__(self, number, frame):
    """The handler."""
    if self.worked:
      return
    if number == signal.SIGINT:
      signal.default_int_handler(number, frame)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)

  def ignore(self) -> None:
    """Ignores signals also while the interpreter shuts down."""
    for number in _CAUGHT:
      signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def caught() -> Iterator[Stop]:
  """Turns SIGTERM and SIGINT into a flag that the work polls.

  A thread of its own reads the signals, so that a second one ends the process
  at once even while the first waits for a compiled call. Outside the main
  thread nothing is caught. The earlier handlers come back at the end.
  """
  stop = Stop()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
  os.set_blocking(reading, True)

  def watch():
    while number := os.read(reading, 1)[0]:
      if number not in _CAUGHT:
        continue
      if stop.signal is not None:
        os._exit(128 + number)
      stop.signal = number

  def ignore(number, frame):
    # Python writes the number to the pipe; a handler must exist for that.
    del number, frame

  thread = threading.Thread(target=watch, daemon=True, name="nasjax-signals")
  before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  handlers = {}
  try:
    thread.start()
    for number in _CAUGHT:
      handlers[number] = signal.signal(number, ignore)
    yield stop
  finally:
    for number, handler in handlers.items():
      if isinstance(handler, Ending):
        handler.worked = True
      signal.signal(number, signal.SIG_DFL if handler is None else handler)
    signal.set_wakeup_fd(before)
    os.write(writing, b"\0")
    thread.join()
    os.close(reading)
    os.close(writing)
