"""C: many processes and threads on one store, one file, one set of kernels."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.errors import LockedError, MismatchError
from ensemble_kit.logits.staging import FolderStage

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
COUNT = 24

RANK = """
import os, sys
sys.path.insert(0, {here!r})
import forms
from ensemble_kit.errors import EnskError
from ensemble_kit.logits.writer import LogitWriter
form = forms.use({form!r})
path, rank, world, die = sys.argv[1], *map(int, sys.argv[2:5])
ids = [f"s{{k:02}}" for k in range({count})]
try:
    with LogitWriter(path, forms.CLASSES, ids, form.grid, member="m") as out:
        for n, k in enumerate(range(rank, len(ids), world)):
            if n == die:
                os._exit(9)
            form.write(out, ids[k], form.value(k))
except EnskError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def ranks(path: Path, world: int, die: dict[int, int] | None = None, before: tuple[str, ...] = ()) -> list[int]:
    """Run as many processes as a launcher would; return how each ended."""
    script = RANK.format(here=str(HERE), form=h.FORM.name, count=COUNT)
    words = [("-c", script, str(path), str(r), str(world), str((die or {}).get(r, -1))) for r in range(world)]
    running: list[subprocess.Popen[str] | warm.Process]
    if before:
        running = [subprocess.Popen([*before, sys.executable, *w], stderr=subprocess.DEVNULL, text=True) for w in words]
    else:
        running = [warm.Process(*w, stderr=subprocess.DEVNULL) for w in words]
    return [p.wait(timeout=120) for p in running]


def is_whole(path: Path) -> None:
    opened = ek.LogitStore(path)
    assert opened.complete
    assert opened.verify().sound
    for k, name in enumerate(opened.samples):
        assert np.array_equal(h.read(opened, name), h.value(k))


class Case(NamedTuple):
    """Ranks that share a store: how many, and which die before which of their samples."""

    id: str
    how: str
    world: int
    die: dict[int, int]


CASES = [
    Case("C01", "four ranks, rows of all interleaved", 4, {}),
    Case("C03", "eight ranks make the store at once", 8, {}),
    Case("C06", "the last of four dies in the midst", 4, {3: 2}),
    Case("C06", "two of four die at once", 4, {0: 0, 2: 5}),
]
ALONE = {
    "C07": "test_another_number_of_ranks_goes_on",
    "C09": "test_samples_twice_or_never",
    "C11": "test_kernels_from_many_threads",
    "C13": "test_ranks_divide_the_cores",
    "C14": "test_a_file_system_without_locks",
    "C15": "test_many_processes_on_a_cold_cache",
    "C05": "test_the_lock_of_a_dead_writer_is_free",
}
ELSEWHERE = {
    "C02": "test_writer.py::test_two_processes_write_one_sample_differently",
    "C03": "test_writer.py::test_fork_creates_once",
    "C05": "test_writer.py::test_a_dead_writers_lock_vanishes",
    "C10": "test_jit.py::test_threads_and_forks_share_kernels, test_writer.py::test_a_writer_does_not_cross_a_fork",
    "C15": "test_jit.py::test_two_processes_at_once",
}
NOT_HERE: dict[str, str] = {}


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.how}")
def test_ranks_share_a_store(tmp_path: Path, case: Case) -> None:
    path = tmp_path / "m.zarr"
    ends = ranks(path, case.world, case.die)
    assert ends == [9 if r in case.die else 0 for r in range(case.world)]
    if case.die:
        missing = [f"s{k:02}" for r, at in case.die.items() for k in range(r, COUNT, case.world)[at:]]
        opened = ek.LogitStore(path)
        assert sorted(opened.missing) == sorted(missing)
        assert not opened.verify().damaged
        h.judge(h.ensk("verify", path), 4, "store-incomplete", f"{len(missing)} of {COUNT}")
        assert json.loads(h.ensk("verify", path, "--json").out)["missing"] == opened.missing
        assert ranks(path, case.world) == [0] * case.world  # every rank again: what is there is not written twice
    is_whole(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]


@pytest.mark.usefixtures("form")
def test_another_number_of_ranks_goes_on(tmp_path: Path) -> None:
    assert ranks(tmp_path / "m.zarr", 4, dict.fromkeys(range(4), 2)) == [9] * 4
    assert ranks(tmp_path / "m.zarr", 3) == [0] * 3
    is_whole(tmp_path / "m.zarr")


