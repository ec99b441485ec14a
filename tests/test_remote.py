"""Stores behind URLs: the same bytes and results as in a folder, on a memory store and on a real S3 server."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from conftest import smooth_logits
from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    LockedError,
    MismatchError,
    ResourceError,
    UsageError,
)
from ensemble_kit.logits.open import is_store
from ensemble_kit.logits.remote import Remote
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter
from ensemble_kit.remote import objects
from s3 import SECRET, environment

pytest.importorskip("obstore")

CLASSES, GRID, IDS = ["a", "b", "c"], (12, 10), [f"s {k}/é" for k in range(6)]
VALUES = [smooth_logits(np.random.default_rng(k), (3, *GRID)) for k in range(len(IDS))]
RUN = "from ensemble_kit.cli.app import main; main()"


def make(path: Any, upto: int | None = None, **options: Any) -> LogitStore:
    with LogitWriter(path, CLASSES, IDS, GRID, member="m", **options) as out:
        for name, value in list(zip(IDS, VALUES, strict=True))[:upto]:
            out.write(name, value, (40, 30))
    return LogitStore(path)


def code_of(error: type[EnskError], action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(error) as caught:
        action()
    assert SECRET not in str(caught.value)
    assert caught.value.fix
    return caught.value.code, str(caught.value)


# ------------------------------------------------------------------------------------------------ same as local


@pytest.mark.slow
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_the_same_as_in_a_folder(base: str, tmp_path: Path, codec: str) -> None:
    here, there = make(tmp_path / "m.zarr", codec=codec), make(f"{base}/m.zarr", codec=codec)
    assert there.fingerprint == here.fingerprint
    assert there.complete
    assert there.path == f"{base}/m.zarr"
    assert is_store(there.path)
    for name, value in zip(IDS, VALUES, strict=True):
        np.testing.assert_array_equal(there.read(name).view(np.uint16), value.view(np.uint16))
        assert not there.read(name).flags.writeable
    out = np.empty((3, *GRID), np.float16)
    np.testing.assert_array_equal(there.read(IDS[2], out), VALUES[2])
    assert there.verify().sound
    for key in ("c.0.0.0.0", "c.5.0.0.0"):
        assert Remote(f"{base}/m.zarr").get(f"logits/{key}") == (tmp_path / "m.zarr" / "logits" / key).read_bytes()
    near, far = ek.Ensemble([here.path]), ek.Ensemble([Path(str(there.path))])  # a Path loses a slash; it is mended
    assert all(near.vote(0.4)[key] == runs for key, runs in far.vote(0.4).items())
    assert np.array_equal(near.levels(IDS[0]), far.levels(IDS[0]))


def test_zarr_reads_it_by_its_own_stores(base: str) -> None:
    zarr = pytest.importorskip("zarr")
    from zarr.storage import ObjectStore

    place = Remote(str(make(f"{base}/m.zarr", codec="lossless").path))
    group = zarr.open_group(ObjectStore(place.bucket, read_only=True), path=place.prefix.rstrip("/"), mode="r")
    np.testing.assert_array_equal(group["logits"][:], np.stack(VALUES))


def test_resume_and_one_request_to_open(base: str) -> None:
    url = f"{base}/m.zarr"
    first = make(url, upto=4)
    assert first.missing == IDS[4:]
    assert "logits/manifest/all.jsonl" not in Remote(str(first.path)).listing()
    assert code_of(IncompleteError, lambda: first.read(IDS[5]))[0] == "sample-missing"
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert out.missing == IDS[4:]
        out.write(IDS[0], VALUES[0], (40, 30))  # again, with equal bytes
        for k in (4, 5):
            out.write(IDS[k], VALUES[k], (40, 30))
        assert out.missing == []
    whole = LogitStore(url)
    assert whole.complete
    assert "logits/manifest/all.jsonl" in Remote(str(whole.path)).listing()
    for row in range(len(IDS)):
        Remote(str(whole.path)).delete([f"logits/manifest/{row}.jsonl"])
    assert LogitStore(url).fingerprint == whole.fingerprint
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert out.missing == []


def test_many_writers(base: str) -> None:
    def run(rank: int) -> None:
        with LogitWriter(f"{base}/m.zarr", CLASSES, IDS, GRID, member="m") as out:
            for k in [*range(rank, len(IDS), 3), 0]:
                out.write(IDS[k], VALUES[k], (40, 30))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    opened = LogitStore(f"{base}/m.zarr")
    assert opened.complete
    assert opened.verify().sound


def test_the_last_of_many_writers_puts_all_commits_into_one_object(base: str) -> None:
    """Each has written a part of the samples, as `--part i/n` does, and was opened before the others' first commit."""
    url, whole = f"{base}/parts.zarr", make(f"{base}/whole.zarr")
    writers = [LogitWriter(url, CLASSES, IDS, GRID, member="m") for _ in range(3)]
    for k, (name, value) in enumerate(zip(IDS, VALUES, strict=True)):
        writers[k % 3].write(name, value, (40, 30))
    for k, writer in enumerate(writers):
        assert "logits/manifest/all.jsonl" not in Remote(url).listing(), f"before writer {k} is closed"
        if k < 2:
            keys = [f"logits/manifest/{row}.jsonl" for row in range(2, 6, 3)]
            held = {key: Remote(url).get(key) or b"" for key in keys}
            Remote(url).delete(keys)  # as if the third writer had not come to its samples yet
            writer.close()
            for key, content in held.items():
                Remote(url).put(key, content)
    writers[2].close()
    assert "logits/manifest/all.jsonl" in Remote(url).listing()
    assert LogitStore(url).fingerprint == whole.fingerprint


def test_a_lost_object_is_not_committed_by_another_writer(base: str) -> None:
    url = f"{base}/lost.zarr"
    make(url, upto=5)
    Remote(url).delete(["logits/c.1.0.0.0"])
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        out.write(IDS[5], VALUES[5], (40, 30))
    assert "logits/manifest/all.jsonl" not in Remote(url).listing()
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert out.missing == [IDS[1]]


def test_other_content_is_refused_and_lost_objects_are_written_again(base: str) -> None:
    url = f"{base}/m.zarr"
    place = Remote(str(make(url).path))
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert code_of(LockedError, lambda: out.write(IDS[1], VALUES[2], (40, 30)))[0] == "sample-committed"
    place.delete(["logits/c.1.0.0.0"])
    assert [d.sample for d in LogitStore(url).verify().damaged] == [IDS[1]]
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert out.missing == [IDS[1]]
        out.write(IDS[1], VALUES[2], (40, 30))
        assert out.missing == []
    np.testing.assert_array_equal(LogitStore(url).read(IDS[1]), VALUES[2])
    assert LogitStore(url).verify().sound


def test_overwrite_and_what_must_agree(base: str) -> None:
    url = f"{base}/m.zarr"
    make(url)
    assert code_of(MismatchError, lambda: LogitWriter(url, CLASSES[:2], IDS, GRID, member="m"))[0] == "store-differs"
    code, text = code_of(MismatchError, lambda: LogitWriter(url, CLASSES, IDS, GRID, member="m", codec="lossless"))
    assert code == "store-differs"
    assert "codec" in text
    with LogitWriter(url, CLASSES[:2], IDS, GRID, overwrite=True) as out:
        assert out.missing == IDS
    place = Remote(url)
    place.put("notes.txt", b"mine")
    assert code_of(UsageError, lambda: LogitWriter(url, CLASSES, IDS, GRID, overwrite=True))[0] == "store-foreign"


@pytest.mark.parametrize("upto", [4, None], ids=["unfinished", "finished"])
def test_a_folder_that_was_copied_to_a_url_is_read_and_resumed(base: str, tmp_path: Path, upto: int | None) -> None:
    here, url = make(tmp_path / "m.zarr", upto=upto), f"{base}/m.zarr"
    for path in (p for p in (tmp_path / "m.zarr").rglob("*") if p.is_file()):
        Remote(url).put(str(path.relative_to(tmp_path / "m.zarr")), path.read_bytes())
    there = LogitStore(url)
    assert there.missing == here.missing
    assert not there.verify().damaged
    assert make(url).fingerprint == make(tmp_path / "m.zarr").fingerprint
    assert LogitStore(url).verify().sound
    np.testing.assert_array_equal(LogitStore(url).read(IDS[2]), VALUES[2])


def test_packing_what_lies_behind_a_url(base: str, tmp_path: Path) -> None:
    store = make(f"{base}/m.zarr", codec="lossless")
    store.pack(tmp_path / "m.zip")
    assert LogitStore(tmp_path / "m.zip").fingerprint == store.fingerprint


# ------------------------------------------------------------------------------------------------ damage and errors


