"""L: little memory, one core, full disks, hours of work. Signals are in test_signals.py, shells in test_environments.py."""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grounds
import harness as h
import numpy as np
import pytest
from loaded import Loaded

import ensemble_kit as ek
from opened import Opened

pytestmark = pytest.mark.slow

ground, work = grounds.ground, grounds.work

CASES: list[Any] = []
ALONE = {
    "L02": "test_little_memory_is_an_error_and_never_a_wrong_result",
    "L05": "test_many_samples_open_at_once",
    "L16": "test_a_disk_that_fills_while_voting",
    "L17": "test_hours_of_work_grow_nothing",
    "L18": "test_one_core",
    "L01": "test_memory_does_not_grow_with_samples",
}
ELSEWHERE = {
    "L08": "faults/test_environments.py::test_a_reader_that_goes_away",
    "L09": "faults/test_environments.py::test_streams_that_are_closed_or_full",
    "L10": "faults/test_environments.py::test_no_terminal_no_colour_no_locale",
    "L11": "faults/test_environments.py::test_arguments_that_mean_nothing",
    "L12": "faults/test_environments.py::test_other_ways_to_start_python",
    "L13": "faults/test_environments.py::test_no_home",
    "L14": "faults/test_environments.py::test_odd_paths",
    "L15": "faults/test_environments.py::test_without_torch_and_onnxruntime",
    "L03": "faults/test_signals.py::test_killed_and_run_again",
    "L06": "faults/test_signals.py::test_a_signal_at_any_moment, faults/test_signals.py::test_the_demo_is_ended_too",
    "L07": "faults/test_signals.py::test_a_second_signal_ends_it_at_once",
    "L19": "faults/test_signals.py::test_suspended_and_continued",
    "L20": "faults/test_formats_kept.py::test_the_first_release_is_read",
    "L16": "test_formats_files.py::test_a_full_disk_is_named",
    "L04": "faults/test_rle.py::test_planes_beyond_32_bits",
}
NOT_HERE: dict[str, str] = {}


@pytest.fixture(scope="module")
def loaded(ground: Path) -> Iterator[Loaded]:
    votes = [("vote", f"{form}.zarr", "--out", f"{form}.first.npz") for form in h.FORMS]
    started = Loaded(ground, *votes)
    yield started
    started.close()


@pytest.fixture(params=list(h.FORMS))
def store(request: pytest.FixtureRequest, ground: Path) -> Path:
    """A store of each format, of large images."""
    return ground / f"{request.param}.zarr"


@pytest.mark.parametrize(("grid", "count"), [((2, 2), 2000), (None, 500)], ids=["one grid", "grids"])
def test_many_samples_open_at_once(tmp_path: Path, grid: tuple[int, int] | None, count: int) -> None:
    ids = [f"i{k:05}" for k in range(count)]
    with ek.LogitWriter(tmp_path / "m.zarr", ["x"], ids, grid) as out:
        for name in ids:
            out.write(name, np.full((1, 2, 2), -3.0, np.float32), (4, 4))
    times = list[float]()
    for _ in range(3):
        began = time.process_time()
        assert ek.LogitStore(tmp_path / "m.zarr").complete
        times.append(time.process_time() - began)
    assert min(times) < 1.0


@h.needs_root
def test_a_disk_that_fills_while_voting(ground: Path, tmp_path: Path) -> None:
    before = ek.LogitStore(ground / "one grid.zarr").fingerprint
    with h.tmpfs(tmp_path / "room", "8k") as room:
        ran = h.ensk("vote", ground / "one grid.zarr", "--out", room / "o.csv")
        h.judge(ran, 5, "write-failed", "o.csv", "No space left")
        assert list(room.iterdir()) == []
    assert ek.LogitStore(ground / "one grid.zarr").fingerprint == before


ONE_CORE = """
import os, sys
from ensemble_kit.cli.app import _run
for name, cores in (("all", os.sched_getaffinity(0)), ("one", {min(os.sched_getaffinity(0))})):
    os.sched_setaffinity(0, cores)
    assert _run(["vote", sys.argv[1], "--out", f"{sys.argv[2]}/{name}.npz", "-q"]) == 0
"""


def test_one_core(work: Path, loaded: Loaded, store: Path) -> None:
    ended = loaded.run(store, work, code=ONE_CORE)
    assert ended.code == 0, ended.err
    assert (work / "one.npz").read_bytes() == (work / "all.npz").read_bytes()