@pytest.mark.usefixtures("form")
def test_samples_twice_or_never(tmp_path: Path) -> None:
    """A sampler that pads gives samples to two ranks (equal bytes: kept once); one that drops leaves them out."""
    ids = [f"s{k}" for k in range(10)]
    shares = [range(r, 12, 4) for r in range(4)]  # padded: 0 and 1 come twice
    writers = [ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, ids, h.GRID) for _ in shares]
    for share, out in zip(shares, writers, strict=True):
        for k in share:
            h.write(out, ids[k % 10], h.value(k % 10))
    [out.close() for out in writers]
    assert ek.LogitStore(tmp_path / "m.zarr").verify().checked == 10
    with ek.LogitWriter(tmp_path / "d.zarr", h.CLASSES, ids, h.GRID) as out:
        for k in range(8):  # dropped: 8 and 9 never come
            h.write(out, ids[k], h.value(k))
    h.judge(h.ensk("verify", tmp_path / "d.zarr"), 4, "store-incomplete", "'s8', 's9'")


def test_an_image_and_a_volume_are_never_in_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers of a new store, both before the other's first sample; only the commit, under the lock, can tell."""
    images, volumes = (ek.LogitWriter(tmp_path / "m.zarr", ["x"], ["a", "b"]) for _ in range(2))
    finish = FolderStage.finish

    def late(stage: FolderStage) -> None:
        monkeypatch.setattr(FolderStage, "finish", finish)
        images.write("a", np.full((1, 2, 3), -3.0), (4, 6))
        finish(stage)

    monkeypatch.setattr(FolderStage, "finish", late)
    with pytest.raises(MismatchError, match="images and volumes"):
        volumes.write("b", np.full((1, 2, 2, 3), -3.0), (4, 4, 6))
    for out in (images, volumes):
        out.close()
    opened = ek.LogitStore(tmp_path / "m.zarr")
    assert (opened.rank, opened.missing) == (2, ["b"])
    assert opened.verify().damaged == ()


@pytest.mark.usefixtures("form")
@h.needs_strace
def test_a_file_system_without_locks(tmp_path: Path) -> None:
    """flock fails with ENOLCK everywhere: ranks still write, each its own segment."""
    path = tmp_path / "m.zarr"
    assert ranks(path, 1, before=h.traced("flock", "error=ENOLCK")) == [0]
    is_whole(path)


@pytest.mark.usefixtures("form")
def test_the_lock_of_a_dead_writer_is_free(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    child = os.fork()
    if child == 0:
        out = ek.LogitWriter(path, h.CLASSES, h.IDS, h.GRID)
        h.write(out, h.IDS[0], h.logits()[0])
        time.sleep(60)
        os._exit(0)
    try:
        deadline = time.monotonic() + 30
        while not h.chunk(path, 0).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        started = time.monotonic()
        with pytest.raises(LockedError) as caught:
            ek.LogitWriter(path, h.CLASSES, h.IDS, h.GRID, overwrite=True)
        assert (caught.value.exit_code, caught.value.code) == (8, "store-locked")
        assert time.monotonic() - started < 10  # it does not wait, on a machine that is shared either
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    started = time.monotonic()
    with ek.LogitWriter(path, h.CLASSES, h.IDS, h.GRID, overwrite=True) as out:
        assert out.missing == list(h.IDS)
    assert time.monotonic() - started < 10


def test_kernels_from_many_threads(tmp_path: Path) -> None:
    stores = [h.make(tmp_path / f"{k}.zarr", seed=k) for k in range(2)]
    wanted, found, failed = dict(ek.Ensemble(stores).vote(0.4, jobs=1)), list[bool](), list[BaseException]()

    def work() -> None:
        try:
            for _ in range(10):
                found.append(dict(ek.Ensemble(stores).vote(0.4, jobs=2)) == wanted)
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not failed
    assert found == [True] * 40


@pytest.mark.slow
def test_many_processes_on_a_cold_cache(tmp_path: Path) -> None:
    code = "import ensemble_kit as ek; print(ek.encode([[0, 1, 1]]).text())"
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    assert [p.communicate(timeout=300)[0] for p in running] == ["2 2\n"] * 4


def test_ranks_divide_the_cores() -> None:
    """torchrun starts ranks on all cores alike and tells each how many they are: together they take each core once."""
    threads = {}
    for ranks in ("1", "2", "1000", "many", ""):
        ran = warm.ensk("doctor", "--json", env={**os.environ, "LOCAL_WORLD_SIZE": ranks})
        threads[ranks] = json.loads(ran.stdout)["threads"]
    mine, whole = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    assert threads == {"1": mine, "2": max(1, min(mine, whole // 2)), "1000": 1, "many": mine, "": mine}
    source = Path(ek.__file__).parent
    asking = {p.name for p in source.rglob("*.py") if re.search("sched_getaffinity|cpu_count", p.read_text())}
    assert asking == {"cores.py"}
