"""What a test has opened itself: descriptors and threads that were not there before.

In a process of many tests those of others end meanwhile, such as the threads of a cluster that was closed.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path


def _descriptors() -> set[tuple[str, str]]:
    found = set[tuple[str, str]]()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them is closed again
            found.add((path.name, str(path.readlink())))
    return found


class Opened:
    """Count from now on."""

    def __init__(self) -> None:
        self._files, self._threads = _descriptors(), set(threading.enumerate())

    def descriptors(self) -> int:
        """Return how many are open that were not."""
        return len(_descriptors() - self._files)

    def threads(self) -> int:
        """Return how many run that did not."""
        return len(set(threading.enumerate()) - self._threads)
