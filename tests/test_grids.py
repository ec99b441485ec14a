"""A grid per sample, `ensk.logits/2`: images of any size and volumes, by our reader and by zarr's."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.errors import DamagedError, EnskError, LockedError, MismatchError, UsageError
from ensemble_kit.logits import layout
from ensemble_kit.logits.layout import StoreSpec
from ensemble_kit.logits.lines import Lines
from ensemble_kit.logits.records import Record, to_line
from ensemble_kit.logits.samplearray import SampleArray
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Box, Placement

CLASSES = ("radius", "ulna")
IMAGES = {"a.png": (8, 6), "b.png": (5, 9), "c.png": (8, 6)}
VOLUMES = {"a.nii": (7, 5, 6), "b.nii": (9, 4, 3), "c.nii": (2, 5, 6)}
GEOMETRY = Geometry.of([[0.8, 0, 0, -1.5], [0, 0.7, 0.1, 3], [0, 0, 5, 1 / 3], [0, 0, 0, 1]], "LPS")
KINDS = pytest.mark.parametrize("grids", [IMAGES, VOLUMES], ids=["images", "volumes"])


@pytest.fixture(autouse=True)
def small_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs of three slices of 5 x 6 at most."""
    monkeypatch.setattr(layout, "MAX_SLAB", 2 * 2 * 5 * 6 * 3)


