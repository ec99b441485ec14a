"""Files behind URLs on a bad day: an object that is read is whole or named, one that is written is whole, old or absent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import harness as h
import numpy as np
import pytest
from proxy import RETRIES, Proxy, proxied

import ensemble_kit as ek
from ensemble_kit.errors import EnskError, IncompleteError, ResourceError
from ensemble_kit.remote import objects
from ensemble_kit.remote.objects import Objects
from s3 import SECRET

pytestmark = pytest.mark.slow

pytest.importorskip("obstore")

OLD = b"what was there before"


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    with proxied(server, monkeypatch) as found:
        yield found


@pytest.fixture
def base(proxy: Proxy, request: pytest.FixtureRequest) -> str:
    return f"s3://probe/{abs(hash(request.node.name)):x}"


class Read(NamedTuple):
    """A fault that the reader of a file meets, how often, and how the reading ends."""

    fault: str
    times: int
    error: type[EnskError] | None
    words: str


MANY = 99
READS = [
    Read("404", MANY, IncompleteError, "val.npz does not exist"),
    Read("403", MANY, ResourceError, "the credentials are refused"),
    Read("503", 1, None, ""),
    Read("503", MANY, ResourceError, f"the server answers 503, after {RETRIES} retries"),
    Read("cut", 1, None, ""),
    Read("cut", MANY, ResourceError, "the connection broke off"),
    Read("hang", MANY, ResourceError, "no answer within 1 s"),
    Read("reset", 1, None, ""),
    Read("reset", MANY, ResourceError, ""),
    Read("portal", MANY, EnskError, "val.npz"),
    Read("half", MANY, EnskError, "val.npz"),
    Read("empty", MANY, EnskError, "val.npz"),
]


@pytest.mark.parametrize("case", READS, ids=lambda c: f"{c.fault} x {c.times}")
def test_a_file_is_read_whole_or_named(proxy: Proxy, base: str, case: Read) -> None:
    h.masks().write(f"{base}/val.npz")
    proxy.bad("GET", "/val.npz", case.fault, case.times)
    began = time.monotonic()
    if case.error is None:
        assert ek.read_masks(f"{base}/val.npz") == h.masks()
    else:
        with pytest.raises(case.error) as caught:
            ek.read_masks(f"{base}/val.npz")
        assert case.words in str(caught.value)
        assert f"{base}/val.npz" in str(caught.value)
        assert SECRET not in str(caught.value)
    assert time.monotonic() - began < 20
    assert proxy.met
    proxy.bad("", "", "")
    assert ek.read_masks(f"{base}/val.npz") == h.masks()


@pytest.mark.parametrize("large", [False, True], ids=["one put", "parts"])
@pytest.mark.parametrize("fault", ["403", "503", "reset", "hang", "half sent"])
def test_an_upload_that_fails_leaves_the_old_object(
    proxy: Proxy, base: str, monkeypatch: pytest.MonkeyPatch, fault: str, large: bool
) -> None:
    monkeypatch.setattr(objects, "WHOLE", 0 if large else objects.WHOLE)
    folder = Objects(base)
    folder.put("out.npz", OLD)
    proxy.bad("PUT", "/out.npz", fault)
    with pytest.raises(ResourceError) as caught:
        h.masks().write(f"{base}/out.npz")
    assert f"{base}/out.npz" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert proxy.met
    proxy.bad("", "", "")
    assert folder.get("out.npz") == OLD
    h.masks().write(f"{base}/out.npz")
    assert ek.read_masks(f"{base}/out.npz") == h.masks()


@pytest.mark.parametrize("force", [False, True])
def test_an_upload_whose_answer_is_lost_is_ours(proxy: Proxy, base: str, force: bool) -> None:
    proxy.bad("PUT", "/out.npz", "lost", 1)
    h.masks().write(f"{base}/out.npz", force=force)
    assert proxy.met == 1
    assert ek.read_masks(f"{base}/out.npz") == h.masks()


UPLOAD = """
import sys, numpy as np
from ensemble_kit.files import atomic_write
from ensemble_kit.remote import objects
objects.PART, objects.WHOLE = 5 << 20, int(sys.argv[2])
with atomic_write(sys.argv[1]) as out:
    out.write(np.random.default_rng(0).bytes(16 << 20))
