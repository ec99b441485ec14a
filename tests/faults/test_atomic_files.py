"""W: files and folders at their final names, under kills, full devices and errors: the old one, the new one, or none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import harness as h
import pytest

from ensemble_kit import files
from ensemble_kit.errors import ResourceError
from ensemble_kit.files import atomic_folder, atomic_write

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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_device() -> None:
    with pytest.raises(ResourceError, match="No space left"), atomic_write(Path("/dev/full")) as out:
        out.write(b"x" * 10)


def fail(error: int) -> None:
    raise OSError(error, os.strerror(error))


def test_errors_carry_the_targets_name(tmp_path: Path) -> None:
    """A file or folder that fails leaves nothing, and the error says which target it was for."""
    with pytest.raises(ResourceError, match=r"out\.csv"), atomic_write(tmp_path / "out.csv"):
        fail(errno.EIO)
    with pytest.raises(ResourceError, match="masks"), atomic_folder(tmp_path / "masks"):
        fail(errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []
