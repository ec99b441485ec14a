"""Masks, sets, tables and outputs behind URLs: the same bytes as in files, whole or absent, and named by their URL."""

from __future__ import annotations

import json
import os
import pickle
import tempfile
import threading
from collections.abc import Callable
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from conftest import KINDS, smooth_logits, write_store
from ensemble_kit.files import atomic_write
from ensemble_kit.logits.open import is_store
from ensemble_kit.remote import objects
from ensemble_kit.remote.copies import UrlPath, as_path, local, size_of
from ensemble_kit.remote.objects import Objects
from ensemble_kit.remote.urls import folders_of
from trying import ensk, put, refused

pytest.importorskip("obstore")

CLASSES, GRID, SIZE = ("a", "b", "c"), (12, 10), (40, 30)
IDS = tuple(f"{k}.png" for k in range(6))


def logits() -> dict[str, np.ndarray]:
    return {s: 3 * smooth_logits(np.random.default_rng(k), (3, *GRID)) for k, s in enumerate(IDS)}


@pytest.fixture
def masks(tmp_path: Path) -> ek.MaskSet:
    write_store(tmp_path / "m.zarr", logits(), SIZE, CLASSES, member="m")
    return ek.Ensemble([tmp_path / "m.zarr"]).vote(0.45)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test's own."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def at(url: str) -> bytes | None:
    folder, _, name = url.rpartition("/")
    return Objects(folder).get(name)


def place(url: str, content: bytes) -> str:
    folder, _, name = url.rpartition("/")
    Objects(folder).put(name, content)
    return url


# ------------------------------------------------------------------------------------------------ Python


@pytest.mark.parametrize("name", ["m.csv", "m.json", "m.npz", "m.npy"])
def test_masks_are_written_and_read_as_files_are(base: str, masks: ek.MaskSet, tmp_path: Path, name: str) -> None:
    masks.write(tmp_path / name)
    masks.write(f"{base}/{name}")
    assert at(f"{base}/{name}") == (tmp_path / name).read_bytes()
    how: dict[str, Any] = {"image_size": SIZE, "classes": CLASSES} if name in {"m.csv", "m.npy"} else {}
    assert ek.read_masks(f"{base}/{name}", **how) == ek.read_masks(tmp_path / name, **how)


def test_what_stands_beside_masks_is_read_too(base: str, masks: ek.MaskSet, tmp_path: Path) -> None:
    """A sample submission, and a table of labels: of a path that has lost a slash too."""
    masks.arranged(IDS[::-1], CLASSES[::-1]).write(f"{base}/like.csv")
    masks.write(Path(f"{base}/m.csv"), like=Path(f"{base}/like.csv"))
    assert at(f"{base}/m.csv") == at(f"{base}/like.csv")
    maps = ek.MaskSet.from_labels({s: np.full(SIZE, 7) for s in IDS}, {7: "road"})
    table = place(f"{base}/labels.csv", b"value,name\n7,road\n")
    maps.write(f"{base}/maps.npz", format="label-map", labels=table)
    assert ek.read_masks(f"{base}/maps.npz", format="label-map", labels=table) == maps


def test_a_set_is_saved_and_loaded(base: str, masks: ek.MaskSet, tmp_path: Path) -> None:
    tuned = ek.tune_thresholds(ek.Ensemble([tmp_path / "m.zarr"]), masks)
    tuned.save(tmp_path / "set.json")
    tuned.save(f"{base}/set.json")
    assert at(f"{base}/set.json") == (tmp_path / "set.json").read_bytes()
    found = ek.ThresholdSet.load(f"{base}/set.json")
    assert found == tuned
    assert str(found.path) == f"{base}/set.json"


def test_a_copy_is_named_by_its_url_and_goes_with_its_path(base: str, temporary: Path) -> None:
    url = place(f"{base}/a b.csv", b"1,2\n")
    copy = local(url)
    assert (str(copy), f"{copy}", copy.name, copy.suffix) == (url, url, "a b.csv", ".csv")
    assert copy.read_bytes() == b"1,2\n"
    assert local(copy) is copy
    assert pickle.loads(pickle.dumps(copy)) == Path(url)
    assert len(list(temporary.iterdir())) == 1
    place(url, b"3\n")
    assert local(url).read_bytes() == b"3\n"  # fetched again, and gone at once
    del copy
    assert not list(temporary.iterdir())


