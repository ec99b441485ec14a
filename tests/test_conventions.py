"""Named conventions, each against the package it is named after, or against its formula where that does not install."""

from __future__ import annotations

import json
import math
import subprocess
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
import warm
from ensemble_kit.metrics import confusion_file
from ensemble_kit.metrics.conventions import CONVENTIONS
from ensemble_kit.recipes.score import Scores, score
from test_confusion import VOID, masks_of

CLASSES = ("background", "road", "car", "bus")
SEEDS = range(6)


def draw(seed: int, void: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Label maps (N, H, W); one class is rare, another may be in the prediction only, or nowhere."""
    rng = np.random.default_rng(seed)
    used = 4 - seed % 2
    truth = np.kron(rng.integers(0, used, (5, 3, 4)), np.ones((4, 5), np.int64))
    truth[truth == 2] = np.where(rng.random((truth == 2).sum()) < 0.2, 2, 0)
    truth[rng.random(len(truth)) < 0.4] = 0  # images of one class
    guess = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, used, truth.shape))
    if void:
        truth[rng.random(truth.shape) < 0.1] = VOID
    return guess, truth


def ours(seed: int, name: str, void: bool = True, **options: Any) -> Scores:
    guess, truth = draw(seed, void)
    both = [masks_of({f"s{k}": m for k, m in enumerate(maps)}, CLASSES) for maps in (guess, truth)]
    return score(*both, convention=name, **options)


@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("seed", SEEDS)
def test_torchmetrics(seed: int, metric: str) -> None:
    torch, classification = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.classification")
    kind = classification.MulticlassJaccardIndex if metric == "iou" else classification.MulticlassF1Score
    theirs = kind(num_classes=4, average="macro", ignore_index=VOID)
    for guess, truth in zip(*draw(seed), strict=True):  # an image a batch
        theirs.update(torch.from_numpy(guess)[None], torch.from_numpy(truth)[None])
    assert ours(seed, "torchmetrics", metric=metric).score == pytest.approx(float(theirs.compute()), abs=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_torchmetrics_other_mean_iou_is_the_mean_over_pairs(seed: int) -> None:
    torch, segmentation = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.segmentation")
    theirs = segmentation.MeanIoU(num_classes=4, input_format="index")
    guess, truth = draw(seed, void=False)
    theirs.update(torch.from_numpy(guess), torch.from_numpy(truth))
    both = [masks_of({f"s{k}": m for k, m in enumerate(maps)}, CLASSES) for maps in (guess, truth)]
    assert ek.iou(*both, empty="skip").mean == pytest.approx(float(theirs.compute()), abs=1e-6)


@pytest.mark.parametrize("include", [True, False], ids=["background", "foreground"])
@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("seed", SEEDS)
def test_monai(seed: int, metric: str, include: bool) -> None:
    torch, monai = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    guess, truth = draw(seed)
    kept = truth != VOID
    kind = monai.DiceMetric if metric == "dice" else monai.MeanIoU
    theirs = kind(include_background=include)
    stacks = [np.stack([(m == k) & kept for k in range(4)], axis=1).astype(np.float32) for m in (guess, truth)]
    theirs(*map(torch.from_numpy, stacks))
    options = {} if include else {"background": "background"}
    assert ours(seed, "monai", metric=metric, **options).score == pytest.approx(float(theirs.aggregate()), abs=1e-6)


@pytest.mark.parametrize("metric", ["iou", "dice"])
@pytest.mark.parametrize("seed", SEEDS)
def test_mmseg(seed: int, metric: str) -> None:
    """IoUMetric.intersect_and_union and total_area_to_metrics, in NumPy."""
    total = np.zeros((3, 4))
    for guess, truth in zip(*draw(seed), strict=True):
        kept = truth != VOID
        p, t = guess[kept], truth[kept]
        for k, labels in enumerate((p[p == t], p, t)):
            total[k] += np.histogram(labels, bins=4, range=(0, 3))[0]
    intersect, pred, label = total
    with np.errstate(invalid="ignore", divide="ignore"):
        values = intersect / (pred + label - intersect) if metric == "iou" else 2 * intersect / (pred + label)
        recall = intersect / label
    found = ours(seed, "mmseg", metric=metric)
    assert found.score == pytest.approx(np.nanmean(values), abs=1e-14)
    assert found.confusion is not None
    assert found.confusion.mean_accuracy == pytest.approx(np.nanmean(recall), abs=1e-14)
    assert found.confusion.accuracy == pytest.approx(intersect.sum() / label.sum(), abs=1e-14)


@pytest.mark.parametrize("metric", ["Dice", "IoU"])
@pytest.mark.parametrize("seed", SEEDS)
def test_nnunet(seed: int, metric: str) -> None:
    """compute_metrics of each case, and the foreground mean of compute_metrics_on_folder."""
    cases = []
    for guess, truth in zip(*draw(seed), strict=True):
        use = truth != VOID
        row = []
        for k in (1, 2, 3):
            tp = ((truth == k) & (guess == k) & use).sum()
            fp, fn = ((truth != k) & (guess == k) & use).sum(), ((truth == k) & (guess != k) & use).sum()
            with np.errstate(invalid="ignore"):
                row.append(2 * tp / (2 * tp + fp + fn) if metric == "Dice" else tp / (tp + fp + fn))
        cases.append(row)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        means = np.nanmean(cases, axis=0)
    found = ours(seed, "nnunet", metric=metric.lower())
    assert found.score == pytest.approx(np.nanmean(means), abs=1e-14)  # nnU-Net's is NaN where a class is nowhere
    assert found.measure.background == "background"
    with_background = ours(seed, "nnunet", metric=metric.lower(), include_background=True)
    assert with_background.measure.background is None and with_background.score != found.score


@pytest.mark.parametrize("seed", SEEDS)
def test_handbone_and_kaggle(seed: int) -> None:
    """Mean over (image, class): with eps 1e-4 on both sides of the fraction, and with 1 where both are empty."""
    guess, truth = draw(seed, void=False)
    on = [np.stack([m == k for k in range(4)], axis=1).reshape(5, 4, -1) for m in (guess, truth)]
    both, areas = (on[0] & on[1]).sum(-1), on[0].sum(-1) + on[1].sum(-1)
    assert ours(seed, "handbone", False).score == pytest.approx(((2 * both + 1e-4) / (areas + 1e-4)).mean(), abs=1e-14)
    wanted = np.where(areas == 0, 1, 2 * both / np.maximum(areas, 1)).mean()
    assert ours(seed, "kaggle", False).score == pytest.approx(wanted, abs=1e-14)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_spells_itself_out(name: str) -> None:
    found = ours(0, name, void=False)
    assert found.convention is not None
    told = found.convention.told(found.measure)
    assert CONVENTIONS[name].source in told and ("mean over" in told)
    assert f"{found.score:.6f} {told}" in str(found.reports()[0])
    assert ("mIoU" in found.told()[0]) == (name in {"mmseg", "torchmetrics"})


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ek.UsageError, match="which knows no void: the truth has"):
        ours(0, "kaggle")
    with pytest.raises(ek.UsageError, match="pass 'dice'"):
        ours(0, "handbone", False, metric="iou")
    with pytest.raises(ek.UsageError, match="'mmseg', 'torchmetrics'"):
        ours(0, "pascal")


def test_void_absent_classes_and_shifted_labels_are_told() -> None:
    truth = {"x": np.array([[1, 1, 2, VOID]])}
    both = masks_of({"x": np.array([[1, 1, 2, 2]])}, CLASSES), masks_of(truth, CLASSES)
    found = score(*both)
    assert "Void: 25.00% of the truth's pixels, in 1 of 1 samples, do not count." in found.told()
    assert "In neither truth nor prediction: 'background', 'bus'." in found.told()
    assert found.warnings() == [] and found.to_dict()["void"] == {"pixels": 1, "share": 0.25}
    shifted = score(masks_of({"x": np.array([[2, 2, 3, 3]])}, CLASSES), masks_of(truth, CLASSES))
    assert [w.doubt for w in shifted.warnings()] == [
        "labels shifted by one? 0.0% of the pixels as the classes are named, 100.0% as their neighbours in the list"
    ]
    other = score(masks_of({"x": np.array([[3, 3, 0, 0]])}, CLASSES), masks_of(truth, CLASSES))
    assert [w.doubt for w in other.warnings()] == [
        "no pixel of any class is right: do the classes mean the same on both sides?"
    ]


@pytest.mark.parametrize("suffix", confusion_file.SUFFIXES)
def test_the_matrix_is_written(suffix: str, tmp_path: Path) -> None:
    matrix = ours(1, "mmseg").confusion
    assert matrix is not None
    path = tmp_path / f"m{suffix}"
    confusion_file.write(matrix, path)
    if suffix == ".npz":
        read = np.load(path, allow_pickle=False)
        assert np.array_equal(read["counts"], matrix.counts) and np.array_equal(read["by_sample"], matrix.by_sample)
        assert tuple(read["classes"].tolist()) == CLASSES and read["samples"].tolist() == list(matrix.samples)
    elif suffix == ".json":
        read = json.loads(path.read_text())
        assert read["counts"] == matrix.counts.tolist() and tuple(read["classes"]) == CLASSES
    else:
        head, *rows = [line.split(",") for line in path.read_text().splitlines()]
        assert head == ["truth", *CLASSES, "no class"] and [r[0] for r in rows] == head[1:]
        assert [[int(v) for v in r[1:]] for r in rows] == matrix.counts.tolist()
    with pytest.raises(ek.UsageError, match=r"'m.txt' ends in '.txt'"):
        confusion_file.check_suffix(Path("m.txt"))


def ensk(*words: object) -> subprocess.CompletedProcess[str]:
    return warm.ensk(*words)


@pytest.mark.slow
def test_the_command_line_scores(tmp_path: Path) -> None:
    guess, truth = draw(2, void=False)
    for name, maps in (("guess", guess), ("truth", truth)):
        masks_of({f"s{k}": m for k, m in enumerate(maps)}, CLASSES).write(tmp_path / f"{name}.npz")
    both = [tmp_path / "guess.npz", "--val", tmp_path / "truth.npz"]
    ran = ensk("score", *both, "--convention", "nnunet", "--confusion", tmp_path / "m.csv", "--json")
    assert ran.returncode == 0, ran.stderr
    told, wanted = json.loads(ran.stdout), ours(2, "nnunet", void=False)
    assert told["named"]["score"] == wanted.score and told["background"] == "background"
    assert wanted.confusion is not None and told["exclusive"]["miou"] == wanted.confusion.miou
    assert (tmp_path / "m.csv").read_text().startswith("truth,background,road,car,bus,no class\n")
    shown = ensk("score", *both, "--convention", "nnunet").stdout
    assert "as nnU-Net's foreground_mean" in shown and "mIoU" in shown and "all without background" in shown
    refused = ensk("score", *both, "--confusion", tmp_path / "m.csv")
    assert refused.returncode == 2 and "m.csv" in refused.stderr
    overlapping = ek.MaskSet({(f"s{k}", c): ek.Runs([0], [9], truth[k].shape) for k in range(5) for c in CLASSES})
    overlapping.write(tmp_path / "guess.npz")
    assert json.loads(ensk("score", *both, "--json").stdout)["exclusive"] is None
    refused = ensk("score", *both, "--confusion", tmp_path / "n.csv")
    assert refused.returncode == 6 and "'background' and 'road' share 9 pixels" in refused.stderr
    for words in (["--eps", "1"], ["--empty", "0"], ["--include-background", "--background", "car"]):
        assert ensk("score", *both, "--convention", "mmseg", *words).returncode == 2
    assert math.isfinite(json.loads(ensk("score", *both, "--empty", "skip-truth", "--json").stdout)["mean"])
