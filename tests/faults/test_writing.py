"""W: writing as it goes wrong: kills, full disks, bad disks, power cuts. What was acknowledged is never lost."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit import files
from ensemble_kit.errors import EnskError, ResourceError
from ensemble_kit.files import atomic_folder, atomic_write

HERE = Path(__file__).parent

WRITER = """
import sys
import numpy as np
from ensemble_kit.logits.writer import LogitWriter
IDS = [f"s{{k:03}}" for k in range({count})]
def value(k): return (np.random.default_rng(k).normal(size=(2, 8, 6)) * 5).astype(np.float16)
if __name__ == "__main__":
    with LogitWriter(sys.argv[1], {classes}, IDS, {grid}, member="m") as out:
        for name in out.missing:
            out.write(name, value(int(name[1:])), {plane})
            print(name, flush=True)
"""


def value(k: int) -> np.ndarray:
    return (np.random.default_rng(k).normal(size=(2, 8, 6)) * 5).astype(np.float16)


def writer(path: Path, count: int = 40, before: tuple[str, ...] = (), **options: object) -> subprocess.Popen[str]:
    """Start a process that writes what is missing and says each sample once it is acknowledged."""
    script = WRITER.format(classes=h.CLASSES, grid=h.GRID, plane=h.PLANE, count=count)
    command = [*before, sys.executable, "-c", script, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def finished(path: Path, count: int = 40) -> list[str]:
    with writer(path, count) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out.split()


def is_whole(path: Path, count: int = 40) -> None:
    opened = ek.LogitStore(path)
    assert opened.complete
    assert opened.verify().sound
    for k, name in enumerate(opened.samples):
        assert np.array_equal(opened.read(name), value(k)), name
    assert not [p for p in (path / "logits").iterdir() if p.name.endswith(".tmp")]


def acknowledged(path: Path, said: list[str]) -> None:
    """Nothing that was acknowledged is missing or damaged."""
    if not path.exists():
        assert said == []
        return
    opened = ek.LogitStore(path)
    assert set(said) <= set(opened.samples) - set(opened.missing)
    assert not opened.verify().damaged


class Case(NamedTuple):
    """A system call that fails in the writer, and what the person is told."""

    id: str
    call: str
    fault: str
    words: tuple[str, ...]


CASES = [
    Case("W10", "writev", "error=EDQUOT:when=3", ("quota", "s002")),
    Case("W06", "writev", "error=ENOSPC:when=3", ("make room", "s002", "bytes free")),
    Case("W13", "fsync", "error=EIO:when=12+", ("Input/output error",)),
    Case("W13", "fsync", "error=EIO:when=1", ("Input/output error",)),
    Case("W15", "rename", "error=EXDEV:when=4", ("Invalid cross-device link",)),
    Case("W15", "rename", "error=EROFS:when=2+", ("Read-only file system",)),
    Case("W11", "writev", "error=EFBIG:when=5", ("ulimit -f",)),
]
ALONE = {
    "W01": "test_a_kill_at_a_random_point",
    "W02": "test_files_under_a_kill_at_every_call",
    "W03": "test_power_cuts",
    "W05": "test_power_cuts",
    "W07": "test_a_line_of_the_manifest_that_finds_no_room",
    "W18": "test_a_process_that_ends_without_a_word",
    "W19": "test_closing_early_is_no_completeness",
    "W26": "test_paths_that_cannot_be",
    "W27": "test_paths_that_cannot_be",
    "W29": "test_a_long_run_grows_nothing",
    "W30": "test_killed_while_resuming",
}
ELSEWHERE = {
    "W06": "test_writer.py::test_a_full_disk",
    "W09": "test_dump_logits.py::test_a_disk_that_is_too_small_is_refused_first",
    "W11": "test_writer.py::test_size_limit_of_files",
    "W13": "test_writer.py::test_a_failed_sync_ends_the_writer",
    "W14": "test_writer.py::test_few_descriptors",
    "W17": "test_dump_logits.py::test_a_model_that_fails_names_the_sample",
    "W21": "test_dump_logits.py::test_another_recipe_does_not_resume",
    "W22": "test_store.py::test_wrong_arguments",
    "W25": "test_store.py::test_writing_twice",
    "W02": "test_writer.py::test_a_kill_at_every_call",
}
NOT_HERE = {
    "W23": "samples are written by id only; there is no index to be negative or past the end",
}


@h.needs_strace
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.call} {c.fault}")
def test_a_call_that_fails(tmp_path: Path, case: Case) -> None:
    """The error names store and reason; what was acknowledged stays; the next run comes to the same end."""
    path = tmp_path / "m.zarr"
    with writer(path, before=h.traced(case.call, case.fault)) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "ResourceError" in err.splitlines()[-1]
    for words in case.words:
        assert words in err, err
    acknowledged(path, out.split())
    finished(path)
    is_whole(path)


@pytest.mark.slow
@h.needs_strace
def test_a_line_of_the_manifest_that_finds_no_room(tmp_path: Path) -> None:
    """Every write in turn, of which some are lines of the manifest: such a sample is not acknowledged."""
    lines = 0
    for when in range(5, 11):
        path = tmp_path / f"{when}.zarr"
        with writer(path, before=h.traced("write", f"error=ENOSPC:when={when}")) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        acknowledged(path, out.split())
        lines += "make room" in err and "sample 's0" in err
    assert lines >= 2
    finished(path)
    is_whole(path)


@pytest.mark.slow
@h.needs_root
def test_a_disk_that_fills_and_is_given_room(tmp_path: Path) -> None:
    """W06 and W07 without a tracer: an 8-page disk, at every fill."""
    for pages in (8, 11, 14):
        with h.tmpfs(tmp_path / f"room{pages}", f"{4 * pages}k") as room:
            path = room / "m.zarr"
            with writer(path) as process:
                out, err = process.communicate(timeout=60)
            assert "make room" in err
            acknowledged(path, out.split())
            subprocess.run(["mount", "-o", "remount,size=8m", room], check=True)
            finished(path)
            is_whole(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_kill_at_a_random_point(tmp_path: Path, seed: int) -> None:
    path, draw, said = tmp_path / "m.zarr", random.Random(seed), list[str]()
    for _ in range(3):
        with writer(path) as process:
            assert process.stdout is not None
            said += [process.stdout.readline().strip() for _ in range(draw.randrange(1, 12))]
            time.sleep(0.01 * draw.random())
            process.send_signal(signal.SIGKILL)
            said = [s for s in (*said, *process.stdout.read().split()) if s]
        acknowledged(path, said)
    assert not set(said) & set(finished(path))
    is_whole(path)


@pytest.mark.slow
def test_killed_while_resuming(tmp_path: Path) -> None:
    """More samples than a writer gets through while a busy machine brings it the signal."""
    path, count = tmp_path / "m.zarr", 300
    for after in (3, 2, 18):
        with writer(path, count) as process:
            assert process.stdout is not None
            said = [process.stdout.readline().strip() for _ in range(after)]
            process.kill()
        assert process.returncode == -signal.SIGKILL
        acknowledged(path, said)
    finished(path, count)
    is_whole(path, count)
    once = tmp_path / "once" / "m.zarr"
    finished(once, count)
    assert ek.LogitStore(once).fingerprint == ek.LogitStore(path).fingerprint
    for k in range(count):
        name = f"logits/c.{k}.0.0.0"
        assert (once / name).read_bytes() == (path / name).read_bytes()


ATOMIC = """
import sys
from pathlib import Path
from ensemble_kit.files import atomic_folder, atomic_write
target = Path(sys.argv[1])
if target.suffix:
    with atomic_write(target) as out:
        out.write(b"new" * 1000)
