from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hand_bones.classes import CLASSES
from hand_bones.layout import Annotation, read_layout
from hand_bones.survey import survey
from hand_bones.truth import truth

import ensemble_kit as ek


@pytest.fixture(scope="module")
def records(hands):
    return read_layout(hands, "train")


def test_figures_are_those_of_the_planes(records):
    found = survey(records[:3])
    planes = np.stack([truth(record) for record in records[:3]]).astype(int)
    assert np.allclose(found.area, planes.mean(axis=(2, 3)))
    flat = planes.reshape(3, 29, -1)
    common = np.einsum("nap,nbp->ab", flat, flat) / (3 * flat.shape[-1])
    np.fill_diagonal(common, 0)
    assert np.allclose(found.overlap, common)
    assert np.allclose(found.several, (planes.sum(axis=1) > 1).mean(axis=(1, 2)))
    assert found.image_ids == tuple(record.image_id for record in records[:3])


def test_the_table_has_a_row_a_class_and_names_what_it_overlaps(records):
    table = survey(records).table().set_index("class")
    assert tuple(table.index) == CLASSES
    assert table.loc["Pisiform", "overlaps"] == "Triquetrum"
    assert table.loc["Pisiform", "overlap_percent"] > 50
    assert (table["images"] == len(records)).all()
    assert (table["smallest"] <= table["area_percent"]).all()
    assert (table["area_percent"] <= table["largest"]).all()


def test_sound_data_has_no_suspects_and_wrong_labels_are_found(records):
    assert survey(records).suspects() == []
    drawn = records[7].annotation
    names = {"finger-1": "finger-3", "finger-3": "finger-1"}  # two labels exchanged, one never drawn
    kept = tuple((names.get(label, label), points) for label, points in drawn.polygons if label != "Lunate")
    wrong = [*records[:7], replace(records[7], annotation=Annotation(kept, drawn.size)), *records[8:]]
    suspects = survey(wrong).suspects()
    assert {image_id for image_id, _ in suspects} == {records[7].image_id}
    assert {reason.split()[0] for _, reason in suspects} == {"finger-1", "finger-3", "Lunate"}
    assert suspects[0] == (records[7].image_id, "Lunate is not drawn")


def test_images_that_nobody_drew_on_are_refused(hands):
    with pytest.raises(ek.IncompleteError, match="nobody drew"):
        survey(read_layout(hands, "test"))


def test_the_script_writes_table_suspects_and_picture(hands, tmp_path):
    script = Path(__file__).parents[1] / "eda.py"
    removals = tmp_path / "removals.txt"
    removals.write_text(f"{read_layout(hands, 'train')[0].image_id} for the test\n")
    done = subprocess.run(
        [sys.executable, script, hands, "--out", tmp_path / "eda", "--removals", removals],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "23 images, 0 of their classes not drawn" in done.stdout
    assert len(pd.read_csv(tmp_path / "eda" / "classes.csv")) == 29
    assert (tmp_path / "eda" / "suspects.txt").read_text() == ""
    assert (tmp_path / "eda" / "eda.png").read_bytes().startswith(b"\x89PNG")
