"""summary.json of `ensk score --format nnunet` is that of nnU-Net."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_dump import ensk


@pytest.mark.parametrize("name", ["Dataset001_Toy/3d_fullres", "Dataset002_ToyRegions/3d_fullres"])
def test_every_figure_is_nnunets(name: str, toy: Path, predicted: Callable, tmp_path: Path) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2

    folder, truth = predicted(name, (0, 1)), toy / "raw" / name.split("/", maxsplit=1)[0] / "labelsTs"
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.json"
    about = str(folder / "dataset.json"), str(folder / "plans.json")
    compute_metrics_on_folder2(str(truth), str(folder), *about, str(theirs), num_processes=1)
    answers = tmp_path / "answers"
    answers.mkdir()
    for file in folder.glob("*.nii.gz"):
        (answers / file.name).symlink_to(file)
    done = ensk("score", answers, "--val", truth, "--labels", about[0], "--format", "nnunet", "--out", ours)
    assert done.returncode == 0, done.stderr
    a, b = (json.loads(path.read_text()) for path in (ours, theirs))
    assert a.keys() == b.keys()
    for key in ("mean", "foreground_mean"):
        assert_same(a[key], b[key])
    for case, other in zip(a["metric_per_case"], b["metric_per_case"], strict=True):
        assert Path(case["reference_file"]) == Path(other["reference_file"])
        assert_same(case["metrics"], other["metrics"])


def assert_same(a: object, b: object) -> None:
    if isinstance(a, dict) and isinstance(b, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert np.array_equal(a, b, equal_nan=True)
