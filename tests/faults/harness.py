"""What the fault families share: a store to break, `ensk` in this process or its own, and how an outcome is judged.

Each family is a module with three tables. `CASES` injects a fault for real and says how it must end. `ELSEWHERE`
names the test of another file that does so. `NOT_HERE` says why neither is there. `test_catalogue.py` checks that the
three hold every fault of the catalogue exactly once.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
from forms import CLASSES, FORMS, Form

import ensemble_kit as ek
import warm
from ensemble_kit.cli import app
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.description import describe
from ensemble_kit.logits.records import Record, from_line
from ensemble_kit.logits.spare import copy_fault

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


FORM = FORMS["one grid"]
GRID, PLANE = FORM.grid, FORM.plane
OUT = "out.csv"
"""A file that takes the masks of a vote."""
IDS = tuple(f"hand {k}.png" for k in range(6))
VICTIM = 4
"""The row of the sample that is hurt."""


def use(name: str) -> Form:
    """Let everything here be about stores of another format."""
    global FORM, GRID, PLANE, OUT
    FORM, OUT = forms.use(name), "out.npz" if name == "volumes" else "out.csv"
    GRID, PLANE = FORM.grid, FORM.plane
    return FORM


def each_form() -> Iterator[Form]:
    """Let everything here be about stores of one format after the other."""
    try:
        yield from map(use, FORMS)
    finally:
        use("one grid")


def value(k: int) -> np.ndarray:
    """Draw the logits of one sample."""
    return FORM.value(k)


def write(out: ek.LogitWriter, sample: str, array: np.ndarray, **options: Any) -> None:
    """Write a sample as its format has it."""
    FORM.write(out, sample, array, **options)


def read(store: ek.LogitStore, sample: str) -> np.ndarray:
    """Read a sample as its format has it."""
    return FORM.read(store, sample)


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
    """Run a command in a process of its own; from its start where it has `before` (a tracer), a budget or a limit."""
    if not before and options.keys() <= {"cwd"} and "--memory" not in arguments:
        return warm.ensk(*arguments, **options)
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


def logits(seed: int = 0, count: int = len(IDS)) -> np.ndarray:
    """Draw logits (N, C, *shape)."""
    return (np.random.default_rng(seed).normal(size=(count, len(CLASSES), *FORM.shape)) * 5).astype(np.float16)


def make(path: Path | str, seed: int = 0, upto: int | None = None, **options: Any) -> Path | str:
    """Write a store of six samples and two classes."""
    with ek.LogitWriter(path, CLASSES, IDS, GRID, **options) as out:
        for name, array in list(zip(IDS, logits(seed), strict=True))[:upto]:
            write(out, name, array)
    return path


def key(row: int = VICTIM, number: int = -1) -> str:
    """Return the key of a sample's chunk; of a volume by default the second slab's."""
    if FORM.grid:
        return f"logits/c.{row}.0.0.0"
    return f"logits/{row}/c.0.{number % FORM.chunks}.0.0" if FORM.chunks > 1 else f"logits/{row}/c.0.0.0"


def chunk(store: Path, row: int = VICTIM) -> Path:
    """Return a sample's chunk file; of a volume the last slab's."""
    path = store / key(row)
    other = path.with_name(path.name.removeprefix("c."))  # of a sample that was written again
    return other if FORM.grid is None and other.exists() else path


def files(store: Path, row: int) -> list[Path]:
    """Return all files of a sample."""
    return [chunk(store, row)] if FORM.grid else sorted((store / "logits" / str(row)).iterdir())


def temporaries(store: Path) -> list[Path]:
    """Return what writers have not brought to its end."""
    return [p for p in store.rglob("*") if p.name.endswith(".tmp")]


def segment(store: Path) -> Path:
    """Return the only segment of a store's manifest."""
    (only,) = (store / "logits" / "manifest").glob("*.jsonl")
    return only


def record(store: Path, row: int = 0) -> Record:
    """Read a sample's record from the only segment of a store's manifest."""
    line = from_line(segment(store).read_bytes().split(b"\n")[1 + row])
    assert line is not None
    return Record.from_json(line, describe(store)[0])


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Change a file in place."""
    path.write_bytes(change(path.read_bytes()))


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replace text that must be there."""

    def change(raw: bytes) -> bytes:
        assert old.encode() in raw, old
        return raw.replace(old.encode(), new.encode(), 1)

    return change


def told(path: Path | str, whole: str) -> tuple[str, bool]:
    """Look at a damaged store: what became of the damage, and whether the error names the file or its sample.

    "detected": an error, a damaged sample, or a missing one. "no effect": everything that can be read is as before.
    "wrong": neither; the one thing that must not be.
    """
    try:
        store = ek.LogitStore(path)
        found = store.verify()
    except EnskError as error:
        return "detected", bool(re.search(r"zarr\.json|\.jsonl|\.zip|logits|attributes", error.item))
    if found.damaged:
        return "detected", True
    if found.missing:
        return "detected", True
    if Path(path).is_dir() and copy_fault(Path(path)):
        return "detected", True
    return ("no effect" if state(store) == whole else "wrong"), True


def state(store: ek.LogitStore) -> str:
    """Digest everything that a store says and holds."""
    digest = hashlib.sha256(json.dumps([store.fingerprint, dict(store.provenance)], sort_keys=True).encode())
    for sample in store.samples:
        digest.update(read(store, sample).tobytes() + f"{store.placement(sample)}{store.geometry(sample)}".encode())
    return digest.hexdigest()


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