def values(grids: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {s: (rng.normal(size=(len(CLASSES), *grid)) * 5).astype(np.float16) for s, grid in grids.items()}


def write(path: Path | str, grids: dict[str, tuple[int, ...]], seed: int = 0, **options: Any) -> Path | str:
    """Write a store whose second sample has a window and, of a volume, a nearest axis and a geometry."""
    with ek.LogitWriter(path, CLASSES, list(grids), member="m", **options) as out:
        for k, (name, array) in enumerate(values(grids, seed).items()):
            rank = array.ndim - 1
            image, more = (40,) * rank, dict[str, Any]()
            if k == 1:
                more = {"window": (1,) * rank + (30,) * rank}
                more |= {"axes": ("nearest", "linear", "linear"), "geometry": GEOMETRY} if rank == 3 else {}
            out.write(name, array, image, **more)
    return path


@KINDS
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_what_is_written_is_read(tmp_path: Path, grids: dict[str, tuple[int, ...]], codec: str) -> None:
    opened = ek.LogitStore(write(tmp_path / "m.zarr", grids, codec=codec))
    rank = len(next(iter(grids.values())))
    assert (opened.grid, opened.rank, opened.complete, opened.codec) == (None, rank, True, codec)
    assert "on a grid each" in repr(opened)
    first, second, _ = opened.samples
    for name, array in values(grids).items():
        for _ in range(2):  # verified, and known to be
            np.testing.assert_array_equal(opened.read(name), array)
        into = np.empty_like(array)
        assert opened.read(name, into) is into or np.shares_memory(into, opened.read(name, into))
        np.testing.assert_array_equal(into, array)
        assert opened.placement(name).grid == array.shape[1:]
    assert opened.placement(first) == Placement.of(grids[first], (40,) * rank)
    assert opened.placement(second).window == Box(*[1] * rank, *[30] * rank)
    assert opened.geometry(second) == (GEOMETRY if rank == 3 else None)
    assert opened.geometry(first) is None
    assert opened.placement(second).kinds == (("nearest", "linear", "linear") if rank == 3 else ("linear", "linear"))
    found = opened.verify()
    assert found.sound and found.unknown == () and found.bytes == sum(v.nbytes for v in values(grids).values())
    assert opened.bytes_per_sample == max(v.nbytes for v in values(grids).values())


@KINDS
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_zarr_reads_the_same(tmp_path: Path, grids: dict[str, tuple[int, ...]], codec: str) -> None:
    import zarr

    group = zarr.open(write(tmp_path / "m.zarr", grids, codec=codec), mode="r")
    assert [n for n, _ in group.members()] == ["logits"]  # any warning is an error here
    assert sorted(n for n, _ in group["logits"].members()) == ["0", "1", "2", "manifest"]
    for row, (name, array) in enumerate(values(grids).items()):
        one = group["logits"][str(row)]
        np.testing.assert_array_equal(one[:], array)
        assert one.metadata.dimension_names == ("class", *("z", "y", "x")[-array.ndim + 1 :])
        assert np.isnan(one.fill_value) and one.attrs["sample"] == name


def test_zarr_writes_the_same_description(tmp_path: Path) -> None:
    """What zarr makes of the same array, with the same codecs, is the same metadata."""
    import zarr

    folder = write(tmp_path / "m.zarr", VOLUMES)
    ours = json.loads((Path(folder) / "logits/0/zarr.json").read_text())
    zarr.create_array(
        tmp_path / "z.zarr", shape=(2, 7, 5, 6), chunks=(2, 3, 5, 6), dtype="float16", fill_value=float("nan"),
        compressors=[zarr.codecs.Crc32cCodec()], filters=None, dimension_names=["class", "z", "y", "x"],
        chunk_key_encoding={"name": "default", "separator": "."}, attributes={"sample": "a.nii"}, zarr_format=3,
    )  # fmt: skip
    theirs = json.loads((tmp_path / "z.zarr/zarr.json").read_text())
    assert {k: v for k, v in ours.items() if v != theirs.get(k)} == {}


def test_xarray_and_dask_open_it(tmp_path: Path) -> None:
    xarray = pytest.importorskip("xarray")
    write(tmp_path / "m.zarr", VOLUMES)
    whole = values(VOLUMES)
    others = ["manifest", "1", "2"]
    opened = xarray.open_zarr(
        tmp_path / "m.zarr", group="logits", drop_variables=others, consolidated=False, chunks=None
    )
    assert opened["0"].dims == ("class", "z", "y", "x")
    np.testing.assert_array_equal(opened["0"].to_numpy(), whole["a.nii"])
    dask = pytest.importorskip("dask.array")
    np.testing.assert_array_equal(dask.from_zarr(str(tmp_path / "m.zarr"), "logits/1").compute(), whole["b.nii"])


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_slices_are_those_of_the_volume(tmp_path: Path, codec: str) -> None:
    opened = ek.LogitStore(write(tmp_path / "m.zarr", VOLUMES, codec=codec))
    for name, array in values(VOLUMES).items():
        for first in range(array.shape[1]):
            for stop in range(first + 1, array.shape[1] + 1):
                slab = opened.read_slab(name, first, stop)
                np.testing.assert_array_equal(slab, array[:, first:stop])
                assert not slab.flags.writeable and all(one.flags.c_contiguous for one in slab)
    np.testing.assert_array_equal(opened.read_slab("a.nii", np.int64(1), np.int64(3)), values(VOLUMES)["a.nii"][:, 1:3])
    for first, stop in ((0, 0), (3, 2), (-1, 2), (0, 8), (0, 1.5), ("0", 1)):
        with pytest.raises(UsageError, match=r"a\.nii.*7 x 5 x 6"):
            opened.read_slab("a.nii", first, stop)
    images = ek.LogitStore(write(tmp_path / "i.zarr", IMAGES))
    with pytest.raises(UsageError, match="`read`"):
        images.read_slab("a.png", 0, 1)


def test_a_slab_is_read_without_the_rest(tmp_path: Path) -> None:
    """Damage of other slabs is not noticed, and the damaged one is named by its slices."""
    write(tmp_path / "m.zarr", VOLUMES)
    chunk = tmp_path / "m.zarr/logits/0/c.0.1.0.0"
    chunk.write_bytes(chunk.read_bytes()[:40] + b"\xff" + chunk.read_bytes()[41:])
    (tmp_path / "m.zarr/logits/0/c.0.2.0.0").unlink()
    opened, whole = ek.LogitStore(tmp_path / "m.zarr"), values(VOLUMES)["a.nii"]
    np.testing.assert_array_equal(opened.read_slab("a.nii", 0, 3), whole[:, :3])
    with pytest.raises(
        DamagedError, match=r"logits/0/c\.0\.1\.0\.0: slices 3 to 5: bytes were changed in class 'radius'"
    ):
        opened.read_slab("a.nii", 5, 6)
    with pytest.raises(DamagedError, match=r"c\.0\.2\.0\.0: slice 6: the chunk is gone"):
        opened.read_slab("a.nii", 6, 7)
    found = opened.verify()
    assert [(d.sample, d.key) for d in found.damaged] == [("a.nii", f"logits/0/c.0.{k}.0.0") for k in (1, 2)]


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 3, 1], [2, 4, 1], [5, 2]], ids=str)
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_slabs_of_any_size_make_the_same_store(tmp_path: Path, pieces: list[int], dtype: str) -> None:
    """A generator may fill one array again and again: nothing of it is kept."""
    whole = values(VOLUMES)["a.nii"].astype(dtype)
    files = []
    for path in (tmp_path / "whole.zarr", tmp_path / "slabs.zarr"):
        with ek.LogitWriter(path, CLASSES, ["a.nii"], member="m") as out:
            if path.stem == "whole":
                out.write("a.nii", whole, (20, 20, 20))
                continue
            room = np.empty((2, 7, 5, 6), dtype)

            def slabs(room: np.ndarray = room) -> Iterator[np.ndarray]:
                at = 0
                for count in pieces:
                    room[:] = 77
                    room[:, :count] = whole[:, at : at + count]
                    at += count
                    yield room[:, :count]
                room[:] = 99

            out.write_slabs("a.nii", slabs(), (7, 5, 6), (20, 20, 20))
    for path in (tmp_path / "whole.zarr", tmp_path / "slabs.zarr"):
        files.append([p.read_bytes() for p in sorted((path / "logits/0").iterdir())])
        assert ek.LogitStore(path).verify().sound
    assert files[0] == files[1]
    assert ek.LogitStore(tmp_path / "whole.zarr").fingerprint == ek.LogitStore(tmp_path / "slabs.zarr").fingerprint


