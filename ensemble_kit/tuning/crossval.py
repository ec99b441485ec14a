"""Cross-validation: thresholds judged on samples that did not choose them, and which gains are above noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import ClassFolds, CrossValidation, Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.tuning.curve import Curve
    from ensemble_kit.tuning.statistics import ClassStatistics, Statistics

Counts = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""Truth pixels and pixels, (classes, samples) each."""
Pair = tuple[Counts, Counts, "NDArray[np.int64]"]
"""Counts of one outcome, of another, and pixels of the truth."""

_RESAMPLES = 2000
_DRAWN = 1 << 22  # numbers that are drawn at a time: 32 MB, and as many as weights
_DECISIONS = 400  # resamples behind one keep-or-share decision
_NOISE = 0.16  # a gain stands above noise where this quantile of its bootstrap is above 0: one standard error


@dataclass(frozen=True)
class _Outcome:
    """Counts of every class and sample under one way of choosing levels: int64 (classes, samples)."""

    tp: NDArray[np.int64]
    pred: NDArray[np.int64]

    @classmethod
    def blank(cls, shape: tuple[int, int]) -> _Outcome:
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def counts(self, pick: slice | NDArray[np.bool_] = slice(None)) -> Counts:
        """Return truth pixels and pixels of some classes."""
        return self.tp[pick], self.pred[pick]

    def put(self, c: int, samples: NDArray[np.int64], table: ClassStatistics, level: int) -> None:
        """Fill in what class `c` does on some samples at `level`."""
        tp, pred = table.at(min(level, table.high))
        self.tp[c, samples], self.pred[c, samples] = tp[samples], pred[samples]


