"""Stores as xarray and Dask see them: labelled by zarr arrays of names, and by `LogitStore.to_xarray`, which verifies."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import write_store
from ensemble_kit.cli.app import app
from ensemble_kit.errors import DamagedError, IncompleteError, UsageError
from ensemble_kit.logits import coordinates
from ensemble_kit.logits.repair import repair

IDS, CLASSES = ["b.png", "ä/1.png", "c 3"], ["skull", "Rippe ü"]
GRID = (5, 4)
DRAWN = {name: np.random.default_rng(k).normal(0, 5, (2, *GRID)).astype("f2") for k, name in enumerate(IDS)}


@pytest.fixture(params=["none", "lossless"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "net.zarr", codec=request.param)


def write(path: Path, **options: object) -> Path:
    write_store(path, DRAWN, dict.fromkeys(IDS, (20, 16)), tuple(CLASSES), **options)
    return path


def verify(path: Path) -> None:
    app(["verify", str(path), "-q"], standalone_mode=False)


def stacked() -> np.ndarray:
    return np.stack([DRAWN[name] for name in IDS])


def test_open_zarr_finds_names_and_chunks(store: Path) -> None:
    with xarray.open_zarr(store, consolidated=False) as opened:
        assert (
            opened["logits"].dims == ("sample", "class", "y", "x") and opened["logits"].chunksizes["sample"] == (1,) * 3
        )
        assert opened["sample"].to_numpy().tolist() == IDS and opened["class"].to_numpy().tolist() == CLASSES
        one = opened["logits"].sel({"sample": "ä/1.png", "class": "Rippe ü"})
        np.testing.assert_array_equal(one.compute().to_numpy(), DRAWN["ä/1.png"][1])


def test_dask_reads_what_was_written(store: Path) -> None:
    import dask.array

    found = dask.array.from_zarr(str(store), "logits")
    assert found.chunks[0] == (1, 1, 1)
    np.testing.assert_array_equal(found.compute(), stacked())


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_dask_reads_each_sample_of_its_own_grid(tmp_path: Path, codec: str) -> None:
    import dask.array

    values = {
        name: np.random.default_rng(3).normal(0, 5, (2, *grid)) for name, grid in (("a", (3, 4, 5)), ("b", (7, 2, 3)))
    }
    with ek.LogitWriter(tmp_path / "net.zarr", CLASSES, list(values), codec=codec) as out:
        for name, logits in values.items():
            out.write(name, logits, (9, 9, 9))
    for row, logits in enumerate(values.values()):
        found = dask.array.from_zarr(str(tmp_path / "net.zarr"), f"logits/{row}")
        np.testing.assert_array_equal(found.compute(), logits.astype("f2"))
    with pytest.raises(
        ValueError, match="conflicting sizes"
    ):  # of arrays in one group, which it takes for one data set
        xarray.open_zarr(tmp_path / "net.zarr", group="logits", consolidated=False)


def test_names_are_the_bytes_that_zarr_writes(store: Path, tmp_path: Path) -> None:
    theirs = zarr.open_group(tmp_path / "theirs.zarr", mode="w")
    for axis, names in (("sample", IDS), ("class", CLASSES)):
        made = theirs.create_array(
            axis, shape=(len(names),), chunks=(len(names),), dtype="str", dimension_names=[axis],
            compressors=[zarr.codecs.Crc32cCodec()], chunk_key_encoding={"name": "default", "separator": "."},
        )  # fmt: skip
        made[:] = np.array(names, object)
        assert (store / axis / "c.0").read_bytes() == (tmp_path / "theirs.zarr" / axis / "c.0").read_bytes()
        ours, there = (json.loads((p / axis / "zarr.json").read_text()) for p in (store, tmp_path / "theirs.zarr"))
        assert ours == there


def test_a_packed_store_has_them_too(store: Path, tmp_path: Path) -> None:
    ek.LogitStore(store).pack(tmp_path / "net.zip")
    with (
        zarr.storage.ZipStore(tmp_path / "net.zip", mode="r") as held,
        xarray.open_zarr(held, consolidated=False) as opened,
    ):
        assert opened["logits"].sel(sample="c 3").shape == (2, *GRID)
    assert ek.LogitStore(tmp_path / "net.zip").verify().sound


def test_a_store_is_one_lazy_array(store: Path) -> None:
    opened = ek.LogitStore(store)
    found = opened.to_xarray()
    assert (found.dims, found.name, found.dtype) == (("sample", "class", "y", "x"), "logits", np.dtype("f2"))
    assert found.attrs == {"member": "net", "activation": "sigmoid"}
    (store / "logits/c.0.0.0.0").unlink()  # nothing was read yet
    np.testing.assert_array_equal(found.sel(sample=["c 3", "ä/1.png"]), stacked()[[2, 1]])
    with pytest.raises(DamagedError, match=r"b\.png"):
        found.sel(sample="b.png").to_numpy()


FORWARD = st.slices(3).filter(lambda one: (one.step or 1) > 0)  # xarray itself fails at empty ones backwards
SOME = st.lists(st.integers(0, 1), max_size=4).map(lambda numbers: np.array(numbers, np.int64))
AXIS = st.one_of(st.integers(-2, 1), FORWARD, st.just(slice(None, None, -1)), SOME)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> ek.LogitStore:
    return ek.LogitStore(write(tmp_path_factory.mktemp("drawn") / "net.zarr"))


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> ek.LogitStore:
    path = tmp_path_factory.mktemp("volumes") / "net.zarr"
    with ek.LogitWriter(path, CLASSES, ["a", "b"]) as out:
        for name, grid in (("a", (3, 4, 5)), ("b", (7, 2, 3))):
            out.write(name, np.random.default_rng(len(grid)).normal(0, 5, (2, *grid)), (9, 9, 9))
    return ek.LogitStore(path)


@given(st.tuples(AXIS, AXIS, AXIS, AXIS))
def test_any_part_is_numpys(drawn: ek.LogitStore, key: tuple[object, ...]) -> None:
    whole = xarray.DataArray(stacked(), dims=("sample", "class", "y", "x"))
    np.testing.assert_array_equal(drawn.to_xarray()[key].to_numpy(), whole[key].to_numpy())


@given(st.tuples(AXIS, AXIS, AXIS, AXIS))
def test_any_part_of_a_volume_is_numpys(volumes: ek.LogitStore, key: tuple[object, ...]) -> None:
    found = volumes.to_xarray("a")
    assert found.dims == ("class", "z", "y", "x") and found["sample"].item() == "a"
    whole = xarray.DataArray(volumes.read("a"), dims=found.dims)
    np.testing.assert_array_equal(found[key].to_numpy(), whole[key].to_numpy())


def test_samples_of_a_grid_each_are_taken_one_by_one(volumes: ek.LogitStore) -> None:
    with pytest.raises(UsageError, match=r"to_xarray\(sample\)"):
        volumes.to_xarray()
    assert volumes.to_xarray("b").attrs["image_size"] == "9 x 9 x 9"
    with pytest.raises(IncompleteError, match="'c'"):
        volumes.to_xarray("c")


def test_chunks_of_dask_work_in_other_processes(drawn: ek.LogitStore) -> None:
    chunked = pickle.loads(pickle.dumps(drawn.to_xarray().chunk(sample=1)))
    np.testing.assert_array_equal(chunked.max("sample").compute(scheduler="threads"), stacked().max(0))


def test_a_sample_that_is_missing_is_no_nan(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "net.zarr", CLASSES, IDS, GRID) as out:
        out.write("c 3", DRAWN["c 3"], (20, 16))
    found = ek.LogitStore(tmp_path / "net.zarr").to_xarray()
    np.testing.assert_array_equal(found.sel(sample="c 3"), DRAWN["c 3"])
    with pytest.raises(IncompleteError, match=r"b\.png"):
        found.load()


@pytest.mark.parametrize("key", coordinates.KEYS)
@pytest.mark.parametrize("hurt", ["gone", "flipped", "empty"])
def test_names_that_were_changed_are_told_and_mended(store: Path, key: str, hurt: str) -> None:
    before = (store / key).read_bytes()
    (store / key).unlink()
    if hurt != "gone":
        (store / key).write_bytes(b"" if hurt == "empty" else bytes([before[0] ^ 1]) + before[1:])
    assert ek.LogitStore(store).verify().sound  # samples are
    with pytest.raises(DamagedError, match=key) as found:
        verify(store)
    assert found.value.code == "store-coordinates"
    assert [step.path for step in repair(store).steps if not step.to] == [key]
    assert (store / key).read_bytes() == before and repair(store).steps == ()
    verify(store)


def test_a_store_of_before_has_no_names_and_needs_none(store: Path) -> None:
    for axis in ("sample", "class"):
        shutil.rmtree(store / axis)
    verify(store)
    assert repair(store).steps == ()
    assert ek.LogitStore(store).to_xarray()["sample"].to_numpy().tolist() == IDS
    with ek.LogitWriter(store, CLASSES, IDS, GRID, codec=ek.LogitStore(store).codec) as out:
        assert out.missing == []


@pytest.mark.parametrize("put", ["a file", "a link"])
def test_a_folder_of_names_that_is_something_else_is_moved_aside(store: Path, tmp_path: Path, put: str) -> None:
    shutil.move(store / "class", tmp_path / "class")
    if put == "a file":
        (store / "class").write_bytes(b"mine")
    else:
        (store / "class").symlink_to(tmp_path / "class")
    planned = repair(store, dry_run=True)
    done = repair(store)
    assert [(s.what, s.path) for s in planned.steps] == [(s.what, s.path) for s in done.steps]
    assert (store / "class/c.0").read_bytes() == (tmp_path / "class/c.0").read_bytes()
    assert not (store / "class").is_symlink() and repair(store).steps == ()
