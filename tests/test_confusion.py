"""Confusion of exclusive classes: the kernel against its oracle, the measures against scikit-learn and by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.kernels import reference
from ensemble_kit.spec.scoring import Convention, Measure

CLASSES = ("sky", "road", "car")
LARYNX = ("void", "vocal folds", "other tissue", "glottal space", "pathology", "surgical tool", "intubation")
NONE, VOID = len(CLASSES), 9
maps = st.tuples(st.integers(1, 7), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.int64, shape, elements=st.integers(0, NONE)),
        hnp.arrays(np.int64, shape, elements=st.sampled_from([0, 1, 2, NONE, VOID])),
    )
)


def masks_of(labels: dict[str, np.ndarray], classes: tuple[str, ...] = CLASSES) -> ek.MaskSet:
    """Value k is the k-th class, VOID void, and any other no class."""
    masks = {(s, c): ek.encode(m == k) for s, m in labels.items() for k, c in enumerate(classes)}
    return ek.MaskSet(masks, void={s: ek.encode(m == VOID) for s, m in labels.items()})


def draw(seed: int, samples: int = 4, classes: int = 3) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Label maps of blocks, so that runs are long, with pixels of no class and in the truth of void."""
    rng = np.random.default_rng(seed)
    sides: tuple[dict[str, np.ndarray], dict[str, np.ndarray]] = ({}, {})
    for k in range(samples):
        truth = np.kron(rng.integers(0, classes, (4, 5)), np.ones((6, 7), np.int64))
        guess = np.where(rng.random(truth.shape) < 0.8, truth, rng.integers(0, classes, truth.shape))
        truth[rng.random(truth.shape) < 0.05] = VOID
        sides[0][f"s{k}"], sides[1][f"s{k}"] = guess, truth
    return sides


@given(maps)
def test_the_kernel_is_the_oracle(given: tuple[np.ndarray, np.ndarray]) -> None:
    guess, truth = given
    found = ek.confusion(masks_of({"a": guess}), masks_of({"a": truth}))
    stacks = (np.stack([m == k for k in range(NONE)]) for m in (guess, truth))
    assert np.array_equal(found.counts, reference.confusion(*stacks, truth == VOID))
    assert found.counts.sum() == (truth != VOID).sum()
    assert found.void.tolist() == [(truth == VOID).sum()]


