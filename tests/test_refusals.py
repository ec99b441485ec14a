"""What the public verbs refuse, a line each, where no other test does: the kind of the error, its code, the item."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import (
    DamagedError,
    EnskError,
    IncompleteError,
    MismatchError,
    ResourceError,
    UnsafeError,
    UsageError,
)
from ensemble_kit.formats import polygons
from ensemble_kit.formats.classes import read_classes
from ensemble_kit.formats.writing import rehearse, write_to
from ensemble_kit.masks import packed
from ensemble_kit.masks.alignment import check_aligned

PLANE = (3, 4)
DOT = ek.Runs([5], [7], PLANE)


def some_masks(samples: str = "ab", classes: str = "xy", plane: tuple[int, int] = PLANE) -> ek.MaskSet:
    return ek.MaskSet({(s, c): ek.Runs([1], [3], plane) for s in samples for c in classes})


class Refusal(NamedTuple):
    """A call in an empty folder, and how it ends."""

    call: Callable[[Path], object]
    kind: type[EnskError]
    code: str
    item: str


def refuses(*rows: tuple[Callable[[Path], object], type[EnskError], str, str]) -> pytest.MarkDecorator:
    cases = [Refusal(*row) for row in rows]
    return pytest.mark.parametrize("case", cases, ids=[f"{k} {c.code}" for k, c in enumerate(cases)])


def check(case: Refusal, folder: Path) -> None:
    with pytest.raises(case.kind) as caught:
        case.call(folder)
    assert (caught.value.code, case.item in caught.value.item) == (case.code, True), caught.value
    assert caught.value.fix


def wrote(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ------------------------------------------------------------------------------------------------ masks and votes


@refuses(
    (lambda _: ek.MaskSet({("a", "x"): DOT, ("b", "y"): DOT}), IncompleteError, "masks-missing", "2 of 4"),
    (lambda _: ek.MaskSet({("a", "x"): DOT, ("a", "y"): ek.Runs([], [], (4, 3))}), MismatchError, "mask-size-differs",
     "class 'y': 4 x 3, 3 x 4"),
    (lambda _: ek.MaskSet([DOT]), UsageError, "masks-invalid", "list is not a mapping"),  # type: ignore[arg-type]
    (lambda _: ek.MaskSet({"a": DOT}), UsageError, "masks-invalid", "the key 'a'"),  # type: ignore[dict-item]
    (lambda _: ek.MaskSet({("a", "x"): np.ones(PLANE)}), UsageError, "masks-invalid", "ndarray for"),  # type: ignore[dict-item]
    (lambda _: check_aligned(some_masks(plane=(4, 3)).extent, some_masks().extent, ("these", "those")), MismatchError,
     "image-size-differs", "4 x 3 in these, 3 x 4 in those"),
    (lambda _: ek.hard_vote([some_masks(), some_masks(classes="xz")]), MismatchError, "classes-differ", "only in member 2: 'z'"),
    (lambda _: DOT.text(order="K"), UsageError, "rle-options", "order='K'"),  # type: ignore[arg-type]
    (lambda _: DOT.text(base=2), UsageError, "rle-options", "base=2"),
    (lambda _: packed.overlaps([DOT], [ek.Runs([], [], (4, 3))]), MismatchError, "plane-differs", "4 x 3"),
    (lambda _: ek.hard_vote([some_masks()] * 2, quorum=3), UsageError, "quorum-invalid", "quorum=3, all weights add up to 2"),
    (lambda _: ek.hard_vote([some_masks()] * 2, weights=[1e-30, 1]), UsageError, "weights-invalid", "2^60"),
)  # fmt: skip
def test_masks(case: Refusal, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_masks_of_two_kinds_are_not_combined() -> None:
    with pytest.raises(TypeError):
        DOT & np.ones(PLANE, bool)  # type: ignore[operator]
    assert (packed.texts([]), packed.overlaps([], []).tolist()) == ([], [])
    assert repr(some_masks()) == "MaskSet(2 samples x 2 classes)"


# ------------------------------------------------------------------------------------------------ formats


@refuses(
    (lambda p: write_to(some_masks(), io.BytesIO(), "png"), UsageError, "format-unfit", "'png'"),
    (lambda p: some_masks().write(p / "o.csv", format="carvanna"), UsageError, "format-unknown", "'carvanna'"),
    (lambda p: some_masks().write(p / "o.xyz"), UsageError, "format-unknown", "o.xyz"),
    (lambda p: ek.MaskSet({}).write(p / "o.csv"), UsageError, "masks-none", "empty"),
    (lambda p: ek.read_masks(wrote(p / "m.png", b"\x89PNG\r\n\x1a\n")), UsageError, "format-unknown", "m.png is a single PNG"),
    (lambda p: ek.read_masks(wrote(p / "m.json", "{}")), UsageError, "format-unknown", "no format recognises"),
    (lambda p: ek.read_masks(of_another_kind(p)), DamagedError, "index-invalid", "'tiff', which is not a format of folders"),
    (ek.read_masks, UsageError, "format-unknown", "no format recognises"),
    (lambda p: ek.read_masks(p, format="png"), IncompleteError, "files-missing", "holds no PNG"),
    (lambda p: ek.read_masks(p, format="labelme"), IncompleteError, "files-missing", "holds no JSON"),
    (lambda p: ek.read_masks(p, format="coco"), UsageError, "format-unfit", "is a folder"),
    (lambda p: read_classes(p / "none.txt"), IncompleteError, "input-missing", "none.txt"),
    (lambda p: read_classes(wrote(p / "c.txt", b"caf\xe9")), DamagedError, "classes-invalid", "byte 3 is not UTF-8"),
    (lambda p: ek.read_masks(wrote(p / "m.json", '{"images":[],"categories":[],"annotations":[]}')), IncompleteError,
     "samples-missing", "0 images and 0 categories"),
    (lambda p: ek.read_masks(wrote(p / "m.json", "[]"), format="coco"), DamagedError, "coco-invalid", "it is not an object"),
    (lambda p: ek.read_masks(wrote(p / "m.json", '{"shapes":[],"imagePath":7}')), DamagedError, "polygons-invalid",
     "its file name is not text"),
    (lambda p: ek.read_masks(wrote(p / "m.json", '{"shapes":[]}'), image_size=PLANE), IncompleteError, "classes-missing", "m.json"),
    (lambda p: ek.read_masks(wrote(p / "m/x/a.png", png(b"", size=(0, 4))).parent.parent), DamagedError, "png-invalid",
     "0 x 4 pixels"),
    (lambda p: ek.read_masks(wrote(p / "m/x/a.png", png(b"no deflate stream")).parent.parent), DamagedError, "png-invalid", "a.png"),
    (lambda p: ek.read_masks(both_kinds(p)), UsageError, "format-ambiguous", "'png', 'label-map'"),
    (lambda p: ek.read_masks(both_kinds(p), format="png"), DamagedError, "folder-mixed", "both PNGs and folders"),
    (lambda p: polygons.fill_coco(np.array([[0, 0], [2**20, 2**20], [0, 2**20]] * 9, float), PLANE, "polygon 7"), DamagedError,
     "polygon-invalid", "polygon 7: a polygon's boundary has more than"),
)  # fmt: skip
def test_formats(case: Refusal, tmp_path: Path) -> None:
    check(case, tmp_path)


def png(data: bytes, size: tuple[int, int] = (2, 2)) -> bytes:
    """Write a PNG of 8-bit grey whose pixel data may be anything; its checksums hold."""

    def piece(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", size[1], size[0], 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", data) + piece(b"IEND", b"")


def both_kinds(folder: Path) -> Path:
    some_masks().write(folder / "m", format="png")
    (folder / "m/index.json").unlink()
    whole = png(zlib.compress(b"\0\0\1\0\1\0"))
    wrote(folder / "m/top.png", whole)
    return folder / "m"


def of_another_kind(folder: Path) -> Path:
    some_masks().write(folder / "m", format="png")
    index = folder / "m/index.json"
    told = index.read_text()
    assert '"png"' in told
    index.write_text(told.replace('"png"', '"tiff"'))
    return folder / "m"


def stack(**arrays: Any) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


MASKS = np.zeros((1, 1, 3, 4), bool)


@refuses(
    (lambda p: wrote(p / "m.npz", stack(samples=["a", "b"], classes=["x"], one=MASKS[0])), DamagedError, "stack-invalid",
     "it names 2 samples and has 1 arrays"),
    (lambda p: wrote(p / "m.npz", stack(samples=np.arange(3), classes=["x"], masks=MASKS)), DamagedError, "stack-invalid",
     "not a list of names"),
    (lambda p: wrote(p / "m.npz", stack(samples=["a", "a"], classes=["x"], masks=MASKS)), DamagedError, "stack-invalid",
     "stands twice"),
    (lambda p: wrote(p / "m.npz", stack(samples=["a"], classes=["x", ""], masks=MASKS)), DamagedError, "stack-invalid",
     "is blank"),
    (lambda p: wrote(p / "m.npz", stack(classes=["x"])), IncompleteError, "samples-missing", "holds no array"),
    (lambda p: archive(p / "m.npz", {"notes.txt": b"hello"}), DamagedError, "stack-invalid", "'notes.txt' is doubled or not .npy"),
    (lambda p: wrote(p / "m.npz", stack(classes=np.frombuffer(b"\xff\xff\xff\xff", "<U1"), masks=MASKS)), DamagedError,
     "stack-invalid", "classes"),
    (lambda p: shortened(p / "m.npz"), DamagedError, "stack-invalid", "it is cut"),
)  # fmt: skip
def test_stacks(case: Refusal, tmp_path: Path) -> None:
    check(case._replace(call=lambda p: ek.read_masks(case.call(p))), tmp_path)  # type: ignore[arg-type]


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return path


def shortened(path: Path) -> Path:
    """An archive whose directory and header declare twice the pixels that its deflated entry holds."""
    header, names = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|b1", "fortran_order": False, "shape": (1, 1, 6, 4)})
    np.save(names, np.array(["x"]))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("classes.npy", names.getvalue())
        out.writestr("masks.npy", header.getvalue() + bytes(12))
        out.infolist()[1].file_size += 12
    return path


def test_names_that_numpy_would_cut() -> None:
    odd = ek.MaskSet({("a\0", "x"): DOT})
    with pytest.raises(UsageError, match="ends in NUL"):
        write_to(odd, io.BytesIO(), "npz")


def test_stacks_without_names_are_numbered(tmp_path: Path) -> None:
    wrote(tmp_path / "m.npz", stack(classes=["x"], masks=np.ones((2, 1, 3, 4), bool)))
    got = ek.read_masks(tmp_path / "m.npz")
    assert (got.samples, got["1", "x"].area) == (("0", "1"), 12)


def test_a_sample_submission_orders_formats_without_rows(tmp_path: Path) -> None:
    masks = some_masks()
    ek.MaskSet({(s, c): masks[s, c] for s in "ba" for c in "yx"}).write(tmp_path / "like.csv", format="handbone")
    masks.write(tmp_path / "o.npz", like=tmp_path / "like.csv")
    got = ek.read_masks(tmp_path / "o.npz")
    assert (got.samples, got.classes) == (("b", "a"), ("y", "x"))
    rehearse(masks, tmp_path / "folder", like=tmp_path / "like.csv")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize(
    ("path", "code", "fix"),
    [
        ("thesis", "output-foreign", "pass the path of a new folder"),
        ("note.txt/x.csv", "output-folder-missing", "does not lead through the file .*note.txt"),
        ("note.txt/a/x.csv", "output-folder-missing", "does not lead through the file .*note.txt"),
        ("new/x.csv", "output-folder-missing", "mkdir -p .*new"),
        ("thesis.npz", "output-kind", "pass another path"),
    ],
)
def test_what_cannot_be_written_is_refused_in_rehearsal(path: str, code: str, fix: str, tmp_path: Path) -> None:
    for folder in ("thesis", "thesis.npz"):
        (tmp_path / folder).mkdir()
        wrote(tmp_path / folder / "chapter.txt", b"")
    wrote(tmp_path / "note.txt", b"")
    with pytest.raises(UsageError, match=fix) as caught:
        rehearse(some_masks(), tmp_path / path, format="npz" if path == "thesis.npz" else None)
    assert caught.value.code == code


def test_the_outline_of_last_resort_is_exact() -> None:
    """Every run as a shape of its own, should a contour ever differ from its mask."""
    bitmap = np.random.default_rng(3).random((17, 23)) > 0.5
    wanted = ek.encode(bitmap)
    shapes = [s.astype(float) for s in polygons._rows(wanted)]
    assert polygons.fill_opencv(shapes, bitmap.shape, "rows") == wanted
    assert polygons.fill_opencv(shapes, (17, 23), "rows").area == bitmap.sum()
    below = [np.array([[0, 40], [5, 40], [5, 44]], float)]
    assert not polygons.fill_opencv(below, bitmap.shape, "outside")


def test_polygons_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ResourceError) as caught:
        polygons.outline(DOT)
    assert (caught.value.code, "--no-deps opencv-python-headless" in caught.value.fix) == ("opencv-missing", True)


# ------------------------------------------------------------------------------------------------ stores

CLASSES, IDS, GRID = ["x", "y"], ["a", "b"], (4, 6)
VALUES = (np.random.default_rng(1).normal(size=(2, 2, *GRID)) * 4).astype(np.float16)


def writer(folder: Path, **options: Any) -> ek.LogitWriter:
    given = {"classes": CLASSES, "samples": IDS, "grid": GRID, **options}
    return ek.LogitWriter(folder / "m.zarr", **given)


def store(folder: Path, **options: Any) -> Path:
    with writer(folder, **options) as out:
        out.write(IDS, VALUES, (8, 12))
    return folder / "m.zarr"


def described(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], object]) -> Path:
    """Change a store's two descriptions, and take the checksum away as a stranger would."""
    files = path / "zarr.json", path / "logits/zarr.json"
    group, array = (json.loads(f.read_text()) for f in files)
    group["attributes"]["ensemble_kit"].pop("check")
    change(group["attributes"]["ensemble_kit"], array)
    for file, value in zip(files, (group, array), strict=True):
        file.write_text(json.dumps(value))
    return path