@pytest.mark.parametrize("codec", ["none", "lossless"])
@pytest.mark.parametrize("fault", ["gone", "cut", "empty", "changed", "html", "another's"])
def test_a_missing_or_damaged_object_is_named(base: str, fault: str, codec: str) -> None:
    opened = make(f"{base}/m.zarr", codec=codec)
    place, key = Remote(str(opened.path)), "logits/c.2.0.0.0"
    content = place.get(key)
    if fault == "gone":
        place.delete([key])
    else:
        changed = bytearray(content)
        changed[100] ^= 1
        html = b"<html>sign in</html>".ljust(len(content))
        faults = {
            "cut": content[:-7],
            "empty": b"",
            "changed": changed,
            "html": html,
            "another's": place.get("logits/c.3.0.0.0"),
        }
        place.put(key, bytes(faults[fault]))
    code, text = code_of(DamagedError, lambda: opened.read(IDS[2]))
    assert code == "sample-damaged"
    assert f"{base}/m.zarr, {key}" in text
    assert f"rename {base}/m.zarr/{key}" in text
    assert [d.key for d in opened.verify().damaged] == [key]
    np.testing.assert_array_equal(opened.read(IDS[3]), VALUES[3])


def test_commits_that_are_damaged_or_gone(base: str) -> None:
    url = f"{base}/m.zarr"
    place = Remote(str(make(url, upto=3).path))
    raw = place.get("logits/manifest/1.jsonl")
    place.put("logits/manifest/1.jsonl", raw.replace(b'"row":1', b'"row":2'))
    code, text = code_of(DamagedError, lambda: LogitStore(url))
    assert code == "manifest-damaged"
    assert f"{url}/logits/manifest/1.jsonl line 2" in text
    place.delete(["logits/manifest/1.jsonl"])
    assert LogitStore(url).missing == [IDS[1], *IDS[3:]]
    place.delete(["zarr.json"])
    assert code_of(IncompleteError, lambda: LogitStore(url))[0] == "store-missing"
    assert code_of(DamagedError, lambda: LogitWriter(url, CLASSES, IDS, GRID))[0] == "store-foreign"


def test_a_kill_between_object_and_commit_and_before_the_group(base: str) -> None:
    url = f"{base}/m.zarr"
    place = Remote(str(make(url, upto=1).path))
    place.put("logits/c.1.0.0.0", b"half of something")  # its writer died before the commit
    with LogitWriter(url, CLASSES, IDS, GRID, member="m") as out:
        assert out.missing == IDS[1:]
        out.write(IDS[1], VALUES[1], (40, 30))
    assert not LogitStore(url).verify().damaged
    other = Remote(f"{base}/n.zarr")
    other.put("logits/zarr.json", place.get("logits/zarr.json"))  # this one's before the group's description
    assert make(f"{base}/n.zarr").complete


@pytest.mark.parametrize(
    "url", ["ftp://a/b", "s3://user:hunter2@b/x", "s3://b/x?X-Amz-Signature=hunter2", "s3://b/x#hunter2", "s3://"]
)
def test_urls_that_are_refused(url: str) -> None:
    for action in (LogitStore, lambda u: LogitWriter(u, CLASSES, IDS, GRID)):
        code, text = code_of(UsageError, lambda: action(url))  # noqa: B023
        assert code == "store-url"
        assert "hunter2" not in text


def test_a_folder_that_is_called_like_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "s3:" / "m.zarr")
    assert LogitStore("s3:/m.zarr").complete


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, text = code_of(UsageError, lambda: LogitStore("s3://bucket/m.zarr"))
    assert code == "remote-missing"
    assert "pip install 'ensemble_kit[remote]'" in text


def test_a_fork_is_refused(base: str) -> None:
    opened = make(f"{base}/m.zarr")
    pid = os.fork()
    if pid == 0:
        try:
            opened.read(IDS[0])
        except UsageError as error:
            os._exit(0 if error.code == "remote-fork" else 2)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_wrong_keys_and_bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make(f"{s3}/m.zarr")
    code, text = code_of(ResourceError, lambda: LogitStore("s3://no-such-bucket/m.zarr"))
    assert code == "remote"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET + "x")
    code, text = code_of(ResourceError, lambda: LogitStore(f"{s3}/m.zarr"))
    assert code == "remote"
    assert "credentials" in text
    assert code_of(ResourceError, lambda: make(f"{s3}/n.zarr"))[0] == "remote"


