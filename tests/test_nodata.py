"""Pixels at which a scene holds no data: void in every answer, and no tile is needed there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
import warm
from ensemble_kit.dumping import dump_logits
from ensemble_kit.dumping.preprocess import Preprocess
from ensemble_kit.dumping.recipe import Recipe
from ensemble_kit.masks.windows import inside
from ensemble_kit.spec import void as voids
from ensemble_kit.spec.geometry import Box, Placement
from tests.test_dump_scenes import CLASSES, ORIGIN, PLACES, SCENE, UTM, brightness, tiles

rasterio = pytest.importorskip("rasterio")

HIDDEN = np.zeros(SCENE, bool)
HIDDEN[:, 57:] = True  # where two of the six tiles lie but for a column, of which one is whole cells
HIDDEN[10, 10] = True


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_runs_are_kept_as_text(pixels: list[bool]) -> None:
    runs = ek.encode(np.array([pixels]))
    text = voids.pack(runs, (1, len(pixels)), "s")
    assert bool(text) == any(pixels)
    if text:
        found = voids.unpack(text, (1, len(pixels)))
        assert np.array_equal(found.starts, runs.starts) and np.array_equal(found.ends, runs.ends)
        with pytest.raises(ValueError, match="no runs"):
            voids.unpack(text, (1, int(runs.ends[-1]) - 1))


@pytest.mark.parametrize("text", ["", "AAAA", "eJwDAAAAAAE=", "%%%"], ids=["empty", "noise", "no runs", "no base64"])
def test_what_is_no_text_of_runs_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of base64, zlib and ours
        voids.unpack(text, (4, 4))


@given(st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_cells_are_hidden_where_all_their_pixels_are(scale: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image, place = np.kron(rng.random((4, 5)) < 0.7, np.ones((scale, scale), bool)), (4 * scale, 5 * scale)
    placement = Placement.of((4, 5), place)
    y0, x0 = int(rng.integers(0, 4)), int(rng.integers(0, 5))
    box = Box(y0, x0, int(rng.integers(y0 + 1, 5)), int(rng.integers(x0 + 1, 6)))
    pixels = image[scale * box[0] : scale * box[2], scale * box[1] : scale * box[3]]
    assert voids.hides(ek.encode(image), box, placement) == pixels.all()


def written(path: Path, **options: Any) -> ek.LogitStore:
    """A scene of 8 x 12 pixels, a tile of its left 8 x 6 cells, of which one class holds all."""
    samples, activation = options.pop("samples", ["s"]), options.pop("activation", "softmax")
    with ek.LogitWriter(path, CLASSES, samples, activation=activation) as out:
        tile = np.stack([np.full((8, 6), v, np.float32) for v in (-3, 4, -5)])
        for sample in samples:
            out.write_tiles(sample, [tile], [(0, 0, 8, 6)], (8, 12), (8, 12), **options)
    return ek.LogitStore(path)


RIGHT = inside(Box(0, 6, 8, 12), (8, 12))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("upsample", ["logits", "scores"])
def test_a_hole_of_nodata_is_void_and_its_neighbours_are_not_changed(
    tmp_path: Path, activation: Any, upsample: Any
) -> None:
    store = written(tmp_path / "m.zarr", void=RIGHT, activation=activation)
    masks = ek.Ensemble([store], upsample=upsample).vote()
    assert masks.void("s") == RIGHT
    assert masks["s", "forest"] == ~RIGHT  # to its last column, as at the edge of a grid
    assert not masks["s", "water"] and not masks["s", "field"]
    assert ek.LogitStore(tmp_path / "m.zarr").verify().sound
    labels = masks.labels("s")
    assert (labels[:, 6:] == 255).all() and (labels[:, :6] == 2).all()


def test_a_hole_of_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ek.IncompleteError, match="no tile covers") as caught:
        written(tmp_path / "m.zarr", void=inside(Box(0, 7, 8, 12), (8, 12)))
    assert caught.value.code == "tiles-missing"
    with pytest.raises(ek.UsageError, match="of 8 x 11 pixels for an image of 8 x 12"):
        written(tmp_path / "n.zarr", void=ek.Runs.empty((8, 11)) | ek.Runs([0], [1], (8, 11)))


def test_a_hard_vote_and_a_fused_store_leave_nodata_out(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.zarr" for k in range(2)]
    for path in paths:
        written(path, void=RIGHT)
    masks = ek.hard_vote([ek.Ensemble([path]).vote() for path in paths])
    assert masks["s", "forest"] == ~RIGHT
    from ensemble_kit.recipes.fusing import fuse

    fuse(ek.Ensemble(paths), tmp_path / "fused.zarr")
    assert ek.Ensemble([tmp_path / "fused.zarr"]).vote().void("s") == RIGHT


def test_zeros_where_no_data_is_are_no_padding(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"], activation="sigmoid") as out:
        tile = np.random.default_rng(0).normal(0, 3, (3, 8, 12)).astype(np.float32)
        tile[:, :, 6:] = 0
        with pytest.raises(ek.DamagedError, match="columns 6 to 11"):
            out.write_tiles("s", [tile], [(0, 0, 8, 12)], (8, 12), (8, 12), void=inside(Box(0, 7, 8, 12), (8, 12)))
        out.write_tiles("s", [tile], [(0, 0, 8, 12)], (8, 12), (8, 12), void=RIGHT)


def image(path: Path, hidden: np.ndarray, how: str) -> Path:
    """A GeoTIFF that says in one of three ways where it holds no data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full(hidden.shape, 99, np.uint8)
    profile = {"driver": "GTiff", "height": hidden.shape[0], "width": hidden.shape[1], "dtype": "uint8", "count": 1}
    profile |= {"crs": UTM, "transform": ORIGIN}
    profile |= {"nodata": 7} if how == "nodata" else {"count": 2, "alpha": "yes"} if how == "alpha" else {}
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as out:
        out.write(np.where(hidden, 7, values) if how == "nodata" else values, 1)
        if how == "alpha":
            out.write(np.where(hidden, 0, 255).astype(np.uint8), 2)
        elif how == "mask":
            out.write_mask(~hidden)
    return path


