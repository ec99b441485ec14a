from __future__ import annotations

import csv
import filecmp
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hand_bones import wrist
from hand_bones.classes import CLASSES
from hand_bones.generator import TRUTH, generate, person
from hand_bones.layout import read_annotation, read_layout
from hand_bones.polygons import draw

import ensemble_kit as ek


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def meta(root: Path) -> list[dict[str, str]]:
    with (root / "meta.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_layout_is_the_competition_s(hands):
    images, polygons = sorted(hands.glob("train/DCM/ID*/*.png")), sorted(hands.glob("train/outputs_json/ID*/*.json"))
    assert len(images) == len(polygons) == 24
    assert [(p.parent.name, p.stem) for p in images] == [(p.parent.name, p.stem) for p in polygons]
    assert len({p.name for p in hands.glob("*/DCM/*/*.png")}) == 32  # a submission knows an image by its name
    assert not (hands / "test" / "outputs_json").exists()
    assert len(list((hands / TRUTH).glob("ID*/*.json"))) == 8
    value = json.loads(polygons[0].read_text())
    assert value["filename"] == images[0].name
    assert value["metadata"] == {"height": 128, "width": 128}
    assert {a["label"] for a in value["annotations"]} == set(CLASSES)
    assert cv2.imread(str(images[0]), cv2.IMREAD_UNCHANGED).shape == (128, 128)


def test_both_hands_of_a_person_are_pictured_and_the_thumb_tells_which(hands):
    rows = {row["image_id"]: row for row in meta(hands)}
    records = read_layout(hands, "train")
    assert sorted(rows[r.image_id]["side"] for r in records) == ["left"] * 12 + ["right"] * 12
    assert all(
        len({rows[r.image_id]["side"] for r in records if r.person == p}) == 2 for p in {r.person for r in records}
    )
    for record in records:
        thumb, little = (record.annotation.of(label)[0][:, 0].mean() for label in ("finger-3", "finger-19"))
        assert (thumb > little) == (rows[record.image_id]["side"] == "left")


def test_one_seed_gives_the_same_bytes_whatever_the_number_and_the_processes(tmp_path):
    generate(tmp_path / "two", people=2, size=64, seed=5)
    generate(tmp_path / "three", people=3, size=64, seed=5, jobs=2)
    generate(tmp_path / "other", people=2, size=64, seed=6)
    names = [name for name in files(tmp_path / "two") if name != "meta.csv"]
    assert len(names) == 8
    assert set(names) < set(files(tmp_path / "three"))
    assert filecmp.cmpfiles(tmp_path / "two", tmp_path / "three", names, shallow=False)[0] == names
    assert meta(tmp_path / "two") == meta(tmp_path / "three")[:4]
    assert meta(tmp_path / "two") != meta(tmp_path / "other")


def test_a_hand_is_the_same_at_every_size(tmp_path):
    planes = []
    for size in (96, 384):
        generate(tmp_path / str(size), people=1, size=size, seed=2)
        record = read_layout(tmp_path / str(size), "train")[0]
        planes.append(draw(record.annotation, (96, 96), (size, size)))
    small, large = planes
    assert 2 * (small & large).sum() / (small.sum() + large.sum()) > 0.9


def test_the_statistics_are_the_issue_s(tmp_path):
    generate(tmp_path, people=6, test_people=1, size=512, seed=1)
    records = read_layout(tmp_path, "train") + read_layout(tmp_path, "test", annotations=tmp_path / TRUTH)
    planes = np.stack([draw(r.annotation, (512, 512), (512, 512)) for r in records])
    assert 0.0034 < planes.mean() < 0.0048
    assert 0.003 < (planes.sum(axis=1) > 1).mean() < 0.0055


def test_wrists_are_bent_in_11_percent_of_train_and_58_of_test():
    people = {split: [person(split, k, seed=0) for k in range(200)] for split in ("train", "test")}
    share = {split: np.mean([one.bent for one in group]) for split, group in people.items()}
    assert share == {"train": pytest.approx(0.11), "test": pytest.approx(0.58)}
    hands = [hand for group in people.values() for one in group for hand in one.hands]
    assert {hand.oddity for hand in hands} == {"", "nail art", "ring", "pins"}
    assert 0.05 < np.mean([hand.oddity != "" for hand in hands]) < 0.18


def test_the_polygons_tell_how_far_a_wrist_is_bent(hands):
    rows = {row["image_id"]: row for row in meta(hands)}
    for path in [*hands.glob("train/outputs_json/*/*.json"), *(hands / TRUTH).glob("*/*.json")]:
        row = rows[f"{path.stem}.png"]
        annotation = read_annotation(path)
        assert wrist.angle(annotation) == pytest.approx(float(row["degrees"]), abs=7)
        assert wrist.is_bent(annotation) == (row["bent"] == "1")


def test_bone_is_brighter_than_flesh_and_flesh_than_air(hands):
    for record in read_layout(hands, "train"):
        grey = cv2.imread(str(record.image), cv2.IMREAD_GRAYSCALE).astype(float)
        planes = draw(record.annotation, (128, 128), (128, 128))
        bone = planes.any(axis=0)
        near = cv2.dilate(bone.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool) & ~bone
        assert grey[bone].mean() > 1.15 * grey[near].mean() > 2 * np.median(grey[:, :3])


def test_a_folder_that_holds_data_is_refused(hands):
    with pytest.raises(ek.UsageError, match="holds data"):
        generate(hands, people=1, size=64)


@pytest.mark.parametrize("wrong", [{"people": 0}, {"people": 1, "size": 8}, {"people": 1, "test_people": -1}])
def test_numbers_that_make_no_hands_are_refused(tmp_path, wrong):
    with pytest.raises(ek.UsageError, match="at least 1 person"):
        generate(tmp_path, **wrong)
    assert files(tmp_path) == []


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"jobs": 0}])
def test_a_number_that_cannot_be_is_refused_before_anything_is_written(tmp_path, wrong):
    (name,) = wrong
    with pytest.raises(ek.UsageError, match=name):
        generate(tmp_path / "data", people=1, size=32, **wrong)
    assert not (tmp_path / "data").exists()