def broken_slabs() -> Iterator[np.ndarray]:
    yield np.full((2, 3, 5, 6), -3.0)
    raise KeyboardInterrupt("ctrl-c")


SLABS: dict[str, tuple[Callable[[], Any], type[BaseException], str]] = {
    "too few": (lambda: [np.full((2, 6, 5, 6), -3.0)], MismatchError, "6 slices together instead of 7"),
    "too many": (lambda: [np.full((2, 4, 5, 6), -3.0)] * 2, MismatchError, "8 or more slices"),
    "none": (list, MismatchError, "0 slices together"),
    "another width": (lambda: [np.full((2, 7, 5, 7), -3.0)], MismatchError, r"a slab of \(2, 7, 5, 7\)"),
    "one class less": (lambda: [np.full((1, 7, 5, 6), -3.0)], MismatchError, r"a slab of \(1, 7, 5, 6\)"),
    "images": (lambda: [np.full((2, 5, 6), -3.0)] * 7, MismatchError, r"a slab of \(2, 5, 6\)"),
    "NaN in the last": (lambda: [np.full((2, 6, 5, 6), -3.0), np.full((2, 1, 5, 6), np.nan)], DamagedError, "NaN"),
    "probabilities": (lambda: [np.full((2, 1, 5, 6), 0.5)] * 7, DamagedError, r"every value lies in \[0, 1\]"),
    "an interrupt": (broken_slabs, KeyboardInterrupt, "ctrl-c"),
}


@pytest.mark.parametrize("name", SLABS)
def test_slabs_that_are_refused_leave_nothing(tmp_path: Path, name: str) -> None:
    slabs, error, words = SLABS[name]
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["a.nii"]) as out:
        with pytest.raises(error, match=words):
            out.write_slabs("a.nii", slabs(), (7, 5, 6), (20, 20, 20))
        assert out.missing == ["a.nii"]
        folder = tmp_path / "m.zarr/logits"
        assert not (folder / "0").exists() and not [p for p in folder.rglob("*") if p.name.endswith(".tmp")]
        out.write_slabs("a.nii", [np.full((2, 1, 5, 6), k - 3.0) for k in range(7)], (7, 5, 6), (20, 20, 20))
    assert ek.LogitStore(tmp_path / "m.zarr").verify().sound


