"""Files of LabelMe and COCO, binary folders (F7 to F10, L7 to L10): the right pixels, by an independent encoder.

labelme.npz was written by labelme 6.3.1 (`shape_to_mask`, `shapes_to_label`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

import ensemble_kit as ek
from ensemble_kit.formats.reading import recognise
from trying import DATA, SQUARE, coco, ensk, filled, one, put, refused

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


# ------------------------------------------------------------------------------------------------ LabelMe


def labelme(**more: Any) -> dict[str, Any]:
    return json.loads((DATA / "labelme.json").read_text()) | more


def test_F8_every_shape_of_labelme_is_drawn_as_it_does(tmp_path: Path) -> None:
    wanted = np.load(DATA / "labelme.npz")["shapes"]
    whole = labelme()
    for k, (shape, own) in enumerate(zip(whole["shapes"], wanted, strict=True)):
        path = put(tmp_path / f"{k}.json", whole | {"shapes": [shape]})
        assert np.array_equal(ek.read_masks(path)["scan.jpg", shape["label"]].decode(), own), shape
    assert len(wanted) == 14
    both = ek.read_masks(DATA / "labelme.json")
    for name in ("cat", "dog"):
        union = np.any([w for w, s in zip(wanted, whole["shapes"], strict=True) if s["label"] == name], axis=0)
        assert np.array_equal(both["scan.jpg", name].decode(), union)


def test_L9_shapes_that_overlap_are_painted_in_their_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--format", "label-map", "--out", tmp_path / "maps"]
    with refused(ek.MismatchError, "classes-overlap", "--paint shapes", "overlap"):
        ensk("convert", DATA / "labelme.json", *out)
    ensk("convert", DATA / "labelme.json", *out, "--paint", "shapes")
    png = np.asarray(Image.open(next((tmp_path / "maps").rglob("*.png"))))
    assert np.array_equal(png, np.load(DATA / "labelme.npz")["label"])
    ensk("convert", DATA / "labelme.json", *out, "--paint", "dog=7,cat=9", "--force")
    masks = ek.read_masks(DATA / "labelme.json")
    wanted = np.where(masks["scan.jpg", "dog"].decode(), 7, 0)
    wanted[masks["scan.jpg", "cat"].decode()] = 9
    assert np.array_equal(np.asarray(Image.open(next((tmp_path / "maps").rglob("*.png")))), wanted)
    capsys.readouterr()
    ensk("score", tmp_path / "maps", "--val", DATA / "labelme.json", "--json", "--only", "cat")
    assert json.loads(capsys.readouterr().out)["mean"] == 1  # cat was drawn last
    with refused(ek.UsageError, "option-idle", "--paint shapes", "none of"):
        ensk("score", tmp_path / "maps", "--val", tmp_path / "maps", "--paint", "shapes")


@pytest.mark.parametrize(("path", "sample"), [
    ("..\\images\\a.jpg", "a.jpg"), ("C:\\Users\\me\\a.jpg", "a.jpg"), ("../a b.jpg", "a b.jpg"), ("x/y/a.jpg", "a.jpg"),
    ("\\\\server\\share\\é.png", "é.png"), ("a.jpg", "a.jpg"),
])  # fmt: skip
def test_F7_the_path_of_an_image_gives_its_name(tmp_path: Path, path: str, sample: str) -> None:
    masks = ek.read_masks(put(tmp_path / "l.json", labelme(imagePath=path)))
    assert masks.samples == (sample,)
    masks.write(tmp_path / "maps", format="png")
    assert {p.name for p in (tmp_path / "maps" / "cat").iterdir()} <= {sample, f"{sample}.png"}


def test_F7_two_paths_that_end_in_one_name_are_refused(tmp_path: Path) -> None:
    for k, path in enumerate(("x\\a.jpg", "y\\a.jpg")):
        put(tmp_path / "l" / f"{k}.json", labelme(imagePath=path))
    with refused(ek.DamagedError, "polygons-invalid", "'a.jpg'"):
        ek.read_masks(tmp_path / "l")
    images = [{"id": k, "file_name": f"C:\\{k}\\a.jpg", "height": 6, "width": 5} for k in range(2)]
    with refused(ek.UsageError, "id-clash", r"C:\\0\\a.jpg", r"C:\\1\\a.jpg"):
        ek.read_masks(put(tmp_path / "c.json", coco([], images=images)))
    read = ek.read_masks(put(tmp_path / "d.json", coco([], images=images[:1])))
    assert read.samples == ("a.jpg",)


def test_the_two_forms_of_polygons_are_told_by_their_key(tmp_path: Path) -> None:
    triangle = [[1.6, 1.6], [9.4, 2.7], [4.5, 8.6]]
    shape = {"label": "x", "points": triangle}
    size = {"imageHeight": 12, "imageWidth": 12}
    drawn = ek.read_masks(put(tmp_path / "a.json", {"shapes": [shape], "imagePath": "a", **size}))["a", "x"]
    bone = ek.read_masks(put(tmp_path / "b.json", {"annotations": [shape], "filename": "a", **size}))["a", "x"]
    assert drawn != bone  # LabelMe cuts coordinates to whole pixels, the hand-bone set's code rounds them
    with refused(ek.DamagedError, "polygons-invalid", "or both"):
        ek.read_masks(put(tmp_path / "c.json", {"shapes": [], "annotations": [], **size}), "labelme")


@pytest.mark.parametrize("change", [
    {"shape_type": "star"}, {"points": [[0, 0]]}, {"shape_type": "circle", "points": [[0, 0]]},
    {"shape_type": "rectangle", "points": [[0, 0], [1, 1], [2, 2]]}, {"points": [[0, 0], [1, 1], [2, None]]},
    {"shape_type": "mask", "points": [[0, 0], [1, 1]]}, {"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "?"},
    {"shape_type": "mask", "points": [[0, 0], [1, 1]], "mask": "iVBORw0KGgo="}, {"shape_type": "point", "points": []},
    {"shape_type": 3}, {"shape_type": "mask", "points": [[0, 0], [500, 500]], "mask": labelme()["shapes"][8]["mask"]},
])  # fmt: skip
def test_shapes_that_cannot_be_drawn_are_named(tmp_path: Path, change: dict[str, Any]) -> None:
    shape = {"label": "x", "points": [[0, 0], [5, 0], [5, 5]], "mask": None} | change
    with pytest.raises(ek.DamagedError, match="shape 0"):
        ek.read_masks(put(tmp_path / "a.json", labelme(shapes=[shape])))


# ------------------------------------------------------------------------------------------------ COCO


@pytest.mark.parametrize("blank", [{"bbox": [0, 0, 2, 2]}, {"segmentation": []}, {"segmentation": [[]]}, {}], ids=str)
def test_F9_annotations_without_a_mask_are_left_out_on_request(tmp_path: Path, blank: dict[str, Any]) -> None:
    empty = {"id": 41, "image_id": 7, "category_id": 1} | blank
    path = put(tmp_path / "c.json", coco([one([SQUARE]), empty]))
    with refused(ek.DamagedError, "annotation-empty", "id 41", "annotations[1]", "'a.jpg'", "--skip-empty"):
        ek.read_masks(path)
    masks = ek.read_masks(path, skip_empty=True)
    assert np.array_equal(masks["a.jpg", "x"].decode(), filled(SQUARE, 6, 5))
    assert not masks["a.jpg", "y"]
    assert "1 annotations without a segmentation left out" in str(masks.rule)
    ensk("convert", path, "--skip-empty", "--out", tmp_path / "o.npz")


def test_categories_that_nothing_uses_and_crowds_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crowd = one({"size": [6, 5], "counts": [0, 2, 28]}, 2, iscrowd=1)
    path = put(tmp_path / "c.json", coco([one([SQUARE]), crowd]))
    ensk("convert", path, "--out", tmp_path / "o.npz", "--except", "never,y")
    said = capsys.readouterr().err
    assert "nothing is annotated as 'y', 'never' (--except leaves classes out)" in said
    assert "1 crowds (iscrowd) that count as their class" in said
    assert ek.read_masks(tmp_path / "o.npz").classes == ("x",)
    assert ek.read_masks(path)["a.jpg", "x"].area == filled(SQUARE, 6, 5).sum() + 2


def test_F10_results_are_read_with_the_file_of_their_images(tmp_path: Path) -> None:
    square = filled(SQUARE, 6, 5)
    packed = reference.encode(np.asfortranarray(square.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    results = [
        {"image_id": 7, "category_id": 3, "segmentation": packed, "score": 0.9, "bbox": [1, 1, 3, 3]},
        {"image_id": 7, "category_id": 3, "segmentation": {"size": [6, 5], "counts": [0, 30]}, "score": 0.05},
        {"image_id": 8, "category_id": 1, "segmentation": {"size": [4, 4], "counts": [0, 1, 15]}, "score": 0.5},
    ]
    path, images = put(tmp_path / "segm.json", results), put(tmp_path / "val.json", coco([]))
    assert recognise(path).name == "coco"
    with refused(ek.UsageError, "images-needed", "--images FILE"):
        ek.read_masks(path)
    with refused(ek.UsageError, "score-needed", "3 results with scores from 0.05 to 0.9", "--score P"):
        ek.read_masks(path, images=images)
    masks = ek.read_masks(path, images=images, score=0.5)
    assert np.array_equal(masks["a.jpg", "x"].decode(), square)
    assert masks["b.jpg", "y"].area == 1
    assert "1 results below the score 0.5 left out" in str(masks.rule)
    assert ek.read_masks(path, images=images, score=0)["a.jpg", "x"].area == 30
    ensk("convert", path, "--images", images, "--score", 0.5, "--out", tmp_path / "o.npz")
    assert dict(ek.read_masks(tmp_path / "o.npz")) == dict(masks)
    ensk("score", path, "--val", tmp_path / "o.npz", "--images", images, "--score", 0.5)
    with refused(ek.UsageError, "option-idle", "not a list of results"):
        ek.read_masks(images, images=images)
    with refused(ek.DamagedError, "coco-invalid", "score"):
        ek.read_masks(put(path, [results[0] | {"score": "high"}]), images=images, score=0.5)
    with refused(ek.DamagedError, "coco-invalid", "image_id"):
        ek.read_masks(put(path, [results[0] | {"image_id": 9}]), images=images, score=0.5)


def test_ids_that_look_like_paths_come_back_from_the_kits_own_files(tmp_path: Path) -> None:
    masks = ek.MaskSet({(s, "x"): ek.Runs([0], [2], (2, 2)) for s in ("C:\\a.png", "D:\\a.png", "/a", "x/../a", "t/a")})
    masks.write(tmp_path / "m.json")
    assert dict(ek.read_masks(tmp_path / "m.json")) == dict(masks)
    masks.arranged(("C:\\a.png",), ("x",)).write(tmp_path / "folder", format="labelme")
    assert ek.read_masks(tmp_path / "folder").samples == ("C:\\a.png",)


def test_F11_masks_of_segment_anything_are_united(tmp_path: Path) -> None:
    square = filled(SQUARE, 6, 5)
    packed = reference.encode(np.asfortranarray(square.astype(np.uint8)))
    found = [{"id": 9, "segmentation": {"size": [6, 5], "counts": packed["counts"].decode()}, "area": 1},
             {"id": 10, "segmentation": {"size": [6, 5], "counts": [29, 1]}}]  # fmt: skip
    image = {"image_id": 1, "width": 5, "height": 6, "file_name": "sa_1.jpg"}
    put(tmp_path / "sa" / "sa_1.json", {"image": image, "annotations": found})
    put(tmp_path / "sa" / "sa_2.json", {"image": image | {"file_name": "sa_2.jpg"}, "annotations": []})
    masks = ek.read_masks(tmp_path / "sa")
    assert (masks.samples, masks.classes) == (("sa_1.jpg", "sa_2.jpg"), ("mask",))
    square[5, 4] = True
    assert np.array_equal(masks["sa_1.jpg", "mask"].decode(), square)
    assert ek.read_masks(tmp_path / "sa" / "sa_1.json", classes=["thing"])["sa_1.jpg", "thing"].area == square.sum()


# ------------------------------------------------------------------------------------------------ L7, L8, L10


def test_L7_nested_classes_are_painted_by_their_values(tmp_path: Path) -> None:
    nested = {name: ek.Runs([0], [n], (2, 3)) for name, n in (("ET", 1), ("TC", 3), ("WT", 5))}
    ek.MaskSet({("a", name): runs for name, runs in nested.items()}).write(tmp_path / "m.npz")
    ensk(
        "convert", tmp_path / "m.npz", "--format", "label-map", "--paint", "WT=1,TC=2,ET=3", "--out", tmp_path / "maps"
    )
    assert np.asarray(Image.open(tmp_path / "maps" / "a.png")).tolist() == [[3, 2, 2], [1, 1, 0]]


@pytest.mark.slow
def test_L8_the_foreground_of_a_softmax_store_alone(tmp_path: Path) -> None:
    z = np.array([[[2.0, -1], [0, 0.5]], [[1, 1], [0, 2]]], np.float16)
    with ek.LogitWriter(tmp_path / "m.zarr", ["background", "vessel"], ["a.png"], (2, 2), activation="softmax") as out:
        out.write("a.png", z, image_size=(2, 2))
    put(tmp_path / "like.csv", "image_name,class,rle\na.png,vessel,\n")
    ensk("vote", tmp_path / "m.zarr", "--background", "background", "--like", tmp_path / "like.csv", "--format", "handbone",
         "--out", tmp_path / "o.csv")  # fmt: skip
    assert (tmp_path / "o.csv").read_text() == "image_name,class,rle\na.png,vessel,2 1 4 1\n"
    gt = ek.MaskSet({("a.png", "vessel"): ek.Runs([1], [2], (2, 2)), ("a.png", "other"): ek.Runs([0], [1], (2, 2))})
    gt.write(tmp_path / "gt.npz")
    ensk("score", tmp_path / "o.csv", "--val", tmp_path / "gt.npz", "--format", "handbone", "--only", "vessel")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_L10_a_flat_folder_of_binary_masks_is_one_class(tmp_path: Path, suffix: str) -> None:
    for name, values in (("a", [[0, 255], [255, 0]]), ("b", [[0, 0], [0, 0]])):
        (tmp_path / "m").mkdir(exist_ok=True)
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / "m" / f"{name}{suffix}")
    masks = ek.read_masks(tmp_path / "m", classes=["nerve"])
    assert masks[f"a{suffix}", "nerve"].text() == "2 2"
    assert not masks[f"b{suffix}", "nerve"]
    assert not masks.has_void
    assert ek.read_masks(tmp_path / "m").classes == ("mask",)


def test_labelmes_ignored_pixels_are_void(tmp_path: Path) -> None:
    shapes = [
        {"label": "cat", "points": [[0, 0], [9, 0], [9, 9]]},
        {"label": "__ignore__", "points": [[0, 0], [5, 5], [0, 9]]},
    ]
    path = put(tmp_path / "a.json", labelme(shapes=shapes))
    masks = ek.read_masks(path)
    assert masks.classes == ("cat",)
    assert masks.void("scan.jpg").area > 20
    assert "'__ignore__' is void, in 1 samples" in str(masks.rule)
    assert ek.read_masks(path, classes=["cat", "__ignore__"]).classes == ("cat", "__ignore__")


def test_images_beside_their_json_are_not_masks(tmp_path: Path) -> None:
    put(tmp_path / "f" / "scan.json", labelme())
    Image.fromarray(np.zeros((61, 83), np.uint8)).save(tmp_path / "f" / "scan.png")
    assert recognise(tmp_path / "f").name == "labelme"
    Image.fromarray(np.zeros((61, 83), np.uint8)).save(tmp_path / "f" / "other.png")
    with refused(ek.UsageError, "format-ambiguous", "'label-map'", "'labelme'"):
        ek.read_masks(tmp_path / "f")


def test_results_are_inspected_and_give_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = {"image_id": 7, "category_id": 3, "segmentation": {"size": [6, 5], "counts": [0, 2, 28]}, "score": 0.5}
    images = put(tmp_path / "i.json", coco([{"id": 1, "image_id": 7, "category_id": 3, "bbox": [0, 0, 1, 1]}]))
    ensk("inspect", put(tmp_path / "r.json", [result]), "--images", images, "--score", 0, "--json")
    assert json.loads(capsys.readouterr().out)["per_class"]["x"]["pixels"] == 2
    put(tmp_path / "m.csv", "image_name,class,rle\na.jpg,x,1 2\nb.jpg,x,\n")
    ensk("convert", tmp_path / "m.csv", "--image-size", images, "--out", tmp_path / "o.npz")
    assert ek.read_masks(tmp_path / "o.npz").image_size("a.jpg") == (6, 5)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "16 bits"])
def test_L10_binary_masks_in_other_modes(tmp_path: Path, mode: str) -> None:
    grey = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "16 bits" else Image.fromarray(grey).convert(mode)
    (tmp_path / "m").mkdir()
    image.save(tmp_path / "m" / "a.png")
    Image.fromarray(np.zeros((2, 3), np.uint8)).convert("RGB" if mode == "RGBA" else "L").save(tmp_path / "m" / "b.png")
    assert ek.read_masks(tmp_path / "m", classes=["nerve"])["a.png", "nerve"].text() == "2 3"


def test_L10_what_is_not_black_and_white_is_not_binary(tmp_path: Path) -> None:
    for name, pixels in (("red", [255, 0, 0]), ("grey", [9, 9, 9])):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array([[[0, 0, 0], pixels]], np.uint8)).save(tmp_path / name / "a.png")
        with refused(ek.UsageError, "labels-needed", "--labels"):
            ek.read_masks(tmp_path / name, classes=["nerve"])
    (tmp_path / "white").mkdir()
    Image.fromarray(np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)).save(tmp_path / "white" / "a.png")
    with refused(ek.UsageError, "labels-needed"):
        ek.read_masks(tmp_path / "white", classes=["background", "nerve", "vessel"])
    (tmp_path / "soft").mkdir()
    Image.fromarray(np.array([[0, 90, 255]], np.uint8)).save(tmp_path / "soft" / "a.png")
    with refused(ek.DamagedError, "mask-values", "90 (1 pixel)", "threshold soft masks"):
        ek.read_masks(tmp_path / "soft", classes=["nerve"])


def test_F9_parts_without_three_points(tmp_path: Path) -> None:
    path = put(tmp_path / "c.json", coco([one([SQUARE, [1, 1, 2, 2]], 5), one([[1, 1, 2, 2]], 6)]))
    with pytest.raises(ek.DamagedError, match=r"id 5.* 3 or more pairs"):
        ek.read_masks(path)
    masks = ek.read_masks(path, skip_empty=True)
    assert np.array_equal(masks["a.jpg", "x"].decode(), filled(SQUARE, 6, 5))
    assert "1 annotations without a segmentation left out" in str(masks.rule)
