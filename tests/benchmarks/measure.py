"""Medians of process-CPU time, candidates interleaved, beside a pure read of the same bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True)
def _read(words):  # type: ignore[no-untyped-def]
    total = 0
    for k in range(words.size):
        total += words[k]
    return total


def reader(arrays: Sequence[NDArray[Any]]) -> Callable[[], Any]:
    """Make a job that reads every byte of contiguous arrays once: the machine's own bandwidth, R."""
    words = [a.reshape(-1).view(np.uint8)[: a.nbytes // 8 * 8].view(np.int64) for a in arrays]
    return lambda: [_read(w) for w in words]


@dataclass
class Row:
    """One line of the table: seconds a unit of work for each candidate."""

    job: str
    unit: str
    """What the seconds are for, such as "a mask"."""
    seconds: dict[str, float]
    ours: str = "ours"
    bar: str = ""
    read_bytes: int = 0
    note: str = ""
    equal: bool | None = None
    """Whether ours gave what the rival that can be compared gave."""
    rivals: list[str] = field(default_factory=list)

    @property
    def of_read(self) -> float | None:
        """Our time in pure reads of the input."""
        return self.seconds[self.ours] / self.seconds["R"] if "R" in self.seconds else None

    @property
    def best_rival(self) -> tuple[str, float] | None:
        """The fastest rival and how many times as long as ours it takes."""
        if not self.rivals:
            return None
        name = min(self.rivals, key=lambda r: self.seconds[r])
        return name, self.seconds[name] / self.seconds[self.ours]


TURN = 0.005


def interleaved(
    jobs: Mapping[str, Callable[[], Any]], seconds: float, least: int = 3, most: int = 101
) -> dict[str, float]:
    """Median CPU time of each job; they take turns, so that a busy moment hits all alike.

    A turn repeats a short job for 5 ms: one call alone would mostly measure how the rival before it left the caches.
    A job that is longer than its share of the time runs once to warm up and once to count.
    """
    share, once = seconds / len(jobs), {}
    for name, job in jobs.items():
        _taken(job, 1)  # compiles, fills caches
        once[name] = _taken(job, 1)
    repeats = {name: max(1, round(TURN / max(t, 1e-9))) for name, t in once.items()}
    turns = {
        name: 1 if t > share else int(min(most, max(least, share / (t * repeats[name])))) for name, t in once.items()
    }
    rounds = max(turns.values())
    taken: dict[str, list[float]] = {name: [once[name]] if turns[name] == 1 else [] for name in jobs}
    for turn in range(rounds):
        for name, job in jobs.items():
            due = (turn + 1) * turns[name] // rounds > turn * turns[name] // rounds  # spread evenly over the rounds
            if due and turns[name] > 1:
                taken[name].append(_taken(job, repeats[name]))
    return {name: median(values) * getattr(jobs[name], "factor", 1.0) for name, values in taken.items()}


def _taken(job: Callable[[], Any], repeats: int) -> float:
    begin = time.process_time()
    for _ in range(repeats):
        job()
    return (time.process_time() - begin) / repeats
