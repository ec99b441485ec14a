"""Tiles that another pipeline predicted become scenes: by where GeoTIFFs lie, or by a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.spec.georeference import GeoReference

rasterio = pytest.importorskip("rasterio")
from rasterio.crs import CRS  # noqa: E402
from rasterio.transform import Affine  # noqa: E402

CLASSES = ["water", "forest", "field"]
STRIDE, TILE, SCENE = 4, 32, (64, 80)
PLACES = [(0, 0), (0, 24), (0, 48), (32, 0), (32, 24), (32, 56)]
"""Row and column of each tile; the one before the last row's end reaches beyond the scene."""
UTM = CRS.from_epsg(32633)
ORIGIN = Affine(2, 0, 500000, 0, -2, 4600000)


def scene(path: Path, crs: CRS = UTM, transform: Affine = ORIGIN, size: tuple[int, int] = SCENE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **profile) as out:
        out.write(np.zeros((1, *size), np.uint8))
    return path


def tiles(folder: Path, places: list[tuple[float, float]] = PLACES, **options: Any) -> dict[str, np.ndarray]:
    """Chips as GeoTIFFs, and an array (C, h, w) for each."""
    made = {}
    rng = np.random.default_rng(0)
    (folder / "logits").mkdir(parents=True)
    for k, (row, column) in enumerate(places):
        at = ORIGIN @ Affine.translation(column, row)
        scene(folder / "chips" / f"t{k}.tif", **{"transform": at, "size": (TILE, TILE)} | options)
        made[f"t{k}"] = (4 * rng.standard_normal((3, TILE // STRIDE, TILE // STRIDE))).astype(np.float32)
        np.save(folder / "logits" / f"t{k}.npy", made[f"t{k}"])
    return made


def dump(folder: Path, scenes: Path, **options: Any) -> ek.LogitStore:
    dump_logits(folder / "logits", folder / "chips", CLASSES, folder / "m.zarr", scenes=scenes, **options)
    return ek.LogitStore(folder / "m.zarr")


def refused(code: str, folder: Path, scenes: Path, **options: Any) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        dump(folder, scenes, **options)
    assert caught.value.code == code, caught.value
    assert not (folder / "m.zarr").exists()
    return caught.value


def check(store: ek.LogitStore, sample: str, made: dict[str, np.ndarray]) -> None:
    mosaic = store.mosaic(sample)
    assert mosaic is not None
    assert (mosaic.grid, store.image_size(sample)) == ((16, 20), SCENE)
    wanted = {(r // STRIDE, c // STRIDE): made[f"t{k}"] for k, (r, c) in enumerate(PLACES)}
    for k, box in enumerate(mosaic.boxes):
        tile = wanted[box.start][:, : box.shape[0], : box.shape[1]]
        assert np.array_equal(store.read_tile(sample, k), tile.astype(np.float16))


def test_chips_find_their_place_in_the_scene(tmp_path: Path) -> None:
    made = tiles(tmp_path)
    store = dump(tmp_path, scene(tmp_path / "scenes" / "city.tif").parent)
    assert store.samples == ("city.tif",)
    check(store, "city.tif", made)
    assert store.geometry("city.tif") == GeoReference(UTM.to_wkt(), tuple(ORIGIN)[:6])
    masks = ek.Ensemble([store]).vote(0.5)
    masks.write(tmp_path / "answer", format="class-geotiffs")
    with rasterio.open(tmp_path / "answer" / "water" / "city.tif") as found:
        assert (found.crs, found.transform) == (UTM, ORIGIN)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_table_says_where_tiles_lie(kind: str, tmp_path: Path) -> None:
    made = tiles(tmp_path)
    rows = [(f"t{k}.tif", "city", r, c, *SCENE) for k, (r, c) in enumerate(PLACES)]
    names = ("tile", "scene", "row", "column", "height", "width")
    table = tmp_path / f"tiles.{kind}"
    if kind == "csv":
        table.write_text("\n".join(",".join(map(str, row)) for row in (names, *rows)) + "\n")
    else:
        import json

        table.write_text(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    store = dump(tmp_path, table)
    assert store.samples == ("city",)
    check(store, "city", made)


def test_two_scenes_are_two_samples_and_a_run_resumes(tmp_path: Path) -> None:
    far = [(r, c + 1000) for r, c in PLACES]
    tiles(tmp_path, [*PLACES, *far])
    scene(tmp_path / "scenes" / "a.tif")
    scene(tmp_path / "scenes" / "b.tif", transform=ORIGIN @ Affine.translation(1000, 0))
    done = dump_logits(tmp_path / "logits", tmp_path / "chips", CLASSES, tmp_path / "m.zarr", scenes=tmp_path / "scenes", part=(1, 2))  # fmt: skip
    assert (done.samples, done.written) == (1, 1)
    store = dump(tmp_path, tmp_path / "scenes")
    assert store.complete
    assert [len(store.mosaic(s).boxes) for s in store.samples] == [6, 6]  # type: ignore[union-attr]


def test_tiles_that_changed_are_noticed_and_redo_takes_them(tmp_path: Path) -> None:
    made = tiles(tmp_path)
    scenes = scene(tmp_path / "scenes" / "city.tif").parent
    assert dump(tmp_path, scenes).source("city.tif")
    made["t3"] = -made["t3"]
    np.save(tmp_path / "logits" / "t3.npy", made["t3"])
    with pytest.raises(ek.MismatchError, match=r"1 of 1 changed .* 'city.tif'") as caught:
        dump(tmp_path, scenes)
    assert caught.value.code == "image-changed"
    check(dump(tmp_path, scenes, redo=True), "city.tif", made)
    dump(tmp_path, scenes)  # nothing is left to do
    (tmp_path / "chips" / "t4.tif").unlink()  # another name in its place, such as of another run
    (tmp_path / "logits" / "t4.npy").rename(tmp_path / "logits" / "t9.npy")
    scene(tmp_path / "chips" / "t9.tif", transform=ORIGIN @ Affine.translation(24, 32), size=(TILE, TILE))
    with pytest.raises(ek.MismatchError, match="changed since"):
        dump(tmp_path, scenes)


@pytest.mark.parametrize(
    ("places", "options", "code", "why"),
    [
        (PLACES[:-1], {}, "tiles-missing", "no tile covers the cells"),
        ([*PLACES, (500, 500)], {}, "tile-outside", "outside of every scene"),
        ([(0, 2), *PLACES[1:]], {}, "tile-offset", "row 0, column 0.5 of the scene's grid"),
        ([(0, 0.1), *PLACES[1:]], {}, "tile-offset", "column 0.025"),
        (PLACES, {"crs": CRS.from_epsg(32634)}, "tile-crs", "EPSG:32634"),
        (PLACES, {"transform": Affine(4, 0, 500000, 0, -4, 4600000)}, "tile-resolution", "pixels of 4 x 4"),
        (PLACES, {"transform": Affine(1, 1, 500000, 1, -1, 4600000)}, "tile-rotated", "rotated"),
        ([*PLACES, (0, 0)], {}, "tile-twice", "two tiles have the box"),
    ],
    ids=[
        "a tile is missing",
        "outside",
        "half a cell",
        "a part of a pixel",
        "another crs",
        "another resolution",
        "rotated",
        "twice",
    ],
)
def test_tiles_that_are_refused(places: list, options: dict[str, Any], code: str, why: str, tmp_path: Path) -> None:
    tiles(tmp_path, places, **options)
    error = refused(code, tmp_path, scene(tmp_path / "scenes" / "city.tif"))
    assert why in error.item


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("tile,row,column\nt0.tif,0,0\n", "tiles-invalid", "tile,row,column"),
        ("tile,scene,row,column\nt0.tif,city,0,x\n", "tiles-invalid", "column is 'x'"),
        ("tile,scene,row,column\nt9.tif,city,0,0\n", "image-missing", "no image is called 't9.tif'"),
        ("tile,scene,row,column\nt0.tif,city,0,0\n", "tiles-missing", "5 of 6 images are not in"),
    ],
    ids=["no scene", "no number", "no image", "rows are missing"],
)
def test_tables_that_are_refused(text: str, code: str, why: str, tmp_path: Path) -> None:
    tiles(tmp_path)
    (tmp_path / "tiles.csv").write_text(text)
    assert why in refused(code, tmp_path, tmp_path / "tiles.csv").item


def test_arrays_of_another_stride_are_refused(tmp_path: Path) -> None:
    tiles(tmp_path)
    np.save(tmp_path / "logits" / "t3.npy", np.zeros((3, 16, 16), np.float32))
    error = refused("tile-resolution", tmp_path, scene(tmp_path / "scenes" / "city.tif"))
    assert "2 x 2 pixels a cell, tile t0.tif 4 x 4" in error.item
    np.save(tmp_path / "logits" / "t3.npy", np.zeros((3, 7, 7), np.float32))
    error = refused("tile-resolution", tmp_path, tmp_path / "scenes" / "city.tif")
    assert "not whole pixels a cell" in error.item


def test_a_model_that_runs_takes_no_scenes(tmp_path: Path) -> None:
    tiles(tmp_path)
    with pytest.raises(ek.UsageError, match="with a model that runs"):
        dump_logits("nets:unet", tmp_path / "chips", CLASSES, tmp_path / "m.zarr", scenes=tmp_path)


# --- a network over whole scenes


def brightness(x: Any) -> Any:
    """A network of stride 4: the mean of each cell is the logit of the first class; it must see a window of 32."""
    import torch

    assert x.shape[1:] == (3, 32, 32)
    mean = torch.nn.functional.avg_pool2d(x, 4)
    return torch.cat([8 * mean[:, :1] - 4, 4 - 8 * mean[:, 1:2], mean[:, 2:] * 0], 1)


def big(path: Path, **options: Any) -> np.ndarray:
    """A GeoTIFF of smooth colours, of a size that windows of 32 do not divide."""
    rows, columns = np.indices((76, 100))
    values = np.stack([rows * 3, columns * 2, rows + columns]).astype(options.pop("dtype", np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "height": 76, "width": 100, "count": 3, "dtype": values.dtype, "crs": UTM}
    with rasterio.open(path, "w", transform=ORIGIN, **profile | options) as out:
        out.write(values)
    return values


@pytest.mark.slow
def test_windows_of_a_scene_become_its_tiles(tmp_path: Path) -> None:
    values = big(tmp_path / "scenes" / "city.tif")
    recipe, said = Recipe(tile=32, overlap=0.25), list[str]()
    dump_logits(brightness, tmp_path / "scenes", CLASSES, tmp_path / "m.zarr", recipe, scenes=tmp_path / "scenes", batch_size=3, say=said.append)  # fmt: skip
    assert any("overlap by 0.25, kept as tiles, which a vote blends" in line for line in said)
    assert not any("hann" in line for line in said)
    store = ek.LogitStore(tmp_path / "m.zarr")
    mosaic = store.mosaic("city.tif")
    assert mosaic is not None
    assert (mosaic.grid, store.geometry("city.tif")) == ((19, 25), GeoReference(UTM.to_wkt(), tuple(ORIGIN)[:6]))
    mean = values.astype(np.float32).reshape(3, 19, 4, 25, 4).mean((2, 4)) / 255
    wanted = np.stack([8 * mean[0] - 4, 4 - 8 * mean[1], 0 * mean[2]])
    for k, box in enumerate(mosaic.boxes):
        assert np.abs(store.read_tile("city.tif", k) - wanted[:, *box.slices]).max() < 0.01
    again = dump_logits(
        brightness, tmp_path / "scenes", CLASSES, tmp_path / "m.zarr", recipe, scenes=tmp_path / "scenes"
    )
    assert (again.written, again.resumed) == (0, 1)


def test_a_scene_smaller_than_a_window(tmp_path: Path) -> None:
    scene(tmp_path / "scenes" / "s.tif", size=(16, 80))
    recipe = Recipe(tile=32)
    dump_logits(brightness, tmp_path / "scenes", CLASSES, tmp_path / "m.zarr", recipe, scenes=tmp_path / "scenes")
    mosaic = ek.LogitStore(tmp_path / "m.zarr").mosaic("s.tif")
    assert mosaic is not None
    assert mosaic.grid == (4, 20)


@pytest.mark.parametrize(
    ("image", "recipe", "code", "why"),
    [
        ({}, Recipe(), "size-missing", "neither --size nor --tile"),
        ({}, Recipe(Preprocess(size=(64, 64)), tile=32), "option-invalid", "--scenes with --size"),
        ({}, Recipe(Preprocess(normalise="zscore"), tile=32), "option-invalid", "zscore"),
        ({"dtype": np.uint16}, Recipe(tile=32), "range-ambiguous", "holds uint16"),
        ({}, Recipe(Preprocess(channels=4), tile=32), "image-channels", "3 channels"),
        ({}, Recipe(tile=34), "tile-resolution", "34 x 34 pixels and 3 x 3 cells"),
    ],
    ids=["no tile", "a size", "z-score", "16 bits", "other channels", "no whole stride"],
)
def test_scenes_that_a_network_does_not_take(
    image: dict[str, Any], recipe: Recipe, code: str, why: str, tmp_path: Path
) -> None:
    big(tmp_path / "scenes" / "city.tif", **image)
    network = brightness if recipe.tile != 34 else lambda x: 5 - x[:, :, :3, :3]
    with pytest.raises(ek.EnskError, match=why) as caught:
        dump_logits(network, tmp_path / "scenes", CLASSES, tmp_path / "m.zarr", recipe, scenes=tmp_path / "scenes")
    assert caught.value.code == code
    assert not (tmp_path / "m.zarr").exists()
