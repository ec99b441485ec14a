"""COCO JSON against pycocotools, both ways, and what is refused."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as reference
from pycocotools.coco import COCO

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError
from ensemble_kit.formats.polygons import fill_coco, points_of
from ensemble_kit.formats.reading import read_masks
from ensemble_kit.formats.writing import write_masks
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.runs import Runs, encode
from test_formats_csv import mask_sets

# pycocotools 2.0 hands NumPy arrays over in its own, older way
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(masks=mask_sets())
def test_pycocotools_reads_what_we_write(tmp_path, masks):
    path = tmp_path / "m.json"
    write_masks(masks, path)
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO(str(path))
    seen = set()
    for entry in api.loadAnns(api.getAnnIds()):
        key = (api.imgs[entry["image_id"]]["file_name"], api.cats[entry["category_id"]]["name"])
        seen.add(key)
        assert np.array_equal(api.annToMask(entry), masks[key].decode())
        assert entry["area"] == masks[key].area
        assert entry["bbox"] == reference.toBbox(entry["segmentation"]).tolist()
    assert seen == {key for key, runs in masks.items() if runs}


coordinates = st.one_of(st.integers(-4, 24), st.floats(-4, 24, width=32))


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(points=st.lists(coordinates, min_size=6, max_size=24), size=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_polygons_fill_as_pycocotools_does(points, size):
    points = points[: len(points) // 2 * 2]
    wanted = reference.decode(reference.frPyObjects([[float(v) for v in points]], *size))[..., 0]
    ours = fill_coco(points_of(points, "", flat=True), size, "")
    assert np.array_equal(ours.decode(), wanted)


def file_of(path, shapes, images=None, categories=None, **more):
    images = images or [{"id": 7, "file_name": "a.jpg", "height": 6, "width": 5}]
    categories = categories or [{"id": 3, "name": "x"}, {"id": 1, "name": "y"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": shapes} | more))
    return path


def one(segmentation, **more):
    return {"id": 1, "image_id": 7, "category_id": 3, "segmentation": segmentation} | more


def test_all_three_kinds_are_read_and_united(tmp_path):
    mask = np.zeros((6, 5), np.uint8)
    mask[2:4, 1:3] = 1
    packed = reference.encode(np.asfortranarray(mask))
    polygon = [0, 0, 3, 0, 3, 2, 0, 2]
    shapes = [one({"size": [6, 5], "counts": packed["counts"].decode()}),
              one({"size": [6, 5], "counts": [0, 1, 29]}), one([polygon])]  # fmt: skip
    masks = read_masks(file_of(tmp_path / "m.json", shapes))
    wanted = mask | reference.decode(reference.frPyObjects([[float(v) for v in polygon]], 6, 5))[..., 0]
    wanted[0, 0] = 1
    assert masks["a.jpg", "x"] == encode(wanted)
    assert not masks["a.jpg", "y"]
    assert masks.classes == ("x", "y")
    assert read_masks(tmp_path / "m.json", classes=["y", "x"]).classes == ("y", "x")


@pytest.mark.parametrize("shape", [
    None, [], {}, "abc", {"size": [6, 5]}, {"size": [5, 6], "counts": [30]}, {"size": [6, 5], "counts": [31]},
    {"size": [6, 5], "counts": [-1, 31]}, {"size": [6, 5], "counts": [None]}, {"size": [6, 5], "counts": ["30"]},
    {"size": [6, 5], "counts": [30.0]}, {"size": [6, 5], "counts": "~~~"}, {"size": [-6, -5], "counts": [30]},
    {"size": [65536, 65536], "counts": [2**32]}, [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 4, 5, None]],
    [[1, 2, 3, 4, 5, 1e9]], [3], [[[1, 2], [3, 4], [5, 6]]], {"size": [6, 5], "counts": None},
])  # fmt: skip
def test_malformed_shapes_are_named(tmp_path, shape):
    with pytest.raises(DamagedError, match=r"annotations\[0\], sample 'a.jpg'"):
        read_masks(file_of(tmp_path / "m.json", [one(shape)]), "coco")


@pytest.mark.parametrize(("change", "named"), [
    ({"image_id": 8}, "image_id is '8'"), ({"category_id": None}, "category_id is 'None'"),
    ({"image_id": [7]}, "image_id"),
    ({"image_id": True}, "image_id"),
])  # fmt: skip
def test_references_must_exist(tmp_path, change, named):
    with pytest.raises(DamagedError) as caught:
        read_masks(file_of(tmp_path / "m.json", [one([[0, 0, 1, 0, 1, 1]]) | change]))
    assert named in str(caught.value)


IMAGE = {"id": 7, "file_name": "a.jpg", "height": 6, "width": 5}


@pytest.mark.parametrize("more", [
    {"images": [IMAGE, IMAGE]}, {"images": [IMAGE, IMAGE | {"id": 8}]}, {"images": [IMAGE | {"height": 0}]},
    {"images": [IMAGE | {"width": 2**40}]}, {"images": [IMAGE | {"height": 6.0}]}, {"images": [IMAGE | {"id": None}]},
    {"categories": [{"id": 1}]}, {"categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "x"}]}, {"images": 3},
    {"annotations": None}, {"images": [3]},
])  # fmt: skip
def test_malformed_tables_are_refused(tmp_path, more):
    with pytest.raises(DamagedError):
        read_masks(file_of(tmp_path / "m.json", [], **more))


def test_sizes_and_classes(tmp_path):
    path = file_of(tmp_path / "m.json", [], images=[{"id": 1, "file_name": "a"}])
    with pytest.raises(UsageError, match="--image-size"):
        read_masks(path)
    assert read_masks(path, image_size=(3, 4)).image_size("a") == (3, 4)
    path = file_of(tmp_path / "m.json", [])
    with pytest.raises(MismatchError, match=r"6 x 5 .*5 x 6"):
        read_masks(path, image_size=(5, 6))
    with pytest.raises(IncompleteError, match="'z'"):
        read_masks(path, classes=["x", "y", "z"])


def test_strict_json(tmp_path):
    for text in (
        '{"images": [], "images": []}',
        '{"images": NaN}',
        '{"a": 1e999}',
        "[1, 2",
        '{"a": ' + "9" * 5000 + "}",
    ):
        (tmp_path / "m.json").write_text(text)
        with pytest.raises(DamagedError, match=r"m\.json"):
            read_masks(tmp_path / "m.json", "coco")
    (tmp_path / "m.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(DamagedError, match="byte 7 is not UTF-8"):
        read_masks(tmp_path / "m.json", "coco")


def test_planes_beyond_32_bits(tmp_path):
    runs = Runs([0, 70_000 * 70_000 - 2], [3, 70_000 * 70_000], (70_000, 70_000))
    MaskSet({("a", "x"): runs}).write(tmp_path / "m.json")
    assert read_masks(tmp_path / "m.json")["a", "x"] == runs
