"""nnU-Net's summary.json against counts of bitmaps, as nnU-Net counts them; its own code is asked in examples/volumes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from ensemble_kit.cli.app import app
from ensemble_kit.errors import UsageError

LABELS = {"labels": {"background": 0, "organ": 1, "tumour": 2, "rare": 3, "ignore": 9}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": [1, 2]}


def folder(path: Path, maps: dict[str, np.ndarray]) -> Path:
    path.mkdir()
    for name, labels in maps.items():
        cv2.imwrite(str(path / name), labels)
    return path


def metrics(ref: np.ndarray, pred: np.ndarray, values: tuple[int, ...], ignore: int | None) -> dict[str, float]:
    """Count as `compute_metrics` of nnU-Net does."""
    use, r, p = ref != ignore, np.isin(ref, values), np.isin(pred, values)
    tp, fp, fn, tn = (int((a & b & use).sum()) for a, b in ((r, p), (~r, p), (r, ~p), (~r, ~p)))
    dice, iou = (2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn)) if tp + fp + fn else (np.nan, np.nan)
    return {"Dice": dice, "IoU": iou, "FP": fp, "TP": tp, "FN": fn, "TN": tn, "n_pred": fp + tp, "n_ref": fn + tp}


CASES = {
    "labels, one void": (LABELS, 9, {"1": (1,), "2": (2,), "3": (3,)}),
    "regions": (REGIONS, None, {"(1, 2)": (1, 2), "2": (2,)}),
}


@pytest.mark.parametrize(("about", "ignore", "keys"), CASES.values(), ids=CASES)
def test_every_field_is_nnunets(tmp_path: Path, about: dict, ignore: int | None, keys: dict) -> None:
    rng = np.random.default_rng(3)
    high = 3
    refs = {f"{k}.png": rng.integers(0, high, (20, 30), dtype=np.uint8) for k in range(3)}
    preds = {
        name: np.where(rng.random((20, 30)) < 0.7, ref, rng.integers(0, high, (20, 30))) for name, ref in refs.items()
    }
    if ignore is not None:
        refs["1.png"][:3] = ignore
    table = tmp_path / "dataset.json"
    table.write_text(json.dumps(about))
    paths = folder(tmp_path / "pred", {n: p.astype(np.uint8) for n, p in preds.items()}), folder(tmp_path / "ref", refs)
    args = ["score", str(paths[0]), "--val", str(paths[1]), "--labels", str(table), "--format", "nnunet"]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "pred" / "summary.json").read_text())
    assert list(found) == ["foreground_mean", "mean", "metric_per_case"]
    each = {name: {k: metrics(refs[name], preds[name], v, ignore) for k, v in keys.items()} for name in refs}
    for case, (name, wanted) in zip(found["metric_per_case"], each.items(), strict=True):
        assert case["prediction_file"] == str(paths[0] / name) and case["reference_file"] == str(paths[1] / name)
        assert_same(case["metrics"], wanted)
    fields = each["0.png"][next(iter(keys))]
    with np.errstate(all="ignore"), pytest.warns(RuntimeWarning) if ignore is not None else np.errstate():
        means = {k: {f: np.nanmean([of[k][f] for of in each.values()]) for f in fields} for k in keys}
    assert_same(found["mean"], means)
    assert_same({"": found["foreground_mean"]}, {"": {f: np.mean([m[f] for m in means.values()]) for f in fields}})


def test_a_part_has_no_summary(tmp_path: Path) -> None:
    args = ["score", str(tmp_path), "--val", str(tmp_path), "--format", "nnunet", "--part", "1/2", "--out", "a.json"]
    done = CliRunner().invoke(app, args)
    assert isinstance(done.exception, UsageError)
    assert "--format nnunet with --part 1/2" in done.exception.item


def assert_same(found: dict, wanted: dict) -> None:
    assert found.keys() == wanted.keys()
    for key, values in wanted.items():
        assert found[key].keys() == values.keys()
        for field, value in values.items():
            assert np.array_equal(found[key][field], value, equal_nan=True), (key, field)
