"""Progress in words: what is known of a run so far, and the lines that a log gets."""

from __future__ import annotations

import time

from ensemble_kit.cli.plain import size
from ensemble_kit.cli.streams import printable, talk
from ensemble_kit.execution.events import Listener, Progress

EVERY = 10.0
"""Seconds between two lines of a log."""


class Pace:
    """The rate of what is being done, measured from the first event of each run."""

    def __init__(self) -> None:
        self.last: Progress | None = None
        self._start = 0.0

    def hear(self, event: Progress) -> None:
        """Take in an event; another verb, or a count that begins again, is another run."""
        if self.last is None or event.verb != self.last.verb or event.new < self.last.new:
            self._start = time.monotonic()
        self.last = event

    def facts(self) -> list[str]:
        """Say what is known beside the count: rate, time left, bytes, note."""
        event = self.last
        if event is None:
            return []
        rate = event.new / max(time.monotonic() - self._start, 1e-9)
        facts = []
        if event.new:
            facts.append(f"{rate:.1f} {'trials' if event.note else 'samples'}/s")
        if event.new and event.done < event.total:
            left = int((event.total - event.done) / rate)
            facts.append(f"ETA {left // 60}:{left % 60:02d}")
        if event.bytes:
            facts.append(size(event.bytes))
        if event.note:
            facts.append(printable(event.note))
        return facts


class Lines:
    """Log progress on stderr: a line every ten seconds, and one at the end of what was done."""

    def __init__(self) -> None:
        self._pace, self._said = Pace(), time.monotonic()

    def __enter__(self) -> Listener:
        return self._hear

    def __exit__(self, *_: object) -> None:
        if self._pace.last is not None and self._pace.last.new:
            self._say(self._pace.last)

    def _hear(self, event: Progress) -> None:
        self._pace.hear(event)
        if time.monotonic() - self._said >= EVERY:
            self._say(event)

    def _say(self, event: Progress) -> None:
        self._said = time.monotonic()
        talk(" · ".join([f"{event.verb} {event.done}/{event.total}", *self._pace.facts()]))