else:
    with atomic_folder(target, mark="index.json") as folder:
        (folder / "index.json").write_bytes(b"new" * 1000)
        (folder / "more").mkdir()
        (folder / "more/x").write_bytes(b"new")
print("done", flush=True)
"""


@h.needs_strace
@pytest.mark.parametrize("call", ["rename", "fsync", "write", "flock", "fchmod"])
@pytest.mark.parametrize("kind", ["file.csv", "folder"])
def test_files_under_a_kill_at_every_call(tmp_path: Path, kind: str, call: str) -> None:
    """At its final name a file is the old one or the new one; a folder may be gone for the time of one rename."""
    target, ends = tmp_path / kind, []
    for when in (1, 2, 3):
        if kind == "folder":
            target.mkdir(exist_ok=True)
            (target / "index.json").write_bytes(b"old")
        else:
            target.write_bytes(b"old")
        command = [*h.traced(call, f"signal=SIGKILL:when={when}"), sys.executable, "-c", ATOMIC, str(target)]
        ends.append(subprocess.run(command, capture_output=True, timeout=60).returncode)
        whole = target / "index.json" if kind == "folder" else target
        if target.exists():
            assert whole.read_bytes() in {b"old", b"new" * 1000}
        else:
            assert (kind, call) == ("folder", "rename")
            assert any((p / "index.json").read_bytes() in {b"old", b"new" * 1000} for p in tmp_path.iterdir())
    if -9 not in ends:
        pytest.skip(f"{call} is not called, or strace may not trace here")
    if target.exists():
        subprocess.run([sys.executable, "-c", ATOMIC, str(target)], check=True, capture_output=True)
        assert [p.name for p in tmp_path.iterdir()] == [kind]  # the leftovers are swept


@pytest.mark.parametrize("kind", ["file.csv", "folder"])
def test_leftovers_go_before_the_new_content_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whoever is killed right after the rename left nothing to sweep: what is whole may never be written again."""
    other = tmp_path / f"{kind}.tmp-{'0' * 16}"
    other.write_bytes(b"half") if kind == "file.csv" else other.mkdir()
    sync = files.sync_folder
    monkeypatch.setattr(files, "sync_folder", lambda p: pytest.fail("killed") if p == tmp_path else sync(p))
    target = tmp_path / kind
    with pytest.raises(pytest.fail.Exception, match="killed"):
        if kind == "folder":
            with files.atomic_folder(target) as folder:
                (folder / "index.json").write_bytes(b"new")
        else:
            with files.atomic_write(target) as out:
                out.write(b"new")
    assert [p.name for p in tmp_path.iterdir()] == [kind]


