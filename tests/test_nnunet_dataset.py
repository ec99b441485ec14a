"""Classes of nnU-Net's dataset.json: labels and regions, and files that are not as nnU-Net 2 writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.errors import DamagedError, IncompleteError
from ensemble_kit.formats.nnunet_dataset import Dataset

BRATS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}


def of(labels: Any, **more: Any) -> Dataset:
    return Dataset.of({"labels": labels, "file_ending": ".nii.gz", **more}, "dataset.json")


def test_labels_are_softmax_heads_in_the_order_of_their_values() -> None:
    found = of({"tumour": 2, "background": 0, "organ": 1})
    assert found.classes == ("background", "organ", "tumour") and found.activation == "softmax"
    assert found.heads["tumour"] == (2,) and found.painting == "" and found.ignore is None


def test_regions_are_sigmoid_heads_in_the_order_of_the_file() -> None:
    found = of(BRATS, regions_class_order=[1, 2, 3])
    assert found.classes == ("whole", "core", "enhancing") and found.activation == "sigmoid"
    assert found.heads == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    assert found.painting == "whole=1,core=2,enhancing=3" and found.ignore == 4


def test_lists_of_one_value_are_labels() -> None:
    assert of({"background": 0, "organ": [1]}).activation == "softmax"


WRONG: dict[str, tuple[Any, dict[str, Any]]] = {
    "values by name, as version 1 has them": ({"0": "background", "1": "organ"}, {}),
    "no background": ({"organ": 1, "tumour": 2}, {}),
    "background elsewhere": ({"background": 1, "organ": 0}, {}),
    "a gap": ({"background": 0, "organ": 2}, {}),
    "one value twice": ({"background": 0, "organ": 1, "liver": 1}, {}),
    "regions without an order": (BRATS, {}),
    "an order of other length": (BRATS, {"regions_class_order": [1, 2]}),
    "no labels": ({}, {}),
    "a boolean": ({"background": 0, "organ": True}, {}),
}


@pytest.mark.parametrize(("labels", "more"), WRONG.values(), ids=WRONG)
def test_other_labels_are_refused(labels: Any, more: dict[str, Any]) -> None:
    with pytest.raises(DamagedError) as found:
        of(labels, **more)
    assert found.value.code == "nnunet-dataset"


def test_a_folder_without_one_is_named(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match=r"dataset\.json") as found:
        Dataset.load(tmp_path)
    assert found.value.code == "nnunet-folder"
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "organ": 1}}))
    assert Dataset.load(tmp_path).ending == ".nii.gz"
