"""Places of volumes and scenes in arrays: `.npz` and folders keep them, and what does not is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ensemble_kit as ek
from ensemble_kit.cli.common import Common
from ensemble_kit.cli.label_options import say_geometry_lost
from ensemble_kit.formats.npz_geometry import arrays_of, geometries_of
from ensemble_kit.formats.registry import named
from ensemble_kit.spec.georeference import GeoReference, fields_of, geometry_of

OBLIQUE = ek.Geometry.of([[-0.7, 0.1, 0, 9], [0, 0.8, 0.2, 8], [0.0, 0, 3, 7.1], [0, 0, 0, 1]], "LPS")
SCENE = GeoReference('LOCAL_CS["arbitrary"]', (0.5, 0.0, 500000.1, 0.0, -0.5, 4600000.0))


def volumes(*sizes: tuple[int, ...]) -> ek.MaskSet:
    """Volumes of which all but the last have a place."""
    rng = np.random.default_rng(0)
    masks = {(f"v{k}", "organ"): ek.encode(rng.random(size) < 0.3) for k, size in enumerate(sizes)}
    return ek.MaskSet(masks).with_geometry({f"v{k}": OBLIQUE for k in range(max(1, len(sizes) - 1))})


WAYS = {
    "npz": ("m.npz", "npz"),
    "npy folder": ("folder", "npy"),
    "label map npz": ("m.npz", "label-map"),
    "label map folder": ("folder", "label-map"),
}


@pytest.mark.parametrize("sizes", [((3, 4, 5),), ((3, 4, 5), (3, 4, 5)), ((2, 4, 5), (3, 4, 6))], ids=str)
@pytest.mark.parametrize(("name", "kind"), WAYS.values(), ids=WAYS)
def test_volumes_keep_their_places(tmp_path: Path, name: str, kind: str, sizes: Any) -> None:
    masks = volumes(*sizes)
    masks.write(tmp_path / name, format=kind)
    found = ek.read_masks(tmp_path / name)
    assert found == masks
    assert {s: found.geometry(s) for s in found.samples} == {s: masks.geometry(s) for s in masks.samples}


@pytest.mark.parametrize(("name", "kind"), [WAYS["npz"], WAYS["label map npz"], WAYS["label map folder"]], ids=str)
def test_scenes_keep_their_places(tmp_path: Path, name: str, kind: str) -> None:
    masks = ek.MaskSet({("city.tif", "park"): ek.encode(np.eye(4, 6, dtype=bool))}).with_geometry({"city.tif": SCENE})
    masks.write(tmp_path / name, format=kind)
    assert ek.read_masks(tmp_path / name).geometry("city.tif") == SCENE


def test_places_are_plain_arrays(tmp_path: Path) -> None:
    volumes((3, 4, 5), (3, 4, 5)).write(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert set(file) == {"samples", "classes", "masks", "affine", "world"}
        assert file["affine"].shape == (2, 4, 4) and file["affine"].dtype == np.float64
        assert file["affine"][0].tolist() == [list(row) for row in OBLIQUE.affine] and np.isnan(file["affine"][1]).all()
        assert file["world"].tolist() == ["LPS", ""]


def test_masks_without_places_are_the_bytes_that_they_were(tmp_path: Path) -> None:
    volumes((3, 4, 5)).with_geometry({}).write(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        assert set(file) == {"samples", "classes", "masks"}
    np.savez(tmp_path / "own.npz", affine=np.eye(4, dtype=bool))  # a sample of this name
    assert ek.read_masks(tmp_path / "own.npz", classes=["organ"]).samples == ("affine",)


BROKEN = {
    "no world": {"affine": np.eye(4)[None]},
    "no affine": {"world": np.array(["RAS"])},
    "one affine for no sample": {"affine": np.eye(4), "world": np.array(["RAS"])},
    "another type": {"affine": np.eye(4, dtype=np.float32)[None], "world": np.array(["RAS"])},
    "another world": {"affine": np.eye(4)[None], "world": np.array(["XYZ"])},
    "no volume": {"affine": np.zeros((1, 4, 4)), "world": np.array(["RAS"])},
    "objects": {"affine": np.array([None], object), "world": np.array(["RAS"])},
}


@pytest.mark.parametrize("arrays", BROKEN.values(), ids=BROKEN)
def test_places_that_cannot_be_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    masks = np.zeros((1, 1, 2, 3, 4), bool)
    np.savez(tmp_path / "m.npz", samples=["v"], classes=["organ"], masks=masks, **arrays)
    with pytest.raises((ek.DamagedError, ek.UnsafeError)) as caught:
        ek.read_masks(tmp_path / "m.npz")
    assert caught.value.code in {"stack-invalid", "affine-invalid", "pickle-refused"}


numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))


@given(st.lists(st.one_of(st.none(), st.tuples(numbers, numbers, st.sampled_from(["RAS", "LPS"]))), min_size=1))
@settings(max_examples=50, deadline=None)
def test_arrays_of_places_are_read_back(drawn: Any) -> None:
    one = ek.Runs.empty((1, 2, 3))
    masks = ek.MaskSet({(str(k), "x"): one for k in range(len(drawn))})
    places = {
        str(k): ek.Geometry.of([[1, 0, 0, found[0]], [0, 2, 0, found[1]], [0, 0, 3, 0], [0, 0, 0, 1]], found[2])
        for k, found in enumerate(drawn)
        if found is not None
    }
    masks = masks.with_geometry(places)
    assert geometries_of(arrays_of(masks), masks.samples, "a test") == places
    assert {s: geometry_of(fields_of(own)) for s, own in places.items()} == places


LOST = {"one npy": ("m.npy", "npy"), "png": ("folder", "png"), "csv": ("m.csv", "handbone")}


@pytest.mark.parametrize(("name", "kind"), LOST.values(), ids=LOST)
def test_what_keeps_no_place_is_said(capsys: Any, name: str, kind: str) -> None:
    size = (3, 4, 5) if kind == "npy" else (4, 5)
    place = OBLIQUE if kind == "npy" else SCENE
    masks = ek.MaskSet({("a", "x"): ek.Runs.empty(size), ("b", "x"): ek.Runs.empty(size)}).with_geometry({"a": place})
    say_geometry_lost(Common(), masks, named(kind), Path(name))
    told = capsys.readouterr().err
    assert f"where 1 of 2 samples lie is left out: {kind} does not hold it" in told
    assert ("nifti" if kind == "npy" else "geotiff") in told
    say_geometry_lost(Common(), masks, named("npz"), Path("m.npz"))
    say_geometry_lost(Common(), masks.with_geometry({}), named(kind), Path(name))
    assert not capsys.readouterr().err
