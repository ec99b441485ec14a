"""Scenes that are kept tile by tile: what is written comes back, and is committed as a whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zarr

import ensemble_kit as ek
from ensemble_kit.scores.fusing import open_sample
from ensemble_kit.scores.inputs import Inputs
from ensemble_kit.spec.fusion import Fusion
from ensemble_kit.spec.geometry import Box
from ensemble_kit.spec.georeference import GeoReference
from ensemble_kit.spec.mean import Mean
from trying import ensk

CLASSES = ["water", "forest"]
GRID, IMAGE = (10, 14), (40, 56)
BOXES = [(0, 0, 6, 8), (0, 6, 6, 15), (4, -2, 10, 8), (5, 7, 10, 14)]
"""Two reach beyond the grid."""
REFERENCE = GeoReference('LOCAL_CS["here"]', (0.5, 0, 10, 0, -0.5, 20))


def tiles(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(4 * rng.standard_normal((2, y1 - y0, x1 - x0))).astype(np.float32) for y0, x0, y1, x1 in BOXES]


def write(path: Path, name: str = "s", made: list[np.ndarray] | None = None, codec: str = "none") -> ek.LogitStore:
    with ek.LogitWriter(path, CLASSES, ["s", "t"], codec=codec) as out:
        out.write_tiles(name, made or tiles(), BOXES, GRID, IMAGE, geometry=REFERENCE)
    return ek.LogitStore(path)


def refused(code: str, act: Callable[[], object]) -> ek.EnskError:
    with pytest.raises(ek.EnskError) as caught:
        act()
    assert caught.value.code == code, caught.value
    return caught.value


@pytest.mark.parametrize("codec", ["none", "lossless"])
def test_tiles_come_back_within_the_scene(codec: str, tmp_path: Path) -> None:
    store = write(tmp_path / "m.zarr", codec=codec)
    mosaic = store.mosaic("s")
    assert mosaic is not None
    assert mosaic.boxes == tuple(Box(max(a, 0), max(b, 0), min(c, 10), min(d, 14)) for a, b, c, d in BOXES)
    for k, (tile, (y0, x0, _, _), box) in enumerate(zip(tiles(), BOXES, mosaic.boxes, strict=True)):
        inside = tile[:, box[0] - y0 : box[2] - y0, box[1] - x0 : box[3] - x0]
        assert np.array_equal(store.read_tile("s", k), inside.astype(np.float16))
    assert (store.placement("s").grid, store.image_size("s"), store.geometry("s")) == (GRID, IMAGE, REFERENCE)
    assert (store.rank, store.grid, store.missing) == (2, None, ["t"])
    assert not store.verify().damaged


def test_zarr_reads_the_stack(tmp_path: Path) -> None:
    write(tmp_path / "m.zarr")
    array = zarr.open_group(tmp_path / "m.zarr", mode="r")["logits/0"]
    assert (array.shape, array.metadata.dimension_names) == ((2, 4, 6, 8), ("class", "tile", "y", "x"))
    assert np.array_equal(array[:, 0], tiles()[0].astype(np.float16))


def test_scenes_and_images_share_a_store(tmp_path: Path) -> None:
    write(tmp_path / "m.zarr")
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t"]) as out:
        out.write("t", np.ones((2, 5, 5), np.float32) * 3, image_size=(20, 20))
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert store.complete
    assert store.mosaic("t") is None
    assert np.array_equal(store.read("t"), np.full((2, 5, 5), 3))
    assert "is 4 tiles, which overlap" in str(refused("sample-tiled", lambda: store.read("s")))
    assert "which has none" in str(refused("tile-unknown", lambda: store.read_tile("t", 0)))
    assert "pass 0 to 3" in refused("tile-unknown", lambda: store.read_tile("s", 4)).fix


def test_a_scene_votes_from_its_store_as_from_memory(tmp_path: Path) -> None:
    whole = tmp_path / "one.zarr"
    rng = np.random.default_rng(1)
    grid = (4 * rng.standard_normal((2, *GRID))).astype(np.float32)
    with ek.LogitWriter(whole, CLASSES, ["s"]) as out:
        out.write_tiles("s", [grid], [(0, 0, *GRID)], GRID, IMAGE)
    plain = tmp_path / "plain.zarr"
    with ek.LogitWriter(plain, CLASSES, ["s"], grid=GRID) as out:
        out.write("s", grid, image_size=IMAGE)
    for activation in ("logits", "scores"):
        masks = [ek.Ensemble([p], upsample=activation).vote(0.5) for p in (whole, plain)]
        assert dict(masks[0]) == dict(masks[1])
    assert np.array_equal(ek.Ensemble([whole]).levels("s"), ek.Ensemble([plain]).levels("s"))


def test_the_order_of_tiles_changes_nothing(tmp_path: Path) -> None:
    order = [2, 0, 3, 1]
    write(tmp_path / "a.zarr")
    with ek.LogitWriter(tmp_path / "b.zarr", CLASSES, ["s", "t"]) as out:
        out.write_tiles("s", [tiles()[k] for k in order], [BOXES[k] for k in order], GRID, IMAGE)
    values = [values_of(ek.LogitStore(tmp_path / name)) for name in ("a.zarr", "b.zarr")]
    assert np.array_equal(*values)


def values_of(store: ek.LogitStore) -> np.ndarray:
    fusion = Fusion(Mean(), "logits", (store.member,), ((65536,),) * 2, (1.0,))
    return open_sample(Inputs((store,), store.classes, fusion), "s").values(0, IMAGE[0])


# --- committed whole or not at all


def test_an_exception_between_tiles_commits_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield from tiles()[:2]
        raise RuntimeError("the network failed")

    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t"]) as out:
        with pytest.raises(RuntimeError, match="the network failed"):
            out.write_tiles("s", broken(), BOXES, GRID, IMAGE)
        assert out.missing == ["s", "t"]
        out.write_tiles("s", tiles(), BOXES, GRID, IMAGE)
    store = ek.LogitStore(tmp_path / "m.zarr")
    assert store.missing == ["t"]
    assert np.array_equal(store.read_tile("s", 0), tiles()[0].astype(np.float16))


def test_a_scene_is_written_again(tmp_path: Path) -> None:
    write(tmp_path / "m.zarr")
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s", "t"]) as out:
        out.write_tiles("s", tiles(7), BOXES, GRID, IMAGE, again=True)
    assert np.array_equal(ek.LogitStore(tmp_path / "m.zarr").read_tile("s", 0), tiles(7)[0].astype(np.float16))


@pytest.mark.parametrize(
    ("boxes", "made", "code", "why"),
    [
        (BOXES[:3], tiles()[:3], "tiles-missing", "no tile covers the cells"),
        (BOXES, tiles()[:3], "logits-shape", "3 tiles for 4 boxes"),
        (BOXES[:4], [*tiles(), tiles()[0]], "logits-shape", "more tiles than the 4 boxes"),
        (BOXES, tiles()[::-1], "logits-shape", "tile 0 has the shape"),
        ([*BOXES, (10, 0, 12, 3)], [*tiles(), np.zeros((2, 2, 3), np.float32)], "tile-outside", "outside a grid"),
        ([*BOXES, BOXES[0]], [*tiles(), tiles()[0]], "tile-twice", "two tiles have the box"),
        ([(0, 0, 6.5, 8)], tiles()[:1], "batch-invalid", "boxes="),
        ([], [], "tiles-missing", "no tile covers"),
    ],
    ids=["a hole", "a tile less", "a tile more", "another order", "outside", "twice", "half a cell", "none"],
)
def test_tiles_that_are_refused(boxes: list, made: list, code: str, why: str, tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"]) as out:
        assert why in str(refused(code, lambda: out.write_tiles("s", made, boxes, GRID, IMAGE)))
        assert out.missing == ["s"]


def test_a_store_of_one_grid_takes_no_tiles(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"], grid=GRID) as out:
        error = refused("logits-shape", lambda: out.write_tiles("s", tiles(), BOXES, GRID, IMAGE))
        assert "grid=None" in error.fix


def test_a_changed_byte_of_a_tile_is_noticed(tmp_path: Path) -> None:
    write(tmp_path / "m.zarr")
    chunk = next(p for p in (tmp_path / "m.zarr").rglob("c.0.*"))
    raw = bytearray(chunk.read_bytes())
    raw[5] ^= 1
    chunk.write_bytes(raw)
    store = ek.LogitStore(tmp_path / "m.zarr")
    with pytest.raises(ek.DamagedError):
        store.read_tile("s", 0)
    assert [d.sample for d in store.verify().damaged] == ["s"]


def test_a_packed_scene_is_read(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"]) as out:
        out.write_tiles("s", tiles(), BOXES, GRID, IMAGE, geometry=REFERENCE)
    ek.LogitStore(tmp_path / "m.zarr").pack(tmp_path / "m.zip")
    store = ek.LogitStore(tmp_path / "m.zip")
    assert np.array_equal(store.read_tile("s", 3), tiles()[3].astype(np.float16))
    assert (store.geometry("s"), store.mosaic("s")) == (REFERENCE, ek.LogitStore(tmp_path / "m.zarr").mosaic("s"))


# --- scenes keep their georeference


def test_a_vote_takes_the_georeference_of_its_stores(tmp_path: Path) -> None:
    for name in "ab":
        with ek.LogitWriter(tmp_path / f"{name}.zarr", CLASSES, ["s"]) as out:
            out.write_tiles("s", tiles(), BOXES, GRID, IMAGE, geometry=REFERENCE if name == "b" else None)
    masks = ek.Ensemble([tmp_path / "a.zarr", tmp_path / "b.zarr"]).vote(0.5)
    assert masks.geometry("s") == REFERENCE
    masks.write(tmp_path / "s", format="class-geotiffs")
    assert dict(ek.read_masks(tmp_path / "s")) == dict(masks)


def test_an_image_keeps_its_georeference(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, ["s"]) as out:
        out.write("s", np.ones((2, 5, 5), np.float32) * 3, image_size=(20, 20), geometry=REFERENCE)
    assert ek.LogitStore(tmp_path / "m.zarr").geometry("s") == REFERENCE
    with ek.LogitWriter(tmp_path / "n.zarr", CLASSES, ["s"], grid=(5, 5)) as out:
        error = refused(
            "grid-fixed", lambda: out.write("s", np.ones((2, 5, 5)) * 3, image_size=(20, 20), geometry=REFERENCE)
        )
        assert "grid=None" in error.fix


def test_fused_scenes_keep_their_georeference(tmp_path: Path) -> None:
    with ek.LogitWriter(tmp_path / "a.zarr", CLASSES, ["s"]) as out:
        out.write_tiles("s", tiles(), BOXES, GRID, IMAGE, geometry=REFERENCE)
    ensk("fuse", tmp_path / "a.zarr", "--out", tmp_path / "f.zarr")
    fused = ek.LogitStore(tmp_path / "f.zarr")
    assert (fused.geometry("s"), fused.placement("s").grid, fused.mosaic("s")) == (REFERENCE, GRID, None)


def test_members_of_two_georeferences_are_refused_naming_both(tmp_path: Path) -> None:
    other = GeoReference(REFERENCE.crs, (0.5, 0, 11, 0, -0.5, 20))
    for name, reference in (("a", REFERENCE), ("b", other)):
        with ek.LogitWriter(tmp_path / f"{name}.zarr", CLASSES, ["s"]) as out:
            out.write_tiles("s", tiles(), BOXES, GRID, IMAGE, geometry=reference)
    error = refused("geometry-differs", lambda: ek.Ensemble([tmp_path / "a.zarr", tmp_path / "b.zarr"]))
    assert REFERENCE.as_text() in error.item
    assert other.as_text() in error.item


KILLED = """
import os, sys
sys.path[:0] = [{tests!r}]
import ensemble_kit as ek
from test_tiles import BOXES, CLASSES, GRID, IMAGE, tiles

def dying():
    yield from tiles()[:{count}]
    os._exit(9)

with ek.LogitWriter({path!r}, CLASSES, ["s", "t"]) as out:
    out.write_tiles("t", tiles(5), BOXES, GRID, IMAGE)
    out.write_tiles("s", dying(), BOXES, GRID, IMAGE)
"""


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 2, 4])
def test_a_killed_writer_leaves_no_part_of_a_scene(count: int, tmp_path: Path) -> None:
    path = tmp_path / "m.zarr"
    program = KILLED.format(tests=str(Path(__file__).parent), path=str(path), count=count)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 9
    store = ek.LogitStore(path)
    assert store.missing == ["s"]
    assert np.array_equal(store.read_tile("t", 1)[:, :6, :8], tiles(5)[1][:, :, :8].astype(np.float16))
    with ek.LogitWriter(path, CLASSES, ["s", "t"]) as out:
        assert out.missing == ["s"]
        out.write_tiles("s", tiles(), BOXES, GRID, IMAGE)
    store = ek.LogitStore(path)
    assert store.complete
    assert not store.verify().damaged
    assert np.array_equal(store.read_tile("s", 3), tiles()[3].astype(np.float16))
