from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hand_bones import pictures
from hand_bones.classes import CLASSES
from hand_bones.generator import TRUTH
from hand_bones.images import read_grey
from hand_bones.layout import read_layout
from hand_bones.truth import truth, truth_masks

import ensemble_kit as ek

GREY = np.full((40, 60), 100, np.uint8)


def masks(**boxes: tuple[int, int, int, int]) -> ek.MaskSet:
    """Masks of sample "a" on 40 × 60: {class: (y0, y1, x0, x1)}."""
    planes = {name: np.zeros((40, 60), bool) for name in boxes}
    for name, (y0, y1, x0, x1) in boxes.items():
        planes[name][y0:y1, x0:x1] = True
    return ek.MaskSet({("a", name): ek.encode(plane) for name, plane in planes.items()})


def test_an_overlay_colours_every_class_and_nothing_else():
    shown = pictures.overlay(GREY, masks(one=(5, 15, 5, 25), two=(20, 30, 30, 50)), "a")
    coloured = (shown != 100).any(axis=2)
    assert coloured.sum() == 400
    assert coloured[5:15, 5:25].all()
    assert not np.array_equal(shown[10, 10], shown[25, 40])


def test_colours_of_neighbouring_classes_differ():
    colours = np.array(pictures.colours(29), int)
    assert len(set(map(tuple, colours))) == 29
    assert np.abs(np.diff(colours, axis=0)).sum(axis=1).min() > 150


def test_an_error_map_shows_what_is_missed_and_what_is_invented():
    shown = pictures.errors(GREY, masks(one=(10, 20, 10, 20)), masks(one=(10, 20, 15, 25)), "a")
    strip = shown.shape[0] - 40
    assert shown.shape == (40 + strip, 180, 3)
    part = shown[strip:, 120:].astype(int)
    red, blue = part[..., 0] > part[..., 2] + 50, part[..., 2] > part[..., 0] + 50
    assert np.argwhere(red).min(axis=0).tolist() == [10, 10]
    assert np.argwhere(red).max(axis=0).tolist() == [19, 14]
    assert np.argwhere(blue).min(axis=0).tolist() == [10, 20]
    assert (red.sum(), blue.sum()) == (50, 50)
    assert (part[5, 5] == 100).all()


def test_disagreement_is_brightest_where_members_are_even():
    members = {
        "a": masks(one=(0, 10, 0, 40)),
        "b": masks(one=(0, 10, 0, 40)),
        "c": masks(one=(0, 10, 0, 20)),
        "d": masks(one=(0, 10, 0, 30)),
    }
    shown = pictures.disagreement(GREY, members, "a")[-40:].astype(int).sum(axis=2)
    assert shown[5, 35] > shown[5, 25] != shown[5, 10] == shown[30, 50]


def test_equal_members_do_not_disagree():
    one = masks(one=(0, 10, 0, 40))
    shown = pictures.disagreement(GREY, {"a": one, "b": one}, "a")[-40:]
    assert len(np.unique(shown)) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda one: pictures.overlay(GREY[:30], one, "a"),
        lambda one: pictures.overlay(GREY, one, "b"),
        lambda one: pictures.errors(GREY, one, masks(other=(0, 1, 0, 1)), "a"),
        lambda one: pictures.disagreement(GREY, {"a": one}, "a"),
        lambda one: pictures.disagreement(GREY, {"a": one, "b": masks(other=(0, 1, 0, 1))}, "a"),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(ek.MismatchError):
        call(masks(one=(0, 10, 0, 40)))


def test_stores_and_files_are_members_alike(hands, tmp_path):
    records = read_layout(hands, "test", annotations=hands / TRUTH)
    sizes = {record.image_id: (128, 128) for record in records}
    wanted = truth_masks(records[:3])
    with ek.LogitWriter(tmp_path / "m.zarr", CLASSES, wanted.samples, grid=(128, 128)) as out:
        for record in records[:3]:
            out.write(record.image_id, truth(record).astype(np.float32) * 8 - 4, image_size=(128, 128))
    wanted.write(tmp_path / "m.csv", format="handbone")  # rows of three of the images only
    for path in (tmp_path / "m.zarr", tmp_path / "m.csv"):
        got = pictures.load_masks(path, sizes)
        assert all(got[key] == wanted[key] for key in wanted)


def test_the_script_draws_each_kind(hands, tmp_path):
    script = Path(__file__).parents[1] / "draw_pictures.py"
    records = read_layout(hands, "test", annotations=hands / TRUTH)
    truth_masks(records).write(tmp_path / "one.csv", format="handbone")

    def call(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, script, words[0], hands / "test" / "DCM", *words[1:], "--out", tmp_path / "out"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True)

    sample = records[2].image_id
    one = tmp_path / "one.csv"
    for words, width in (
        (("overlay", one), 128),
        (("errors", one, "--truth", hands / TRUTH), 384),
        (("disagreement", one, tmp_path / "two.csv"), 128),
    ):
        truth_masks(records).write(tmp_path / "two.csv", format="handbone")
        done = call(*words, "--sample", sample)
        assert done.returncode == 0, done.stderr
        picture = cv2.imread(done.stdout.strip())
        assert picture.shape[1] == width
    refused = call("errors", one)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error[pictures-arguments]")
    assert call("overlay", one, "--sample", "none.png").returncode == 4
    refused = call("overlay", one, "--width", "0")
    assert refused.returncode == 2
    assert "--width 0" in refused.stderr


def test_a_folder_without_images_is_named(tmp_path):
    script = Path(__file__).parents[1] / "draw_pictures.py"
    command = [sys.executable, script, "overlay", tmp_path, tmp_path / "one.csv"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 4
    assert f"{tmp_path} holds no *.png" in refused.stderr


def test_a_picture_is_no_wider_than_asked(hands, tmp_path):
    record = read_layout(hands, "train")[0]
    picture = pictures.overlay(read_grey(record.image), truth_masks([record]), record.image_id)
    pictures.save(picture, tmp_path / "small.png", width=50)
    assert cv2.imread(str(tmp_path / "small.png")).shape == (50, 50, 3)
