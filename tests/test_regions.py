"""Label maps whose values are read as nnU-Net's regions, which overlap."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ensemble_kit.errors import MismatchError
from ensemble_kit.formats.label_tables import load_table
from ensemble_kit.formats.reading import read_masks

BRATS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4},
    "regions_class_order": [1, 2, 3],
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "dataset.json").write_text(json.dumps(BRATS))
    return tmp_path / "dataset.json"


def drawn(folder: Path, labels: np.ndarray) -> Path:
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), labels)
    return folder


def test_a_pixel_belongs_to_every_region_of_its_value(tmp_path: Path, table: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (30, 40), dtype=np.uint8)
    folder = drawn(tmp_path / "masks", labels)
    masks = read_masks(folder, labels=table)
    assert masks.classes == ("whole", "core", "enhancing") and not masks.exclusive
    for name, values in {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}.items():
        assert np.array_equal(masks["a.png", name].decode(), np.isin(labels, values))
    assert np.array_equal(masks.void("a.png").decode(), labels == 4)
    assert masks.rule is not None and "'whole' 1 + 2 + 3, 'core' 2 + 3, 'enhancing' 3; void 4, 255" in masks.rule


def test_classes_may_come_in_another_order(tmp_path: Path, table: Path) -> None:
    labels = np.array([[0, 1, 2, 3]], np.uint8)
    folder = drawn(tmp_path / "masks", labels)
    masks = read_masks(folder, labels=table, classes=["core", "enhancing", "whole"])
    assert masks["a.png", "core"].decode().tolist() == [[False, False, True, True]]
    assert masks["a.png", "whole"].decode().tolist() == [[False, True, True, True]]


def test_a_value_of_no_region_is_refused(tmp_path: Path, table: Path) -> None:
    folder = drawn(tmp_path / "masks", np.array([[0, 7]], np.uint8))
    with pytest.raises(MismatchError, match="7"):
        read_masks(folder, labels=table)


def test_a_value_may_be_void_in_place_of_its_regions(tmp_path: Path, table: Path) -> None:
    folder = drawn(tmp_path / "masks", np.array([[0, 1, 2, 4]], np.uint8))
    masks = read_masks(folder, labels=table, void=(2, 4))
    assert masks["a.png", "whole"].decode().tolist() == [[False, True, False, False]]
    assert masks.void("a.png").decode().tolist() == [[False, False, True, True]]


def test_painted_regions_are_read_back_by_the_table_and_not_by_the_index(tmp_path: Path, table: Path) -> None:
    """The folder's own index says that the value 3 is 'enhancing', and not that it is 'whole' and 'core' too."""
    labels = np.random.default_rng(1).integers(0, 4, (20, 30), dtype=np.uint8)
    masks = read_masks(drawn(tmp_path / "masks", labels), labels=table)
    masks.write(tmp_path / "answer", format="label-map", paint={"whole": 1, "core": 2, "enhancing": 3})
    assert (tmp_path / "answer" / "index.json").is_file()
    again = read_masks(tmp_path / "answer", labels=table)
    assert all(again[key] == masks[key] for key in masks)


def test_labels_of_nnunet_stay_a_table_of_values(tmp_path: Path) -> None:
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "organ": 1, "ignore": 2}, "regions_class_order": [1]}))
    found = load_table(path)
    assert found.values == {0: "background", 1: "organ"} and found.void == {2} and not found.regions