def test_paths_of_this_machine_stay_as_they_are(tmp_path: Path) -> None:
    for path in (tmp_path / "a.csv", Path("a.csv")):
        assert local(path) is path
        assert as_path(path) is path
    assert type(local("a.csv")) is type(Path("a.csv"))
    assert size_of(tmp_path / "a.csv") is None
    assert size_of(put(tmp_path / "a.csv", "12345")) == 5


def test_urls_as_paths() -> None:
    path = as_path(Path("s3://bucket/a/b.csv"))
    assert isinstance(path, UrlPath)
    assert (str(path), path.name, path.suffix) == ("s3://bucket/a/b.csv", "b.csv", ".csv")
    assert folders_of(str(path)) == ["s3://bucket/a", "s3://bucket"]


def test_a_large_file_goes_up_in_parts(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "WHOLE", 1)
    monkeypatch.setattr(objects, "PART", 5 << 20)
    content = np.random.default_rng(0).bytes(11 << 20)
    with atomic_write(f"{s3}/large", force=False) as out:
        out.write(content)
    assert at(f"{s3}/large") == content
    assert size_of(f"{s3}/large") == len(content)
    folder = Objects(s3)
    with tempfile.TemporaryFile() as file:
        file.write(b"another")
        assert not folder.upload("large", file, new=True)
        assert folder.upload("large", file)
    assert folder.get("large") == b"another"


def test_the_later_of_two_writers_without_force_is_refused(base: str) -> None:
    with refused(ek.UsageError, "output-exists", f"{base}/o.csv exists"), atomic_write(f"{base}/o.csv", False) as out:
        out.write(b"mine")
        place(f"{base}/o.csv", b"theirs")
    assert at(f"{base}/o.csv") == b"theirs"


def test_a_writer_that_fails_leaves_what_was_there(base: str) -> None:
    place(f"{base}/o.csv", b"old")
    with pytest.raises(KeyError), atomic_write(f"{base}/o.csv") as out:
        out.write(b"new")
        raise KeyError
    assert at(f"{base}/o.csv") == b"old"
    with atomic_write(f"{base}/o.csv") as out:
        out.write(b"new")
    assert at(f"{base}/o.csv") == b"new"


# ------------------------------------------------------------------------------------------------ refused


def small() -> ek.MaskSet:
    return ek.MaskSet({("x", "bone"): ek.encode(np.eye(4, dtype=bool))})


