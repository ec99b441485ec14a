"""The store at rest: round trips, what zarr sees, and that no fault passes for data."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    LockedError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
)
from ensemble_kit.logits import body, chunkreader
from ensemble_kit.logits.body import is_cached
from ensemble_kit.logits.description import describe
from ensemble_kit.logits.open import is_store, resolve
from ensemble_kit.logits.records import FORMAT, Record, from_line, to_line
from ensemble_kit.logits.store import LogitStore
from ensemble_kit.logits.writer import LogitWriter
from opened import Opened

CLASSES = ["radius", "ulna", "pisiform"]
GRID = (8, 6)
IDS = [f"img {k}/é.png" for k in range(20)]


def values(seed: int, count: int = len(IDS)) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, len(CLASSES), *GRID)) * 5).astype(np.float16)


def make(path: Path, seed: int = 0, ids: list[str] = IDS, upto: int | None = None, **options: Any) -> Path:
    with LogitWriter(path, CLASSES, ids, GRID, **options) as out:
        for name, array in list(zip(ids, values(seed, len(ids)), strict=True))[:upto]:
            out.write(name, array, image_size=(80, 60))
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return make(tmp_path / "unet.zarr")


def chunk(store: Path, row: int) -> Path:
    return store / "logits" / f"c.{row}.0.0.0"


def segments(store: Path) -> list[Path]:
    return sorted((store / "logits" / "manifest").glob("*.jsonl"))


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def code_of(error: type[EnskError], action: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(error) as caught:
        action()
    assert caught.value.fix
    assert caught.value.item
    return caught.value.code, caught.value.item


# ------------------------------------------------------------------------------------------------ round trips


def test_round_trip(store: Path) -> None:
    opened = LogitStore(store)
    assert opened.member == "unet"
    assert opened.classes == tuple(CLASSES)
    assert opened.samples == tuple(IDS)
    assert opened.grid == GRID
    assert opened.activation == "sigmoid"
    assert opened.complete
    assert opened.missing == []
    for name, array in zip(IDS, values(0), strict=True):
        for _ in range(2):  # verified, then known
            got = opened.read(name)
            assert got.dtype == np.float16
            assert not got.flags.writeable
            np.testing.assert_array_equal(got.view(np.uint16), array.view(np.uint16))
    out = np.empty((3, *GRID), np.float16)
    np.testing.assert_array_equal(opened.read(IDS[3], out), values(0)[3])
    assert opened.image_size(IDS[0]) == (80, 60)
    assert opened.box(IDS[0]) == (0, 0, *GRID)
    assert opened.placement(IDS[0]).image == (80, 60)
    assert opened.saturated(IDS[0]) == 0
    assert "20 of 20" in repr(opened)


def let_go(path: Path) -> int:
    """Have the system forget a file's pages; return the open file."""
    fd = os.open(path, os.O_RDWR)
    os.fsync(fd)  # only what is on the disk can be forgotten
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd


def test_first_read_maps_only_what_is_in_memory(store: Path) -> None:
    def is_mapped(sample: str) -> bool:
        got = LogitStore(store).read(sample)
        np.testing.assert_array_equal(got, values(0)[IDS.index(sample)])
        return bool(got.base is not None and not got.base.flags.owndata)

    assert is_mapped(IDS[3])
    other = store / "logits/c.4.0.0.0"
    fd = let_go(other)
    kept = is_cached(fd, other.stat().st_size)
    os.close(fd)
    if kept:
        pytest.skip("a file system in memory")
    fd = let_go(store / "logits/c.3.0.0.0")
    assert not is_mapped(IDS[3])
    os.pwrite(fd, b"\x01", 0)  # what is in memory is verified as well
    os.close(fd)
    assert code_of(DamagedError, lambda: LogitStore(store).read(IDS[3]))[0] == "sample-damaged"


def test_batches_sizes_and_boxes(tmp_path: Path) -> None:
    sizes, boxes = [(80, 60), (10, 20)], [(0, 0, 8, 6), (1, 1, 5, 4)]
    with LogitWriter(tmp_path / "a.zarr", CLASSES, IDS[:4], GRID) as out:
        out.write(IDS[:2], values(0)[:2], sizes, box=boxes)
        out.write(IDS[2:4], values(0)[2:4], (7, 7), box=(0, 0, 2, 2))
    opened = LogitStore(tmp_path / "a.zarr")
    assert [opened.image_size(s) for s in opened.samples] == [*sizes, (7, 7), (7, 7)]
    assert [tuple(opened.box(s)) for s in opened.samples] == [*boxes, (0, 0, 2, 2), (0, 0, 2, 2)]


