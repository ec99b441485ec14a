"""What `--format ome-zarr` writes, asked by OME's schemas and read by napari's reader (`make exports-test`)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.spec.affine import Geometry
from test_ome_zarr import PLACE, SHAPES, masks_of

needs = {"ngff_zarr", "ome_zarr_models", "napari_ome_zarr"}
pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in needs), reason="needs napari-ome-zarr: make exports-test"
    ),
    pytest.mark.filterwarnings("ignore"),  # theirs
    pytest.mark.slow,
]


@pytest.mark.parametrize("overlap", ["", "b"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_labels_are_valid_and_open_in_napari(tmp_path: Path, shape: tuple[int, ...], overlap: str) -> None:
    import zarr
    from napari_ome_zarr._reader import napari_get_reader
    from ngff_zarr import validate
    from ome_zarr_models.v05.labels import Labels

    place: Geometry | None = PLACE if len(shape) == 3 else None
    masks = masks_of(shape, overlap=overlap)
    if place is not None:
        masks = masks.with_geometry(dict.fromkeys(masks.samples, place))
    masks.write(tmp_path / "m", format="ome-zarr")
    for sample in masks.samples:
        labels = tmp_path / "m" / f"{sample}.ome.zarr" / "labels"
        Labels.from_zarr(zarr.open_group(labels, mode="r"))
        names = ["x", "y"] if overlap else ["classes"]
        for name in names:
            about = json.loads((labels / name / "zarr.json").read_text())["attributes"]
            for model in ("image", "label"):  # OME's JSON schemas, what SHOULD be there too
                validate(about, version="0.5", model=model, strict=True)
        reader = napari_get_reader(str(labels))
        assert reader is not None
        layers = reader(str(labels))
        assert [kind for _, _, kind in layers] == ["labels"] * len(names)
        for (levels, how, _), name in zip(layers, names, strict=True):
            whole = masks[sample, name].decode() if overlap else masks.labels(sample)
            np.testing.assert_array_equal(np.asarray(levels[0]), whole)
            assert tuple(how["scale"]) == ((1.0, 1.0) if place is None else place.spacing)
            assert how["properties"]["class"] == ["no class", *([name] if overlap else ["x", "y"]), "void"]
            assert how["colormap"][1][3] == 1
            assert how["colormap"][0][3] == 0
