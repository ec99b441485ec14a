"""Finished stores in one `.zip`: read where they lie, made whole or not at all, and trusted in nothing."""

from __future__ import annotations

import json
import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from conftest import smooth_logits
from ensemble_kit.errors import DamagedError, EnskError, IncompleteError, ResourceError, UnsafeError, UsageError
from ensemble_kit.logits.open import is_store
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter

CLASSES, GRID, IDS = ["a", "b"], (16, 12), [f"s{k}/é" for k in range(5)]
VALUES = [smooth_logits(np.random.default_rng(k), (2, *GRID)) for k in range(len(IDS))]
RUN = "from ensemble_kit.cli.app import main; main()"


def make(path: Path, codec: str = "none", upto: int | None = None) -> LogitStore:
    with LogitWriter(path, CLASSES, IDS, GRID, member="m", codec=codec) as out:  # type: ignore[arg-type]
        for name, value in list(zip(IDS, VALUES, strict=True))[:upto]:
            out.write(name, value, (40, 30))
    return LogitStore(path)


@pytest.fixture
def store(tmp_path: Path) -> LogitStore:
    return make(tmp_path / "m.zarr")


def code_of(error: type[EnskError], action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(error) as caught:
        action()
    assert caught.value.fix
    return caught.value.code, str(caught.value)


def entries(path: Path) -> list[tuple[zipfile.ZipInfo, bytes]]:
    with zipfile.ZipFile(path) as opened:
        return [(info, opened.read(info)) for info in opened.infolist()]


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_the_same_store_in_one_file(tmp_path: Path, codec: str) -> None:
    store, path = make(tmp_path / "m.zarr", codec), tmp_path / "m.zip"
    assert store.pack(path) == path.stat().st_size
    opened = LogitStore(path)
    assert is_store(path)
    assert (opened.fingerprint, opened.codec, opened.complete) == (store.fingerprint, codec, True)
    out = np.empty((2, *GRID), np.float16)
    for name, value in zip(IDS, VALUES, strict=True):
        for got in (opened.read(name), opened.read(name), opened.read(name, out)):  # read, mapped, read into
            np.testing.assert_array_equal(got, value)
            assert got.flags.aligned
        assert opened.image_size(name) == (40, 30)
    found = opened.verify()
    assert (found.sound, found.checked, found.unknown) == (True, len(IDS), ())
    votes = [ek.Ensemble([p]).vote(0.4) for p in (store.path, path)]
    assert all(votes[0][key] == runs for key, runs in votes[1].items())
    with zipfile.ZipFile(path) as other:
        assert other.testzip() is None
        assert {i.compress_type for i in other.infolist()} == {zipfile.ZIP_STORED}


def test_zarr_opens_it(store: LogitStore, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    from zarr.storage import ZipStore

    store.pack(tmp_path / "m.zip")
    with ZipStore(tmp_path / "m.zip", mode="r") as opened:
        np.testing.assert_array_equal(zarr.open_group(opened, mode="r")["logits"][:], np.stack(VALUES))


def test_equal_stores_give_equal_bytes(store: LogitStore, tmp_path: Path) -> None:
    store.pack(tmp_path / "a.zip")
    LogitStore(tmp_path / "a.zip").pack(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("inside", ["", "m.zarr/"])
def test_a_zip_that_others_made(store: LogitStore, tmp_path: Path, inside: str) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for path in sorted(Path(store.path).rglob("*")):
            out.write(path, inside + str(path.relative_to(store.path)))  # folders too, and payloads at odd places
    opened = LogitStore(tmp_path / "x.zip")
    assert opened.verify().sound
    for _ in range(2):
        np.testing.assert_array_equal(opened.read(IDS[1]), VALUES[1])


def test_a_layout_of_others_in_a_zip(store: LogitStore, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    folder = Path(store.path)
    for old in (folder / "logits").glob("c.*"):
        old.unlink()
    (folder / "logits/zarr.json").unlink()
    array = zarr.create_array(folder / "logits", shape=(5, 2, *GRID), chunks=(1, 1, *GRID), dtype="float16",
                              fill_value=float("nan"), compressors=None, filters=None)  # fmt: skip
    array[:] = np.stack(VALUES)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as out:
        for path in sorted(folder.rglob("*")):
            out.write(path, path.relative_to(folder))
    np.testing.assert_array_equal(LogitStore(tmp_path / "x.zip").read(IDS[1]), VALUES[1])


def test_unfinished_and_damaged_stores_are_not_packed(tmp_path: Path) -> None:
    assert (
        code_of(IncompleteError, lambda: make(tmp_path / "m.zarr", upto=3).pack(tmp_path / "m.zip"))[0]
        == "store-incomplete"
    )
    store = make(tmp_path / "m.zarr")
    path = tmp_path / "m.zarr/logits/c.3.0.0.0"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    assert code_of(DamagedError, lambda: store.pack(tmp_path / "m.zip"))[0] == "sample-damaged"
    path.unlink()
    assert "gone" in code_of(DamagedError, lambda: store.pack(tmp_path / "m.zip"))[1]
    assert [p.name for p in tmp_path.iterdir()] == ["m.zarr"]  # nothing half written is left


def test_what_is_there_is_kept(store: LogitStore, tmp_path: Path) -> None:
    (tmp_path / "m.zip").write_bytes(b"mine")
    assert code_of(UsageError, lambda: store.pack(tmp_path / "m.zip"))[0] == "output-exists"
    assert (tmp_path / "m.zip").read_bytes() == b"mine"
    store.pack(tmp_path / "m.zip", force=True)
    assert LogitStore(tmp_path / "m.zip").complete
    assert code_of(UsageError, lambda: LogitWriter(tmp_path / "m.zip", CLASSES, IDS, GRID))[0] == "path-is-file"


def test_a_changed_byte_is_named(store: LogitStore, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    store.pack(path)
    raw = bytearray(path.read_bytes())
    raw[raw.find(VALUES[2].tobytes()) + 500] ^= 1
    path.write_bytes(raw)
    code, text = code_of(DamagedError, lambda: LogitStore(path).read(IDS[2]))
    assert code == "sample-damaged"
    assert f"{path}, logits/c.2.0.0.0: bytes were changed in class 'b'" in text
    assert "ensk convert STORE --out" in text


def test_every_cut_is_an_error(store: LogitStore, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    whole = store.pack(path)
    raw = path.read_bytes()
    for length in (0, 1, 21, 22, 100, whole // 2, whole - 22, whole - 1):
        path.write_bytes(raw[:length])
        assert code_of(DamagedError, lambda: LogitStore(path))[0] == "store-foreign"


def test_random_bytes_never_pass_for_data(store: LogitStore, tmp_path: Path) -> None:
    path, rng = tmp_path / "m.zip", np.random.default_rng(3)
    store.pack(path)
    raw, ends = path.read_bytes(), set()
    for trial in range(250):
        changed = bytearray(raw)
        for _ in range(1 + trial % 3):
            changed[rng.integers(len(raw) - 700 if trial % 2 else 0, len(raw))] = rng.integers(256)
        path.write_bytes(changed)
        try:
            opened = LogitStore(path)
            for name, value in zip(opened.samples, VALUES, strict=True):
                np.testing.assert_array_equal(opened.read(name), value)
        except EnskError as error:
            ends.add(error.exit_code)
    assert ends <= {2, 3, 4, 7}  # 2: "ensk.logits/2"; 4: a store without its commits


def rebuild(path: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[zipfile.ZipInfo, bytes]]) -> None:
    found = entries(path)
    with zipfile.ZipFile(path, "w") as out:
        for info, content in found:
            info.extra = b""
            out.writestr(*change(info, content))


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\x", "C:x", "logits//x", "./x", "a/."])
def test_names_that_lead_out(store: LogitStore, tmp_path: Path, name: str) -> None:
    store.pack(tmp_path / "m.zip")
    with zipfile.ZipFile(tmp_path / "m.zip", "a") as out:
        out.writestr(zipfile.ZipInfo(name), b"x")
    assert code_of(UnsafeError, lambda: LogitStore(tmp_path / "m.zip"))[0] == "zip-name"


def test_what_is_refused(store: LogitStore, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    store.pack(path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "a") as out:
        link = zipfile.ZipInfo("logits/link")
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    assert code_of(UnsafeError, lambda: LogitStore(path))[0] == "zip-name"
    path.write_bytes(whole)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out:
        out.writestr("bomb", bytes(10**6))
    assert code_of(UnsafeError, lambda: LogitStore(path))[0] == "zip-compressed"
    path.write_bytes(whole)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as out:
        out.writestr("logits/c.2.0.0.0", entries(path)[2][1])
    code, text = code_of(DamagedError, lambda: LogitStore(path))
    assert code == "zip-damaged"
    assert "'logits/c.2.0.0.0' is in it twice" in text
    path.write_bytes(b"no zip at all")
    assert code_of(DamagedError, lambda: LogitStore(path))[0] == "store-foreign"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("hello.txt", b"x")
    assert code_of(DamagedError, lambda: LogitStore(path))[0] == "store-foreign"


def test_a_missing_member(store: LogitStore, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    store.pack(path)
    kept = [(i, c) for i, c in entries(path) if not i.filename.endswith("c.1.0.0.0")]
    with zipfile.ZipFile(path, "w") as out:
        for info, content in kept:
            info.extra = b""
            out.writestr(info, content)
    assert "the chunk is gone" in code_of(DamagedError, lambda: LogitStore(path).read(IDS[1]))[1]


def test_a_file_that_is_replaced_while_it_is_open(store: LogitStore, tmp_path: Path) -> None:
    path = tmp_path / "m.zip"
    store.pack(path)
    opened = LogitStore(path)
    opened.read(IDS[0])
    other = make(tmp_path / "n.zarr", "lossless")
    other.pack(path, force=True)
    assert code_of(DamagedError, lambda: opened.read(IDS[0]))[0] == "zip-changed"


def test_a_new_name_for_a_file_is_no_other_file(store: LogitStore, tmp_path: Path) -> None:
    store.pack(tmp_path / "m.zip")
    opened = LogitStore(tmp_path / "m.zip")
    os.link(tmp_path / "m.zip", tmp_path / "n.zip")
    np.testing.assert_array_equal(opened.read(IDS[0]), store.read(IDS[0]))


@pytest.mark.slow
def test_the_command(store: LogitStore, tmp_path: Path) -> None:
    def ensk(*arguments: str) -> subprocess.CompletedProcess[str]:
        return warm.ensk(*arguments, cwd=tmp_path)

    plan = ensk("convert", "m.zarr", "--out", "m.zip", "--dry-run", "--json")
    assert json.loads(plan.stdout)["bytes"] == store.stored_bytes
    assert not (tmp_path / "m.zip").exists()
    done = ensk("convert", "m.zarr", "--out", "m.zip", "--json")
    assert json.loads(done.stdout)["fingerprint"] == store.fingerprint
    found = ensk("verify", "m.zip", "--json")
    assert (found.returncode, json.loads(found.stdout)["sound"]) == (0, True)
    assert json.loads(ensk("inspect", "m.zip", "--json").stdout)["codec"] == "none"
    assert [ensk("convert", "m.zarr", "--out", out).returncode for out in ("m.zip", "m.csv")] == [2, 2]
    make(tmp_path / "half.zarr", upto=2)
    assert ensk("convert", "half.zarr", "--out", "half.zip").returncode == 4
    raw = bytearray((tmp_path / "m.zip").read_bytes())
    raw[raw.find(VALUES[2].tobytes()) + 5] ^= 1
    (tmp_path / "m.zip").write_bytes(raw)
    assert ensk("verify", "m.zip").returncode == 3


def test_a_full_disk_leaves_what_was_there(store: LogitStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.pack(tmp_path / "m.zip")
    before = (tmp_path / "m.zip").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert code_of(ResourceError, lambda: store.pack(tmp_path / "m.zip", force=True))[0] == "write-failed"
    assert (tmp_path / "m.zip").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.zarr", "m.zip"]
