"""The number of cores that this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """Count the cores that this process may use, shared with the other processes that a launcher started.

    `torchrun` does not bind its processes to cores; `LOCAL_WORLD_SIZE` says how many there are on this machine.
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = os.environ.get("LOCAL_WORLD_SIZE", "")
    if processes.isdecimal() and int(processes) > 1:
        return max(1, min(ours, (os.cpu_count() or 1) // int(processes)))  # `ours` if they are bound all the same
    return ours