def test_a_slab_alone_may_lie_in_the_unit_interval(tmp_path: Path) -> None:
    """What is said of a sample is said of all its slabs together."""
    array = np.full((2, 7, 5, 6), 0.5, np.float32)
    array[:, 6] = 8
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["a", "b"]) as out:
        out.write("a", array, (20, 20, 20))
        out.write("b", np.full((2, 3, 5, 6), 0.5), (20, 20, 20))
    assert ek.LogitStore(tmp_path / "m.zarr").complete


REFUSED: dict[str, tuple[Any, tuple[int, ...], dict[str, Any], str]] = {
    "a window in a store of one grid": ((8, 6), (8, 6), {"window": (0, 0, 9, 9)}, "grid-fixed"),
    "kinds of axes in a store of one grid": ((8, 6), (8, 6), {"axes": ("nearest", "linear")}, "grid-fixed"),
    "a window outside its image": (None, (8, 6), {"window": (0, 0, 9, 99)}, "window-outside-image"),
    "a window of three axes": (None, (8, 6), {"window": (0, 0, 0, 9, 9, 9)}, "batch-invalid"),
    "axes of three": (None, (8, 6), {"axes": ("linear", "linear", "nearest")}, "axis-kinds"),
    "axes as a word": (None, (8, 6), {"axes": "nearest"}, "axis-kinds"),
    "the geometry of an image": (None, (8, 6), {"geometry": GEOMETRY}, "geometry-images"),
    "a geometry that is none": (None, (7, 5, 6), {"geometry": np.eye(4)}, "argument-kind"),
    "a box of two axes": (None, (7, 5, 6), {"box": (0, 0, 5, 6)}, "batch-invalid"),
    "an image of two axes": (None, (7, 5, 6), {"image_size": (9, 9)}, "batch-invalid"),
    "another grid of volumes": ((7, 5, 6), (7, 5, 5), {}, "logits-shape"),
    "an image into one grid of volumes": ((7, 5, 6), (5, 6), {}, "logits-shape"),
    "a volume into one grid": ((5, 6), (7, 5, 6), {}, "logits-shape"),
    "four axes": (None, (2, 7, 5, 6), {}, "logits-shape"),
    "one axis": (None, (6,), {}, "logits-shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    grid, shape, more, code = REFUSED[name]
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"], grid) as out:
        size = {"image_size": (20,) * min(len(shape), 3), **more}
        with pytest.raises(EnskError) as caught:
            out.write("s", np.full((2, *shape), -3.0), **size)
        assert caught.value.code == code
        assert out.missing == ["s"]


def test_classes_last_is_told(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t"]) as out:
        for shape, ids, axis in (((8, 6, 2), "s", -3), ((7, 8, 6, 2), "s", -4), ((2, 8, 6, 2), ["s", "t"], -3)):
            with pytest.raises(MismatchError, match=rf"moveaxis\(array, -1, {axis}\)"):
                out.write(ids, np.zeros(shape), (9, 9))


def test_the_window_of_the_whole_image_is_none(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"], (8, 6)) as out:
        out.write("s", np.full((2, 8, 6), -3.0), (20, 20), window=(0, 0, 20, 20), axes=("linear", "linear"))
    line = json.loads(next((tmp_path / "m.zarr/logits/manifest").glob("*.jsonl")).read_text().splitlines()[1])
    assert "window" not in line and "grid" not in line
    assert json.loads((tmp_path / "m.zarr/zarr.json").read_text())["attributes"]["ensemble_kit"]["format"].endswith(
        "/1"
    )


@pytest.mark.parametrize("first", ["image", "volume"])
def test_images_and_volumes_are_not_in_one_store(tmp_path: Path, first: str) -> None:
    arrays = [np.full((2, 5, 6), -3.0), np.full((2, 7, 5, 6), -3.0)]
    sizes = [(9, 9), (9, 9, 9)]
    order = (0, 1) if first == "image" else (1, 0)
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t"]) as out:
        out.write("s", arrays[order[0]], sizes[order[0]])
        with pytest.raises(MismatchError) as caught:
            out.write("t", arrays[order[1]], sizes[order[1]])
    assert caught.value.code == "store-ranks"
    assert ek.LogitStore(tmp_path / "m.zarr").rank == 2 + order[0]


def test_a_batch_of_one_grid(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(2, 2, 8, 6)).astype(np.float16)
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t", "u"]) as out:
        out.write(["s", "t"], whole, (20, 20), window=[(0, 0, 9, 9), (0, 0, 20, 20)])
        out.write("u", whole[0, :, :5], (20, 20))
    opened = ek.LogitStore(tmp_path / "m.zarr")
    np.testing.assert_array_equal(opened.read("t"), whole[1])
    assert [opened.placement(s).window for s in opened.samples] == [Box(0, 0, 9, 9), None, None]


@KINDS
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_again_and_again(tmp_path: Path, grids: dict[str, tuple[int, ...]], where: str) -> None:
    """A sample that is written again is at the other keys; its former chunks are gone, and zarr reads the new ones."""
    if where == "memory":
        pytest.importorskip("obstore")
    path = tmp_path / "m.zarr" if where == "folder" else f"memory://grids/{tmp_path.name}"
    name = next(iter(grids))
    write(path, grids)
    for seed in (1, 2, 1):
        other = values(grids, seed)[name]
        with ek.LogitWriter(path, CLASSES, list(grids), member="m") as out:
            assert out.missing == []
            with pytest.raises(LockedError):
                out.write(name, other, (40,) * (other.ndim - 1))
            out.write(name, other, (40,) * (other.ndim - 1), again=True)
            out.write(name, other, (40,) * (other.ndim - 1))  # equal bytes
        opened = ek.LogitStore(path)
        np.testing.assert_array_equal(opened.read(name), other)
        found = opened.verify()
        assert found.sound and not found.unknown
        if where == "folder":
            import zarr

            np.testing.assert_array_equal(zarr.open(path, mode="r")["logits/0"][:], other)
            left = {p.name for p in (path / "logits/0").iterdir()}
            assert len(left) == 1 + len([k for k in left if k != "zarr.json"])
            assert len(left) - 1 == (3 if other.ndim == 4 else 1)
            assert not [p for p in (path / "logits").rglob("*") if p.name.endswith(".tmp")]


@KINDS
@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_every_place_has_the_same_store(tmp_path: Path, grids: dict[str, tuple[int, ...]], codec: str) -> None:
    pytest.importorskip("obstore")
    path = write(tmp_path / "m.zarr", grids, codec=codec)
    opened = ek.LogitStore(path)
    opened.pack(tmp_path / "m.zip")
    opened.pack(tmp_path / "n.zip")
    assert (tmp_path / "m.zip").read_bytes() == (tmp_path / "n.zip").read_bytes()
    remote = write(f"memory://places/{tmp_path.name}", grids, codec="none")
    for other in (tmp_path / "m.zip", remote):
        store = ek.LogitStore(other)
        assert store.fingerprint == opened.fingerprint
        assert store.verify().sound and not store.verify().unknown
        for name, array in values(grids).items():
            np.testing.assert_array_equal(store.read(name), array)
            if array.ndim == 4:
                np.testing.assert_array_equal(store.read_slab(name, 1, 2), array[:, 1:2])
            assert store.geometry(name) == opened.geometry(name)


def test_resuming_asks_for_the_same_grid(tmp_path: Path) -> None:
    write(tmp_path / "m.zarr", IMAGES)
    with pytest.raises(MismatchError, match=r"grid is None there, \(8, 6\) here"):
        ek.LogitWriter(tmp_path / "m.zarr", CLASSES, list(IMAGES), (8, 6), member="m")
    with pytest.raises(MismatchError, match="codec is 'none' there, 'lossless' here"):
        ek.LogitWriter(tmp_path / "m.zarr", CLASSES, list(IMAGES), member="m", codec="lossless")


def test_a_link_in_place_of_a_samples_folder_is_not_followed(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "m.zarr", IMAGES))
    (path / "logits/0").rename(tmp_path / "aside")
    (path / "logits/0").symlink_to(tmp_path / "aside")
    with pytest.raises(EnskError) as caught:
        ek.LogitStore(path).read("a.png")
    assert caught.value.code == "store-link"
    with ek.LogitWriter(path, CLASSES, list(IMAGES), member="m") as out, pytest.raises(EnskError) as caught:
        out.write("a.png", values(IMAGES, 1)["a.png"], (40, 40), again=True)
    assert caught.value.code == "store-link"
    assert len(list((tmp_path / "aside").iterdir())) == 2


# ------------------------------------------------------------------------------------------------ lines

SPEC = StoreSpec("m", CLASSES, ("a", "b"), None, "sigmoid")


@st.composite
def arrays(draw: st.DrawFn) -> SampleArray:
    rank = draw(st.sampled_from([2, 3]))
    grid = draw(st.tuples(*[st.integers(1, 9)] * rank))
    image = draw(st.tuples(*[st.integers(3, 99)] * rank))
    window = draw(st.sampled_from([None, (1,) * rank + (3,) * rank]))
    axes = draw(st.sampled_from([None, ("nearest",) * rank]))
    geometry = draw(st.sampled_from([None, GEOMETRY])) if rank == 3 else None
    return replace(
        SPEC.array(Placement.of(grid, image, None, window, axes), geometry), depth=grid[0] // 3 + 1 if rank == 3 else 0
    )


@st.composite
def records(draw: st.DrawFn) -> Record:
    array, row = draw(arrays()), draw(st.integers(0, 1))
    crcs = draw(st.binary(min_size=8 * array.count, max_size=8 * array.count)).hex()
    stored = draw(st.sampled_from([(), tuple(range(5, 5 + array.count))]))
    source, keys = draw(st.sampled_from(["", "ab" * 16])), draw(st.sampled_from(["default", "v2"]))
    return Record(SPEC.samples[row], row, array, crcs, 3, draw(st.integers(1, 9)), stored, source, keys)


@given(st.lists(records(), max_size=6))
def test_columns_give_back_every_record(given: list[Record]) -> None:
    by_line, by_record = Lines(SPEC), Lines(SPEC)
    for record in given:
        by_record.add(record)
        assert Record.from_json(json.loads(json.dumps(record.to_json())), SPEC) == record
        assert by_line.read(to_line(record.to_json()))
    for lines in (by_line, by_record):
        assert [lines.record(k) for k in range(len(lines))] == given
        assert [lines.digest(k) for k in range(len(lines))] == [record.digest for record in given]


@settings(max_examples=30)
@given(records(), st.data())
def test_no_changed_line_is_taken(record: Record, data: st.DataObject) -> None:
    raw = to_line(record.to_json())
    at = data.draw(st.integers(0, len(raw) - 1))
    assert not Lines(SPEC).read(raw[:at] + bytes([raw[at] ^ data.draw(st.integers(1, 255))]) + raw[at + 1 :])


BOUND: dict[str, dict[str, Any]] = {
    "grid": {"grid": [9, 5, 6]}, "window": {"window": [0, 0, 0, 3, 3, 3]}, "axes": {"axes": ["linear", "linear", "nearest"]},
    "image": {"image_size": [40, 40, 41]}, "box": {"box": [0, 0, 0, 7, 5, 5]}, "world": {"world": "RAS"},
    "affine": {"affine": [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]}, "slab": {"slab": 4},
}  # fmt: skip


@pytest.mark.parametrize("field", BOUND)
def test_the_digest_is_bound_to_where_a_sample_lies(field: str) -> None:
    place = Placement.of((7, 5, 6), (40, 40, 40), None, (0, 0, 0, 9, 9, 9), ("nearest", "linear", "linear"))
    record = Record("a", 0, SPEC.array(place, GEOMETRY), "00c0ffee12345678" * 3)
    line = record.to_json()
    assert Record.from_json(line, SPEC) == record
    with pytest.raises(ValueError, match=r"digest|chunks"):
        Record.from_json({**line, **BOUND[field]}, SPEC)
    assert not Lines(SPEC).read(to_line({**line, **BOUND[field]}))


HOSTILE: dict[str, Callable[[], SampleArray]] = {
    "a grid of 2^58 cells": lambda: SampleArray(2, Placement.of((2**29, 2**29), (9, 9)), True),
    "a slab of 2^44 bytes": lambda: SampleArray(2, Placement.of((2, 2**20, 2**21), (9, 9, 9)), True, None, 1),
    "more slabs than checksums": lambda: SampleArray(2, Placement.of((2**40, 1, 1), (9, 9, 9)), True, None, 1),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_that_asks_for_too_much_is_refused(tmp_path: Path, name: str) -> None:
    """All its checksums hold; what it says does not fit what a store can have."""
    path = Path(write(tmp_path / "m.zarr", VOLUMES))
    (segment,) = (path / "logits/manifest").glob("*.jsonl")
    head = segment.read_bytes().splitlines(keepends=True)[0]
    record = Record("a.nii", 0, HOSTILE[name](), "00c0ffee12345678" * 2)
    segment.write_bytes(head + to_line(record.to_json()) + to_line({"sync": 1}))
    with pytest.raises(DamagedError) as caught:
        ek.LogitStore(path)
    assert caught.value.code == "manifest-damaged"


def test_equal_geometries_are_one_text() -> None:
    whole, signed = (
        Geometry.of(rows) for rows in (np.diag([1, 1, 5, 1]), np.diag([1, 1, 5, 1]) * 1.0 - 0.0 * np.ones((4, 4)))
    )
    turned = Geometry(tuple(tuple(-0.0 if v == 0 else float(v) for v in row) for row in whole.affine))
    place = Placement.of((7, 5, 6), (9, 9, 9))
    records = [Record("a", 0, SPEC.array(place, g), "00c0ffee12345678" * 3) for g in (whole, signed, turned)]
    assert len({to_line(r.to_json()) for r in records}) == 1
    lines = Lines(SPEC)
    for record in records:
        assert lines.read(to_line(record.to_json())) and lines.record(len(lines) - 1).digest == record.digest


@KINDS
def test_inspect_says_what_it_holds(
    tmp_path: Path, grids: dict[str, tuple[int, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    from ensemble_kit.cli.app import _run

    path = write(tmp_path / "m.zarr", grids)
    assert _run(["inspect", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["grid"] == ("5 to 8 x 6 to 9" if grids is IMAGES else "2 to 9 x 4 to 5 x 3 to 6")
    assert (told["rank"], told["samples with a window"]) == (len(grids["a.png" if grids is IMAGES else "a.nii"]), 1)
    if grids is VOLUMES:
        assert told["spacing"] == "5.001 x 0.7 x 0.8 mm, of 1 volumes"
        assert told["orientation"] == [GEOMETRY.orientation]


def test_a_fuse_of_grids_is_a_store_of_grids(tmp_path: Path) -> None:
    """Each sample is fused on the finest member's grid, and its box is kept."""
    for name, scale in (("a", 1), ("b", 2)):
        grids = {s: tuple(scale * n for n in grid) for s, grid in IMAGES.items()}
        with ek.LogitWriter(tmp_path / f"{name}.zarr", CLASSES, list(IMAGES)) as out:
            for k, (s, array) in enumerate(values(grids, scale).items()):
                out.write(s, array, (40, 40), box=(0, 0, 2 * scale, 3 * scale) if k == 1 else None)
    ensemble = ek.Ensemble([tmp_path / "a.zarr", tmp_path / "b.zarr"], upsample="scores")
    ek.fuse(ensemble, tmp_path / "fused.zarr")
    fused, finest = ek.LogitStore(tmp_path / "fused.zarr"), ek.LogitStore(tmp_path / "b.zarr")
    assert (fused.grid, fused.complete) == (None, True)
    for name in IMAGES:
        place = fused.placement(name)
        assert place == finest.placement(name)
        levels = ensemble.levels(name).astype(float) / 65535
        inside = (slice(None), *place.box.slices)
        np.testing.assert_allclose(
            1 / (1 + np.exp(-fused.read(name)[inside].astype(float))), levels[inside], atol=1.5e-4
        )


def test_the_fingerprint_of_either_codec_is_one(tmp_path: Path) -> None:
    found = {
        ek.LogitStore(write(tmp_path / f"{codec}.zarr", VOLUMES, codec=codec)).fingerprint
        for codec in ("none", "lossless")
    }
    assert len(found) == 1
