"""What a first `ensk vote` costs more than the second, since the machine code of its kernels is made then, and kept; and
what a command on tiny data takes when all is kept: its start.

    python tests/benchmarks/first_call.py [--repeats 5]

Every repeat begins with an empty cache folder (`XDG_CACHE_HOME`) and runs the same command twice, as a person does
after `pip install`. Wall time and CPU time of the whole process, from its start to its end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import inputs
import numpy as np
from measure import Bar, Row, duration

import ensemble_kit as ek

ENSK = "from ensemble_kit.__main__ import main; main()"
GRIDS = {"members of one grid": (64, 64), "members of two grids": (64, 32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    for row in first_calls(repeats=parser.parse_args().repeats):
        bars = ", ".join(map(str, row.bars))
        print(f"{row.job}: {duration(row.seconds['ours'])} ({row.note}) [{bars}]{' MISSED' if row.missed else ''}")


def first_calls(only: str = "", repeats: int = 5, soft: bool = True) -> Iterator[Row]:
    """Measure soft votes of stores, a hard vote of three CSVs, and two more commands, where their names hold `only`."""
    with tempfile.TemporaryDirectory(prefix="ensk-first-") as made:
        folder = Path(made)
        votes = {"hard, three CSV files": ["--hard", "--image-size", "256x256", *write_masks(folder)]}
        for name, grids in GRIDS.items() if soft else ():
            votes[f"soft, {name}"] = ["--soft", "--thresholds", "0.5", *write_stores(folder / name, grids)]
        for name, arguments in votes.items():
            kind = f"`ensk vote` ({name})"
            if only in f"first {kind}" or only in f"second {kind}":
                yield from rows(kind, arguments, folder, repeats)
        masks = write_masks(folder)[0]
        sized = ["--image-size", "256x256", "-q"]
        starts = {"score": [masks, "--val", masks], "convert": [masks, "--force", "--out", str(folder / "coco.json")]}
        for name, arguments in starts.items():
            if only in (job := f"start of `ensk {name}`"):
                yield start(job, [sys.executable, "-c", ENSK, name, *arguments, *sized], repeats)


def start(job: str, command: Sequence[str], repeats: int) -> Row:
    """Run a command on tiny data with the machine code of the user's own cache folder, after a run that fills it."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    taken = np.array([timed(command, cache) for _ in range(repeats + 1)])[1:]
    note = f"CPU {duration(median(taken[:, 1]))}; median of {repeats} repeats"
    limit = "half of it is importing NumPy and Numba"
    return Row(job, "in all", {"ours": median(taken[:, 0])}, (Bar("seconds", 0.45),), limit, note=note, clock="wall")


def write_stores(folder: Path, grids: Sequence[int]) -> list[str]:
    paths = []
    for m, grid in enumerate(grids):
        paths.append(str(folder / f"m{m}.zarr"))
        logits = inputs.bone_logits(1, 3, grid, seed=m)[0]
        with ek.LogitWriter(paths[-1], ["a", "b", "c"], ["x.png"], (grid, grid)) as out:
            out.write("x.png", logits, (256, 256))
    return paths


def write_masks(folder: Path) -> list[str]:
    paths = [str(folder / f"m{m}.csv") for m in range(3)]
    for m, path in enumerate(paths):
        masks = inputs.bone_masks(3, 256, seed=m)
        ek.MaskSet({("x.png", str(c)): ek.encode(np.asarray(mask)) for c, mask in enumerate(masks)}).write(
            path, "handbone"
        )
    return paths


def rows(kind: str, arguments: Sequence[str], folder: Path, repeats: int) -> list[Row]:
    """Run a vote twice on an empty cache, several times over; the median of what the first takes more, and the second."""
    command = [sys.executable, "-c", ENSK, "vote", *arguments, "-q", "--force", "--out", str(folder / "voted.csv")]
    calls = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="ensk-cache-") as cache:
            calls.append([timed(command, cache), timed(command, cache)])
    taken = np.array(calls)  # (repeats, first or second, wall or CPU)
    more, second = taken[:, 0] - taken[:, 1], taken[:, 1]
    return [
        Row(
            f"{job} {kind}", unit, {"ours": median(found[:, 0])}, (Bar("seconds", most),), limit,
            note=f"CPU {duration(median(found[:, 1]))}; median of {repeats} repeats, empty cache", clock="wall",
        )
        for job, unit, found, most, limit in (
            ("first", "more than the second", more, 4.0, "Numba finds types in Python, LLVM makes machine code, both in one thread"),
            ("second", "in all", second, 0.45, "half of it is importing NumPy and Numba"),
        )
    ]  # fmt: skip


def timed(command: Sequence[str], cache: str) -> tuple[float, float]:
    """Run a command with a cache folder of its own; return its wall and CPU seconds."""
    begin = time.perf_counter()
    own = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # what is installed has its byte code
    process = subprocess.Popen(command, env=own | {"XDG_CACHE_HOME": cache}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