def test_zarr_reads_the_same(store: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open(store, mode="r")
    array = group["logits"]
    assert sorted(group.keys()) == ["class", "logits", "sample"]
    assert sorted(n for n, _ in group.members(max_depth=None)) == ["class", "logits", "sample"]
    assert array.metadata.dimension_names == ("sample", "class", "y", "x")
    assert np.isnan(array.fill_value)
    assert array.chunks == (1, 3, *GRID)
    assert group.attrs["ensemble_kit"]["format"] == "ensk.logits/1"
    np.testing.assert_array_equal(array[:], values(0))


def test_the_description_is_what_zarr_writes(store: Path, tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(tmp_path / "z.zarr", attributes={"x": 1})
    group.create_array(
        "logits",
        shape=(20, 3, *GRID),
        chunks=(1, 3, *GRID),
        dtype="float16",
        fill_value=float("nan"),
        filters=None,
        compressors=[zarr.codecs.Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["sample", "class", "y", "x"],
    )
    theirs = json.loads((tmp_path / "z.zarr/logits/zarr.json").read_text())
    assert json.loads((store / "logits/zarr.json").read_text()) == theirs


def test_a_store_that_zarr_laid_out_is_read_through_zarr(store: Path) -> None:
    zarr = pytest.importorskip("zarr")
    group = zarr.open(store, mode="r")
    data = group["logits"][:]
    for path in (store / "logits").glob("c.*"):
        path.unlink()
    (store / "logits/zarr.json").unlink()
    zarr.create_array(
        store / "logits",
        shape=data.shape,
        chunks=(1, 1, *GRID),
        shards=(1, 3, *GRID),
        dtype="float16",
        fill_value=float("nan"),
        dimension_names=["sample", "class", "y", "x"],
        compressors=[zarr.codecs.BloscCodec(cname="lz4", shuffle="shuffle"), zarr.codecs.Crc32cCodec()],
    )[:] = data
    opened = LogitStore(store)
    out = np.empty((3, *GRID), np.float16)
    for name, array in zip(IDS, values(0), strict=True):
        np.testing.assert_array_equal(opened.read(name), array)
        np.testing.assert_array_equal(opened.read(name, out), array)
    assert opened.verify().sound
    shard = store / "logits/c/4/0/0/0"
    edit(shard, lambda raw: raw[:9] + bytes([raw[9] ^ 1]) + raw[10:])
    assert [d.sample for d in opened.verify().damaged] == [IDS[4]]
    shard.unlink()
    assert "gone" in code_of(DamagedError, lambda: opened.read(IDS[4]))[1]
    with pytest.raises(MismatchError):
        LogitWriter(store, CLASSES, IDS, GRID)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.text(min_size=1, max_size=30).filter(str.isprintable), min_size=1, max_size=5, unique=True),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(1, 9),
    st.randoms(),
)
def test_any_names_and_shapes(tmp_path_factory: Any, ids: list[str], C: int, h: int, w: int, draw: Any) -> None:
    path = tmp_path_factory.mktemp("s") / "m.zarr"
    data = np.random.default_rng(draw.randrange(99)).normal(size=(len(ids), C, h, w)).astype(np.float32) - 3
    order = list(range(len(ids)))
    draw.shuffle(order)
    with LogitWriter(path, [f"c{k}" for k in range(C)], ids, (h, w), member="m") as out:
        for i in order:
            out.write(ids[i], data[i], image_size=(h, w))
    opened = LogitStore(path)
    for i, name in enumerate(ids):
        np.testing.assert_array_equal(opened.read(name), data[i].astype(np.float16))


def test_fingerprint(tmp_path: Path) -> None:
    one = LogitStore(make(tmp_path / "one.zarr", member="m"))
    with LogitWriter(tmp_path / "two.zarr", CLASSES, IDS, GRID, member="m") as out:
        for name, array in reversed(list(zip(IDS, values(0), strict=True))):
            out.write(name, array, (80, 60))
    two = LogitStore(tmp_path / "two.zarr")
    assert one.fingerprint == two.fingerprint
    assert len(one.fingerprint) == 64
    assert LogitStore(make(tmp_path / "x.zarr", seed=1, member="m")).fingerprint != one.fingerprint
    assert LogitStore(make(tmp_path / "y.zarr", member="n")).fingerprint != one.fingerprint
    assert LogitStore(make(tmp_path / "z.zarr", upto=19, member="m")).fingerprint != one.fingerprint


def test_pickle_threads_and_fork(store: Path) -> None:
    opened: LogitStore = pickle.loads(pickle.dumps(LogitStore(store)))
    found: list[bool] = []

    def work() -> None:
        found.extend(bool((opened.read(n) == a).all()) for n, a in zip(IDS, values(0), strict=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert found == [True] * 4 * len(IDS)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if (opened.read(IDS[5]) == values(0)[5]).all() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_imports_are_light() -> None:
    code = "import sys, ensemble_kit.logits.store; print([m for m in ('torch','numba','zarr','pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------------ faults at rest

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "deleted": (lambda p: p.unlink(), "gone"),
    "renamed": (lambda p: p.rename(p.with_name("C.4.0.0.0")), "gone"),
    "bit of the first class": (lambda p: edit(p, lambda b: bytes([b[0] ^ 1]) + b[1:]), "class 'radius'"),
    "bit of the last class": (lambda p: edit(p, lambda b: b[:-6] + bytes([b[-6] ^ 128]) + b[-5:]), "class 'pisiform'"),
    "two classes": (lambda p: edit(p, lambda b: b"\1" + b[1:100] + b"\1" + b[101:]), "'radius', 'ulna'"),
    "bit of the checksum": (lambda p: edit(p, lambda b: b[:-1] + bytes([b[-1] ^ 1])), "checksum was changed"),
    "one byte short": (lambda p: edit(p, lambda b: b[:-1]), "291 bytes instead of 292"),
    "half": (lambda p: edit(p, lambda b: b[: len(b) // 2]), "146 bytes"),
    "empty": (lambda p: edit(p, lambda _: b""), "power cut"),
    "longer": (lambda p: edit(p, lambda b: b + bytes(64)), "356 bytes"),
    "zeros": (lambda p: edit(p, lambda b: bytes(len(b))), "class 'radius', 'ulna'"),
    "swapped": (lambda p: (p.rename(p.with_name("x")), chunk(p.parent.parent, 7).rename(p)), "another's"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "not a regular file"),
    "pipe": (lambda p: (p.unlink(), os.mkfifo(p)), "not a regular file"),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("warm", [False, True])
def test_a_damaged_chunk_is_named(store: Path, name: str, warm: bool) -> None:
    fault, words = FAULTS[name]
    opened = LogitStore(store)
    if warm:
        opened.read(IDS[4])
        opened.read(IDS[4])
    fault(chunk(store, 4))
    with pytest.raises(DamagedError) as caught:
        opened.read(IDS[4])
    item = caught.value.item
    assert words in item
    assert "c.4.0.0.0" in item
    assert str(store) in item
    np.testing.assert_array_equal(opened.read(IDS[5]), values(0)[5])
    found = opened.verify()
    assert IDS[4] in [d.sample for d in found.damaged]
    assert not found.missing
    assert not found.sound
    if name == "renamed":
        assert found.unknown == ("C.4.0.0.0",)


def test_a_change_that_puts_the_time_back_is_noticed(store: Path) -> None:
    opened, path = LogitStore(store), chunk(store, 4)
    for _ in range(2):
        opened.read(IDS[4])
    before = path.stat()
    first = path.read_bytes()[0]
    with path.open("r+b") as file:
        file.write(bytes([first ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DamagedError):
        opened.read(IDS[4])


def test_every_bit_counts(store: Path) -> None:
    opened, path, draw = LogitStore(store), chunk(store, 2), np.random.default_rng(0)
    raw = path.read_bytes()
    for bit in draw.choice(len(raw) * 8, 300, replace=False):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(bytes(changed))
        assert len(opened.verify().damaged) == 1
    path.write_bytes(raw)
    assert opened.verify().sound


def test_a_chunk_of_another_store(store: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other.zarr", seed=9)
    chunk(store, 4).write_bytes(chunk(other, 4).read_bytes())
    assert "another's" in code_of(DamagedError, lambda: LogitStore(store).read(IDS[4]))[1]


def test_links_are_not_followed(store: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret!" * 50)
    chunk(store, 4).unlink()
    chunk(store, 4).symlink_to(secret)
    code, item = code_of(UnsafeError, lambda: LogitStore(store).read(IDS[4]))
    assert code == "store-link"
    assert "secret!" not in item
    assert len(LogitStore(store).verify().damaged) == 1
    (store / "logits").rename(tmp_path / "elsewhere")
    (store / "logits").symlink_to(tmp_path / "elsewhere")
    code_of(UnsafeError, lambda: LogitStore(store))


def test_the_store_itself_may_be_reached_by_a_link(store: Path, tmp_path: Path) -> None:
    (tmp_path / "link.zarr").symlink_to(store)
    assert LogitStore(tmp_path / "link.zarr").verify().sound


def no(pattern: str, replacement: str) -> Callable[[bytes], bytes]:
    def change(raw: bytes) -> bytes:
        assert pattern.encode() in raw
        return raw.replace(pattern.encode(), replacement.encode(), 1)

    return change


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda _: b"", DamagedError, "power cut"),
        (lambda b: b[:50], DamagedError, "JSON"),
        (lambda _: b"[" * 200_000, DamagedError, "deep"),
        (no('"float16"', '"int16"'), DamagedError, "int16"),
        (no('"float16"', '"bfloat16"'), DamagedError, "bfloat16"),
        (no('"NaN"', "0.0"), DamagedError, "fill value"),
        (no('"NaN"', "NaN"), DamagedError, "NaN is not a number in JSON"),
        (no('"shape"', '"zarr_format"'), DamagedError, "twice"),
        (no(" 20,", f" {2**60},"), UnsafeError, "shape"),
        (no(" 20,", " 21,"), DamagedError, "21 samples"),
        (no(" 20,", " true,"), DamagedError, "shape"),
        (no(" 3,\n  8", f" 3,\n  {2**40}"), UnsafeError, "shape"),
        (no('"crc32c"', '"evil"'), UnsafeError, "evil"),
        (no('"crc32c"', '"blosc"'), UnsafeError, "'blosc'"),
        (no('"storage_transformers": []', '"storage_transformers": [1]'), UnsafeError, "transformers"),
        (no('"regular"', '"rectilinear"'), DamagedError, "chunk"),
    ],
    ids=[
        "empty", "cut", "nested", "integers", "bfloat16", "filled with 0", "filled with a bare NaN", "key twice",
        "endless samples", "a sample more", "no number of samples", "endless grid", "unknown codec", "unguarded codec",
        "transformers", "irregular chunks",
    ],
)  # fmt: skip
def test_array_description(store: Path, change: Any, error: type[EnskError], words: str) -> None:
    edit(store / "logits/zarr.json", change)
    assert words in code_of(error, lambda: LogitStore(store))[1]


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        (lambda _: b"", DamagedError, "store-metadata"),
        (no("ensk.logits/1", "ensk.logits/9"), UsageError, "store-version"),
        (no("ensemble_kit", "someone_else"), DamagedError, "store-foreign"),
        (no('"sigmoid"', '"relu"'), DamagedError, "store-metadata"),
        (no('"radius"', '"ulna"'), DamagedError, "store-metadata"),
        (no('"radius"', "7"), DamagedError, "store-metadata"),
        (no('"member": "unet"', '"member": ""'), DamagedError, "store-metadata"),
    ],
    ids=["empty", "newer", "another program's", "activation", "class twice", "class a number", "no member"],
)
def test_group_description(store: Path, change: Any, error: type[EnskError], code: str) -> None:
    edit(store / "zarr.json", change)
    assert code_of(error, lambda: LogitStore(store))[0] == code


def test_what_is_no_store(store: Path, tmp_path: Path) -> None:
    assert code_of(IncompleteError, lambda: LogitStore(tmp_path / "none"))[0] == "store-missing"
    (tmp_path / "file").write_text("x")
    code_of(DamagedError, lambda: LogitStore(tmp_path / "file"))
    code_of(DamagedError, lambda: LogitStore(tmp_path))
    code_of(UsageError, lambda: LogitStore("s3://bucket/unet.zarr?key=hidden"))
    code_of(UsageError, lambda: LogitStore("a\0b"))
    assert is_store(store)
    assert not is_store(tmp_path)
    assert not is_store(tmp_path / "file")
    (store / "zarr.json").unlink()
    assert is_store(store)
    assert "zarr.json" in code_of(DamagedError, lambda: LogitStore(store))[1]


# ------------------------------------------------------------------------------------------------ manifest


def test_unknown_and_missing_samples(tmp_path: Path) -> None:
    opened = LogitStore(make(tmp_path / "m.zarr", upto=5))
    assert not opened.complete
    assert opened.missing == IDS[5:]
    code, item = code_of(IncompleteError, lambda: opened.read(IDS[5]))
    assert code == "sample-missing"
    assert "5 of 20" in item
    assert IDS[5] in item
    assert code_of(IncompleteError, lambda: opened.placement("nobody"))[0] == "sample-unknown"


def test_manifest_gone_means_nothing_is_committed(store: Path) -> None:
    for segment in segments(store):
        segment.unlink()
    opened = LogitStore(store)
    assert opened.missing == IDS
    code_of(IncompleteError, lambda: opened.read(IDS[0]))


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_torn_tail_is_dropped(store: Path, cut: int) -> None:
    edit(segments(store)[0], lambda raw: raw[:-cut])
    opened = LogitStore(store)
    assert opened.complete
    assert opened.verify().sound


def test_torn_sample_line_is_missing_and_is_mended(store: Path) -> None:
    whole = LogitStore(store).fingerprint
    lines = segments(store)[0].read_bytes().splitlines(keepends=True)
    segments(store)[0].write_bytes(b"".join(lines[:20]) + lines[20][:-9])
    assert len(LogitStore(store).missing) == 2
    make(store)
    assert LogitStore(store).complete
    assert LogitStore(store).fingerprint == whole


@pytest.mark.parametrize("line", [1, 2, 10, 17])
def test_corrupted_line_is_named(store: Path, line: int) -> None:
    def spoil(raw: bytes) -> bytes:
        lines = raw.splitlines(keepends=True)
        lines[line - 1] = lines[line - 1].replace(b'"', b"'", 1)
        return b"".join(lines)

    edit(segments(store)[0], spoil)
    code, item = code_of(DamagedError, lambda: LogitStore(store))
    assert code == "manifest-damaged"
    assert f"line {line}:" in item
    assert segments(store)[0].name in item


def test_a_line_taken_out_is_noticed(store: Path) -> None:
    edit(
        segments(store)[0], lambda raw: b"".join(raw.splitlines(keepends=True)[:4] + raw.splitlines(keepends=True)[5:])
    )
    assert "counts 16" in code_of(DamagedError, lambda: LogitStore(store))[1]


def test_manifest_of_another_store(store: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other.zarr")
    (store / "logits/manifest/x.jsonl").write_bytes(segments(other)[0].read_bytes())
    assert code_of(DamagedError, lambda: LogitStore(store))[0] == "manifest-foreign"


def foreign_line(store: Path, **changes: Any) -> None:
    """Add a segment with one well-formed line that says something else."""
    uuid = json.loads((store / "zarr.json").read_text())["attributes"]["ensemble_kit"]["store"]
    line = {**json.loads(segments(store)[0].read_text().splitlines()[1]), **changes}
    line.pop("check")
    lines = [{"format": FORMAT, "store": uuid}, line, {"sync": 1}]
    (store / "logits/manifest/zz.jsonl").write_bytes(b"".join(map(to_line, lines)))


def test_two_lines_that_contradict(store: Path) -> None:
    from dataclasses import replace

    line = from_line(segments(store)[0].read_bytes().split(b"\n")[1])
    assert line is not None
    record = replace(Record.from_json(line, describe(store)[0]), crcs="00000001" * 3)
    foreign_line(store, **record.to_json())
    code, item = code_of(DamagedError, lambda: LogitStore(store))
    assert code == "manifest-conflict"
    assert "line 2 and zz.jsonl line 2" in item
    assert IDS[0] in item


@pytest.mark.parametrize(
    "changes",
    [
        {"row": 99},
        {"row": "0"},
        {"digest": "0" * 32},
        {"box": [0, 0, 9, 9]},
        {"image_size": [0, 5]},
        {"crcs": "xyz"},
        {"crcs": "0X" * 12},
        {"sample": 3},
    ],
    ids=["row", "row's type", "digest", "box", "image size", "checksums", "checksums' digits", "sample's type"],
)
def test_lines_that_make_no_sense(store: Path, changes: dict[str, Any]) -> None:
    foreign_line(store, **changes)
    assert "zz.jsonl line 2" in code_of(DamagedError, lambda: LogitStore(store))[1]


def test_leftovers_are_ignored_and_removed(store: Path) -> None:
    left = store / "logits" / ".3.0123456789abcdef.tmp"
    left.write_bytes(b"half")
    found = LogitStore(store).verify()
    assert found.sound
    assert found.unknown == (left.name,)
    with LogitWriter(store, CLASSES, IDS, GRID) as out:
        assert not left.exists()
        assert out.missing == []
    assert len(segments(store)) == 1  # opening a finished store leaves nothing behind


# ------------------------------------------------------------------------------------------------ writing


def test_resume_and_what_must_agree(store: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "half.zarr", upto=7, provenance={"model": "a", "weights": "1", "extra": 1})
    with LogitWriter(path, CLASSES, IDS[::-1], GRID, provenance={"model": "a", "extra": 2}) as out:
        assert out.missing == IDS[7:]
    cases: list[tuple[str, dict[str, Any]]] = [
        ("classes", {"classes": ["a", "b", "c"]}),
        ("grid", {"grid": (4, 4)}),
        ("activation", {"activation": "softmax"}),
        ("member", {"member": "other"}),
        ("samples", {"samples": [*IDS, "more"]}),
        ("'weights'", {"provenance": {"weights": "2"}}),
    ]
    for name, change in cases:
        given: dict[str, Any] = {"classes": CLASSES, "samples": IDS, "grid": GRID, **change}
        code, item = code_of(MismatchError, lambda given=given: LogitWriter(path, **given))  # type: ignore[misc]
        assert code == "store-differs"
        assert name in item
        with LogitWriter(tmp_path / "other.zarr", **given, overwrite=True) as out:
            assert len(out.missing) == len(given["samples"])


def test_writing_twice(store: Path) -> None:
    before = LogitStore(store).fingerprint
    with LogitWriter(store, CLASSES, IDS, GRID) as out:
        out.write(IDS[3], values(0)[3], (80, 60))
        assert code_of(LockedError, lambda: out.write(IDS[3], values(1)[3], (80, 60)))[0] == "sample-committed"
        assert code_of(LockedError, lambda: out.write(IDS[3], values(0)[3], (81, 60)))[0] == "sample-committed"
    assert LogitStore(store).fingerprint == before
    assert LogitStore(store).verify().sound


@pytest.mark.parametrize("seed", [0, 1])
def test_a_lost_sample_is_dumped_again(store: Path, seed: int) -> None:
    chunk(store, 4).unlink()
    edit(chunk(store, 6), lambda raw: raw[:-1])
    edit(chunk(store, 8), lambda raw: b"\0\1" + raw[2:])
    with LogitWriter(store, CLASSES, IDS, GRID) as out:
        assert out.missing == [IDS[4], IDS[6]]
        for row in (4, 6, 8):  # other bytes, as a GPU may give them
            out.write(IDS[row], values(seed)[row], (80, 60))
        assert out.missing == []
    opened = LogitStore(store)
    assert opened.verify().sound
    np.testing.assert_array_equal(opened.read(IDS[4]), values(seed)[4])


def test_overwrite(store: Path, tmp_path: Path) -> None:
    make(store, seed=3, overwrite=True)
    np.testing.assert_array_equal(LogitStore(store).read(IDS[0]), values(3)[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["unet.zarr"]
    (store / "zarr.json").write_text("broken")
    make(store, seed=4, overwrite=True)
    assert LogitStore(store).verify().sound


def test_overwrite_spares_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("precious")
    for overwrite in (True, False):
        with pytest.raises((UsageError, DamagedError)):
            LogitWriter(tmp_path / "photos", CLASSES, IDS, GRID, overwrite=overwrite)
    assert (tmp_path / "photos/a.jpg").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert LogitStore(make(tmp_path / "empty")).complete


def test_overwrite_waits_for_nobody(store: Path) -> None:
    (store / "logits/c.0.0.0.0").unlink()
    with LogitWriter(store, CLASSES, IDS, GRID) as out:
        out.write(IDS[0], values(0)[0], (80, 60))
        assert code_of(LockedError, lambda: LogitWriter(store, CLASSES, IDS, GRID, overwrite=True))[0] == "store-locked"
    idle = LogitWriter(store, CLASSES, IDS, GRID)
    make(store, upto=1, overwrite=True)
    assert code_of(LockedError, lambda: idle.write(IDS[2], values(0)[2], (8, 8)))[0] == "store-replaced"
    idle.close()


def test_wrong_arguments(tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, IDS, (0, 5))
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, IDS, (4.5, 5))  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, ["a", "a"], GRID)
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, IDS, GRID, activation="tanh")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, IDS, GRID, domain="scores")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, IDS, GRID, provenance={"a": object()})
    with pytest.raises(UsageError):
        LogitWriter(path, CLASSES, ["\ud800"], GRID)
    with pytest.raises(UsageError):
        LogitWriter(tmp_path / ("n" * 300), CLASSES, IDS, GRID)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UsageError):
        LogitWriter(tmp_path / "file", CLASSES, IDS, GRID)
    with pytest.raises(ResourceError):
        LogitWriter(tmp_path / "file/under", CLASSES, IDS, GRID)
    with LogitWriter(path, CLASSES, IDS, GRID) as out:
        with pytest.raises(MismatchError, match="nobody"):
            out.write("nobody", values(0)[0], (8, 8))
        for array in (values(0)[0][:2], values(0)[:1], values(0)[0][:, :4], values(0)[0][0]):
            with pytest.raises(MismatchError, match="instead of"):
                out.write(IDS[0], array, (8, 8))
        with pytest.raises(MismatchError):
            out.write(IDS[:2], values(0)[:3], (8, 8))
        for size in ((0, 8), (8, 8, 8), [(8, 8), (9, 9)], (8.5, 3)):
            with pytest.raises(UsageError):
                out.write(IDS[0], values(0)[0], size)
        with pytest.raises(UsageError):
            out.write(IDS[0], values(0)[0], (8, 8), box=(0, 0, 9, 6))
        assert out.missing == IDS
    with pytest.raises(UsageError, match="closed"):
        out.write(IDS[0], values(0)[0], (8, 8))


def test_the_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("deep/er/net v1.zarr"))
    assert LogitStore("deep/er/net v1.zarr").member == "net v1"


def test_many_descriptors_are_not_kept(store: Path) -> None:
    opened = LogitStore(store)
    before = Opened()
    for _ in range(3):
        for name in IDS:
            opened.read(name)
    assert before.descriptors() == 0


def test_samples_that_are_kept_leave_descriptors_to_others(tmp_path: Path) -> None:
    """A mapping holds a descriptor of its own; 60 samples must fit where 40 files may be open."""
    ids = [f"i{k}" for k in range(60)]
    with LogitWriter(tmp_path / "m.zarr", ["x"], ids, (8, 8)) as out:
        for name in ids:
            out.write(name, np.full((1, 8, 8), -3.0, np.float32), (8, 8))
    code = """
import os, resource, sys
import numpy as np
from ensemble_kit import LogitStore
store = LogitStore("m.zarr")
resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
kept = [store.read(name) for name in store.samples]
files = [open(os.devnull) for _ in range(12)]
assert all((z == -3).all() for z in kept)
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_mapping_is_given_up_where_memory_is_short(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunkreader, "available_memory", lambda: 10)
    opened = LogitStore(store)
    for _ in range(2):
        np.testing.assert_array_equal(opened.read(IDS[0]), values(0)[0])
    assert body.file_system(Path("/proc/self")) == "proc"
    assert resolve("/proc/1/..") == Path("/proc")
