"""W: writing as it goes wrong: kills, full disks, bad disks, power cuts. What was acknowledged is never lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.errors import EnskError
from opened import Opened

HERE = Path(__file__).parent

WRITER = """
import sys
sys.path.insert(0, {here!r})
import forms
from ensemble_kit.logits.writer import LogitWriter
form = forms.use({form!r})
ids = [f"s{{k:03}}" for k in range({count})]
with LogitWriter(sys.argv[1], forms.CLASSES, ids, form.grid, member="m") as out:
    for name in out.missing:
        form.write(out, name, form.value(int(name[1:])))
        print(name, flush=True)
"""


def writer(path: Path, count: int = 40, before: tuple[str, ...] = ()) -> subprocess.Popen[str] | warm.Process:
    """Start a process that writes what is missing and says each sample once it is acknowledged."""
    script = WRITER.format(here=str(HERE), form=h.FORM.name, count=count)
    if not before:
        return warm.Process("-c", script, path, stdout=subprocess.PIPE)
    command = [*before, sys.executable, "-c", script, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
        assert np.array_equal(h.read(opened, name), h.value(k)), name
    assert not h.temporaries(path)


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
    Case("W10", "writev", "error=EDQUOT:when=3", ("quota", "{sample}")),
    Case("W06", "writev", "error=ENOSPC:when=3", ("make room", "{sample}", "bytes free")),
    Case("W13", "fsync", "error=EIO:when=12+", ("Input/output error",)),
    Case("W13", "fsync", "error=EIO:when=1", ("Input/output error",)),
    Case("W15", "rename", "error=EXDEV:when=4", ("Invalid cross-device link",)),
    Case("W15", "rename", "error=EROFS:when=2+", ("Read-only file system",)),
    Case("W11", "writev", "error=EFBIG:when=5", ("ulimit -f",)),
]
ALONE = {
    "W01": "test_a_kill_at_a_random_point",
    "W07": "test_a_line_of_the_manifest_that_finds_no_room",
    "W18": "test_a_process_that_ends_without_a_word",
    "W19": "test_closing_early_is_no_completeness",
    "W26": "test_paths_that_cannot_be",
    "W27": "test_paths_that_cannot_be",
    "W29": "test_a_long_run_grows_nothing",
    "W30": "test_killed_while_resuming",
}
ELSEWHERE = {
    "W03": "faults/test_power_cuts.py::test_power_cuts",
    "W05": "faults/test_power_cuts.py::test_power_cuts",
    "W06": "test_writer.py::test_a_full_disk",
    "W09": "test_dump_logits.py::test_a_disk_that_is_too_small_is_refused_first",
    "W11": "test_writer.py::test_size_limit_of_files",
    "W13": "test_writer.py::test_a_failed_sync_ends_the_writer",
    "W14": "test_writer.py::test_few_descriptors",
    "W17": "test_dump_logits.py::test_a_model_that_fails_names_the_sample",
    "W21": "test_dump_logits.py::test_another_recipe_does_not_resume",
    "W22": "test_store.py::test_wrong_arguments",
    "W25": "test_store.py::test_writing_twice",
    "W02": "test_writer.py::test_a_kill_at_every_call, faults/test_atomic_files.py::test_files_under_a_kill_at_every_call",
}
NOT_HERE = {
    "W23": "samples are written by id only; there is no index to be negative or past the end",
}


@pytest.mark.usefixtures("form")
@h.needs_strace
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.id} {c.call} {c.fault}")
def test_a_call_that_fails(tmp_path: Path, case: Case) -> None:
    """The error names store and reason; what was acknowledged stays; the next run comes to the same end."""
    path = tmp_path / "m.zarr"
    with writer(path, before=h.traced(case.call, case.fault)) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "ResourceError" in err.splitlines()[-1]
    for words in case.words:  # a sample's files are written one by one
        assert words.format(sample=f"s{2 // h.FORM.files:03}") in err, err
    acknowledged(path, out.split())
    finished(path)
    is_whole(path)


@pytest.mark.usefixtures("form")
@pytest.mark.slow
@h.needs_strace
def test_a_line_of_the_manifest_that_finds_no_room(tmp_path: Path) -> None:
    """Every write in turn, of which some are lines of the manifest: such a sample is not acknowledged."""
    lines = 0
    for when in range(5 + (h.GRID is None), 11 + (h.GRID is None)):  # whose store has one file more
        path = tmp_path / f"{when}.zarr"
        with writer(path, before=h.traced("write", f"error=ENOSPC:when={when}")) as process:
            out, err = process.communicate(timeout=60)
        assert process.returncode == 1, err
        acknowledged(path, out.split())
        lines += "make room" in err and "sample 's0" in err
    assert lines >= 2
    finished(path)
    is_whole(path)


@pytest.mark.usefixtures("form")
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


@pytest.mark.usefixtures("form")
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


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("again", [False, True], ids=["a new sample", "one that is written again"])
def test_a_kill_between_the_chunks_of_a_sample(tmp_path: Path, again: bool) -> None:
    """Nothing of it is visible, the former take is as it was, and what was staged is swept."""
    if h.FORM.chunks == 1:
        pytest.skip("its samples have one chunk")
    path, row = h.make(tmp_path / "m.zarr", upto=3), 0 if again else 3
    child = os.fork()
    if child == 0:
        out = ek.LogitWriter(path, h.CLASSES, h.IDS, h.GRID)
        kill = partial(os.kill, os.getpid(), signal.SIGKILL)
        h.FORM.write_in_parts(out, h.IDS[row], h.logits(5)[row], kill, again=again)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert len(h.temporaries(path)) == 1
    opened = ek.LogitStore(path)
    assert opened.missing == list(h.IDS[3:])
    assert not opened.verify().damaged
    np.testing.assert_array_equal(h.read(opened, h.IDS[0]), h.logits()[0])
    h.make(path)
    assert not h.temporaries(path)
    np.testing.assert_array_equal(h.read(ek.LogitStore(path), h.IDS[row]), h.logits()[row])
    assert ek.LogitStore(path).verify().sound


@pytest.mark.usefixtures("form")
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
        assert [p.read_bytes() for p in h.files(once, k)] == [p.read_bytes() for p in h.files(path, k)]


@pytest.mark.usefixtures("form")
def test_a_process_that_ends_without_a_word(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        out = ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, h.IDS, h.GRID)
        for k in range(3):
            h.write(out, h.IDS[k], h.logits()[k])
        os._exit(0)
    os.waitpid(child, 0)
    opened = ek.LogitStore(tmp_path / "m.zarr")
    assert opened.missing == list(h.IDS[3:])
    assert opened.verify().checked == 3
    h.judge(h.ensk("verify", tmp_path / "m.zarr"), 4, "store-incomplete", h.IDS[3])
    h.judge(h.ensk("vote", tmp_path / "m.zarr", "--out", tmp_path / h.OUT), 4, "sample-missing", h.IDS[3])


@pytest.mark.usefixtures("form")
def test_closing_early_is_no_completeness(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, h.IDS, h.GRID) as out:
        h.write(out, h.IDS[0], h.logits()[0])
        out.close()
        assert out.missing == list(h.IDS[1:])
    ran = h.ensk("inspect", tmp_path / "m.zarr", "--json")
    assert '"committed": 1' in ran.out
    h.judge(h.ensk("verify", tmp_path / "m.zarr"), 4, "store-incomplete", "5 of 6")


@pytest.mark.usefixtures("form")
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


@pytest.mark.usefixtures("form")
@pytest.mark.slow
def test_a_long_run_grows_nothing(tmp_path: Path) -> None:
    """Threads, descriptors and memory over 1,500 samples; a manifest is appended to, never written again."""
    ids = [f"i{k}" for k in range(1500)]
    marks, held, opened = list[tuple[int, int]](), list[int](), Opened()
    with ek.LogitWriter(tmp_path / "m.zarr", h.CLASSES, ids, h.GRID) as out:
        for k, name in enumerate(ids):
            h.write(out, name, h.value(1))
            if k % 500 == 499:
                out.flush()  # a group of chunks that is not synced yet is open
                marks.append((opened.descriptors(), opened.threads()))
                if not held:
                    tracemalloc.start()  # what is held from here on; pages of the process are of other tests, too
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    (segment,) = (tmp_path / "m.zarr/logits/manifest").glob("*.jsonl")
    assert segment.stat().st_size < 1600 * 400
    assert marks[2] == marks[0]
    # A record is half a kilobyte. The interpreter's own table of interned strings may double in one of the two spans.
    assert min(held[1] - held[0], held[2] - held[1]) < 1 << 20
