"""How thresholds are chosen: bagged, shrunk, own or shared; words and older spellings of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ensemble_kit as ek
from conftest import smooth_logits
from ensemble_kit.kernels import ladders, reference_ladders
from ensemble_kit.recipes.together import choice_of
from ensemble_kit.spec.mean import Mean
from ensemble_kit.spec.scoring import Convention, Measure
from ensemble_kit.tuning.bagging import Bag, best_levels, mean_level
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.curve import Curve, best_case, or_perfect

Make = Callable[..., ek.LogitStore]


def table_of(rng: np.random.Generator, n: int, low: int = 3000, high: int = 60000) -> ClassStatistics:
    """Counts of `n` samples at a few levels each; every third sample lacks the class."""
    parts, ends, above = [], [0], []
    for s in range(n):
        size = int(rng.integers(0, 9))
        levels = np.sort(rng.choice(np.arange(low, high), size, replace=False)).astype(np.uint16)
        steps = rng.integers(1, 50, size + 1)
        tp = steps * (s % 3 > 0) * rng.integers(0, 2, size + 1)
        pred, hits = steps[::-1].cumsum()[::-1], tp[::-1].cumsum()[::-1]
        parts.append((levels, pred[:-1], hits[:-1]))
        above.append((pred[-1], hits[-1]))
        ends.append(ends[-1] + size)
    levels, pred, tp = (np.concatenate(v) for v in zip(*parts, strict=True))
    over, over_tp = np.array(above).T
    first = np.array([int(p[2][0]) if p[2].size else int(a[1]) for p, a in zip(parts, above, strict=True)])
    truth = (first + 5) * (np.arange(n) % 3 > 0)
    counts = pred.astype(np.uint32), tp.astype(np.uint32)
    return ClassStatistics(low, high, np.array(ends), levels, *counts, over.copy(), over_tp.copy(), truth)


@given(st.integers(0, 10**6))
def test_counts_on_a_ladder_are_those_at_each_level(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = table_of(rng, 6)
    ladder = np.unique(rng.integers(t.low, t.high + 1, 20))
    tp, pred = (np.empty((6, ladder.size), np.int64) for _ in range(2))
    ladders.counts_on_ladder(np.arange(6), ladder, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp, tp, pred)
    for j, level in enumerate(ladder.tolist()):
        np.testing.assert_array_equal((tp[:, j], pred[:, j]), t.at(level))


@given(st.integers(0, 10**6))
def test_counts_of_each_sample_at_a_level_of_its_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    t = table_of(rng, 6)
    samples, levels = rng.permutation(6)[:4], rng.integers(t.low, t.high + 1, (3, 4))
    for held in (t, t.spilled()):
        tp, pred = held.at_each(samples, levels)
        held.release()
        for row, k in np.ndindex(*levels.shape):
            own = [v[samples[k]] for v in t.at(int(levels[row, k]))]
            assert own == [tp[row, k], pred[row, k]]


@given(
    st.integers(0, 10**6),
    st.sampled_from(["mean", "pooled"]),
    st.sampled_from([0, 1, "skip"]),
    st.sampled_from([0.0, 1e-4]),
)
def test_a_band_is_certain_where_the_best_level_beats_all_outside(
    seed: int, objective: Literal["mean", "pooled"], empty: Literal[0, 1, "skip"], eps: float
) -> None:
    """The best level itself is rarely looked for; the answer is what it would be."""
    rng = np.random.default_rng(seed)
    t, measure = table_of(rng, 6), Measure(objective, "dice", Convention(eps, empty))
    curve = Curve(t, measure, np.array_split(rng.permutation(6), 3))
    for which in ((0, 1, 2), (0, 2), (1,)):
        own = curve.samples(which)
        truth, hits, seen = t.truth[own], t.above_tp[own], t.at(t.low)[1][own]
        if objective == "pooled":
            truth, hits, seen = (v.sum(keepdims=True) for v in (truth, hits, seen))
        best = or_perfect(curve.best(which).score)
        below = best_case(truth, np.maximum(seen, truth), truth, measure) < best
        above = not t.above[own].any() or best_case(hits, hits, truth, measure) < best
        assert Curve(replace(t), measure, curve.folds).certain(which) == (below, above)


@given(st.integers(0, 10**6), st.booleans(), st.sampled_from([0.0, 1.0]))
def test_the_best_of_draws_is_the_oracles(seed: int, wide: bool, eps: float) -> None:
    rng = np.random.default_rng(seed)
    draws, top = rng.multinomial(5, np.full(5, 0.2), size=7), rng.random((5, 11)).round(1)
    foot = rng.integers(0, 3, (5, 11 if wide else 1)).astype(np.float64)
    order, out = rng.permutation(11), np.empty(7, np.int64)
    tops, feet = np.full((7, 11), eps), np.full((7, foot.shape[1]), eps)
    for some in (slice(0, 2), slice(2, 5)):
        ladders.add_to_draws(draws.astype(np.uint8), some.start, top[some], foot[some], tops, feet)
    ladders.best_of_draws(tops, feet, order, out)
    assert out.tolist() == reference_ladders.best_of_draws(draws, top, foot, eps, order.tolist())


@pytest.mark.parametrize("objective", ["mean", "pooled"])
@pytest.mark.parametrize("empty", [1, "skip"])
def test_bagged_levels_are_those_of_drawn_samples(objective, empty) -> None:
    """Against the measure itself, on samples that are repeated as they were drawn."""
    rng = np.random.default_rng(7)
    measure = Measure(objective, "iou", Convention(0.5, empty))
    t = table_of(rng, 12)
    curve = Curve(t, measure, [np.arange(12)])
    names = [f"g{k // 2}" for k in range(12)]
    use = np.arange(2, 12)
    bag = Bag.of(names, use, 3)
    (found,) = best_levels(curve, [bag], Mean())
    drawn = np.random.default_rng(3).integers(0, 5, size=(200, 5))
    wanted = []
    for row in drawn:
        picked = np.concatenate([np.flatnonzero(np.array(names) == f"g{g + 1}") for g in row])
        if not t.truth[picked].any():
            continue
        scores = {}
        for level in set(found.tolist()):
            tp, pred = t.at(level)
            scores[level] = measure.of_class(tp[picked], pred[picked], t.truth[picked])
        wanted.append((scores, max(scores.values())))
    assert len(wanted) == found.size
    assert all(
        scores[level] == pytest.approx(top, abs=1e-12) for level, (scores, top) in zip(found, wanted, strict=True)
    )
    assert mean_level(np.array([1, 2])) == 2
    assert mean_level(np.array([1, 1, 2])) == 1


def problem(make_store: Make, rng: np.random.Generator, n: int = 12) -> tuple[ek.Ensemble, ek.MaskSet]:
    best = {"low": 15000, "high": 50000}
    ens = ek.Ensemble([make_store({f"s{k}": smooth_logits(rng, (2, 12, 12)) for k in range(n)}, (48, 48), tuple(best))])
    truth = {}
    for sample in ens.samples:
        for c, (name, level) in enumerate(best.items()):
            truth[sample, name] = ens.sample(sample).runs(c, level) ^ ek.encode(rng.random((48, 48)) < 0.05)
    return ens, ek.MaskSet(truth)


@pytest.mark.slow
def test_the_default_with_folds_is_bagged_and_without_is_the_plain_optimum(make_store, rng) -> None:
    ens, truth = problem(make_store, rng)
    usual, own = ek.tune_thresholds(ens, truth, folds=3), ek.tune_thresholds(ens, truth)
    assert (usual.choose, own.choose) == ("bagged", "own")
    assert usual.to_dict() == ek.tune_thresholds(ens, truth, folds=3, choose="bagged").to_dict()
    assert own.score >= usual.score == ek.dice(ens.vote(usual), truth).mean
    assert own.levels == ek.tune_thresholds(ens, truth, folds=3, shrink=False).levels
    assert all(c.keeps for c in usual.validation.crossed.classes.values())
    assert any("(bagged)" in line for line in usual.report().lines)
    plain = ek.tune_thresholds(ens, truth, choose="bagged")  # without folds: the same levels, nothing judged
    assert (plain.levels, plain.validation.crossed, plain.choose) == (usual.levels, None, "bagged")


@pytest.mark.slow
def test_bagged_folds_are_what_bagging_the_others_gives(make_store, rng) -> None:
    from ensemble_kit.tuning.folds import make_folds

    ens, truth = problem(make_store, rng)
    crossed = ek.tune_thresholds(ens, truth, folds=3, seed=2).validation.crossed
    for k, fold in enumerate(make_folds(ens.samples, 3, None, 2)):
        held = {ens.samples[i] for i in fold}
        rest = ens.on([s for s in ens.samples if s not in held])
        found = ek.tune_thresholds(rest, truth.arranged(rest.samples, rest.classes), choose="bagged", seed=2)
        assert found.levels == {name: c.levels[k] for name, c in crossed.classes.items()}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((None, None, False), None),
        ((None, False, False), "own"),
        ((None, True, False), "shrunk"),
        ((None, None, True), "shared"),
        ((None, False, True), "shared"),
        (("bagged", None, False), "bagged"),
        (("own", False, False), "own"),
    ],
    ids=str,
)
def test_older_spellings_mean_a_choice(given, wanted) -> None:
    assert choice_of(*given) == wanted


def test_two_choices_and_unknown_ones_are_refused(make_store, rng) -> None:
    with pytest.raises(ek.UsageError, match="--choose bagged with an option that means shared"):
        choice_of("bagged", shared=True)
    with pytest.raises(ek.UsageError, match="--choose bagged with an option that means own"):
        choice_of("bagged", shrink=False)
    with pytest.raises(ek.UsageError, match="'best'"):
        choice_of("best")
    ens, truth = problem(make_store, rng, 3)
    with pytest.raises(ek.UsageError, match="--choose bagged with factors of argmax"):
        ek.tune_thresholds(ens, truth, decide="argmax", choose="bagged")


@pytest.mark.slow
def test_bagged_thresholds_that_gain_nothing_out_of_fold_are_half(make_store, rng) -> None:
    """A truth that is the mask at 0.5, with noise that differs from sample to sample: whatever is chosen is chance."""
    names = ("a", "b", "c")
    logits = {f"s{k}": smooth_logits(rng, (3, 12, 12)) for k in range(9)}
    ens = ek.Ensemble([make_store(logits, (48, 48), names)])
    truth = {}
    for k, sample in enumerate(ens.samples):
        for c, name in enumerate(names):
            truth[sample, name] = ens.sample(sample).runs(c, 32768 + 12000 * (-1) ** k)
    found = ek.tune_thresholds(ens, ek.MaskSet(truth), folds=3)
    crossed = found.validation.crossed
    assert found.choose == "bagged" and found.is_plain
    assert set(found.levels.values()) == {32768}
    assert not any(c.keeps for c in crossed.classes.values())
    assert found.score == ek.dice(ens.vote(0.5), ek.MaskSet(truth)).mean
    assert any("gain nothing above noise out of fold, so all are 0.5" in line for line in found.report().lines)
    alone = ek.tune_thresholds(ens, ek.MaskSet(truth), folds=3, choose="own").validation.crossed
    assert crossed.scores["tuned"] >= alone.scores["tuned"]
