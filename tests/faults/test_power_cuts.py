"""W: the power goes while a store is written: an ext4 disk in a file, whose bytes are copied and mounted again."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import harness as h
import numpy as np
import pytest
import test_writing

import ensemble_kit as ek

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("form"),
    h.needs_root,
    pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed"),
]


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


@pytest.mark.parametrize("wait", [0.0, 0.5, 2.0])
def test_power_cuts(tmp_path: Path, wait: float) -> None:
    """What `flush` acknowledged survives; what was written since is there whole, or missing: never damaged."""
    with disk(tmp_path) as (image, point):
        path = point / "m.zarr"
        ids = [f"s{k:03}" for k in range(40)]
        out = ek.LogitWriter(path, h.CLASSES, ids, h.GRID, member="m")
        for done in range(1, 29):
            h.write(out, ids[done - 1], h.value(done - 1))
            if done == 21:
                out.flush()
        time.sleep(wait)
        for after in cut(image, tmp_path):
            opened = ek.LogitStore(after / "m.zarr")
            assert set(ids[:21]) <= set(opened.samples) - set(opened.missing)
            assert not opened.verify().damaged
            test_writing.finished(after / "m.zarr")
            test_writing.is_whole(after / "m.zarr")
        out.close()


def test_a_power_cut_between_the_chunks_of_a_sample(tmp_path: Path) -> None:
    """The former take until the new one is whole, and the new one as soon as `write` has returned: it is synced then."""
    if h.FORM.chunks == 1:
        pytest.skip("its samples have one chunk")
    looks = list[bool]()

    def look(seed: int) -> None:
        for after in cut(image, tmp_path):
            opened = ek.LogitStore(after / "m.zarr")
            assert not opened.verify().damaged
            np.testing.assert_array_equal(h.read(opened, h.IDS[0]), h.logits(seed)[0])
            looks.append(opened.missing == list(h.IDS[3:]))
            ek.LogitWriter(after / "m.zarr", h.CLASSES, h.IDS, h.GRID).close()  # the next writer sweeps
            assert not h.temporaries(after / "m.zarr")

    with disk(tmp_path) as (image, point):
        path = h.make(point / "m.zarr", upto=3)
        with ek.LogitWriter(path, h.CLASSES, h.IDS, h.GRID) as out:
            h.FORM.write_in_parts(out, h.IDS[0], h.logits(5)[0], lambda: look(0), again=True)
            look(5)
    assert looks == [True, True]
