from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hand_bones.generator import TRUTH
from hand_bones.layout import annotated, read_layout, read_removals, removals_of

import ensemble_kit as ek


@pytest.fixture
def copy(hands, tmp_path) -> Path:
    """Two persons of the set, to be damaged."""
    for folder in ("train/DCM", "train/outputs_json"):
        for person in ("ID001", "ID002"):
            shutil.copytree(hands / folder / person, tmp_path / folder / person)
    return tmp_path


def polygons(root: Path) -> Path:
    return min(root.glob("train/outputs_json/*/*.json"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_records_come_sorted_with_their_polygons(hands):
    records = read_layout(hands, "train")
    assert [r.person for r in records] == sorted(2 * [f"ID{k:03d}" for k in range(1, 13)])
    assert all(r.annotation is not None and r.annotation.size == (128, 128) for r in records)
    assert sum(bool(r.bent) for r in records) == 2
    assert {r.split for r in records} == {"train"}


def test_a_test_split_has_no_polygons_unless_it_is_told_where(hands):
    bare = read_layout(hands, "test")
    assert len(bare) == 8
    assert all(r.annotation is None and r.bent is not None for r in bare)
    drawn = read_layout(hands, "test", annotations=hands / TRUTH)
    assert [r.image_id for r in drawn] == [r.image_id for r in bare]
    assert len(annotated(drawn)) == 8
    with pytest.raises(ek.IncompleteError, match="8 of 8"):
        annotated(bare)


def test_without_meta_the_polygons_tell_which_wrist_is_bent(hands, copy):
    told = {r.image_id: r.bent for r in read_layout(hands, "train")}
    seen = {r.image_id: r.bent for r in read_layout(copy, "train")}
    assert seen == {image_id: told[image_id] for image_id in seen}
    (copy / "meta.csv").write_text("image_id,bent\n" + "".join(f"{i},1\n" for i in seen))
    assert all(r.bent is True for r in read_layout(copy, "train"))


def test_an_image_without_polygons_is_named(copy):
    path = polygons(copy)
    path.unlink()
    with pytest.raises(ek.IncompleteError, match=f"1 images without polygons.*{path.stem}.png"):
        read_layout(copy, "train")


def test_polygons_without_an_image_are_named(copy):
    image = sorted(copy.glob("train/DCM/*/*.png"))[1]
    image.unlink()
    with pytest.raises(ek.IncompleteError, match=f"1 polygons without an image.*{image.stem}.json"):
        read_layout(copy, "train")


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(ek.IncompleteError, match="no images"):
        read_layout(tmp_path, "train")


def test_a_label_that_is_no_class_is_named(copy):
    edit(polygons(copy), annotations=[{"label": "radius", "points": [[0, 0], [1, 0], [1, 1]]}])
    with pytest.raises(ek.MismatchError, match="radius"):
        read_layout(copy, "train")


def test_polygons_of_another_image_are_named(copy):
    edit(polygons(copy), filename="image1.png")
    with pytest.raises(ek.MismatchError, match=r"image1\.png"):
        read_layout(copy, "train")


@pytest.mark.parametrize(
    "annotations",
    [
        None,
        [{"points": [[0, 0], [1, 0], [1, 1]]}],
        [{"label": "Ulna", "points": [[0, 0], [1, 0]]}],
        [{"label": "Ulna", "points": [[0, 0], [1, 0], [1]]}],
        [{"label": "Ulna", "points": [0, 0, 1, 0, 1, 1]}],
        [{"label": "Ulna", "points": [[0, 0], [1, 0], [1, float("nan")]]}],
        [{"label": ["Ulna"], "points": [[0, 0], [1, 0], [1, 1]]}],
    ],
)
def test_polygons_that_are_none_are_named(copy, annotations):
    edit(polygons(copy), annotations=annotations)
    with pytest.raises(ek.DamagedError, match=polygons(copy).name):
        read_layout(copy, "train")


def test_a_file_that_is_no_json_is_named(copy):
    polygons(copy).write_bytes(b"\xff{")
    with pytest.raises(ek.DamagedError, match=polygons(copy).name):
        read_layout(copy, "train")


def test_one_name_in_two_folders_is_refused(copy):
    image = min(copy.glob("train/DCM/ID001/*.png"))
    shutil.copy(image, copy / "train/DCM/ID002" / image.name)
    with pytest.raises(ek.DamagedError, match="ID002"):
        read_layout(copy, "train")


def test_meta_without_its_columns_is_refused(copy):
    (copy / "meta.csv").write_text("image_id,bent\na.png,yes\n")
    with pytest.raises(ek.DamagedError, match="yes"):
        read_layout(copy, "train")


def test_the_removal_list_removes_and_keeps_its_reasons(hands, tmp_path):
    records = read_layout(hands, "train")
    path = tmp_path / "removals.txt"
    path.write_text(
        f"# seen by eye\n{records[3].image_id} label on the wrong bone\n\n{records[5].image_id}  cut off # ?\n"
    )
    removals = read_removals(path)
    assert list(removals.values()) == ["label on the wrong bone", "cut off"]
    kept = read_layout(hands, "train", removals=removals)
    assert [r.image_id for r in kept] == [r.image_id for k, r in enumerate(records) if k not in {3, 5}]
    for strange in ("other.png", records[3].image_id.removesuffix(".png")):
        with pytest.raises(ek.MismatchError, match=f"there: 1 of 1: {strange}"):
            read_layout(hands, "train", removals={strange: "old"})


@pytest.mark.parametrize("damage", ["label", "json", "alone", "stray", "doubled"])
def test_a_removed_image_is_not_read(copy, damage):
    path = polygons(copy)
    image = copy / "train/DCM" / path.parent.name / f"{path.stem}.png"
    if damage == "label":
        path.write_text(path.read_text().replace("finger-1", "thumb"))
    elif damage == "json":
        path.write_bytes(b"{\xff")
    elif damage == "doubled":
        shutil.copy(image, copy / "train/DCM/ID002" / image.name)
    else:
        (path if damage == "alone" else image).unlink()
    with pytest.raises(ek.EnskError):
        read_layout(copy, "train")
    (copy / "removals.txt").write_text(f"{image.name} {damage}\n")
    records = read_layout(copy, "train", removals=removals_of(copy))
    assert len(records) == 3
    assert image.name not in {record.image_id for record in records}


def test_a_removal_list_that_cannot_be_read_is_named(tmp_path):
    assert removals_of(tmp_path) == {}
    with pytest.raises(ek.IncompleteError, match=r"nope\.txt"):
        removals_of(tmp_path, tmp_path / "nope.txt")
    (tmp_path / "removals.txt").write_bytes("a.png schräg\n".encode("latin-1"))
    with pytest.raises(ek.DamagedError, match=r"removals\.txt.*UTF-8"):
        removals_of(tmp_path)
    (tmp_path / "removals.txt").write_text("a.png cut off\n", encoding="utf-8-sig")
    assert removals_of(tmp_path) == {"a.png": "cut off"}


def test_a_table_that_is_not_utf_8_is_refused(copy):
    (copy / "meta.csv").write_bytes(b"image_id,bent\n\xff,1\n")
    with pytest.raises(ek.DamagedError, match=r"meta\.csv.*UTF-8"):
        read_layout(copy, "train")


@pytest.mark.parametrize("text", ["a.png\n", "a.png one\na.png two\n"])
def test_a_removal_list_that_says_too_little_is_refused(tmp_path, text):
    path = tmp_path / "removals.txt"
    path.write_text(text)
    with pytest.raises(ek.DamagedError, match=r"a\.png"):
        read_removals(path)
