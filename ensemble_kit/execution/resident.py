"""The memory that this process holds."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

PLAIN = 90_000_000
"""Bytes of a process that reads or writes stores and compiles no kernel."""


def give_back() -> None:
    """Give memory that was freed back to the system, where the allocator can: what is held is told by `used` then."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def used() -> int:
    """Return the bytes that this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return pages * resource.getpagesize()