"""


@pytest.mark.parametrize("there", [False, True], ids=["absent", "old"])
@pytest.mark.parametrize(("part", "whole"), [("partNumber=3", 0), ("/out.bin", 1 << 30)], ids=["parts", "one put"])
def test_a_killed_upload_leaves_nothing(proxy: Proxy, base: str, part: str, whole: int, there: bool) -> None:
    """R12: kill -9 in the middle of the body; an object appears when its last part has come."""
    folder = Objects(base)
    if there:
        folder.put("out.bin", OLD)
    running: list[subprocess.Popen[bytes]] = []

    def kill() -> str:
        running[0].kill()
        return "half sent"

    proxy.bad("PUT", part, kill)
    running.append(subprocess.Popen([sys.executable, "-c", UPLOAD, f"{base}/out.bin", str(whole)]))
    assert running[0].wait(60) == -signal.SIGKILL
    assert proxy.met
    proxy.bad("", "", "")
    time.sleep(0.2)
    assert folder.get("out.bin") == (OLD if there else None)
    subprocess.run([sys.executable, "-c", UPLOAD, f"{base}/out.bin", str(whole)], check=True)
    assert folder.get("out.bin") == np.random.default_rng(0).bytes(16 << 20)


@pytest.mark.parametrize("fault", ["reset", "403", "503"])
def test_a_server_that_goes_in_the_middle_of_a_vote_leaves_the_old_masks(proxy: Proxy, base: str, fault: str) -> None:
    h.make(f"{base}/m.zarr")
    folder = Objects(base)
    folder.put("out.csv", OLD)
    proxy.bad("GET", "/logits/c.", fault, after=3)
    ran = h.ensk("vote", f"{base}/m.zarr", "--out", f"{base}/out.csv", "--force", "-q", "--jobs", 1)
    h.judge(ran, 5, "remote", f"{base}/m.zarr/logits/c.")
    assert SECRET not in ran.err
    proxy.bad("", "", "")
    assert folder.get("out.csv") == OLD
    assert h.ensk("vote", f"{base}/m.zarr", "--out", f"{base}/out.csv", "--force", "-q").code == 0
    assert folder.get("out.csv") != OLD


@pytest.mark.parametrize("what", ["--val", "--out"])
def test_keys_that_are_refused_are_told_before_any_count(
    proxy: Proxy, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    h.make(tmp_path / "m.zarr")
    h.masks().write(f"{base}/val.npz")
    h.masks().write(tmp_path / "val.npz")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET + "x")
    named = {"--val": tmp_path / "val.npz", "--out": tmp_path / "set.json"}
    named[what] = f"{base}/{Path(named[what]).name}"
    ran = h.ensk("tune-thresholds", tmp_path / "m.zarr", *(w for pair in named.items() for w in pair), "--debug", "-q")
    assert (ran.code, "error[remote] " in ran.err) == (5, True)
    assert named[what] in ran.err
    assert SECRET not in ran.err
    assert not (tmp_path / "set.json").exists()


def test_a_signal_while_a_file_is_fetched_ends_the_command(proxy: Proxy, base: str, tmp_path: Path) -> None:
    h.masks().write(f"{base}/val.npz")
    proxy.bad("GET", "/val.npz", "hang")
    command = [*h.COMMAND, "inspect", f"{base}/val.npz"]
    process = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(tmp_path)}, stderr=subprocess.PIPE, text=True)
    late = time.monotonic() + 30
    while not proxy.met and time.monotonic() < late:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "run the same command again" in told


@h.needs_root
def test_a_disk_without_room_for_the_copy_is_named(
    proxy: Proxy, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    folder = Objects(base)
    folder.put("big.npz", bytes(3 << 20))
    with h.tmpfs(tmp_path / "small", "1m") as small:
        monkeypatch.setattr(tempfile, "tempdir", str(small))
        with pytest.raises(ResourceError, match="No space left on device · fix: free space there, or set TMPDIR"):
            ek.read_masks(f"{base}/big.npz")
        with pytest.raises(ResourceError, match="No space left on device · fix: free space there, or set TMPDIR"):
            ek.MaskSet({("x", "bone"): ek.encode(np.random.default_rng(0).random((1500, 1500)) < 0.5)}).write(
                f"{base}/out.csv"
            )
        assert not list(small.iterdir())
    assert folder.get("out.csv") is None