@given(maps)
def test_transposed_sides_transpose_the_matrix(given: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = (np.where(m == VOID, NONE, m) for m in given)
    one, other = masks_of({"a": a}), masks_of({"a": b})
    assert np.array_equal(ek.confusion(one, other).counts, ek.confusion(other, one).counts.T)


def test_samples_add_up_and_are_joined_by_name() -> None:
    guess, truth = draw(1)
    whole = ek.confusion(masks_of(guess), masks_of(truth))
    assert whole.by_sample.shape == (4, 4, 4) and whole.by_sample.dtype == np.int64
    assert np.array_equal(whole.by_sample.sum(0), whole.counts)
    reversed_order = masks_of(dict(reversed(guess.items())))
    assert np.array_equal(ek.confusion(reversed_order, masks_of(truth)).by_sample, whole.by_sample)
    for k, sample in enumerate(whole.samples):
        alone = ek.confusion(masks_of({sample: guess[sample]}), masks_of({sample: truth[sample]}))
        assert np.array_equal(alone.counts, whole.by_sample[k])
        assert whole.on([sample]).miou == alone.miou
    with pytest.raises(ek.IncompleteError, match="'s9' not among 's0', 's1', 's2' and 1 more"):
        whole.on(["s9"])


@pytest.mark.parametrize("seed", range(5))
def test_measures_are_those_of_scikit_learn(seed: int) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    guess, truth = draw(seed, classes=2 + seed % 2)  # with two, the third class is absent from both sides
    found = ek.confusion(masks_of(guess), masks_of(truth))
    kept = {s: m != VOID for s, m in truth.items()}
    p, t = (np.concatenate([side[s][kept[s]] for s in truth]) for side in (guess, truth))
    assert np.array_equal(found.counts, sklearn.confusion_matrix(t, p, labels=range(NONE + 1)))
    assert found.miou == pytest.approx(sklearn.jaccard_score(t, p, average="macro"), abs=1e-14)
    assert found.fwiou == pytest.approx(sklearn.jaccard_score(t, p, average="weighted"), abs=1e-14)
    assert found.mean_dice == pytest.approx(sklearn.f1_score(t, p, average="macro"), abs=1e-14)
    assert found.accuracy == pytest.approx(sklearn.accuracy_score(t, p), abs=1e-14)
    assert found.mean_accuracy == pytest.approx(sklearn.balanced_accuracy_score(t, p), abs=1e-14)
    precision = sklearn.precision_score(t, p, average=None, labels=range(NONE), zero_division=np.nan)
    assert list(found.precision.values()) == pytest.approx(precision.tolist(), abs=1e-14, nan_ok=True)


def test_real_label_maps_whose_void_is_a_class() -> None:
    """Neighbouring frames as prediction and truth: absent classes are the rule, and "void" is a class like any other."""
    sklearn = pytest.importorskip("sklearn.metrics")
    paths = sorted((Path(__file__).parent / "data" / "larynx" / "masks").glob("*.png"))
    maps = [np.asarray(Image.open(path)) for path in paths]
    samples = [path.name for path in paths[1:]]
    guess, truth = (dict(zip(samples, side, strict=True)) for side in (maps[:-1], maps[1:]))
    found = ek.confusion(*(ek.MaskSet.from_labels(side, LARYNX) for side in (guess, truth)))
    assert not found.void.any() and not found.counts[-1].any()
    p, t = (np.concatenate([m.reshape(-1) for m in side.values()]) for side in (guess, truth))
    assert found.miou == pytest.approx(sklearn.jaccard_score(t, p, average="macro"), abs=1e-14)
    assert found.accuracy == pytest.approx((p == t).mean(), abs=1e-14)
    for sample in samples:
        alone = sklearn.jaccard_score(truth[sample].reshape(-1), guess[sample].reshape(-1), average="macro")
        assert found.on([sample]).miou == pytest.approx(alone, abs=1e-14)


def test_by_hand() -> None:
    guess = masks_of({"x": np.array([[0, 0, 1, NONE]])})
    truth = masks_of({"x": np.array([[0, 1, 1, 1]])})
    found = ek.confusion(guess, truth)
    assert found.counts.tolist() == [[1, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.iou["sky"] == 1 / 2 and found.iou["road"] == 1 / 3 and math.isnan(found.iou["car"])
    assert found.dice["road"] == 1 / 2 and found.recall["road"] == 1 / 3 and found.precision["sky"] == 1 / 2
    assert found.miou == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert found.accuracy == 1 / 2 and found.absent == ("car",)
    assert found.fwiou == pytest.approx((1 / 2 + 3 * (1 / 3)) / 4)
    assert list(found.table().loc["road"]) == [1, 1, 0, 1]
    assert "mIoU 0.416667 (mean over 2 classes that occur)" in str(found)


def test_a_background_is_left_out_of_means_over_classes_only() -> None:
    guess, truth = draw(2)
    whole = ek.confusion(masks_of(guess), masks_of(truth))
    out = ek.confusion(masks_of(guess), masks_of(truth), background="sky")
    assert np.array_equal(out.counts, whole.counts) and out.accuracy == whole.accuracy
    assert out.miou == pytest.approx((whole.iou["road"] + whole.iou["car"]) / 2)
    assert out.mean_accuracy == pytest.approx((whole.recall["road"] + whole.recall["car"]) / 2)
    with pytest.raises(ek.UsageError, match="'fog' is not among the classes: 'sky', 'road', 'car'"):
        ek.confusion(masks_of(guess), masks_of(truth), background="fog")


def test_miou_is_the_pooled_iou_of_classes_that_occur() -> None:
    guess, truth = draw(3, classes=2)
    found = ek.confusion(masks_of(guess), masks_of(truth))
    measure = Measure("pooled", "iou", Convention(empty="skip"))
    assert measure.is_miou and "mIoU" in str(measure)
    assert found.miou == ek.iou(masks_of(guess), masks_of(truth), empty="skip").pooled == found.overlap().score(measure)
    assert measure.name == "mIoU" and Measure("mean", "iou").name == "mean IoU over pairs"
    assert not any(Measure(o, "iou", Convention(0, e)).is_miou for o in ("mean", "pooled") for e in (0, 1))  # type: ignore[arg-type]


def test_overlapping_classes_are_refused_and_the_fix_works() -> None:
    runs = {("x", "sky"): ek.Runs([0], [3], (2, 2)), ("x", "road"): ek.Runs([2], [4], (2, 2))}
    overlapping = ek.MaskSet(runs)
    flat = ek.MaskSet({**runs, ("x", "sky"): ek.Runs([0], [2], (2, 2))})
    wanted = "the prediction of sample 'x': 'sky' and 'road' share 1 pixel"
    with pytest.raises(ek.MismatchError, match=wanted) as caught:
        ek.confusion(overlapping, flat)
    assert caught.value.exit_code == 6
    with pytest.raises(ek.MismatchError, match="the truth of sample 'x'"):
        ek.confusion(flat, overlapping)
    assert ek.iou(overlapping, flat).mean == (2 / 3 + 1) / 2


def test_other_classes_samples_or_sizes_are_refused() -> None:
    guess, truth = draw(4)
    with pytest.raises(ek.IncompleteError, match="the prediction lacks samples"):
        ek.confusion(masks_of({"s0": guess["s0"]}), masks_of(truth))
    with pytest.raises(ek.MismatchError, match="classes only in"):
        ek.confusion(masks_of(guess, ("sky", "road", "bus")), masks_of(truth))


# --- rule 12: void in Dice and IoU ---------------------------------------------------------------------------


@given(maps)
def test_void_counts_neither_as_prediction_nor_as_truth(given: tuple[np.ndarray, np.ndarray]) -> None:
    guess, truth = given
    void = truth == VOID
    a, b = masks_of({"x": guess}), masks_of({"x": truth})
    found = ek.dice(a, b)
    for k in range(NONE):
        p, t = (guess == k) & ~void, (truth == k) & ~void
        assert (found.tp[0, k], found.pred[0, k], found.truth[0, k]) == ((p & t).sum(), p.sum(), t.sum())
    matrix = ek.confusion(a, b)
    assert np.array_equal(matrix.overlap("dice", Convention()).values, found.values)


def test_void_of_the_truth_wins_over_its_masks_and_void_of_the_prediction_is_no_class() -> None:
    whole = ek.Runs([0], [4], (2, 2))
    truth = ek.MaskSet({("x", "sky"): whole}, void={"x": ek.Runs([0], [3], (2, 2))})
    unsure = ek.MaskSet({("x", "sky"): ek.Runs([0], [3], (2, 2))}, void={"x": ek.Runs([3], [4], (2, 2))})
    found = ek.iou(unsure, truth)
    assert (found.tp.item(), found.pred.item(), found.truth.item()) == (0, 0, 1)
    assert ek.confusion(unsure, truth).counts.tolist() == [[0, 1], [0, 0]]
