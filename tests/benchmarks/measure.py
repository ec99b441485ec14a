"""Medians of interleaved candidates beside a pure read of the same bytes, and what a row of the table is."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numba
import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 24


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


def files_reader(paths: Sequence[Path], threads: int, cold: bool = False) -> Callable[[], Any]:
    """Make a job that reads whole files into memory by `preadv`: what disk and page cache give to that many threads."""
    blocks = [(path, at) for path in paths for at in range(0, path.stat().st_size, BLOCK)]

    def part(first: int) -> None:
        buffer = np.empty(BLOCK, np.uint8)
        for path, at in blocks[first::threads]:
            descriptor = os.open(path, os.O_RDONLY)
            os.preadv(descriptor, [buffer], at)
            os.close(descriptor)

    def job() -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, range(threads)))

    return after_eviction(job, paths) if cold else job


def after_eviction(job: Callable[[], Any], paths: Sequence[Path]) -> Callable[[], Any]:
    """Run a job on files that the page cache does not hold; putting them out is not timed."""

    def evict() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)

    def cold() -> Any:
        return job()

    cold.before = evict  # type: ignore[attr-defined]
    return cold


@dataclass(frozen=True)
class Bar:
    """What a row is to reach: `seconds` or `reads` (R) at most, or `times` as fast as the fastest of some rivals.

    Parameters
    ----------
    rival : how the names of those rivals begin; "" means all.
    """

    kind: Literal["seconds", "reads", "times"]
    value: float
    rival: str = ""

    def __str__(self) -> str:
        if self.kind == "times":
            return f"≥ {self.value:g} × {self.rival or 'the fastest'}"
        return f"≤ {self.value:g} R" if self.kind == "reads" else f"≤ {duration(self.value)}"

    def measured(self, row: Row) -> float | None:
        """Return what the row reached, in the bar's terms; None where this run did not measure it."""
        if self.kind == "seconds":
            return row.seconds["ours"]
        if self.kind == "reads":
            return row.of_read
        rivals = [row.seconds[r] for r in row.rivals if r.startswith(self.rival)]
        return min(rivals) / row.seconds["ours"] if rivals else None

    def missed(self, row: Row) -> str:
        """Say by how much the row misses this bar; "" where it does not."""
        found = self.measured(row)
        if found is None or (found >= self.value if self.kind == "times" else found <= self.value):
            return ""
        shown = duration(found) if self.kind == "seconds" else f"{found:.3g} {'R' if self.kind == 'reads' else '×'}"
        return f"{shown} is {max(found / self.value, self.value / found):.2f} × off"


@dataclass
class Row:
    """One line of the table: seconds a unit of work for each candidate.

    Parameters
    ----------
    unit : what the seconds are for, such as "a mask".
    seconds : of "ours", of the pure read "R" and of every rival.
    limit : what stands between us and the bars; shown where one is missed.
    read_bytes : of one unit's input, what R reads.
    clock : "CPU" of the process, or "wall" where threads, other processes or the disk have a part.
    """

    job: str
    unit: str
    seconds: dict[str, float]
    bars: tuple[Bar, ...] = ()
    limit: str = ""
    read_bytes: float = 0
    note: str = ""
    rivals: list[str] = field(default_factory=list)
    clock: str = "CPU"

    @property
    def of_read(self) -> float | None:
        """Our time in pure reads of the input."""
        return self.seconds["ours"] / self.seconds["R"] if "R" in self.seconds else None

    @property
    def best_rival(self) -> tuple[str, float] | None:
        """The fastest rival and how many times as long as ours it takes."""
        if not self.rivals:
            return None
        name = min(self.rivals, key=lambda r: self.seconds[r])
        return name, self.seconds[name] / self.seconds["ours"]

    @property
    def missed(self) -> str:
        """By how much bars are missed and what the limit is, in words; "" where all are met."""
        misses = [text for text in (bar.missed(self) for bar in self.bars) if text]
        return f"{', '.join(misses)}{f': {self.limit}' if self.limit else ''}" if misses else ""


def duration(seconds: float) -> str:
    """Write seconds to three digits, with the unit that suits them."""
    for size, unit in ((1, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 1000 else f"{seconds / size:,.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"


TURN = 0.005


def interleaved(
    jobs: Mapping[str, Callable[[], Any]],
    seconds: float,
    least: int = 3,
    most: int = 101,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median time of each job; they take turns, so that a busy moment hits all alike.

    A turn repeats a short job for 5 ms: one call alone would mostly measure how the rival before it left the caches.
    A job that is longer than its share of the time runs once to warm up and once to count. A job's attribute `before`
    is called ahead of every run and is not timed; what its attribute `factor` says is how much of the work it did.
    """
    share, once = seconds / len(jobs), {}
    for name, job in jobs.items():
        _taken(job, 1, clock)  # compiles, fills caches
        once[name] = _taken(job, 1, clock)
    repeats = {
        name: 1 if hasattr(jobs[name], "before") else max(1, round(TURN / max(t, 1e-9))) for name, t in once.items()
    }
    turns = {
        name: 1 if t > share else int(min(most, max(least, share / (t * repeats[name])))) for name, t in once.items()
    }
    rounds = max(turns.values())
    taken: dict[str, list[float]] = {name: [once[name]] if turns[name] == 1 else [] for name in jobs}
    for turn in range(rounds):
        for name, job in jobs.items():
            due = (turn + 1) * turns[name] // rounds > turn * turns[name] // rounds  # spread evenly over the rounds
            if due and turns[name] > 1:
                taken[name].append(_taken(job, repeats[name], clock))
    return {name: median(values) * getattr(jobs[name], "factor", 1.0) for name, values in taken.items()}


def _taken(job: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    if hasattr(job, "before"):
        job.before()
    begin = clock()
    for _ in range(repeats):
        job()
    return (clock() - begin) / repeats
