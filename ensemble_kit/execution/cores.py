"""How many cores are this process's own."""

from __future__ import annotations

import os


def cores() -> int:
    """Count the cores that this process may use, less those of the other ranks that a launcher started beside it.

    `torchrun` binds its ranks to no cores and says in `LOCAL_WORLD_SIZE` how many there are on this machine.
    """
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    if ranks.isdecimal() and int(ranks) > 1:
        return max(1, min(ours, (os.cpu_count() or 1) // int(ranks)))  # `ours` where they are bound all the same
    return ours
