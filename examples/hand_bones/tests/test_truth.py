from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hand_bones.classes import CLASSES
from hand_bones.generator import TRUTH
from hand_bones.images import read_grey
from hand_bones.layout import Annotation, read_layout
from hand_bones.polygons import draw
from hand_bones.truth import truth, truth_masks

import ensemble_kit as ek


def test_truth_is_what_the_kit_reads_from_the_same_json(hands):
    ours = truth_masks(read_layout(hands, "train"))
    theirs = ek.read_masks(hands / "train" / "outputs_json", classes=list(CLASSES))
    assert set(ours.samples) == set(theirs.samples)
    assert ours.classes == theirs.classes
    assert all(ours[key] == theirs[key] for key in ours)


def test_points_are_scaled_as_pixel_centres_are():
    square = np.array([[8, 8], [15, 8], [15, 15], [8, 15]], float)
    plane = draw(Annotation((("Ulna", square),)), (8, 8), (32, 32))[CLASSES.index("Ulna")]
    assert np.argwhere(plane).tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    wide = draw(Annotation((("Ulna", square),)), (32, 16), (32, 32))[CLASSES.index("Ulna")]
    assert np.argwhere(wide).min(axis=0).tolist() == [8, 4]
    assert np.argwhere(wide).max(axis=0).tolist() == [15, 7]


def test_polygons_of_one_class_are_united_and_classes_may_overlap():
    square = np.array([[1, 1], [4, 1], [4, 4], [1, 4]], float)
    planes = draw(Annotation((("Ulna", square), ("Ulna", square + 2), ("Radius", square))), (8, 8), (8, 8))
    assert planes[CLASSES.index("Ulna")].sum() == 16 + 16 - 4
    assert (planes.sum(axis=0) > 1).sum() == 16
    assert set(np.unique(planes)) == {0, 1}


def test_polygons_of_another_image_size_are_refused(hands):
    record = read_layout(hands, "train")[0]
    with pytest.raises(ek.MismatchError, match="128 x 128"):
        truth(replace(record, annotation=replace(record.annotation, size=(64, 64))))


def test_a_file_that_is_no_image_is_named(hands, tmp_path):
    image = tmp_path / "a.png"
    image.write_text("no image")
    with pytest.raises(ek.DamagedError, match=r"a\.png.*removal list"):
        truth(replace(read_layout(hands, "train")[0], image=image))
    with pytest.raises(ek.DamagedError, match=r"a\.png"):
        read_grey(image)


def test_an_image_that_nobody_drew_on_has_no_truth(hands):
    with pytest.raises(ek.IncompleteError, match="nobody drew"):
        truth(read_layout(hands, "test")[0])


def test_the_scripts_write_splits_and_truth_that_the_kit_scores(hands, tmp_path):
    folder = Path(__file__).parents[1]

    def call(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    shown = call(folder / "make_splits.py", hands, "--folds", 3, "--groups", "groups.csv")
    assert len(shown.splitlines()) == 4
    call(folder / "write_truth.py", hands, "train", "fold.csv", "--fold", 1)
    call(folder / "write_truth.py", hands, "test", "test.csv")
    masks = ek.read_masks(tmp_path / "fold.csv", image_size=(128, 128))
    assert len(masks.samples) == 8
    assert (
        ek.dice(masks, truth_masks([r for r in read_layout(hands, "train") if r.image_id in masks.samples])).mean == 1
    )
    test = read_layout(hands, "test", annotations=hands / TRUTH)
    assert ek.dice(ek.read_masks(tmp_path / "test.csv", image_size=(128, 128)), truth_masks(test)).mean == 1


def test_a_script_s_error_is_one_line(hands, tmp_path):
    script = Path(__file__).parents[1] / "make_splits.py"
    done = subprocess.run(
        [sys.executable, script, hands, "--folds", "99"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error[folds-invalid] ")
    assert len(done.stderr.splitlines()) == 1


def test_splits_and_truth_leave_out_the_removal_list_of_the_data(hands, tmp_path):
    folder = Path(__file__).parents[1]
    data = shutil.copytree(hands, tmp_path / "data")
    removed = min(data.glob("train/outputs_json/*/*.json"))
    removed.write_text("damaged")
    (data / "removals.txt").write_text(f"{removed.stem}.png damaged\n")
    splits, fold = tmp_path / "new/splits.csv", tmp_path / "fold.csv"
    held_out = 0
    for words in (
        ["make_splits.py", data, "--folds", 2, "--out", splits, "--groups", tmp_path / "other/groups.csv"],
        *(["write_truth.py", data, "train", fold, "--splits", splits, "--fold", k] for k in range(2)),
    ):
        script, *rest = map(str, words)
        done = subprocess.run([sys.executable, folder / script, *rest], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        if script == "write_truth.py":
            masks = ek.read_masks(fold, image_size=(128, 128))
            assert f"{removed.stem}.png" not in masks.samples
            held_out += len(masks.samples)
    assert held_out == len((tmp_path / "other/groups.csv").read_text().splitlines()) == 23
