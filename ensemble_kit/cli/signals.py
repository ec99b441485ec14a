"""SIGHUP, SIGINT and SIGTERM end a command cleanly, and in any case within two seconds: exit 129, 130, 143.

Light on purpose: `ensemble_kit.__main__` listens before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
GRACE = 1.5
"""Seconds that a signalled command has to end cleanly; then it is ended as by a kill, which is safe."""


_LOST = 0
"""Written beside the signals' numbers: what was raised for the last one was dropped on its way."""

_words = b""


def say_at_end(words: str) -> None:
    """Say something more if a signal ends the process from now on, whichever way it ends; "" says nothing more."""
    global _words  # noqa: PLW0603 - `end` runs in a handler, or in a thread beside a main thread that hangs
    _words = f"{words}\n".encode(errors="backslashreplace") if words else b""


class Signalled(BaseException):
    """A signal asks the process to end; raised in the main thread so that every `finally` runs.

    Parameters
    ----------
    number : of the signal.
    dropped : is told the number when this is forgotten; whoever heeds it ends the process before.
    """

    def __init__(self, number: int, dropped: Callable[[int], None] | None = None) -> None:
        self.number, self._dropped = number, dropped

    def __del__(self) -> None:
        if self._dropped is not None:
            self._dropped(self.number)


def end(number: int, _: FrameType | None = None) -> None:
    """Exit as a signal asks, without waiting for the threads that still compute."""
    name = signal.Signals(number).name
    try:  # noqa: SIM105 - a signal may come while contextlib is half imported
        os.write(2, b"\n" + _words + f"ended by {name}; run the same command again to continue\n".encode())
    except OSError:  # nobody reads stderr
        pass
    os._exit(128 + number)


def listen_early() -> None:
    """End at once on a signal, without a traceback: nothing has begun that needs cleaning up."""
    for number in ENDING:
        signal.signal(number, end)


def listen() -> None:
    """From here on raise `Signalled` in the main thread, and end the process if that does not end it.

    Python handles a signal only between two bytecodes, and a network's forward pass over a large image is one call of
    a minute.
    """
    import _thread
    import select
    import threading
    import time

    main, (heard, told) = threading.get_ident(), os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)

    def wait() -> None:
        number = 0
        while number not in ENDING:
            number = os.read(heard, 1)[0]
        until, ours = time.monotonic() + GRACE, False
        while select.select([heard], [], [], max(0.0, until - time.monotonic()))[0]:
            byte = os.read(heard, 1)[0]
            if byte == _LOST:
                ours = True
                time.sleep(0.02)  # until it was dropped
                _thread.interrupt_main(signal.Signals(number))
            elif ours:  # what `interrupt_main` wrote
                ours = False
            else:  # a second signal
                break
        end(number)

    def raise_again(number: int) -> None:
        """In a `__del__` Python cannot raise, and a library may drop what it caught: the signal would be lost."""
        if threading.get_ident() != main:
            end(number)  # handlers are set in the main thread alone
        signal.signal(number, raise_in)
        os.write(told, bytes([_LOST]))

    def forget(lost: sys.UnraisableHookArgs) -> None:
        if not isinstance(lost.exc_value, Signalled):
            sys.__unraisablehook__(lost)

    def raise_in(number: int, _: FrameType | None) -> None:
        for other in ENDING:
            signal.signal(other, signal.SIG_DFL)  # a second one ends the process at once
        raise Signalled(number, raise_again)

    threading.Thread(target=wait, name="ensk-signals", daemon=True).start()
    sys.unraisablehook = forget
    for number in ENDING:
        signal.signal(number, raise_in)


def ignore() -> None:
    """Ignore signals: the work is done, and its exit code stands while Python shuts down."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def signal_behind(error: BaseException | None) -> Signalled | None:
    """Find the signal behind an error: Python 3.11 wraps what is raised while a class is created."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Signalled):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