@pytest.mark.parametrize("how", ["nodata", "alpha", "mask"])
def test_arrays_of_tiles_need_none_where_the_scene_holds_no_data(tmp_path: Path, how: str) -> None:
    kept = [place for place in PLACES if place[1] < 48] + [(32, 56)]  # the last one is hidden but for a column
    made = tiles(tmp_path, kept)
    scenes = image(tmp_path / "scenes" / "city.tif", HIDDEN, how).parent
    said: list[str] = []
    with pytest.raises(ek.IncompleteError, match="no tile covers"):  # a column of data is not covered
        dump_logits(tmp_path / "logits", tmp_path / "chips", CLASSES, tmp_path / "m.zarr", scenes=scenes)
    image(tmp_path / "scenes" / "city.tif", HIDDEN | (np.indices(SCENE)[1] >= 56), how)
    where = tmp_path / "m.zarr"
    dump_logits(tmp_path / "logits", tmp_path / "chips", CLASSES, where, scenes=scenes, say=said.append)
    wanted = ek.encode(HIDDEN | (np.indices(SCENE)[1] >= 56))
    assert any(f"city.tif: {wanted.area} of {64 * 80} pixels hold no data" in line for line in said)
    assert len(made) == 5 and len(ek.LogitStore(where).mosaic("city.tif").boxes) == 5  # type: ignore[union-attr]
    masks = ek.Ensemble([where]).vote(0.5)
    assert masks.void("city.tif") == wanted
    assert all(not masks["city.tif", name] & wanted for name in CLASSES)
    masks.write(tmp_path / "answer", format="class-geotiffs")
    assert ek.read_masks(tmp_path / "answer", classes=CLASSES).void("city.tif") == wanted
    with pytest.raises(ek.MismatchError, match="changed since"):  # another mask is another scene
        image(tmp_path / "scenes" / "city.tif", np.indices(SCENE)[1] >= 56, how)
        dump_logits(tmp_path / "logits", tmp_path / "chips", CLASSES, where, scenes=scenes)


def test_windows_without_data_are_not_run(tmp_path: Path) -> None:
    hidden = np.indices((64, 128))[1] >= 64
    image(tmp_path / "scenes" / "s.tif", hidden, "nodata")
    recipe, runs = Recipe(Preprocess(channels="grey"), tile=32, overlap=0.0, activation="softmax"), list[int]()

    def network(x: Any) -> Any:
        runs.append(len(x))
        return brightness(x.expand(-1, 3, -1, -1))

    where = tmp_path / "m.zarr"
    dump_logits(network, tmp_path / "scenes", CLASSES, where, recipe, scenes=tmp_path / "scenes", batch_size=1)
    mosaic = ek.LogitStore(where).mosaic("s.tif")
    assert mosaic is not None and len(mosaic.boxes) == 4 and len(runs) < 8
    assert ek.Ensemble([where]).vote().void("s.tif") == ek.encode(hidden)


def test_a_tuning_and_its_vote_agree_on_nodata(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    hidden = np.indices((16, 24))[1] >= 16
    samples = [f"s{k}" for k in range(4)]
    truth = ek.MaskSet({(s, c): ek.encode((rng.random((16, 24)) < 0.4) & ~hidden) for s in samples for c in CLASSES})
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, samples, activation="sigmoid") as out:
        for s in samples:
            near = np.stack([truth[s, c].decode() * 2.0 - 1 for c in CLASSES]) + rng.normal(0, 1, (3, 16, 24))
            tile = near.astype(np.float32)
            tile[:, :, 16:] = 9  # which would be on at every threshold
            out.write_tiles(s, [tile], [(0, 0, 16, 24)], (16, 24), (16, 24), void=ek.encode(hidden))
    ensemble = ek.Ensemble([tmp_path / "m.zarr"])
    tuned = ek.tune_thresholds(ensemble, truth)
    assert tuned.score > 0.7
    assert tuned.score == pytest.approx(ek.dice(ensemble.vote(tuned), truth).mean, abs=1e-12)


@pytest.mark.slow
def test_the_command_says_it_and_writes_void_where_a_format_has_it(tmp_path: Path) -> None:
    written(tmp_path / "m.zarr", void=RIGHT, samples=["s", "t"])

    def ensk(*words: object) -> str:
        ran = warm.ensk(*words)
        assert ran.returncode == 0, ran.stderr
        return ran.stderr + ran.stdout

    told = ensk("vote", tmp_path / "m.zarr", "--out", tmp_path / "v.npz", "--format", "label-map")
    assert "no data: 96 pixels of 2 of 2 samples" in told
    assert ek.read_masks(tmp_path / "v.npz").void("s") == RIGHT
    ensk("vote", tmp_path / "m.zarr", "--out", tmp_path / "v.csv")
    found = ek.read_masks(tmp_path / "v.csv", image_size=(8, 12))
    assert not found.has_void and found["s", "forest"] == ~RIGHT
    for k in (1, 2):
        ensk("vote", tmp_path / "m.zarr", "--part", f"{k}/2", "--out", tmp_path / "p.csv")
    ensk("merge", *sorted(tmp_path.glob("p.csv*")), "--out", tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == (tmp_path / "v.csv").read_bytes()
    assert "96 pixels of 2 scenes" in ensk("inspect", tmp_path / "m.zarr")
