"""Reliability curves, calibration errors and Brier scores, against scikit-learn's on every pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.tuning.calibration import full_statistics
from ensemble_kit.tuning.counting import statistics_for
from ensemble_kit.tuning.reliability import ClassReliability

Make = Callable[..., ek.LogitStore]
CLASSES, SIZE = ("bone", "joint"), (12, 12)


def by_hand(p: np.ndarray, y: np.ndarray, bins: int) -> float:
    """ECE by a loop over the bins (Guo et al. 2017, equation 3)."""
    total = 0.0
    for k in range(bins):
        own = (p > k / bins) & (p <= (k + 1) / bins) if k else p <= 1 / bins
        total += abs(p[own].sum() - y[own].sum())
    return total / p.size


@pytest.mark.parametrize("options", [{}, {"mean": "logit"}, {"upsample": "scores"}], ids=["mean", "logits", "grid"])
@pytest.mark.parametrize("void", [False, True], ids=["all pixels", "void pixels"])
def test_every_pixel_counts_as_scikit_learn_counts_it(
    make_store: Make, rng: np.random.Generator, options: dict[str, Any], void: bool
) -> None:
    ids, bins = ["a", "b"], 15
    stores = [make_store({s: smooth_logits(rng, (2, 8, 8), 12.0) for s in ids}, SIZE, CLASSES) for _ in "ab"]
    ens = ek.Ensemble(stores, **options)
    masks = {(s, c): ek.encode(rng.random(SIZE) < 0.4) for s in ids for c in CLASSES}
    left_out = {"b": ek.encode(rng.random(SIZE) < 0.3)} if void else None
    truth = ek.MaskSet(masks, void=left_out)
    found = ek.measure_calibration(ens, truth)
    if not void:
        again = ek.measure_calibration(ens, truth, statistics=full_statistics(ens, truth))
        assert again.to_dict() == found.to_dict()
    for c, name in enumerate(CLASSES):
        own, scores, true = found.classes[name], [], []
        for s in ids:
            levels = level_map(ens, s, c)
            kept = ~left_out["b"].decode() if left_out and s == "b" else np.ones(SIZE, bool)
            scores.append(ens.fusion.mean.probabilities(levels[kept]))
            true.append(truth[s, name].decode()[kept])
        p, y = np.concatenate(scores), np.concatenate(true)
        share, score = calibration_curve(y, p, n_bins=bins)
        has = own.curve.pixels > 0
        assert own.curve.true[has] == pytest.approx(share) and own.curve.score[has] == pytest.approx(score)
        assert own.brier == pytest.approx(brier_score_loss(y, p), rel=1e-12)
        assert own.ece == pytest.approx(by_hand(p, y, bins), rel=1e-12)
        assert (own.pixels, own.true) == (p.size, y.mean()) and own.score == pytest.approx(p.mean())


def level_map(ens: ek.Ensemble, sample: str, c: int) -> np.ndarray:
    """The level of every pixel, by halving: the highest level whose mask has it."""
    scores, low, high = ens.sample(sample), np.zeros(SIZE, np.int64), np.full(SIZE, 65536)
    for _ in range(16):
        middle = (low + high) // 2
        on = np.zeros(SIZE, bool)
        for level in np.unique(middle):
            own = middle == level
            on[own] = scores.runs(c, int(level)).decode()[own]
        low, high = np.where(on, middle, low), np.where(on, high, middle)
    return low


def test_bins_of_equally_many_pixels() -> None:
    chances = np.arange(65536) / 65535
    hits, pixels = np.zeros(65536, np.int64), np.zeros(65536, np.int64)
    at = np.linspace(1000, 60000, 30).astype(int)  # two levels a bin
    pixels[at], hits[at] = 4, np.arange(30) % 5
    own = ClassReliability.of(hits, pixels, chances, 15)
    pairs = np.abs((hits[at] - chances[at] * 4).reshape(15, 2).sum(1))
    assert own.ace == pytest.approx(pairs.sum() / 120)


def test_bins_without_pixels_are_told_as_such() -> None:
    hits, pixels = np.zeros(65536, np.int64), np.zeros(65536, np.int64)
    pixels[[0, 65535]], hits[65535] = (90, 10), 10
    own = ClassReliability.of(hits, pixels, np.arange(65536) / 65535, 4)
    assert own.text() == "▁··█" and (own.ece, own.ace, own.brier) == (0, 0, 0)
    assert own.to_dict()["bins"] == {"pixels": [90, 0, 0, 10], "score": [0, None, None, 1], "true": [0, None, None, 1]}


def test_statistics_of_a_band_are_refused(make_store: Make, rng: np.random.Generator) -> None:
    ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (1, 8, 8))}, (24, 24), ("bone",))])
    truth = ek.MaskSet({("a", "bone"): ek.encode(rng.random((24, 24)) < 0.4)})
    narrow = statistics_for(ens, truth, ek.tune_thresholds(ens, truth).measure)
    with pytest.raises(ek.UsageError, match="they tell levels"):
        ek.measure_calibration(ens, truth, statistics=narrow)
    with pytest.raises(ek.UsageError, match="bins"):
        ek.measure_calibration(ens, truth, bins=0)


def test_a_panel_for_each_class(make_store: Make, rng: np.random.Generator) -> None:
    ens = ek.Ensemble([make_store({"a": smooth_logits(rng, (2, 8, 8))}, (24, 24), CLASSES)])
    truth = ek.MaskSet({("a", c): ek.encode(rng.random((24, 24)) < 0.4) for c in CLASSES})
    found = ek.measure_calibration(ens, truth)
    figure = found.plot()
    assert [ax.get_title() for ax in figure.axes] == list(CLASSES)
    line = figure.axes[1].lines[1]
    own = found.classes["joint"].curve
    assert np.array_equal(line.get_ydata(), own.true[own.pixels > 0])
    assert f"{found.classes['joint'].brier:.4f}" in str(found.report())