@pytest.mark.parametrize(
    ("code", "words", "action"),
    [
        ("input-missing", "none.csv does not exist", lambda b: ek.read_masks(f"{b}/none.csv")),
        ("input-missing", "none.json does not exist", lambda b: ek.ThresholdSet.load(f"{b}/none.json")),
        ("input-missing", "l.csv does not exist", lambda b: small().write(f"{b}/o.csv", like=f"{b}/l.csv")),
        ("url-unfit", "/pngs is a folder of objects", lambda b: ek.read_masks(f"{b}/pngs")),
        ("url-unfit", "/out is a URL, and a folder", lambda b: small().write(f"{b}/out")),
        ("url-unfit", "/out is a URL, and a folder", lambda b: small().write(f"{b}/out", format="label-map")),
        ("output-kind", "/pngs is a folder of objects", lambda b: small().write(f"{b}/pngs", format="npz")),
        ("store-url", "it names no object", lambda b: small().write("s3://bucket", format="npz")),
        ("store-url", "it carries a user", lambda b: ek.read_masks("s3://me:hunter2@bucket/m.csv")),
        ("store-url", "it carries a user", lambda b: small().write("s3://bucket/m.csv?X-Amz-Signature=hunter2")),
        ("store-url", "ftp://…: known are", lambda b: ek.ThresholdSet.load("ftp://host/set.json")),
        ("url-read-only", "a web server is read only", lambda b: small().write("http://127.0.0.1:9/m.csv")),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_be_done_by_a_url_is_said(base: str, code: str, words: str, action: Callable[[str], Any]) -> None:
    place(f"{base}/pngs/a/x.png", b"")
    with pytest.raises(ek.EnskError) as caught:
        action(base)
    assert caught.value.code == code
    assert words in caught.value.item
    assert caught.value.fix
    assert "hunter2" not in str(caught.value)


def test_a_plain_web_server_is_read(tmp_path: Path, masks: ek.MaskSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers 200 with a listing for a folder, which is not taken for a file of masks, nor for a store."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    masks.write(tmp_path / "m.npz")
    monkeypatch.chdir(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{running.server_address[1]}"
        assert ek.read_masks(f"{url}/m.npz") == masks
        assert is_store(f"{url}/m.zarr")
        assert not is_store(f"{url}/m.npz")
        with refused(ek.IncompleteError, "input-missing", "n.npz does not exist"):
            ek.read_masks(f"{url}/n.npz")
        running.shutdown()


# ------------------------------------------------------------------------------------------------ commands


@pytest.mark.slow
def test_the_chain_of_commands_gives_the_bytes_of_files(
    s3: str, masks: ek.MaskSet, tmp_path: Path, temporary: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dump, tune, vote, score and convert, with everything behind URLs that may be, twice over."""
    for k, s in enumerate(IDS):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "arrays").mkdir(exist_ok=True)
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "images" / s)
        np.save(tmp_path / f"arrays/{k}.npy", logits()[s])
    for b in (str(tmp_path), s3):
        texts = {
            "classes.txt": "\n".join(CLASSES),
            "groups.csv": "".join(f"{s},{k // 2}\n" for k, s in enumerate(IDS)),
        }
        for name, text in texts.items():
            (place(f"{b}/{name}", text.encode()) if b == s3 else put(tmp_path / name, text))
        masks.write(f"{b}/val.csv")
        masks.arranged(IDS[::-1], CLASSES).write(f"{b}/like.csv")
        named = ("--classes", f"{b}/classes.txt")
        ensk("dump-logits", tmp_path / "arrays", "--images", tmp_path / "images", *named, "--out", f"{b}/d.zarr", "-q")
        tune = (
            "tune-thresholds",
            f"{b}/d.zarr",
            "--val",
            f"{b}/val.csv",
            *named,
            "--groups",
            f"{b}/groups.csv",
            "--json",
        )
        ensk(*tune, "--statistics", f"{b}/counts.npz", "--out", f"{b}/set.json")
        ensk(*tune, "--statistics", f"{b}/counts.npz", "--out", f"{b}/set.json", "--force")  # from the counts
        vote = ("vote", f"{b}/d.zarr", "--thresholds", f"{b}/set.json", "--like", f"{b}/like.csv")
        ensk(*vote, "--out", f"{b}/out.csv", "--json")
        ensk("vote", f"{b}/d.zarr", f"{b}/val.csv", f"{b}/out.csv", "--out", f"{b}/hard.npz", "-q")
        ensk("score", f"{b}/out.csv", "--val", f"{b}/hard.npz", "--by-sample", f"{b}/by.csv", "-q")
        size = ("--image-size", f"{b}/d.zarr")
        ensk("convert", f"{b}/out.csv", *size, *named, "--out", f"{b}/out.json", "--json")
        ensk("inspect", f"{b}/out.json", "-q")
        with refused(ek.UsageError, "output-exists", f"{b}/out.csv exists"):
            ensk(*vote, "--out", f"{b}/out.csv", "-q")
    for name in ("set.json", "out.csv", "hard.npz", "by.csv", "out.json"):
        assert at(f"{s3}/{name}") == (tmp_path / name).read_bytes(), name
    assert not list(temporary.iterdir())
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [a["out"] for a in answers if str(a["out"]).startswith("s3")] == [
        *[f"{s3}/set.json"] * 2,
        f"{s3}/out.csv",
        f"{s3}/out.json",
    ]


@pytest.mark.parametrize(
    ("code", "out", "more"),
    [
        ("output-is-input", "like.csv", ("--like", "like.csv", "--force")),
        ("output-is-input", "m.zarr", ()),
        ("path-inside-store", "m.zarr/o.csv", ()),
        ("output-exists", "like.csv", ()),
        ("url-unfit", "pngs", ()),
    ],
)
def test_outputs_that_are_refused_before_any_work(s3: str, code: str, out: str, more: tuple[str, ...]) -> None:
    write_store(f"{s3}/m.zarr", logits(), SIZE, CLASSES, member="m")
    place(f"{s3}/like.csv", b"image_name,class,rle\n")
    more = tuple(f"{s3}/{word}" if word.endswith("csv") else word for word in more)
    with refused(ek.UsageError, code, f"{s3}/{out}"):
        ensk("vote", f"{s3}/m.zarr", "--out", f"{s3}/{out}", *more, "-q")
    assert at(f"{s3}/like.csv") == b"image_name,class,rle\n"


@pytest.mark.parametrize("fault", ["keys", "bucket"])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_bucket_that_may_not_be_written_to_is_told_before_any_work(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    masks: ek.MaskSet,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fault: str,
) -> None:
    url = f"{request.getfixturevalue(kind)}/o.csv"
    if fault == "keys":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "A" * 86 + "==")
    else:
        url = f"{kind}://no-such-bucket/o.csv"
    with refused(ek.ResourceError, "remote", url, "credentials" if fault == "keys" else "no such bucket"):
        ensk("vote", tmp_path / "m.zarr", "--out", url, "-q", "--force")


@pytest.mark.parametrize(
    "words",
    [
        "demo --out s3://bucket/x",
        "doctor --path s3://bucket/x",
        "repair s3://bucket/x",
        "dump-logits mod:net --images s3://bucket/x --classes CLASSES --out o.zarr",
        "dump-logits s3://bucket/x --images . --classes CLASSES --out o.zarr",
        "dump-logits mod:net --images . --classes CLASSES --out o.zarr --weights s3://bucket/x",
        "stack m.zarr --val m.zarr --out o.zarr --model s3://bucket/x",
        "fuse m.zarr --out s3://bucket/x --format npz",
    ],
    ids=lambda words: " ".join(words.split()[:2]),
)
def test_what_is_done_on_this_machine_only_is_refused_by_url(
    words: str, tmp_path: Path, masks: ek.MaskSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder that is called `s3:` is made."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "CLASSES", "a\n")
    with refused(ek.UsageError, "url-unfit", "s3://bucket/x is a URL"):
        ensk(*words.split(), "-q")
    assert not (tmp_path / "s3:").exists()


@pytest.mark.parametrize("command", ["tune-thresholds", "score"])
def test_a_store_behind_a_url_is_not_taken_for_masks(s3: str, command: str) -> None:
    write_store(f"{s3}/m.zarr", logits(), SIZE, CLASSES, member="m")
    with refused(ek.UsageError, "store-not-masks", f"{s3}/m.zarr"):
        ensk(command, f"{s3}/m.zarr", "--val", f"{s3}/m.zarr", "-q")


def test_a_packed_store_behind_a_url_is_told(base: str, tmp_path: Path, masks: ek.MaskSet) -> None:
    ek.LogitStore(tmp_path / "m.zarr").pack(f"{base}/m.zip")
    with refused(ek.UsageError, "url-unfit", f"{base}/m.zip' is packed"):
        ensk("vote", f"{base}/m.zip", "--out", tmp_path / "o.csv", "-q")
    with refused(ek.UsageError, "url-unfit", f"{base}/m.zip is one object"):
        ek.Ensemble([f"{base}/m.zip"])
    copy = local(f"{base}/m.zip")
    assert ek.LogitStore(os.fspath(copy)).fingerprint == ek.LogitStore(tmp_path / "m.zarr").fingerprint