class Resampler:
    """Draws groups with replacement and scores outcomes on what was drawn.

    Parameters
    ----------
    names : the group of each sample.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._index = np.unique(np.array(names, object).astype(str), return_inverse=True)[1]
        self._seed = seed

    def gains(
        self,
        measure: Measure,
        pairs: Sequence[Pair],
        samples: NDArray[np.int64] | None = None,
        resamples: int = _RESAMPLES,
    ) -> NDArray[np.float64]:
        """Return the gain of one outcome over another in each resample; all pairs see the same ones.

        Counts are (classes, samples); `samples` restricts them to some. Resamples are drawn a block at a time, so that
        memory does not grow with samples times resamples, and once for all pairs: drawing is most of the work.

        Returns
        -------
        float64 (pairs, resamples), NaN where nothing counts.
        """
        use = np.arange(self._index.size) if samples is None else samples
        index = np.unique(self._index[use], return_inverse=True)[1]
        groups = int(index.max()) + 1
        scored = [
            tuple(_scored(measure, tp[:, use], pred[:, use], truth[:, use]) for tp, pred in (one, other))
            for one, other, truth in pairs
        ]
        rng, out = np.random.default_rng(self._seed), np.empty((len(pairs), resamples))
        rows = max(1, _DRAWN // index.size)
        for at in range(0, resamples, rows):
            drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, resamples - at))
            weights = drawn[:, index].astype(np.float64)
            for k, (gained, base) in enumerate(scored):
                out[k, at : at + rows] = gained(weights) - base(weights)
        return out

    def intervals(self, measure: Measure, pairs: Sequence[Pair]) -> list[Interval]:
        """Return the gain of one outcome over another, with its interval, for each pair."""
        found = []
        for (one, other, truth), gains in zip(pairs, self.gains(measure, pairs), strict=True):
            if not len(truth):
                found.append(Interval(0.0, 0.0, 0.0))
                continue
            value = measure.of_all(*one, truth) - measure.of_all(*other, truth)
            known = gains[~np.isnan(gains)]
            low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
            found.append(Interval(value, float(low), float(high)))
        return found

    def interval(self, measure: Measure, one: Counts, other: Counts, truth: NDArray[np.int64]) -> Interval:
        """Return the gain of one outcome over another, with its interval; 0 where no class counts."""
        return self.intervals(measure, [(one, other, truth)])[0]

    def are_above_noise(self, measure: Measure, pairs: Sequence[Pair], samples: NDArray[np.int64]) -> list[bool]:
        """Tell for each pair whether the gain of one outcome over another exceeds its standard error."""
        rows = (row[~np.isnan(row)] for row in self.gains(measure, pairs, samples, _DECISIONS))
        return [bool(gains.size) and float(np.quantile(gains, _NOISE)) > 0 for gains in rows]

    def above_noise(
        self, measure: Measure, one: Counts, other: Counts, truth: NDArray[np.int64], samples: NDArray[np.int64]
    ) -> bool:
        """Tell whether the gain of one outcome over another exceeds its standard error; not where no class counts."""
        return self.are_above_noise(measure, [(one, other, truth)], samples)[0]


def _scored(measure: Measure, tp: Any, pred: Any, truth: Any) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Prepare counts (classes, samples), to be scored under rows of weights (resamples, samples)."""
    if measure.objective == "pooled":

        def pooled(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            with np.errstate(invalid="ignore"):
                per_class = measure.values(weights @ tp.T, weights @ pred.T, weights @ truth.T)
                counted = ~np.isnan(per_class)
                return np.asarray(np.where(counted, per_class, 0).sum(1) / counted.sum(1))

        return pooled
    with np.errstate(invalid="ignore"):
        values = measure.values(tp, pred, truth)
    counted = ~np.isnan(values)
    top, foot = np.where(counted, values, 0).sum(0), counted.sum(0).astype(np.float64)
    alike = bool((foot == foot[0]).all())  # mostly; sums of whole numbers are exact in any order

    def mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.asarray((weights @ top) / (weights.sum(1) * foot[0] if alike else weights @ foot))

    return mean


def shared_level(curves: Sequence[Curve], which: Sequence[int], half: int = (LEVELS - 1) // 2) -> int:
    """Find the one level for all classes that maximises the objective over all; the nearest to 0.5 among equals.

    Only the band that all classes were counted in is searched. A class without positives has no say; where no class
    has any, it is `half`, the level of 0.5.
    """
    low, high = max(c.table.low for c in curves), min(c.table.high for c in curves)
    curves = [c for c in curves if c.has_positives(which)]
    if not curves:
        return half
    cut = [slice(low - c.table.low, high - c.table.low) for c in curves]
    if curves[0].measure.objective == "pooled":
        score = sum(c.scores(which)[own] for c, own in zip(curves, cut, strict=True))
    else:
        sums = [c.sums(which) for c in curves]
        top, foot = (sum(s[k][own] for s, own in zip(sums, cut, strict=True)) for k in (0, 1))
        score = np.where(np.asarray(foot) == 0, 1.0, np.asarray(top) / np.maximum(foot, 1))
    best = np.flatnonzero(np.asarray(score) >= np.max(score) - 1e-12) + low
    return int(min(best.tolist(), key=lambda level: (abs(2 * level - (LEVELS - 1)), level)))


def own_level(curve: Curve, which: Sequence[int], common: int) -> int:
    """Find the level of one class on some folds: its best; `common` where no sample of them has the class."""
    return curve.best(which).level if curve.has_positives(which) else common


def cross_validate(
    statistics: Statistics,
    measure: Measure,
    folds: Sequence[NDArray[np.int64]],
    names: Sequence[str],
    half: int,
    shrink: bool,
    seed: int,
    curves: Sequence[Curve],
    shared_only: bool = False,
) -> CrossValidation:
    """Choose thresholds on all folds but one and judge them on that one, for every fold.

    With `shrink`, what gains nothing above noise on samples that did not choose it is not used: a class takes the
    common level instead of its own, and the common level is 0.5 where a shared threshold gains nothing over 0.5.
    Inside each fold these decisions are made on the other folds alone (nested). A class that no sample has takes the
    common level, and counts in no gain: only its false pixels would speak.

    Parameters
    ----------
    folds : sample numbers of each; the folds of `curves`, of which there is one per class.
    names : the group of each sample.
    half : the level of 0.5.
    shared_only : whether the tuned setting is one threshold for all classes, whatever it gains.
    """
    alone = _Decision([False] * len(curves), True) if shared_only else None
    truth = np.stack([t.truth for t in statistics.tables])
    judge = Resampler(names, seed)
    outcomes = {name: _Outcome.blank(truth.shape) for name in ("tuned", "own", "shared", "half")}
    levels: list[list[int]] = [[] for _ in curves]
    for k, fold in enumerate(folds):
        rest = [j for j in range(len(folds)) if j != k]
        decision = alone or _decide(
            _out_of_fold(curves, folds, rest, half, truth.shape), measure, truth, judge, rest, folds
        )
        shared = shared_level(curves, rest, half)
        common = shared if decision.shares else half
        for c, one in enumerate(curves):
            own = own_level(one, rest, common)
            levels[c].append(own)
            tuned = own if decision.keeps[c] or not (shrink or shared_only) else common
            for name, level in {"tuned": tuned, "own": own, "shared": shared, "half": half}.items():
                outcomes[name].put(c, fold, one.table, level)
    every = list(range(len(folds)))
    decision = alone or _decide(outcomes, measure, truth, judge, every, folds)
    seen = truth.sum(axis=1) > 0
    keeps = [(kept or not (shrink or shared_only)) and bool(seen[c]) for c, kept in enumerate(decision.keeps)]
    final = _Outcome.blank(truth.shape)
    for c, kept in enumerate(keeps):
        judged = outcomes["own" if kept else "shared" if decision.shares else "half"]
        final.tp[c], final.pred[c] = judged.tp[c], judged.pred[c]
    other, half_counts = outcomes["shared" if decision.shares else "half"], outcomes["half"].counts(seen)
    picks = [slice(c, c + 1) for c in range(len(truth))]
    pairs = [(outcomes["own"].counts(p), other.counts(p), truth[p]) for p in picks]
    overall = [(one.counts(seen), half_counts, truth[seen]) for one in (outcomes["tuned"], final)]
    *gains, gain, as_decided = judge.intervals(measure, [*pairs, *overall])
    tuned_tp, tuned_pred = outcomes["tuned"].counts()
    classes = {
        name: ClassFolds(tuple(levels[c]), gains[c], keeps[c], measure.of_class(tuned_tp[c], tuned_pred[c], truth[c]))
        for c, name in enumerate(statistics.classes)
    }
    scores = {name: measure.of_all(s.tp, s.pred, truth) for name, s in outcomes.items()}
    common = shared_level(curves, every, half) if decision.shares else half
    return CrossValidation(len(folds), len(set(names)), shrink, scores, gain, common, classes, as_decided)


@dataclass(frozen=True)
class _Decision:
    """What gains above noise: each class's own threshold over the common one, the shared threshold over 0.5."""

    keeps: list[bool]
    shares: bool


def _decide(
    outcomes: Mapping[str, _Outcome],
    measure: Measure,
    truth: NDArray[np.int64],
    judge: Resampler,
    rest: Sequence[int],
    folds: Sequence[NDArray[np.int64]],
) -> _Decision:
    """Decide from out-of-fold counts on the folds of `rest`."""
    seen = np.concatenate([folds[j] for j in rest])
    own, shared, half = (outcomes[name] for name in ("own", "shared", "half"))
    has = truth[:, seen].sum(axis=1) > 0
    picks = [slice(c, c + 1) for c in range(len(truth))]
    over_shared, over_half = ([(own.counts(p), o.counts(p), truth[p]) for p in picks] for o in (shared, half))
    # the resamples are drawn once for both answers to the first question
    pairs = [(shared.counts(has), half.counts(has), truth[has]), *over_shared, *over_half]
    shares, *keeps = judge.are_above_noise(measure, pairs, seen)
    return _Decision(keeps[: len(picks)] if shares else keeps[len(picks) :], shares)


def _out_of_fold(
    curves: Sequence[Curve], folds: Sequence[NDArray[np.int64]], rest: Sequence[int], half: int, shape: tuple[int, int]
) -> dict[str, _Outcome]:
    """Fill in, for each fold of `rest`, what thresholds chosen on the others of `rest` do there."""
    outcomes = {name: _Outcome.blank(shape) for name in ("own", "shared", "half")}
    for j in rest:
        inner = [i for i in rest if i != j]
        shared = shared_level(curves, inner, half)
        for c, one in enumerate(curves):
            for name, level in {"own": own_level(one, inner, shared), "shared": shared, "half": half}.items():
                outcomes[name].put(c, folds[j], one.table, level)
    return outcomes