def test_commands_take_urls(s3: str, tmp_path: Path) -> None:
    from ensemble_kit.cli.app import app

    make(f"{s3}/m.zarr")
    make(tmp_path / "m.zarr")

    def ensk(*arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.ensk(*arguments)

    done = ensk("verify", f"{s3}/m.zarr", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sound"]
    outs = []
    for k, store in enumerate((f"{s3}/m.zarr", str(tmp_path / "m.zarr"))):
        outs.append(tmp_path / f"{k}.csv")
        app(["vote", store, "--thresholds", "0.5", "--out", str(outs[-1]), "-q"], standalone_mode=False)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    Remote(f"{s3}/m.zarr").delete(["logits/c.1.0.0.0"])
    done = ensk("verify", f"{s3}/m.zarr", "--debug")
    assert done.returncode == 3
    assert "rename s3://probe/" in done.stderr
    assert SECRET not in done.stderr


def test_a_dump_goes_to_a_url_and_is_resumed(base: str, tmp_path: Path) -> None:
    from PIL import Image

    from ensemble_kit.cli.app import app

    for folder in ("images", "arrays"):
        (tmp_path / folder).mkdir()
    for k in range(4):
        Image.fromarray(np.zeros((40, 30), np.uint8)).save(tmp_path / f"images/{k}.png")
        np.save(tmp_path / f"arrays/{k}.npy", VALUES[k])
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    common = ["dump-logits", str(tmp_path / "arrays"), "--images", str(tmp_path / "images"), "--classes",
              str(tmp_path / "classes.txt"), "--codec", "lossless", "-q"]  # fmt: skip
    app([*common, "--part", "1/2", "--out", f"{base}/m.zarr"], standalone_mode=False)
    assert LogitStore(f"{base}/m.zarr").missing == ["1.png", "3.png"]
    app([*common, "--out", f"{base}/m.zarr"], standalone_mode=False)
    app([*common, "--out", str(tmp_path / "m.zarr")], standalone_mode=False)
    assert LogitStore(f"{base}/m.zarr").fingerprint == LogitStore(tmp_path / "m.zarr").fingerprint


class _Faulty(BaseHTTPRequestHandler):
    """An S3 server that answers as `fault` says, `left` times, and otherwise from `objects`."""

    objects: dict[str, bytes]
    fault: str
    left: int

    def do_GET(self) -> None:
        content, kind = self.objects.get(self.path), type(self)
        if kind.left and "/c." in self.path:
            kind.left -= 1
            if kind.fault.isdigit():
                return self._answer(
                    int(kind.fault), f"<Error><Code>X</Code><Message>{SECRET}</Message></Error>".encode()
                )
            if kind.fault == "html":
                return self._answer(200, b"<html>sign in</html>")
            return self._answer(200, content or b"", upto=50)  # a body that breaks off
        return (
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            if content is None
            else self._answer(200, content)
        )

    def _answer(self, status: int, content: bytes, upto: int | None = None) -> None:
        wanted, whole = self.headers.get("Range", ""), len(content)
        if wanted and status == 200:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
            status, content = 206, content[begin:]
        self.send_response(status)
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{whole - 1}/{whole}")
        self.send_header("Content-Length", str(len(content)))
        self._facts()
        self.wfile.write(content[:upto])
        self.close_connection = upto is not None

    def _facts(self) -> None:
        self.send_header("Last-Modified", "Mon, 23 Nov 2026 07:00:00 GMT")
        self.send_header("ETag", '"x"')
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_plain_web_server_is_read(tmp_path: Path) -> None:
    place = Remote(str(make(f"memory://web/{secrets.token_hex(4)}").path))
    held = {f"/a/m.zarr/{key}": place.get(key) for key in place.listing()}
    kind = type("Faulty", (_Faulty,), {"objects": held, "fault": "", "left": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        opened = LogitStore(f"http://127.0.0.1:{running.server_address[1]}/a/m.zarr")
        assert opened.verify().sound
        np.testing.assert_array_equal(opened.read(IDS[4]), VALUES[4])
        running.shutdown()


@pytest.mark.parametrize(
    ("fault", "times", "error", "words"),
    [
        ("503", 2, None, ""), ("cut", 1, None, ""), ("503", 99, ResourceError, "503"), ("403", 99, ResourceError, "credentials"),
        ("404", 99, DamagedError, "the chunk is gone"), ("cut", 99, ResourceError, "broke off"),
        ("html", 99, DamagedError, "the chunk has 20 bytes"),
    ],
)  # fmt: skip
def test_a_server_with_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, times: int, error: type[EnskError] | None, words: str
) -> None:
    make(tmp_path / "m.zarr")
    place = Remote(str(make(f"memory://faulty/{secrets.token_hex(4)}").path))
    held = {f"/b/m.zarr/{key}": place.get(key) for key in place.listing()}
    kind = type("Faulty", (_Faulty,), {"objects": held, "fault": fault, "left": times})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        environment(monkeypatch, f"http://127.0.0.1:{running.server_address[1]}")
        monkeypatch.setattr(objects, "RETRIES", 3)
        opened = LogitStore("s3://b/m.zarr")
        if error is None:
            np.testing.assert_array_equal(opened.read(IDS[0]), VALUES[0])
        else:
            _, text = code_of(error, lambda: opened.read(IDS[0]))
            assert words in text
        running.shutdown()
    if fault == "503" and error is None:
        _, text = code_of(ResourceError, lambda: LogitStore("s3://b/m.zarr"))
        assert "no connection" in text
