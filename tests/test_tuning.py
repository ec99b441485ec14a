"""The exact search against brute force over every level, for every objective and convention."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import reference as ref
from ensemble_kit.spec.scoring import Convention, Measure, overlap
from ensemble_kit.tuning import statistics
from ensemble_kit.tuning.curve import Curve

Make = Callable[..., ek.LogitStore]
IMAGE = (40, 50)


def case(seed: int, make_store: Make) -> tuple[ek.Ensemble, ek.MaskSet]:
    """An ensemble and truths of every kind: noise, good ones, empty ones, perfect ones."""
    rng = np.random.default_rng(seed)
    samples = [f"s{k}" for k in range(int(rng.integers(1, 5)))]
    shift = rng.choice([0.0, 4.0, 9.0])
    logits = {
        s: (smooth_logits(rng, (2, 12, 15), float(rng.choice([1, 6]))) - shift).astype(np.float16) for s in samples
    }
    ens = ek.Ensemble([make_store(logits, IMAGE, ("x", "y"))], upsample=str(rng.choice(["logits", "scores"])))
    truth = {}
    for sample in samples:
        for c, name in enumerate(("x", "y")):
            if rng.random() < 0.5:
                mask = ek.encode((rng.random(IMAGE) < 0.1) & (rng.random() < 0.7))
            else:
                mask = ens.sample(sample).runs(c, int(rng.integers(20000, 50000)))
            truth[sample, name] = mask
    return ens, ek.MaskSet(truth)


def curves(ens: ek.Ensemble, truth: ek.MaskSet, c: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hits, pixels and truth of every sample at every level, by brute force: int64 (samples, 65536)."""
    rows = []
    for sample in ens.samples:
        z = ens.members[0].read(sample)[c]
        if ens.fusion.upsample == "logits":
            image = ref.image_from_logits([ref.q(z)], [65536], IMAGE, "probability")
        else:
            image = ref.image_from_scores(ref.level(z), IMAGE)
        mask = truth[sample, ens.classes[c]].decode()
        pixels, hits = ref.level_counts(image, mask)
        rows.append((hits, pixels, np.full(65536, mask.sum())))
    return tuple(np.array(r) for r in zip(*rows, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("objective", ["mean", "pooled"])
@pytest.mark.parametrize("empty", [1, 0, "skip"])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_brute_force_agrees(seed: int, objective: Any, empty: Any, eps: float, make_store: Make) -> None:
    ens, truth = case(seed, make_store)
    tuned = ek.tune_thresholds(ens, truth, objective, empty, eps)
    convention = Convention(eps, empty)
    scored = ek.dice(ens.vote(tuned), truth, eps, empty)
    assert np.array_equal(tuned.score, scored.mean if objective == "mean" else scored.pooled, equal_nan=True)
    halves = ek.dice(ens.vote(0.5), truth, eps, empty)
    for c, found in enumerate(tuned.classes):
        hits, pixels, areas = curves(ens, truth, c)
        if objective == "pooled":
            values = overlap(hits.sum(0), pixels.sum(0), areas.sum(0), convention)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Mean of empty slice")
                values = np.nanmean(overlap(hits, pixels, areas, convention), axis=0)
        values = np.nan_to_num(values, nan=1.0)  # nothing to predict, nothing predicted, all skipped: nothing wrong
        top = values.max()
        assert np.nan_to_num(found.score, nan=1.0) == pytest.approx(top, abs=1e-12)
        maxima = values >= top - 1e-13
        best = min(np.flatnonzero(maxima).tolist(), key=lambda level: (abs(2 * level - 65535), level))
        assert found.level == best
        first = best - np.argmin(np.append(maxima[best::-1], False)) + 1
        last = best + np.argmin(np.append(maxima[best:], False)) - 1
        assert found.plateau == (first, last)
        per_class = halves.per_class if objective == "mean" else halves.pooled_per_class
        assert np.array_equal(found.score_at_half, per_class[found.name], equal_nan=True)


@pytest.mark.parametrize("metric", ["iou", "f2", "f0.5"])
@pytest.mark.parametrize("objective", ["mean", "pooled"])
def test_other_metrics(metric: str, objective: Any, make_store: Make) -> None:
    for seed in range(6):
        ens, truth = case(seed, make_store)
        tuned = ek.tune_thresholds(ens, truth, objective, metric=metric)
        for c, found in enumerate(tuned.classes):
            hits, pixels, areas = curves(ens, truth, c)
            counts = (v.sum(0) if objective == "pooled" else v for v in (hits, pixels, areas))
            values = overlap(*counts, Convention(), metric)
            values = values if objective == "pooled" else values.mean(axis=0)
            assert found.score == pytest.approx(values.max(), abs=1e-12)
            assert values[found.level] == pytest.approx(values.max(), abs=1e-12)


def test_pooled_dice_is_the_best_f1_of_the_precision_recall_curve(make_store: Make) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    for seed in range(6):
        ens, truth = case(seed, make_store)
        tuned = ek.tune_thresholds(ens, truth, "pooled")
        for c, name in enumerate(ens.classes):
            images = [ref.image_from_logits([ref.q(ens.members[0].read(s)[c])], [65536], IMAGE, "probability")
                      if ens.fusion.upsample == "logits" else ref.image_from_scores(ref.level(ens.members[0].read(s)[c]), IMAGE)
                      for s in ens.samples]  # fmt: skip
            labels = np.concatenate([truth[s, name].decode().reshape(-1) for s in ens.samples])
            if not labels.any():
                continue
            scores = np.concatenate([p.reshape(-1) for p in images])
            precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
            with np.errstate(invalid="ignore"):
                f1 = np.nan_to_num(2 * precision * recall / (precision + recall))
            assert tuned.per_class[name] == pytest.approx(f1.max(), abs=1e-12)


@pytest.mark.slow
def test_the_certificate_never_cuts_a_maximum(make_store: Make, rng: np.random.Generator) -> None:
    """Narrow bands: whenever both sides are certified, the best level of all levels lies inside the band."""
    certified = 0
    for seed in range(30):
        ens, truth = case(seed, make_store)
        every = [np.arange(len(ens.samples))]
        for empty in (1, 0, "skip"):
            measure = Measure("mean", "dice", Convention(0.0, empty))
            for c in range(2):
                best = Curve(statistics.count(ens, truth, {c: (0, 65536)})[c], measure, every).best()
                low, high = sorted(rng.choice(np.arange(1, 65536), 2, replace=False).tolist())
                band = Curve(statistics.count(ens, truth, {c: (low, high)})[c], measure, every)
                if all(band.certain()):
                    certified += 1
                    assert band.best() == best
    assert certified > 10


def test_any_union_of_parts_has_its_own_optimum(make_store: Make) -> None:
    for seed in range(8):
        ens, truth = case(seed, make_store)
        if len(ens.samples) < 3:
            continue
        table = statistics.count(ens, truth, {0: (0, 65536)})[0]
        for objective in ("mean", "pooled"):
            measure = Measure(objective)  # type: ignore[arg-type]
            parts = [np.array([k]) for k in range(len(ens.samples))]
            union = [0, 2]
            alone = ek.MaskSet({k: v for k, v in truth.items() if k[0] in {ens.samples[i] for i in union}})
            part = ek.Ensemble([make_store({ens.samples[i]: ens.members[0].read(ens.samples[i]) for i in union}, IMAGE,
                                           ("x", "y"))], upsample=ens.fusion.upsample)  # fmt: skip
            small = statistics.count(part, alone, {0: (0, 65536)})[0]
            whole = Curve(small, measure, [np.arange(2)]).best()
            assert Curve(table, measure, parts).best(union) == whole


def test_a_set_survives_its_file(make_store: Make, tmp_path: Path) -> None:
    ens, truth = case(3, make_store)
    tuned = ek.tune_thresholds(ens, truth)
    tuned.save(tmp_path / "set.json")
    first = (tmp_path / "set.json").read_bytes()
    again = ek.ThresholdSet.load(tmp_path / "set.json")
    again.save(tmp_path / "set.json")
    assert (tmp_path / "set.json").read_bytes() == first
    assert again.levels == tuned.levels
    assert again.score == tuned.score
    assert again == tuned
    assert ens.vote(again) == ens.vote(tuned)
    assert tuned.thresholds == {c: level / 65535 for c, level in tuned.levels.items()}


def test_truth_must_fit(make_store: Make, rng: np.random.Generator) -> None:
    store = make_store({s: smooth_logits(rng, (1, 8, 8)) for s in ("a", "b")}, (32, 32), ("x",))
    ens = ek.Ensemble([store])
    empty = ek.Runs.empty((32, 32))
    with pytest.raises(ek.IncompleteError, match="the truth lacks samples that the ensemble has: 1 of 2: 'b'"):
        ek.tune_thresholds(ens, ek.MaskSet({("a", "x"): empty}))
    with pytest.raises(ek.MismatchError, match="'c'"):
        ek.tune_thresholds(ens, ek.MaskSet({(s, "x"): empty for s in ("a", "b", "c")}))
    with pytest.raises(ek.MismatchError, match="'z'"):
        ek.tune_thresholds(ens, ek.MaskSet({(s, "z"): empty for s in ("a", "b")}))
    with pytest.raises(ek.MismatchError, match="32 x 31 in the truth, 32 x 32 in the ensemble"):
        ek.tune_thresholds(ens, ek.MaskSet({(s, "x"): ek.Runs.empty((32, 31)) for s in ("a", "b")}))
    with pytest.raises(ek.UsageError, match="objective"):
        ek.tune_thresholds(ens, ek.MaskSet({(s, "x"): empty for s in ("a", "b")}), objective="max")  # type: ignore[arg-type]
