"""Writing as it goes wrong: many processes, kills at every system call, full disks, failed syncs."""

from __future__ import annotations

import errno
import multiprocessing as mp
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warm
from ensemble_kit.errors import EnskError, LockedError, ResourceError, UsageError
from ensemble_kit.logits.records import from_line
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter
from opened import Opened

CLASSES, GRID = ["a", "b"], (16, 16)
IDS = [f"s{k}" for k in range(40)]


def value(k: int) -> np.ndarray:
    return (np.random.default_rng(k).normal(size=(2, *GRID)) * 5).astype(np.float32)


def write(path: str, ids: list[str], pause: float = 0.0, seed: int = 0) -> None:
    with LogitWriter(path, CLASSES, IDS, GRID, member="m") as out:
        for name in ids:
            out.write(name, value(IDS.index(name) + seed), (16, 16))
            time.sleep(pause)


def attempt(path: str, ids: list[str], seed: int, results: Any) -> None:
    try:
        write(path, ids, seed=seed)
        results.put(0)
    except EnskError as error:
        results.put(error.exit_code)


def is_whole(path: Path) -> None:
    opened = LogitStore(path)
    assert opened.complete
    assert opened.verify().sound
    for k, name in enumerate(IDS):
        np.testing.assert_array_equal(opened.read(name), value(k).astype(np.float16))


@pytest.mark.slow
def test_many_processes_make_one_store(tmp_path: Path) -> None:
    spawn = mp.get_context("spawn")
    path = tmp_path / "m.zarr"
    ranks = [spawn.Process(target=write, args=(str(path), IDS[r::4] + IDS[:2], 0.001)) for r in range(4)]
    [p.start() for p in ranks]
    [p.join(60) for p in ranks]
    assert [p.exitcode for p in ranks] == [0] * 4  # each also wrote the first two, with equal bytes
    is_whole(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]


def test_two_processes_write_one_sample_differently(tmp_path: Path) -> None:
    spawn = mp.get_context("spawn")
    path, results = tmp_path / "m.zarr", mp.get_context("spawn").Queue()
    ranks = [spawn.Process(target=attempt, args=(str(path), IDS, seed, results)) for seed in (0, 1000)]
    [p.start() for p in ranks]
    codes = sorted(results.get(timeout=60) for _ in ranks)
    [p.join(60) for p in ranks]
    assert codes in ([0, 8], [8, 8])
    found = LogitStore(path).verify()  # whoever was first, every sample is whole and said once
    assert not found.damaged
    assert found.checked >= 1


@pytest.mark.slow
def test_fork_creates_once(tmp_path: Path) -> None:
    for trial in range(10):
        path = tmp_path / f"{trial}.zarr"
        children = []
        for rank in range(3):
            pid = os.fork()
            if pid == 0:
                try:
                    write(str(path), IDS[rank::3][:3])
                    os._exit(0)
                finally:
                    traceback.print_exc()
                    os._exit(1)
            children.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
        assert len(LogitStore(path).missing) == len(IDS) - 9
    assert len(list(tmp_path.iterdir())) == 10


def test_a_writer_does_not_cross_a_fork(tmp_path: Path) -> None:
    with LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID) as out:
        out.write(IDS[0], value(0), (8, 8))
        pid = os.fork()
        if pid == 0:
            try:
                out.write(IDS[1], value(1), (8, 8))
            except UsageError as error:
                os._exit(0 if "fork" in str(error) else 2)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        out.write(IDS[1], value(1), (8, 8))
    assert LogitStore(tmp_path / "m.zarr").verify().checked == 2


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
import test_writer as t
from ensemble_kit.logits.writer import LogitWriter
with LogitWriter(sys.argv[1], t.CLASSES, t.IDS, t.GRID, member="m") as out:
    for name in out.missing:
        out.write(name, t.value(t.IDS.index(name)), (16, 16))
        print(name, flush=True)