LITTLE = """
import ctypes, resource, sys
from ensemble_kit.cli.app import _run
store, out, rooms = sys.argv[1], sys.argv[2], sys.argv[3:]
libc = ctypes.CDLL(None)
libc.mallopt(-3, 4096)  # M_MMAP_THRESHOLD: what is large comes from the system, not from what was freed before
_, hard = resource.getrlimit(resource.RLIMIT_DATA)
for room in (*map(int, rooms), None):
    libc.malloc_trim(0)
    used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (hard if room is None else used + room, hard))
    code = _run(["vote", store, "--out", f"{out}/{room}.npz", "--jobs", "1", "-q"])
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
    print(code)
"""
ROOMS = [0, 1 << 18, 1 << 20, 1 << 26]


def test_little_memory_is_an_error_and_never_a_wrong_result(work: Path, loaded: Loaded, store: Path) -> None:
    ended = loaded.run(store, work, *ROOMS, code=LITTLE)
    assert ended.code == 0, ended.err
    assert "Traceback" not in ended.err
    *codes, last = (int(line) for line in ended.out.split())
    assert last == 0
    for room, code in zip(ROOMS, codes, strict=True):
        assert code in {0, 5}, ended.err
        out = work / f"{room}.npz"
        assert out.read_bytes() == (work / "None.npz").read_bytes() if code == 0 else not out.exists()
    assert ended.err.count("error[") == codes.count(5)
    mapped, small = (
        "one grid",
        "volumes",
    )  # files that are mapped are no memory of the process; or what it freed is enough
    assert 5 in codes or store.stem in {mapped, small}, codes


PEAK = f"""
import sys, ensemble_kit as ek
sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
from peak import peak
from ensemble_kit.decisions.decision import Vote
from ensemble_kit.execution.executor import Items, Threads
ens = ek.Ensemble(sys.argv[1:])
work = Vote(ens.inputs, ens.decision(0.46))
for masks in Threads(2).map(work, Items(ens.samples), "voting"): pass
first = peak()
for masks in Threads(2).map(work, Items(ens.samples * 6), "voting"): pass
print(peak() - first)
"""


def test_memory_does_not_grow_with_samples(loaded: Loaded, store: Path) -> None:
    ended = loaded.run(store, store.with_name(f"{store.stem}2.zarr"), code=PEAK)
    assert ended.code == 0, ended.err
    assert int(ended.out) < 20 << 20


@pytest.mark.slow
def test_hours_of_work_grow_nothing(tmp_path: Path) -> None:
    """Dump, tune, vote, convert and score in one process, again and again: `make soak` for an hour, here for seconds.

    Descriptors and threads stay; memory of the second half stays within what its first rounds took, and 8 MiB.
    """
    h.masks().write(tmp_path / "val.csv", format="handbone")
    masks, given = tmp_path / "o.csv", ("--val", tmp_path / "val.csv", "--image-size", "32x24")
    store = tmp_path / "m.zarr"
    marks, opened = list[tuple[int, int, int]](), Opened()
    until = time.monotonic() + float(os.environ.get("ENSK_SOAK", "2"))
    while time.monotonic() < until or len(marks) < 6:
        for form in h.each_form():
            shutil.rmtree(store, ignore_errors=True)
            h.make(store, seed=len(marks) % 5, upto=3)
            h.make(store, seed=len(marks) % 5)
            commands: list[tuple[object, ...]] = [
                ("vote", store, "--out", tmp_path / h.OUT, "--force"),
                ("verify", store),
            ]
            if form.name == "one grid":
                commands += [
                    ("tune-thresholds", store, *given, "--folds", "0", "--out", tmp_path / "set.json", "--force"),
                    ("vote", store, "--thresholds", tmp_path / "set.json", "--out", masks, "--force"),
                    ("convert", masks, "--image-size", "32x24", "--out", tmp_path / "c.npz", "--force"),
                    ("score", masks, *given),
                ]
            for command in commands:
                ran = h.ensk(*command)
                assert ran.code == 0, ran.err
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        marks.append((opened.descriptors(), opened.threads(), pages * os.sysconf("SC_PAGE_SIZE")))
    half = marks[len(marks) // 2 :]
    assert len({m[:2] for m in half}) == 1, half
    assert half[-1][2] - max(m[2] for m in marks[: len(marks) // 2]) < 8 << 20, [m[2] >> 20 for m in marks]
