"""URLs that are none, parts behind URLs, and copies of objects that a killed command left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits, write_store
from ensemble_kit.recipes.memory import held
from ensemble_kit.remote.copies import local
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import url_of
from trying import ensk, put, refused

pytest.importorskip("obstore")

CLASSES, SIZE, IDS = ("a", "b"), (40, 30), tuple(f"{k}.png" for k in range(5))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    logits = {s: 3 * smooth_logits(np.random.default_rng(k), (2, 12, 10)) for k, s in enumerate(IDS)}
    write_store(tmp_path / "m.zarr", logits, SIZE, CLASSES, member="m")
    return tmp_path / "m.zarr"


@pytest.mark.parametrize(
    "text",
    ["s3://", "s3:/", "S3://bucket/a.csv", "s4://bucket/a.csv", "file:///a.csv", "s3://bucket/../a.csv", "s3://b/a/.."],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_url_that_is_none_never_becomes_a_path(
    text: str, kind: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path has lost the second slash, of `s3://` both: a folder `s3:` of PNGs was written."""
    monkeypatch.chdir(tmp_path)
    with refused(ek.UsageError, "store-url", text.partition(":")[0]):
        url_of(kind(text))


def test_no_folder_is_written_for_a_url_without_a_bucket(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(store.parent)
    with refused(ek.UsageError, "store-url", "it names no bucket"):
        ensk("vote", "m.zarr", "--out", "s3://", "-q")
    assert [p.name for p in store.parent.iterdir()] == ["m.zarr"]


@pytest.mark.parametrize("name", ["odd:/a.csv", "odd:", "C:/a.csv", "a:b", "net:run"])
def test_paths_with_a_colon_stay_paths(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd:").mkdir()
    assert url_of(name) is None
    assert url_of(Path(name)) is None


def test_parts_behind_a_url_are_merged(s3: str, store: Path, tmp_path: Path) -> None:
    """The projection of memory asked the disk of this machine for their sizes."""
    ensk("vote", store, "--out", tmp_path / "whole.csv", "-q")
    for k in (1, 2):
        ensk("vote", store, "--part", f"{k}/2", "--out", f"{s3}/o.csv", "-q")
    ensk("merge", f"{s3}/o.csv", "--out", f"{s3}/o.csv", "--memory", f"{held() / 1e9 + 1:.1f}GB", "-q")
    assert Objects(s3).get("o.csv") == (tmp_path / "whole.csv").read_bytes()


_HELD = """
import sys, time
from ensemble_kit.remote.copies import local
copy = local(sys.argv[1])
print(copy.parent.__fspath__(), flush=True)
time.sleep(60)
"""


def test_what_a_killed_command_left_is_removed_by_the_next(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that are in use stay, and so does what only begins alike."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Objects(s3).put("a.csv", b"1\n")
    put(tmp_path / "ensk-copy-mine" / "a.csv", "")
    put(tmp_path / "ensk-demo" / "a.csv", "")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    held = [
        subprocess.Popen([sys.executable, "-c", _HELD, f"{s3}/a.csv"], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    try:
        folders = [Path(os.fsdecode(p.stdout.readline()).strip()) for p in held if p.stdout is not None]
        assert [f.is_dir() for f in folders] == [True, True]
        held[0].send_signal(signal.SIGKILL)
        held[0].wait()
        copy = local(f"{s3}/a.csv")
        assert [f.is_dir() for f in folders] == [False, True]
    finally:
        for process in held:
            process.kill()
            process.communicate()
    del copy
    assert {p.name for p in tmp_path.iterdir()} == {"ensk-copy-mine", "ensk-demo", folders[1].name}