"""


def start(path: Path) -> warm.Process:
    return warm.Process("-c", SCRIPT.format(tests=str(Path(__file__).parent)), path, stdout=subprocess.PIPE)


def finish(path: Path) -> list[str]:
    """Run the writer to its end; return what it wrote."""
    with start(path) as writer:
        said, _ = writer.communicate(timeout=60)
    assert writer.returncode == 0
    return said.split()


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 9, 17, 31])
def test_what_is_acknowledged_survives_a_kill(tmp_path: Path, after: int) -> None:
    path = tmp_path / "m.zarr"
    with start(path) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().strip() for _ in range(after)]
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().split()
    opened = LogitStore(path)
    assert set(said) <= set(opened.samples) - set(opened.missing)
    assert not opened.verify().damaged
    assert not set(said) & set(finish(path))
    is_whole(path)
    assert not [p for p in (path / "logits").iterdir() if p.name.endswith(".tmp")]
    if len(said) < 16:  # the second writer took over what the first never synced
        marked = 0
        for segment in sorted((path / "logits/manifest").glob("*.jsonl")):
            lines = [from_line(raw) or {} for raw in segment.read_bytes().splitlines()]
            marked = max(marked, *(line.get("sync", 0) for line in lines))
        assert marked == len(IDS)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", ["rename", "writev", "fsync", "mkdir", "write", "flock"])
def test_a_kill_at_every_call(tmp_path: Path, call: str) -> None:
    path, script, ends = tmp_path / "m.zarr", SCRIPT.format(tests=str(Path(__file__).parent)), []
    for when in (1, 2, 3, 18):
        strace = ["strace", "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e",
                  f"inject={call}:signal=SIGKILL:when={when}"]  # fmt: skip
        done = subprocess.run([*strace, sys.executable, "-c", script, str(path)], capture_output=True, timeout=60)
        ends.append(done.returncode)
        if path.exists():
            assert not LogitStore(path).verify().damaged
    if 0 in ends and -9 not in ends:
        pytest.skip("strace may not trace here")
    assert -9 in ends
    if not path.exists() or LogitStore(path).missing:
        finish(path)
    is_whole(path)


def power_cut(path: Path, lost: list[int]) -> None:
    """Do what a power cut does to what was never synced: lengths survive, bytes do not."""
    for row in lost:
        chunk = path / f"logits/c.{row}.0.0.0"
        chunk.write_bytes(bytes(chunk.stat().st_size))


@pytest.mark.parametrize("lost", [[16], [17, 19], [16, 17, 18, 19]], ids=["the first", "some", "all"])
def test_unsynced_samples_that_a_power_cut_took_are_missing_not_damaged(tmp_path: Path, lost: list[int]) -> None:
    path = tmp_path / "m.zarr"
    out = LogitWriter(path, CLASSES, IDS, GRID, member="m")
    for k in range(20):
        out.write(IDS[k], value(k), (16, 16))
    del out  # never closed: the last four were never synced
    power_cut(path, lost)
    segment = next((path / "logits/manifest").glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes() + bytes(100))
    opened = LogitStore(path)
    assert opened.missing == [IDS[k] for k in lost] + IDS[20:]
    assert not opened.verify().damaged
    write(str(path), opened.missing)
    is_whole(path)


def test_synced_samples_that_change_are_damaged(tmp_path: Path) -> None:
    write(str(tmp_path / "m.zarr"), IDS)
    power_cut(tmp_path / "m.zarr", [3])
    assert [d.sample for d in LogitStore(tmp_path / "m.zarr").verify().damaged] == [IDS[3]]


def test_flush_marks(tmp_path: Path) -> None:
    with LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID) as out:
        for k in range(3):
            out.write(IDS[k], value(k), (16, 16))
        out.flush()
        segment = next((tmp_path / "m.zarr/logits/manifest").glob("*.jsonl"))
        assert from_line(segment.read_bytes().splitlines()[-1]) == {"sync": 3}
        out.flush()
        assert len(segment.read_bytes().splitlines()) == 5
        out.close()
        out.close()


def test_an_exception_keeps_what_was_written(tmp_path: Path) -> None:
    def fail() -> None:
        with LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID) as out:
            out.write(IDS[0], value(0), (16, 16))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert LogitStore(tmp_path / "m.zarr").verify().checked == 1


def test_a_failed_sync_ends_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = LogitWriter(tmp_path / "m.zarr", CLASSES, IDS, GRID, member="m")
    out.write(IDS[0], value(0), (16, 16))

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(ResourceError, match="Input/output error"):
            out.flush()
    for action in (out.flush, lambda: out.write(IDS[1], value(1), (16, 16))):
        with pytest.raises(ResourceError):
            action()
    out.close()
    write(str(tmp_path / "m.zarr"), IDS[1:])
    is_whole(tmp_path / "m.zarr")


def limited(path: Path, before: str, limit: str, value: int) -> str:
    """Run the writer under a limit of the system; return what it says in the end."""
    lines = f"import resource, signal\n{before}\nresource.setrlimit(resource.RLIMIT_{limit}, ({value}, {value}))\n"
    script = SCRIPT.format(tests=str(Path(__file__).parent)).replace("with Logit", lines + "with Logit", 1)
    return subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True).stderr


def test_size_limit_of_files(tmp_path: Path) -> None:
    told = limited(tmp_path / "m.zarr", "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)", "FSIZE", 900)
    assert "ResourceError" in told
    assert "ulimit -f" in told
    assert not (tmp_path / "m.zarr").exists() or LogitStore(tmp_path / "m.zarr").missing == IDS


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(room)], capture_output=True).returncode:
        pytest.skip("cannot mount a tmpfs")
    try:
        with pytest.raises(ResourceError, match="No space left") as caught:
            write(str(room / "m.zarr"), IDS)
        assert "bytes free" in caught.value.item
        opened = LogitStore(room / "m.zarr")
        done = len(IDS) - len(opened.missing)
        assert done >= 1
        assert opened.verify().checked == done
        assert not opened.verify().damaged
        subprocess.run(["mount", "-o", "remount,size=8m", str(room)], check=True)
        write(str(room / "m.zarr"), opened.missing)
        is_whole(room / "m.zarr")
    finally:
        subprocess.run(["umount", str(room)], check=True)


def test_few_descriptors(tmp_path: Path) -> None:
    assert "ulimit -n" in limited(tmp_path / "m.zarr", "", "NOFILE", 12)
    assert not LogitStore(tmp_path / "m.zarr").verify().damaged


def test_a_dead_writers_lock_vanishes(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    with start(path) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        writer.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(LockedError) as caught:
                LogitWriter(path, CLASSES, IDS, GRID, member="m", overwrite=True)
            assert caught.value.exit_code == 8
        finally:
            writer.kill()
    with LogitWriter(path, CLASSES, IDS, GRID, member="m", overwrite=True) as out:
        assert out.missing == IDS


def test_memory_and_descriptors_do_not_grow(tmp_path: Path) -> None:
    ids = [f"i{k}" for k in range(200)]
    opened = Opened()
    with LogitWriter(tmp_path / "m.zarr", CLASSES, ids, GRID) as out:
        for name in ids:
            out.write(name, value(1), (16, 16))
            assert opened.descriptors() <= 18
    assert opened.descriptors() == 0
    assert LogitStore(tmp_path / "m.zarr").complete
