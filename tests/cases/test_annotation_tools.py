"""Files of CVAT, Label Studio and COCO panoptic, and of programs that are not read (F11).

label-studio.json and .npz were written by label-studio-sdk 2.1.2 (`encode_rle`, `decode_rle`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.formats.registry import FORMATS
from ensemble_kit.formats.unread import UNREAD
from trying import CVAT, DATA, INFOS, MASK, POLYGON, SEGMENTS, drawn, ensk, filled, panoptic, put, refused

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


# ------------------------------------------------------------------------------------------------ CVAT


def test_F11_cvat_polygons_and_masks(tmp_path: Path) -> None:
    path = put(tmp_path / "a.xml", CVAT.replace("{shapes}", POLYGON.replace("{z}", "0") + drawn()))
    masks = ek.read_masks(path)
    assert (masks.samples, masks.classes) == (("a.jpg", "b.jpg"), ("cat", "dog & co"))
    wanted = np.zeros((9, 12), bool)
    wanted[3:7, 6:11] = MASK
    polygon = filled([1.5, 1.25, 8, 2.5, 4, 7.75], 9, 12)
    assert np.array_equal(masks["a.jpg", "dog & co"].decode(), wanted)
    assert np.array_equal(masks["a.jpg", "cat"].decode(), polygon)
    assert not masks["b.jpg", "cat"]
    assert masks.image_size("b.jpg") == (2, 3)
    assert (polygon & wanted).any()
    over = ek.read_masks(path, paint=True)
    assert np.array_equal(over["a.jpg", "cat"].decode(), polygon & ~wanted)
    above = put(tmp_path / "b.xml", CVAT.replace("{shapes}", POLYGON.replace("{z}", "2") + drawn()))
    assert np.array_equal(ek.read_masks(above, paint=True)["a.jpg", "dog & co"].decode(), wanted & ~polygon)


def test_F11_cvat_shapes_that_are_no_masks(tmp_path: Path) -> None:
    box = '<box label="cat" xtl="1" ytl="1" xbr="3" ybr="3"/><points label="cat" points="1,1"/><tag label="cat"/>'
    path = put(tmp_path / "a.xml", CVAT.replace("{shapes}", drawn() + box))
    with refused(ek.DamagedError, "annotation-empty", "line 5", "'a.jpg', box", "--skip-empty"):
        ek.read_masks(path)
    masks = ek.read_masks(path, skip_empty=True)
    assert masks["a.jpg", "dog & co"].area == MASK.sum()
    assert "1 shapes of the kind box left out" in str(masks.rule)
    assert "nothing is annotated as 'cat'" in str(masks.rule)
    with refused(ek.UsageError, "format-unread", "CVAT for images 1.1"):
        ek.read_masks(put(tmp_path / "v.xml", "<annotations><track id='0' label='cat'/></annotations>"))


@pytest.mark.parametrize("shapes", [
    drawn(rle="3, 4"), drawn(rle="-1, 21"), drawn(rle="a"), drawn(width=0), drawn(width="9" * 9, height="9" * 9), drawn(left=""),
    '<mask rle="20"/>', '<polygon label="cat" points="1,1;2,2"/>', '<polygon label="cat" points="1,1;2,nan;3,3"/>',
    '<polygon label="cat" points=""/>', '<polygon points="1,1;2,2;3,1"/>', '<blob label="cat"/>', "<mask", drawn() + "</image>",
    '<polygon label="cat" points="1,1;2,2;3,1" z_order="top"/>',
])  # fmt: skip
def test_malformed_cvat_is_named(tmp_path: Path, shapes: str) -> None:
    with pytest.raises(ek.DamagedError, match=r"a\.xml"):
        ek.read_masks(put(tmp_path / "a.xml", CVAT.replace("{shapes}", shapes)))


def test_document_types_are_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><annotations>&y;</annotations>'
    with refused(ek.UnsafeError, "xml-doctype", "DOCTYPE"):
        ek.read_masks(put(tmp_path / "a.xml", bomb), "cvat")


# ------------------------------------------------------------------------------------------------ Label Studio


def test_F11_brushes_of_label_studio(tmp_path: Path) -> None:
    masks, wanted = (
        ek.read_masks(DATA / "label-studio.json", image_size={"none.png": (4, 4)}),
        np.load(DATA / "label-studio.npz"),
    )
    assert (masks.samples, masks.classes) == (("scan.png", "none.png"), ("cat", "dog"))
    polygon = filled(
        [
            v * s / 100
            for p in [[10.5, 12.25], [80, 20], [60.4, 90.1], [12, 70]]
            for v, s in zip(p, (50, 37), strict=True)
        ],
        37,
        50,
    )
    assert np.array_equal(masks["scan.png", "dog"].decode(), wanted["dog"])
    assert np.array_equal(masks["scan.png", "cat"].decode(), wanted["cat"] | polygon)
    assert not masks["none.png", "cat"]


def studio(**change: Any) -> list[dict[str, Any]]:
    tasks = json.loads((DATA / "label-studio.json").read_text())[:1]
    tasks[0]["annotations"][0]["result"][0] |= change
    return tasks


def test_F11_regions_of_label_studio_that_are_no_masks(tmp_path: Path) -> None:
    box = {"type": "rectanglelabels", "value": {"x": 1, "y": 1, "width": 9, "height": 9, "rectanglelabels": ["cat"]}}
    path = put(tmp_path / "s.json", studio(**box))
    with refused(ek.DamagedError, "annotation-empty", "task 7, region r1", "rectangle"):
        ek.read_masks(path)
    assert "1 regions of the kind rectangle left out" in str(ek.read_masks(path, skip_empty=True).rule)
    tasks = studio()
    tasks[0]["annotations"] *= 2
    with refused(ek.UsageError, "annotations-several", "task 7 has 2"):
        ek.read_masks(put(tmp_path / "t.json", tasks))
    tasks[0]["annotations"][0] = tasks[0]["annotations"][0] | {"was_cancelled": True}
    assert ek.read_masks(put(tmp_path / "t.json", tasks))["scan.png", "dog"]


@pytest.mark.parametrize(("data", "sample"), [
    ({"image": "/data/upload/1/0a1b2c3d-a%20b.png"}, "a b.png"), ({"img": "s3://bucket/x/a.png", "text": "a scan"}, "a.png"),
    ({"image": "/data/local-files/?d=x/0a1b2c3d-a.png"}, "0a1b2c3d-a.png"), ({"image": "C:\\x\\a#1.png"}, "a#1.png"),
    ({"image": "https://host/x/a.png?signature=1#2"}, "a.png"), ({"image": "//[broken/a.png"}, "a.png"),
])  # fmt: skip
def test_the_image_of_a_task_names_the_sample(tmp_path: Path, data: dict[str, str], sample: str) -> None:
    tasks = studio()
    tasks[0]["data"] = data
    assert ek.read_masks(put(tmp_path / "t.json", tasks)).samples == (sample,)


def values(**change: Any) -> dict[str, Any]:
    return {"value": studio()[0]["annotations"][0]["result"][0]["value"] | change}


@pytest.mark.parametrize("change", [
    {"original_width": 51}, {"original_height": 2**30}, {"image_rotation": 90}, {"value": 3}, values(rle=[1, 2]),
    values(rle="x"), values(rle=[256]), values(rle=values()["value"]["rle"][:-3]), values(brushlabels=[]), values(format="svg"),
    {"item_index": 1},
], ids=range(11))  # fmt: skip
def test_malformed_regions_of_label_studio_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ek.DamagedError, match="task 7, region"):
        ek.read_masks(put(tmp_path / "s.json", studio(**change)))


# ------------------------------------------------------------------------------------------------ panoptic


def test_F11_segments_of_a_class_are_united(tmp_path: Path) -> None:
    masks = ek.read_masks(panoptic(tmp_path, SEGMENTS, INFOS))
    assert (masks.samples, masks.classes) == (("a.jpg",), ("x", "y", "never"))
    assert np.array_equal(masks["a.jpg", "x"].decode(), np.isin(SEGMENTS, [70_000, 5]))
    assert np.array_equal(masks["a.jpg", "y"].decode(), SEGMENTS == 300)
    assert np.array_equal(masks.void("a.jpg").decode(), SEGMENTS == 0)
    assert masks.exclusive
    assert ek.read_masks(tmp_path / "p.json", classes=["y", "x", "never"])["a.jpg", "y"].area == 2
    (tmp_path / "p").rename(tmp_path / "elsewhere")
    with refused(ek.IncompleteError, "files-missing", "--images FOLDER"):
        ek.read_masks(tmp_path / "p.json")
    ensk(
        "convert",
        tmp_path / "p.json",
        "--images",
        tmp_path / "elsewhere",
        "--format",
        "label-map",
        "--out",
        tmp_path / "m",
    )
    assert np.asarray(Image.open(tmp_path / "m" / "a.jpg.png")).tolist() == [
        [255, 1, 1, 1],
        [2, 2, 1, 1],
        [255, 255, 1, 1],
    ]


@pytest.mark.parametrize("infos", [
    INFOS[:2], [{"id": 0, "category_id": 3}, *INFOS], [{"id": 9, "category_id": 77}, *INFOS], [{"id": "5"}], [3], None,
], ids=range(6))  # fmt: skip
def test_malformed_panoptic_is_named(tmp_path: Path, infos: Any) -> None:
    with pytest.raises(ek.DamagedError):
        ek.read_masks(panoptic(tmp_path, SEGMENTS, infos))


# ------------------------------------------------------------------------------------------------ what is not read

CONTENTS: dict[str, tuple[str, bytes]] = {
    "DICOM": ("seg", b"\0" * 128 + b"DICM"),
    "a compressed CSV": ("s.csv.zip", b"PK\x03\x04"),
    "a zip archive": ("masks.zip", b"PK\x03\x04"),
    "a gzip file": ("x.gz", b"\x1f\x8b\x08"),
    "one image": ("a.tif", b"II*\0"),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n"),
    "MATLAB": ("a.mat", b"MATLAB 5.0"),
    "Python's pickle": ("a.pkl", b"\x80\x04"),
    "Parquet": ("a.parquet", b"PAR1"),
    "a spreadsheet": ("a.ods", b"x"),
    "Pascal VOC's XML of boxes": ("a.xml", b"<annotation><object><bndbox/></object></annotation>"),
    "SVG": ("a.svg", b"<svg xmlns=''/>"),
    "VGG Image Annotator's JSON": ("via.json", b'{"a.jpg12": {"filename": "a.jpg", "size": 12, "regions": []}}'),
    "Supervisely's JSON": ("a.json", b'{"description": "", "size": {"height": 2, "width": 2}, "objects": []}'),
    "GeoJSON": ("a.geojson", b'{"type": "FeatureCollection", "features": []}'),
    "Label Studio's JSON-MIN": ("a.json", b'[{"id": 1, "image": "a.png", "annotation_id": 3}]'),
    "Labelbox's JSON": ("a.json", b'[{"data_row": {}, "projects": {}}]'),
    "Darwin's JSON (V7)": ("a.json", b'{"version": "2.0", "item": {"name": "a"}, "annotations": []}'),
    "what ensk fuse keeps (its probabilities, or the disagreement of members), not masks": (
        "fused.json",
        b'{"format": "ensk.fused/1"}',
    ),
    "an OME-Zarr without the index.json that ensk writes beside it": (
        "m/labels/zarr.json",
        b'{"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5"}}}',
    ),
    "FiftyOne's samples": ("samples.json", b'{"samples": []}'),
    "results of boxes": ("bbox.json", b'[{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1]}]'),
    "YOLO's text files": ("a.txt", b"0 0.5 0.5 0.25 0.25 0.3 0.3\n"),
    "JPEG images": ("m/a.jpg", b"\xff\xd8\xff"),
    "BMP or GIF images": ("m/a.bmp", b"BM"),
}


def test_every_kind_that_is_not_read_is_tried() -> None:
    assert list(CONTENTS) == [known.name for known in UNREAD]


@pytest.mark.parametrize("name", CONTENTS)
def test_F11_what_is_not_read_says_what_to_export(tmp_path: Path, name: str) -> None:
    file, raw = CONTENTS[name]
    path = put(tmp_path / file, raw)
    with refused(ek.UsageError, "format-unread", f"is {name}, which is not read"):
        ek.read_masks(path.parent if "/" in file else path)


def test_the_page_names_every_format_and_all_that_is_not_read() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    assert [name for name, known in FORMATS.items() if known.suffix != ".csv" and f"`{name}`" not in page] == []
    assert [known.name for known in UNREAD if known.name not in page] == []
