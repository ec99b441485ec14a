"""What the fault families share: a store to break, `ensk` in this process or its own, and how an outcome is judged.

Each family is a module with three tables. `CASES` injects a fault for real and says how it must end. `ELSEWHERE`
names the test of another file that does so. `NOT_HERE` says why neither is there. `test_catalogue.py` checks that the
three hold every fault of the catalogue exactly once.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.cli import app
from ensemble_kit.logits.records import Record, from_line

CATALOGUE = {
    "S": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26 27 29 30 31 33 34 35",
    "W": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26 27 29 30",
    "C": "01 02 03 05 06 07 09 10 11 13 14 15",
    "E": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26 27 29 30",
    "F": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26 27",
    "N": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26",
    "M": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19",
    "T": "01 02 03 04 05 06 07 08 09 10 11 12",
    "X": "01 02 03 05 06 07 09 10 11 13 14 15 17 18 19 21 22 23 25 26 27 29 30 31 33 34 35 37 38",
    "R": "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22",
    "P": "01 02 03 04 05 06 07 08 09 10 11 12",
    "L": "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20",
}
"""The faults, a family a row."""

ROOT = os.geteuid() == 0
STRACE = shutil.which("strace") is not None
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: it mounts a file system or changes its user")
needs_strace = pytest.mark.skipif(not STRACE, reason="strace is not installed")

CLASSES, GRID, PLANE = ("radius", "ulna"), (8, 6), (32, 24)
IDS = tuple(f"hand {k}.png" for k in range(6))
VICTIM = 4
"""The row of the sample that is hurt."""


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def ensk(*arguments: object) -> Ran:
    """Run a command in this process, as `main` does, without its start of 0.3 s."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        code = app._run([str(a) for a in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


COMMAND = (sys.executable, "-m", "ensemble_kit")


def spawn(*arguments: object, before: tuple[str, ...] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own, behind `before` (a tracer, a limit)."""
    command = [*before, *COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def judge(ran: Ran | subprocess.CompletedProcess[str], code: int, name: str, *named: object) -> None:
    """Check an end: exit code, error code in three parts, every item named, no traceback, no bug of ours."""
    ended, err = (ran.code, ran.err) if isinstance(ran, Ran) else (ran.returncode, ran.stderr)
    assert ended == code, err
    assert "Traceback" not in err
    assert f"error[{name}] " in err, err
    assert " · fix: " in err
    for item in named:
        assert str(item) in err, (item, err)


def logits(seed: int = 0, count: int = len(IDS), grid: tuple[int, int] = GRID) -> np.ndarray:
    """Draw logits (N, C, h, w)."""
    return (np.random.default_rng(seed).normal(size=(count, len(CLASSES), *grid)) * 5).astype(np.float16)


def make(path: Path | str, seed: int = 0, upto: int | None = None, **options: Any) -> Path | str:
    """Write a store of six samples and two classes."""
    with ek.LogitWriter(path, CLASSES, IDS, GRID, **options) as out:
        for name, array in list(zip(IDS, logits(seed), strict=True))[:upto]:
            out.write(name, array, image_size=PLANE)
    return path


def chunk(store: Path, row: int = VICTIM) -> Path:
    """Return a sample's chunk file."""
    return store / "logits" / f"c.{row}.0.0.0"


def segment(store: Path) -> Path:
    """Return the only segment of a store's manifest."""
    (only,) = (store / "logits" / "manifest").glob("*.jsonl")
    return only


def record(store: Path, row: int = 0) -> Record:
    """Read a sample's record from the only segment of a store's manifest."""
    line = from_line(segment(store).read_bytes().split(b"\n")[1 + row])
    assert line is not None
    return Record.from_json(line, GRID)


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place."""
    path.write_bytes(change(path.read_bytes()))


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replace text that must be there."""

    def change(raw: bytes) -> bytes:
        assert old.encode() in raw, old
        return raw.replace(old.encode(), new.encode(), 1)

    return change


def masks(seed: int = 7, ids: tuple[str, ...] = IDS, plane: tuple[int, int] = PLANE) -> ek.MaskSet:
    """Draw masks of the store's samples and classes: a box each, one of them empty."""
    rng, out = np.random.default_rng(seed), {}
    for s in ids:
        for c in CLASSES:
            bitmap = np.zeros(plane, bool)
            y, x = rng.integers(0, plane[0] - 4), rng.integers(0, plane[1] - 4)
            bitmap[y : y + rng.integers(1, 9), x : x + rng.integers(1, 9)] = True
            out[s, c] = ek.encode(bitmap)
    out[ids[0], CLASSES[0]] = ek.Runs.empty(plane)
    return ek.MaskSet(out)


def leftovers(folder: Path) -> list[str]:
    """List what an unfinished write leaves beside its target."""
    return sorted(p.name for p in folder.iterdir() if ".tmp-" in p.name or p.name.endswith((".new", ".old")))


@contextlib.contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk; the test is skipped where that is not allowed."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def traced(call: str, fault: str) -> tuple[str, ...]:
    """Run a command under strace, which makes system calls fail: `traced("fsync", "error=EIO:when=1")`."""
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:{fault}")


def limited(kind: str, value: int) -> Callable[[], None]:
    """Return what sets a limit of the system in a child: `preexec_fn=limited("FSIZE", 900)`."""
    number = getattr(resource, f"RLIMIT_{kind}")
    return lambda: resource.setrlimit(number, (value, value))