def test_a_process_that_ends_without_a_word(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        out = ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, h.IDS, h.GRID)
        for k in range(3):
            out.write(h.IDS[k], h.logits()[k], h.PLANE)
        os._exit(0)
    os.waitpid(child, 0)
    opened = ek.LogitStore(tmp_path / "m.zarr")
    assert opened.missing == list(h.IDS[3:])
    assert opened.verify().checked == 3
    h.judge(h.ensk("verify", tmp_path / "m.zarr"), 4, "store-incomplete", h.IDS[3])
    h.judge(h.ensk("vote", tmp_path / "m.zarr", "--out", tmp_path / "o.csv"), 4, "sample-missing", h.IDS[3])


def test_closing_early_is_no_completeness(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, h.IDS, h.GRID) as out:
        out.write(h.IDS[0], h.logits()[0], h.PLANE)
        out.close()
        assert out.missing == list(h.IDS[1:])
    ran = h.ensk("inspect", tmp_path / "m.zarr", "--json")
    assert '"committed": 1' in ran.out
    h.judge(h.ensk("verify", tmp_path / "m.zarr"), 4, "store-incomplete", "5 of 6")


@pytest.mark.parametrize(
    ("name", "code"),
    [("n" * 300, 2), ("a\0b", 2), ("file", 2), ("file/below", 5), ("", 2), ("\udcff" * 3 + "n" * 300, 2)],
)
def test_paths_that_cannot_be(tmp_path: Path, name: str, code: int) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnskError) as caught:
        ek.LogitWriter(str(tmp_path / name) if name else "", h.CLASSES, h.IDS, h.GRID)
    assert caught.value.exit_code == code
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_device() -> None:
    with pytest.raises(ResourceError, match="No space left"), atomic_write(Path("/dev/full")) as out:
        out.write(b"x" * 10)


@pytest.mark.slow
def test_a_long_run_grows_nothing(tmp_path: Path) -> None:
    """Threads, descriptors and memory over 3,000 samples; a manifest is appended to, never written again."""
    ids = [f"i{k}" for k in range(3000)]
    marks: list[tuple[int, int, int]] = []
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, ids, h.GRID) as out:
        for k, name in enumerate(ids):
            out.write(name, value(1), h.PLANE)
            if k % 1000 == 999:
                fds = len(list(Path("/proc/self/fd").iterdir()))
                kb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 10
                marks.append((fds, threading.active_count(), kb))
    (segment,) = (tmp_path / "m.zarr/logits/manifest").glob("*.jsonl")
    assert segment.stat().st_size < 3200 * 400
    assert marks[2][0] - marks[0][0] <= 16  # other tests may close theirs meanwhile
    assert marks[2][1] == marks[0][1]
    assert marks[2][2] - marks[1][2] < 4 * 1024  # a record is half a kilobyte


@contextmanager
def disk(folder: Path, megabytes: int = 24) -> Iterator[tuple[Path, Path]]:
    """Make an ext4 disk in a file and mount it: (its file, where it is mounted)."""
    image, point = folder / "disk.img", folder / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    for command in (["mkfs.ext4", "-q", "-F", image], ["mount", "-o", "loop", image, point]):
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip(f"cannot run {command[0]}")
    try:
        yield image, point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


def cut(image: Path, folder: Path) -> Iterator[Path]:
    """Take what a power cut at this moment would leave: a copy of the disk's file, mounted after its journal ran."""
    copy, point = folder / "after.img", folder / "after"
    shutil.copyfile(image, copy)
    point.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", copy, point], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", "-l", point], check=True)


@pytest.mark.slow
@h.needs_root
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed")
@pytest.mark.parametrize("wait", [0.0, 0.5, 2.0])
def test_power_cuts(tmp_path: Path, wait: float) -> None:
    """What `flush` acknowledged survives; what was written since is there whole, or missing: never damaged."""
    with disk(tmp_path) as (image, point):
        path = point / "m.zarr"
        ids = [f"s{k:03}" for k in range(40)]
        out = ek.LogitWriter(path, h.CLASSES, ids, h.GRID, member="m")
        for done in range(1, 29):
            out.write(ids[done - 1], value(done - 1), h.PLANE)
            if done == 21:
                out.flush()
        time.sleep(wait)
        for after in cut(image, tmp_path):
            opened = ek.LogitStore(after / "m.zarr")
            assert set(ids[:21]) <= set(opened.samples) - set(opened.missing)
            assert not opened.verify().damaged
            finished(after / "m.zarr")
            is_whole(after / "m.zarr")
        out.close()


def fail(error: int) -> None:
    raise OSError(error, os.strerror(error))


def test_errors_carry_the_targets_name(tmp_path: Path) -> None:
    """A file or folder that fails leaves nothing, and the error says which target it was for."""
    with pytest.raises(ResourceError, match=r"out\.csv"), atomic_write(tmp_path / "out.csv"):
        fail(errno.EIO)
    with pytest.raises(ResourceError, match="masks"), atomic_folder(tmp_path / "masks"):
        fail(errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []
