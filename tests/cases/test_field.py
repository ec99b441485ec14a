"""Files as they come from the field, each with the mask that it holds, or the refusal whose fix leads to it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import ensemble_kit as ek
from cases.csvs import MASK, numbers, put
from cases.running import ensk, refused
from ensemble_kit.errors import EnskWarning
from ensemble_kit.masks.idforms import difference

OTHER = np.roll(MASK, 9, 0)
HEIGHT, WIDTH = MASK.shape
ROUND = np.hypot(*(np.indices((48, 64)) - np.array([24, 30])[:, None, None])) < 15


def read(path: Path, **options: object) -> ek.MaskSet:
    return ek.read_masks(path, image_size=MASK.shape, **options)  # type: ignore[arg-type]


def table(path: Path, header: str, rows: list[str]) -> Path:
    return put(path, "\n".join([header, *rows, ""]))


def test_several_rows_of_an_image_in_the_file_of_siim_lead_to_its_preset(tmp_path: Path) -> None:
    """The rows rule out all presets; the fix names the one that fits with a row an object."""
    rows = [f"{s}, {numbers(m, 'F', 0, True) or '-1'}" for s, m in (("a", MASK), ("a", OTHER), ("b", MASK & False))]
    source = table(tmp_path / "in.csv", "ImageId, EncodedPixels", rows)
    said = refused("format-unknown", 2, "convert", source, "--image-size", "24x40", "--out", tmp_path / "o.npz")
    assert said.endswith("name what the file is: --from siim --from-csv rows=object")
    masks = read(source, format="siim", csv="rows=object")
    assert np.array_equal(masks["a", "mask"].decode(), MASK | OTHER)
    assert not masks["b", "mask"]


def test_objects_with_a_mark_of_an_empty_mask_lead_to_airbus(tmp_path: Path) -> None:
    labels, count = ndimage.label(MASK | OTHER, np.ones((3, 3)))
    rows = [f"a,{numbers(labels == k + 1, 'F', 1)}" for k in range(count)] + [f"c,{numbers(MASK, 'F', 1)}"] * 2
    source = table(tmp_path / "in.csv", "ImageId,EncodedPixels", [*rows, "b,-1"])
    said = refused("format-unknown", 2, "convert", source, "--image-size", "24x40", "--out", tmp_path / "o.npz")
    assert "--from airbus --from-csv empty=-1" in said
    assert "--from siim" not in said
    masks = read(source, format="airbus", csv="empty=-1")
    assert np.array_equal(masks["a", "mask"].decode(), MASK | OTHER)
    assert not masks["b", "mask"]


def test_class_numbers_that_pandas_made_floats_are_not_four_more_classes(tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", "ImageId,ClassId,EncodedPixels", [f"a,3.0,{numbers(MASK, 'F', 1)}"])
    assert "not wanted: '3.0'" in refused("classes-differ", 6, "inspect", source, "--image-size", "24x40")
    assert np.array_equal(read(source, classes=["3.0"])["a", "3.0"].decode(), MASK)


@pytest.mark.parametrize("order", ["F", "C"])
def test_masks_of_another_size_are_doubted(tmp_path: Path, order: str) -> None:
    """Made at 48 x 64, read as 96 x 128: nothing leaves the image, and every mask is wrong."""
    header = "id,rle_mask" if order == "F" else "img,rle_mask"
    rows = [f"{k},{numbers(np.roll(ROUND, k, 1), order, 1)}" for k in range(4)]
    source = table(tmp_path / "in.csv", header, rows)
    with pytest.warns(EnskWarning, match=f"are {48 if order == 'F' else 64} apart .4 of 4 masks.*of another size"):
        ek.read_masks(source, image_size=(96, 128))
    masks = ek.read_masks(source, image_size=(48, 64))
    assert all(np.array_equal(masks[str(k), "mask"].decode(), np.roll(ROUND, k, 1)) for k in range(4))


def test_two_objects_half_a_column_apart_are_not_doubted(tmp_path: Path) -> None:
    """Images whose own row length is there, whatever else is: pairs of bars, and one odd mask among others."""
    rng = np.random.default_rng(3)
    rows = []
    for k in range(6):
        mask = np.zeros((96, 128), bool)
        mask[10:14, 20:80] = mask[58 + int(rng.integers(-9, 9)) :, 20:80] = True
        rows.append(f"{k},{numbers(mask, 'F', 1)}")
    ek.read_masks(table(tmp_path / "in.csv", "id,rle_mask", rows), image_size=(96, 128))  # warnings are errors


def test_a_mask_that_a_spreadsheet_cut_says_so(tmp_path: Path) -> None:
    """Cut in the middle of a pair, so that the row cannot be read."""
    text = " ".join(f"{k} 1" for k in range(100001, 140001, 2))[:32767]
    source = table(tmp_path / "in.csv", "id,rle_mask", [f"a,{text}"])
    assert "spreadsheet" in refused("rle-invalid", 3, "inspect", source, "--image-size", 400)


def test_the_columns_of_sizes_in_a_file_of_masks_are_pointed_at(tmp_path: Path) -> None:
    row = f"a,{numbers(MASK, 'C', 1)},{WIDTH},{HEIGHT}"
    source = table(tmp_path / "in.csv", "id,annotation,width,height", [row])
    said = refused("image-size-missing", 2, "convert", source, "--out", tmp_path / "o.npz")
    assert f"pass --image-size {source}, whose columns say it" in said
    ensk("convert", source, "--image-size", source, "--out", tmp_path / "o.npz")
    assert np.array_equal(ek.read_masks(tmp_path / "o.npz")["a", "mask"].decode(), MASK)


def test_the_fix_of_a_blank_line_takes_it_out(tmp_path: Path) -> None:
    source = table(tmp_path / "in.csv", "id,rle_mask", [f"a,{numbers(MASK, 'F', 1)}", ""])
    assert "line 3 has 0 fields, the header has 2 · fix: take the blank lines out" in refused(
        "csv-fields", 3, "inspect", source
    )


SQUARE = [2, 1, 6, 1, 6, 5, 2, 5]


def roboflow(drawn: list[int]) -> str:
    """Make its export of a project that is called as its class."""
    return json.dumps({
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 9}],
        "categories": [{"id": 0, "name": "ship", "supercategory": "none"}, {"id": 1, "name": "ship"}],
        "annotations": [
            {"id": k, "image_id": 1, "category_id": c, "segmentation": [SQUARE]} for k, c in enumerate(drawn)
        ],
    })  # fmt: skip


def test_a_category_of_no_object_does_not_double_a_name(tmp_path: Path) -> None:
    masks = ek.read_masks(put(tmp_path / "in.json", roboflow([1])))
    wanted = np.zeros((8, 9), bool)
    wanted[1:5, 2:6] = True
    assert masks.classes == ("ship",)
    assert np.array_equal(masks["a.jpg", "ship"].decode(), wanted)
    assert "1 category without annotations left out" in str(masks.rule)
    assert "doubled" in refused("coco-invalid", 3, "inspect", put(tmp_path / "two.json", roboflow([0, 1])))
    assert "doubled" in refused("coco-invalid", 3, "inspect", put(tmp_path / "none.json", roboflow([])))


def polygon(*points: float) -> dict[str, object]:
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 8, "width": 9}],
        "categories": [{"id": 1, "name": "ship"}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "segmentation": [list(points)]}],
    }


def test_coordinates_of_another_image_are_said(tmp_path: Path) -> None:
    """Shapes of an image that was reduced lie outside it, and their masks are empty."""
    coco = put(tmp_path / "coco.json", json.dumps(polygon(30, 30, 50, 30, 50, 50)))
    shape = {"label": "ship", "points": [[30, 30], [50, 30], [50, 50]], "shape_type": "polygon"}
    own = {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 8, "imageWidth": 9}
    xml = (
        '<annotations><image id="0" name="a.jpg" width="9" height="8"><polygon label="ship" occluded="0" '
        'points="30,30;50,30;50,50" z_order="0"></polygon></image></annotations>'
    )
    for path in (coco, put(tmp_path / "a.json", json.dumps(own)), put(tmp_path / "a.xml", xml)):
        masks = ek.read_masks(path)
        assert not masks["a.jpg", "ship"]
        assert masks.rule == "1 shapes that cover no pixel of their image"


def test_polygons_in_shares_of_the_image_are_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "coco.json", json.dumps(polygon(0.1, 0.1, 0.6, 0.1, 0.6, 0.6)))
    assert "multiply x by the width and y by the height" in refused("coco-invalid", 3, "inspect", source)


def test_scores_in_per_cent_do_not_all_pass(tmp_path: Path) -> None:
    listing = put(tmp_path / "coco.json", json.dumps(polygon(*SQUARE)))
    results = [{"image_id": 1, "category_id": 1, "segmentation": [SQUARE], "score": 3.0}]
    source = put(tmp_path / "segm.json", json.dumps(results))
    assert "scores up to 3" in refused("score-range", 2, "inspect", source, "--images", listing, "--score", 0.5)
    assert ek.read_masks(source, images=listing, score=0)["a.jpg", "ship"].area == 16


@pytest.mark.parametrize("other", ["cat", "Cat "], ids=["case", "blank"])
def test_classes_that_look_alike_are_warned_of(tmp_path: Path, other: str) -> None:
    source = table(tmp_path / "in.csv", "image_name,class,rle", ["a,Cat,1 2", f"a,{other},3 4"])
    with pytest.warns(EnskWarning, match="differ only in case or in blanks"):
        assert ek.read_masks(source, image_size=(4, 4)).classes == ("Cat", other)


def test_a_zip_of_masks_is_not_a_damaged_store(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as archive:
        archive.writestr("masks/a.png", b"\x89PNG")
    for command in (["inspect"], ["score", "--val", tmp_path], ["convert", "--out", tmp_path / "o.csv"]):
        assert "unpack it, and pass" in refused("store-foreign", 3, command[0], tmp_path / "masks.zip", *command[1:])


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        (["1", "2"], ["0001", "0002"], "in how numbers are written: '1', '0001'"),
        (["1.0", "2.0"], ["1", "2"], "in how numbers are written: '1.0', '1'"),
        (["a_mask.png", "b_mask.png"], ["a.jpg", "b.jpg"], "by '_mask' at their ends"),
        (["pred_a", "pred_b"], ["a", "b"], "by 'pred_' in front"),
        (
            ["x/x_1_gtFine_labelIds.png", "y/y_2_gtFine_labelIds.png"],
            ["x_1_leftImg8bit.png", "y_2_leftImg8bit.png"],
            "by 'leftImg8bit' and 'gtFine_labelIds' at their ends",
        ),
    ],
    ids=["zeros that Excel dropped", "floats of pandas", "_mask", "in front", "Cityscapes"],
)
def test_ids_that_mean_the_same_are_compared(ours: list[str], theirs: list[str], words: str) -> None:
    said = difference(ours, theirs)
    assert said is not None
    assert words in said[0]
    assert f"{ours[0]!r} to {theirs[0]!r}" in said[1]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(["train_1", "train_2"], ["val_1", "val_2"]), (["img1", "img2"], ["img10", "img20"]), (["a"], ["a_mask"])],
    ids=["two parts", "numbers", "one"],
)
def test_ids_of_others_are_not_taken_for_the_same(ours: list[str], theirs: list[str]) -> None:
    assert difference(ours, theirs) is None


@pytest.mark.parametrize(
    "text", ["0 void\n7 road\n8 car\n", "0: void\n7: road\n8: car\n", "0\tvoid\n7\troad\n8\tcar\n"]
)
def test_a_list_of_numbers_and_names_is_a_table(tmp_path: Path, text: str) -> None:
    """As names they would be `0 void`, `7 road` and the values 0, 1 and 2."""
    names, folder = put(tmp_path / "labels.txt", text), tmp_path / "maps"
    folder.mkdir()
    Image.fromarray(np.array([[0, 7], [8, 7]], np.uint8)).save(folder / "a.png")
    said = refused("classes-table", 2, "inspect", folder, "--classes", names)
    assert "pass it as --labels" in said
    masks = ek.read_masks(folder, labels=names)
    assert masks.classes == ("road", "car")
    assert masks["a.png", "road"].decode().tolist() == [[False, True], [False, True]]
    assert masks["a.png", "car"].decode().tolist() == [[False, False], [True, False]]


@pytest.mark.parametrize(
    "text", ["- road\n- car\n", '"road"\n"car"\n', "road,\ncar,\n"], ids=["YAML", "quotes", "commas"]
)
def test_what_is_beside_all_names_is_not_taken_for_names(tmp_path: Path, text: str) -> None:
    listed = put(tmp_path / "labels.txt", text)
    assert "list the names alone, one a line" in refused("classes-table", 2, "inspect", tmp_path, "--classes", listed)


def test_names_that_look_like_a_table_are_read_from_json(tmp_path: Path) -> None:
    listed = put(tmp_path / "names.csv", "name,r,g,b\nvoid,0,0,0\n")
    assert 'write JSON: ["name,r,g,b", …]' in refused("classes-table", 2, "inspect", listed, "--classes", listed)
    source = table(tmp_path / "in.csv", "image_name,class,rle", ["a,1 x,", "a,2 y,"])
    named = put(tmp_path / "names.json", '["1 x", "2 y"]')
    ensk("convert", source, "--image-size", 4, "--classes", named, "--out", tmp_path / "o.npz")
    assert ek.read_masks(tmp_path / "o.npz").classes == ("1 x", "2 y")


def test_a_folder_of_objects_a_sample_says_what_it_is(tmp_path: Path) -> None:
    """As of the 2018 Data Science Bowl, `ID/images/ID.png` and `ID/masks/*.png`."""
    for k, sample in enumerate(("one", "two")):
        for name in ("images/i", "masks/p", "masks/q"):
            file = tmp_path / "stage1" / sample / f"{name}{k}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(file)
    said = refused("files-missing", 4, "inspect", tmp_path / "stage1")
    assert "no file name stands in two of its folders, 'one', 'two'" in said
    assert "write the maximum of its masks as one PNG a sample" in said


def test_a_folder_of_cityscapes_with_all_its_files_is_refused(tmp_path: Path) -> None:
    """Training ids are labels too: beside them they would be read as other samples, by the wrong table."""
    maps = {"labelIds": [[7, 8]], "labelTrainIds": [[0, 1]]}
    for kind, values in maps.items():
        Image.fromarray(np.array(values, np.uint8)).save(tmp_path / f"aachen_000000_gtFine_{kind}.png")
    options = ("--format", "label-map", "--labels", "cityscapes")
    assert "such as *_labelIds.png" in refused("folder-mixed", 3, "inspect", tmp_path, *options)
    (tmp_path / "aachen_000000_gtFine_labelTrainIds.png").unlink()
    masks = ek.read_masks(tmp_path, format="label-map", labels="cityscapes")
    assert masks["aachen_000000_gtFine_labelIds.png", "sidewalk"].decode().tolist() == [[False, True]]