def changed(key: str, value: object) -> Callable[[Path], object]:
    return lambda p: ek.LogitStore(described(store(p), lambda own, array: own.update({key: value})))


def laid(key: str, value: object) -> Callable[[Path], object]:
    return lambda p: ek.LogitStore(described(store(p), lambda own, array: array.update({key: value})))


def written(*arguments: Any, **options: Any) -> Callable[[Path], object]:
    def call(folder: Path) -> None:
        with writer(folder, **options) as out:
            out.write(*arguments)

    return call


@refuses(
    (changed("clamp", "much"), DamagedError, "store-metadata", "clamp 'much'"),
    (changed("clamp", 70000), DamagedError, "store-metadata", "clamp 70000"),
    (changed("classes", "xy"), DamagedError, "store-metadata", "names are not a list"),
    (changed("activation", "tanh"), DamagedError, "store-metadata", "tanh"),
    (changed("member", ""), DamagedError, "store-metadata", "m.zarr/zarr.json"),
    (changed("samples", ["a"]), DamagedError, "store-metadata", "array of 2 samples x 2 classes, names of 1 x 2"),
    (laid("codecs", None), DamagedError, "store-metadata", "are not described"),
    (laid("chunk_grid", []), DamagedError, "store-metadata", "are not described"),
    (laid("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [1, 2, 0, 6]}}), DamagedError,
     "store-metadata", "chunks of"),
    (laid("chunk_grid", {"name": "regular", "configuration": {"chunk_shape": [1, 2**20, 2**20, 6]}}), UnsafeError,
     "store-too-large", "1048576"),
    (lambda p: ek.LogitStore(wrote(store(p) / "zarr.json", "[]").parent), DamagedError, "store-metadata", "not a JSON object"),
    (written(5, VALUES[0], (8, 12)), UsageError, "name-invalid", "5"),
    (written(["a", "a"], VALUES, (8, 12)), UsageError, "name-doubled", "'a'"),
    (written(IDS, VALUES, "big"), UsageError, "batch-invalid", "'big' for 2 samples"),
    (written(IDS, VALUES, [(8, 12)]), UsageError, "batch-invalid", "for 2 samples"),
    (written(IDS, VALUES, (8.5, 12)), UsageError, "batch-invalid", "8.5"),
    (written(IDS, VALUES, (8, 12), grid=7), UsageError, "grid-invalid", "grid=7"),
    (written(IDS, VALUES, (8, 12), grid=(4, float("inf"))), UsageError, "grid-invalid", "inf"),
    (written(IDS, VALUES, (8, 12), grid=(4, 6, 1, 1)), UsageError, "grid-invalid", "(4, 6, 1, 1)"),
    (written(IDS, VALUES, (8, 12), classes="xy"), UsageError, "name-invalid", "classes='xy'"),
    (written(IDS, VALUES, (8, 12), samples={"a", "b"}), UsageError, "name-invalid", "samples="),
    (written("a", np.full((2, *GRID), 0.4), (8, 12), domain="probabilities", activation="softmax"), DamagedError,
     "probabilities-sum", "sample 'a': 2 classes add up to 0.8"),
    (lambda p: ek.LogitStore(store(p)).read("a", np.empty((2, *GRID), np.float32)), UsageError, "out-invalid", "float32"),
    (lambda p: ek.LogitStore(store(p)).read("a", np.empty((2, *GRID[::-1]), np.float16)), UsageError, "out-invalid", "(2, 6, 4)"),
    (lambda p: ek.LogitStore(by_zarr(p)).pack(p / "m.zip"), MismatchError, "store-layout", "m.zarr"),
    (lambda p: writer(by_zarr(p).parent), MismatchError, "store-layout", "m.zarr"),
    (lambda p: ek.LogitStore(encrypted(p)), UnsafeError, "zip-compressed", "is encrypted"),
)  # fmt: skip
def test_stores(case: Refusal, tmp_path: Path) -> None:
    check(case, tmp_path)


def by_zarr(folder: Path) -> Path:
    """The same logits as another program would lay them out: a chunk for each class."""
    import zarr

    path = store(folder)
    for chunk in (path / "logits").glob("c.*"):
        chunk.unlink()

    def lay(_: object, array: dict[str, Any]) -> None:
        array["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, *GRID]

    described(path, lay)
    zarr.open_array(path / "logits", mode="r+")[:] = VALUES
    return path


def encrypted(folder: Path) -> Path:
    ek.LogitStore(store(folder)).pack(folder / "m.zip")
    raw = bytearray((folder / "m.zip").read_bytes())
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return wrote(folder / "m.zip", bytes(raw))


def test_another_layout_is_read_through_zarr(tmp_path: Path) -> None:
    opened = ek.LogitStore(by_zarr(tmp_path))
    out = np.empty((2, *GRID), np.float16)
    assert opened.codec == "other"
    np.testing.assert_array_equal(opened.read("a"), VALUES[0])
    np.testing.assert_array_equal(opened.read("b", out), VALUES[1])
    assert not opened.read("a").flags.writeable
    chunk = tmp_path / "m.zarr/logits/c.1.0.0.0"
    raw = bytearray(chunk.read_bytes())
    raw[5] ^= 4
    chunk.write_bytes(raw)
    assert [d.sample for d in opened.verify().damaged] == ["b"]
    chunk.write_bytes((tmp_path / "m.zarr/logits/c.0.1.0.0").read_bytes())  # sound to zarr, and another's
    (found,) = opened.verify().damaged
    assert (found.sample, "class 'x'" in found.reason) == ("b", True), found


@pytest.mark.parametrize("inside", [ZeroDivisionError, None])
def test_an_error_inside_the_block_is_the_one_that_is_told(tmp_path: Path, inside: type[Exception] | None) -> None:
    """Not the one that closing meets after it, where the store was taken away; without one, that of closing is."""
    with pytest.raises(inside or (EnskError, OSError)), writer(tmp_path) as out:  # type: ignore[arg-type]
        out.write("a", VALUES[0], (8, 12))
        shutil.rmtree(tmp_path / "m.zarr")
        if inside is not None:
            raise inside


def test_leftovers_of_the_living_and_of_yesterday(tmp_path: Path) -> None:
    """A half-written sample of a living writer stays; half-made stores of two days ago go, those of today stay."""
    with writer(tmp_path) as out:
        out.write("a", VALUES[0], (8, 12))
        (part,) = (tmp_path / "m.zarr/logits/manifest").glob("*.jsonl")
        alive = wrote(tmp_path / f"m.zarr/logits/.1.{part.stem}.tmp", "half")
        dead = wrote(tmp_path / "m.zarr/logits/.1.0123456789abcdef.tmp", "half")
        today, yesterday = (tmp_path / f".m.zarr.{c * 16}.old" for c in "ab")
        for folder in (today, yesterday):
            wrote(folder / "zarr.json", "{}")
        os.utime(yesterday, (time.time() - 200_000,) * 2)
        with writer(tmp_path):
            assert (alive.exists(), dead.exists()) == (True, False)
    with writer(tmp_path, overwrite=True):
        assert (today.exists(), yesterday.exists()) == (True, False)


def test_a_manifest_of_strangers(tmp_path: Path) -> None:
    """Lines whose checksum holds and which are not a record, a head or a sample of this store."""
    from ensemble_kit.logits import description, records

    store(tmp_path)
    (segment,) = (tmp_path / "m.zarr/logits/manifest").glob("*.jsonl")
    head, line, *rest = segment.read_bytes().splitlines(keepends=True)
    told = records.from_line(line.rstrip(b"\n"))
    assert told is not None
    record = records.Record.from_json(told, description.describe(tmp_path / "m.zarr")[0])
    for lines, words in (
        ([records.to_line({"format": "else/1"}), line], "does not begin with a head"),
        ([head, records.to_line(replace(record, row=7).to_json())], "does not belong to this store"),
        ([head, records.to_line(replace(record, sample="c").to_json())], "does not belong to this store"),
        ([head, records.to_line({**told, "row": 1})], "its digest does not fit the line"),
        ([head, records.to_line({"hello": 1})], "not a record of a sample"),
    ):
        segment.write_bytes(b"".join(lines + rest))
        with pytest.raises(DamagedError) as caught:
            ek.LogitStore(tmp_path / "m.zarr")
        assert (caught.value.code, words in caught.value.item) == ("manifest-damaged", True), caught.value
    segment.write_bytes(b"".join([head, line, *rest]))
    assert ek.LogitStore(tmp_path / "m.zarr").complete


# ------------------------------------------------------------------------------------------------ what mutants showed


@refuses(
    (lambda _: ek.Runs([0, 5, 6], [2, 8, 9], PLANE), DamagedError, "runs-invalid", ""),
    (lambda _: DOT.overlap(ek.Runs([5], [7], (4, 3))), MismatchError, "plane-differs", "4 x 3"),
    (lambda _: ek.Runs.parse("1 2", PLANE, order="K"), UsageError, "rle-options", "order='K'"),  # type: ignore[arg-type]
    (lambda _: packed.texts([DOT], order="K"), UsageError, "rle-options", "order='K'"),  # type: ignore[arg-type]
    (lambda _: ek.Runs.from_coco({"size": [4.0, 5], "counts": [5]}), DamagedError, "coco-invalid", "size or counts"),
    (lambda _: ek.Runs.from_coco({"size": [4.0, 5], "counts": [10]}), DamagedError, "coco-invalid", "size or counts"),
    (lambda _: ek.Runs.from_coco({"size": [3, 4], "counts": b"\x10"}), DamagedError, "coco-invalid", "foreign character"),
    (lambda _: ek.Runs.parse("1 2 5 1 9 1 x 12 1 14 1", (4, 9)), DamagedError, "rle-invalid",
     "byte 12 of 23, around '5 1 9 1 x 12 1 1'"),
    (lambda _: ek.Runs.parse("x2345678901234567890", (4, 9)), DamagedError, "rle-invalid", "byte 0 of 20, around 'x2345678'"),
    (lambda _: ek.Runs.parse("1" * 24 + " 1", (4, 9)), DamagedError, "rle-invalid", f"number 1 is {'1' * 24}, "),
    (lambda _: ek.Runs.parse("1" * 25 + " 1", (4, 9)), DamagedError, "rle-invalid", f"number 1 is {'1' * 20}… (25 digits), "),
)  # fmt: skip
def test_refusals_of_masks(case: Refusal, tmp_path: Path) -> None:
    check(case, tmp_path)


def test_masks_that_differ_in_one_thing_are_not_equal() -> None:
    assert len({DOT, ek.Runs([5], [8], PLANE), ek.Runs([4], [7], PLANE), ek.Runs([5], [7], (4, 3))}) == 4
    assert ek.Runs([5], [7], PLANE) == DOT
    assert ek.Runs([5], [8], PLANE) != DOT
    assert ek.Runs([4], [7], PLANE) != DOT
    assert ek.Runs([5], [7], (4, 3)) != DOT
    assert DOT
    assert not ek.Runs([], [], PLANE)
    assert ek.Runs([0, 5, 8], [2, 8, 9], PLANE) == ek.Runs([0, 5], [2, 9], PLANE)


def test_a_member_without_weight_counts_for_nothing() -> None:
    assert ek.hard_vote([some_masks()] * 3, weights=[1, 1, 0]).rule.endswith("this is an AND of the members")
    assert ek.hard_vote([some_masks()] * 3, weights=[1, 1, 0], quorum=1).rule.endswith("this is an OR of the members")


def test_the_rule_says_whose_majority_counts() -> None:
    abstaining = {"quorum": None, "empty": "abstain"}
    assert "the majority is of the others" in ek.hard_vote([some_masks()] * 3, **abstaining).rule
    assert "the majority is of the others" not in ek.hard_vote([some_masks()] * 3, **abstaining | {"quorum": 2}).rule


def test_uncompressed_counts() -> None:
    """Column-major, from off on; empty stretches count for nothing."""
    assert DOT.coco_counts().tolist() == [4, 1, 2, 1, 4]
    for counts in ([4, 1, 2, 1, 4], [4, 1, 0, 0, 2, 1, 4], [2, 0, 2, 1, 2, 1, 4, 0]):
        assert ek.Runs.from_coco({"size": list(PLANE), "counts": counts}) == DOT


def test_many_at_once_are_each_by_itself() -> None:
    draw = np.random.default_rng(9)
    masks = [ek.encode(draw.random(PLANE) > cut) for cut in (0.2, 0.5, 0.9, 1.0, 0.6)]
    others = masks[1:] + masks[:1]
    assert packed.overlaps(masks, others).tolist() == [a.overlap(b) for a, b in zip(masks, others, strict=True)]
    for order in ("C", "F"):
        assert packed.texts(masks, order=order) == [m.text(order=order) for m in masks]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zip"):
        packed.overlaps(masks, others[:-1])


@pytest.mark.parametrize("key", ["ab", ["a", "b"], ("a",), ("a", "b", "c"), ("a", "x"), ("x", "b"), 1])
def test_a_key_that_no_mask_has(key: Any) -> None:
    masks = ek.MaskSet({("a", "b"): ek.Runs.empty((2, 2))})
    assert key not in masks
    with pytest.raises(KeyError):
        masks[key]
