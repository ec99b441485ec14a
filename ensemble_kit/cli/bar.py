"""Progress as a bar on a terminal, laid out by rich. Imported only where stderr is a terminal.

rich's own `Live` is not used: it hides the cursor, which a kill then leaves hidden, and ends the process where nobody
reads stderr.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from threading import RLock
from typing import Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ensemble_kit.cli.progress import Pace
from ensemble_kit.cli.streams import printable, say
from ensemble_kit.cli.terminal import console_for
from ensemble_kit.execution.events import Listener, Progress

EVERY = 0.1
"""Seconds between two drawings."""
_LEAST, _MOST = 8, 40  # cells of a bar


class Bar:
    """Keep a bar on the last line of a terminal, below whatever else is printed meanwhile.

    Parameters
    ----------
    stream : a terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._console = stream, console_for(stream)
        self._lock, self._pace, self._redirected = RLock(), Pace(), ExitStack()
        self._drawn, self._before = -math.inf, ""

    def __enter__(self) -> Listener:
        self._redirected.enter_context(redirect_stderr(cast("TextIO", _Above(sys.stderr, self))))
        if sys.stdout.isatty():
            self._redirected.enter_context(redirect_stdout(cast("TextIO", _Above(sys.stdout, self))))
        return self._hear

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._redirected.close()
        with self._lock:
            if self._pace.last is not None and kind is None:
                self._draw(self._pace.last)
            if self._before:
                say(self._stream, "\n")
            self._before = ""  # who kept a stream may still write

    def put_above(self, stream: TextIO, text: str) -> int:
        """Write text where the bar stands; the next event draws the bar below it."""
        with self._lock:
            if self._before.startswith("\r"):
                say(self._stream, self._before)
            self._before = "" if text.endswith("\n") else "\n"
            return stream.write(text)

    def _hear(self, event: Progress) -> None:
        with self._lock:
            self._pace.hear(event)
            if time.monotonic() - self._drawn >= EVERY:
                self._draw(event)

    def _draw(self, event: Progress) -> None:
        width = max(self._console.width - 1, 1)  # some terminals go to the next line after the last cell
        with self._console.capture() as drawn:
            self._console.print(_bar(event, self._pace.facts(), width), width=width)
        frame = drawn.get().rstrip("\n")
        say(self._stream, self._before + frame)
        self._before = "\r\x1b[K" + "\x1b[A\x1b[K" * frame.count("\n")
        self._drawn = time.monotonic()


class _Above:
    """A stream whose text goes above a bar."""

    def __init__(self, stream: TextIO, bar: Bar) -> None:
        self._stream, self._bar = stream, bar

    def write(self, text: str) -> int:
        return self._bar.put_above(self._stream, text) if text else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _bar(event: Progress, facts: list[str], width: int) -> RenderableType:
    """Lay out progress in one line; where it is too narrow, the facts go below the bar."""
    verb, count, beside = printable(event.verb), f"{event.done}/{event.total}", "".join(f" · {f}" for f in facts)
    room = width - cell_len(verb) - cell_len(count) - 2
    if room - cell_len(beside) >= _LEAST:
        return _line(event, verb, count + beside, room - cell_len(beside))
    head = _line(event, verb, count, room) if room >= _LEAST else Text(f"{verb} {count}", overflow="fold")
    return Group(head, *(Text(line, overflow="fold") for line in _filled(facts, width)))


def _line(event: Progress, before: str, behind: str, room: int) -> RenderableType:
    bar = ProgressBar(event.total, event.done, min(room, _MOST), complete_style="cyan", finished_style="green")
    line = Table.grid(padding=(0, 1, 0, 0))
    line.add_row(Text(before), bar, Text(behind))
    return line


def _filled(facts: list[str], width: int) -> list[str]:
    """Put as many facts on a line as fit."""
    lines: list[str] = []
    for fact in facts:
        if lines and cell_len(f"{lines[-1]} · {fact}") <= width:
            lines[-1] += f" · {fact}"
        else:
            lines.append(fact)
    return lines
