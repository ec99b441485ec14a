"""The most memory that a process has held since its start, or since `peak_from_now`.

`ru_maxrss` of a process that another one started is at least what that one had, so growth below it is not seen.
"""

from __future__ import annotations

from pathlib import Path


def peak() -> int:
    """Return the peak of this process in bytes, pages of mapped files among them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def peak_from_now() -> int:
    """Let the peak begin anew, and return it."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()
