"""Files as released versions wrote them: they are never made anew (docs/versions.md#what-is-promised)."""

from __future__ import annotations

from pathlib import Path

import harness as h
import numpy as np

import ensemble_kit as ek
from ensemble_kit.recipes.stack import Stack
from ensemble_kit.spec.affine import Geometry
from ensemble_kit.spec.geometry import Placement
from ensemble_kit.spec.georeference import GeoReference

FIXTURES = Path(__file__).parent / "fixtures"


def test_the_first_release_is_read(tmp_path: Path) -> None:
    """A store as version 0.1 wrote it."""
    opened = ek.LogitStore(FIXTURES / "store-0.1.zarr")
    assert opened.verify().sound
    assert opened.fingerprint == "70c794d6f577be0ab1354a953a24f94a1971a4941f885f21bd26616c995cd3e6"
    np.testing.assert_array_equal(opened.read(opened.samples[1]), h.logits(34, 2)[1])
    ran = h.ensk("vote", FIXTURES / "store-0.1.zarr", "--out", tmp_path / "out.csv")
    assert ran.code == 0, ran.err


def test_the_first_images_of_a_grid_each_are_read() -> None:
    """`ensk.logits/2` as it was first written: the second image has a box and a window."""
    opened = ek.LogitStore(FIXTURES / "images-2.zarr")
    assert opened.verify().sound and not opened.verify().unknown
    assert opened.fingerprint == "bc6545883ac8f5f6a7ab5c951b435ea8528ab277c77a8e0d8408097dedd2bd87"
    draw = np.random.default_rng(34)
    for name, grid in (("a.png", (8, 6)), ("b.png", (5, 9))):
        np.testing.assert_array_equal(opened.read(name), (draw.normal(size=(2, *grid)) * 5).astype("f2"))
    assert opened.placement("a.png") == Placement.of((8, 6), (32, 24))
    assert opened.placement("b.png") == Placement.of((5, 9), (40, 40), (0, 0, 5, 8), (2, 4, 38, 30))


def test_the_first_volumes_are_read() -> None:
    """`ensk.logits/2`: two slabs each, compressed; the first was written twice, the second has a geometry."""
    opened = ek.LogitStore(FIXTURES / "volumes-2.zarr")
    assert opened.verify().sound and not opened.verify().unknown
    assert opened.fingerprint == "e10991be6554eb3a729c02ef13fc2ecbe9bcb233e3932857b19838b41571bd73"
    assert (opened.grid, opened.rank, opened.activation, opened.codec) == (None, 3, "softmax", "lossless")
    draw = np.random.default_rng(34)
    [draw.normal(size=(2, *grid)) for grid in ((8, 6), (5, 9), (5, 4, 3))]
    for name, grid in (("b.nii.gz", (4, 4, 3)), ("a.nii.gz", (5, 4, 3))):
        wanted = (draw.normal(size=(2, *grid)) * 5).astype("f2")
        np.testing.assert_array_equal(opened.read(name), wanted)
        np.testing.assert_array_equal(opened.read_slab(name, 1, 4), wanted[:, 1:4])
    assert opened.placement("b.nii.gz").axes == ("nearest", "linear", "linear")
    assert opened.geometry("a.nii.gz") is None
    rows = [[0.8, 0, 0, -12.5], [0, 0.8, 0.1, 3], [0, 0, 5, -70], [0, 0, 0, 1]]
    assert opened.geometry("b.nii.gz") == Geometry.of(rows, "LPS")


def test_the_first_scenes_in_tiles_are_read() -> None:
    """`ensk.logits/2`: three tiles that overlap, written twice and georeferenced; and one tile, with a box."""
    opened = ek.LogitStore(FIXTURES / "scenes-2.zarr")
    assert opened.verify().sound and not opened.verify().unknown
    assert opened.fingerprint == "f4bd2b7eca6a5fc9d009a139103715144b53867e8506555d8263f93cec78a03a"
    draw = np.random.default_rng(34)
    for name, grid in (("a.tif", (8, 9)), ("b.tif", (4, 4))):
        wanted, mosaic = (draw.normal(size=(2, *grid)) * 5).astype("f2"), opened.mosaic(name)
        assert mosaic is not None
        for k, box in enumerate(mosaic.boxes):
            np.testing.assert_array_equal(opened.read_tile(name, k), wanted[:, *box.slices])
    assert opened.placement("a.tif") == Placement.of((8, 9), (32, 36))
    assert opened.placement("b.tif") == Placement.of((4, 4), (30, 40), (0, 0, 3, 4))
    where = GeoReference('PROJCS["site",UNIT["metre",1]]', (2, 0, 500000, 0, -2, 4600000))
    assert (opened.geometry("a.tif"), opened.geometry("b.tif")) == (where, None)


def test_the_first_sets_are_read() -> None:
    """`ensk.thresholds/1` as the demo tuned it, and `/2` with a risk."""
    plain, risk = (ek.ThresholdSet.load(FIXTURES / f"set-{k}.json") for k in (1, 2))
    assert plain.levels == {"nerve": 32768, "vessel": 32768, "any": 32768}
    assert [m.name for m in plain.members] == ["dilated", "fpn", "unet"]
    assert plain.guarantee is None
    assert risk.levels == {"bone": 25477, "joint": 29267}
    assert risk.guarantee is not None
    assert risk.guarantee.risk.alpha == 0.1


def test_the_first_stack_is_read() -> None:
    model = Stack.load(FIXTURES / "stack-1.json").model
    assert ([m.name for m in model.members], model.classes, model.by_fold.shape) == (["a", "b"], ("disc",), (3, 1, 19))
    assert model.digest == "d266f040981491d6df3223accce8f5886a7947e0ea89238940d7fffc1a83710d"


def test_the_first_folder_of_masks_is_read() -> None:
    masks = ek.read_masks(FIXTURES / "masks-1")
    assert masks["s0", "disc"].text() == "19 4 30 6 42 6 54 6 66 6 78 6 91 4"
    assert masks["s1", "disc"].text() == "28 4 39 6 50 7 62 7 74 7 87 6 100 3"
