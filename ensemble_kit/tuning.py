"""The best threshold of every class: exact over all 65,536 levels, read off the statistics.

The rule is docs/concepts.md#rule-8-best-threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.errors import MismatchError, check_kind
from ensemble_kit.events import Listener, nobody
from ensemble_kit.masks import MaskSet
from ensemble_kit.metrics import Measure, Objective
from ensemble_kit.scores import Ensemble
from ensemble_kit.spec import LEVELS, Convention, Empty
from ensemble_kit.statistics import ClassStatistics, Statistics, check_truth, count, source_of
from ensemble_kit.thresholds import Calibration, ClassThreshold, ThresholdSet, Validation
from ensemble_kit.validation import Groups, cross_validate, group_of, make_folds

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.search import Search

_LOWS = (3277, 328, 0)  # 0.05, 0.005, everything: what a scan begins with, and how it widens
_HIGHS = (62260, 65208, LEVELS)
_CLOSE = 1e-9  # sums of a few thousand float64 in [0, 1] are nearer than this to exact ones


@dataclass(frozen=True)
class Best:
    """The best level of one class: its score, and the range of equal maxima around it (both ends included)."""

    level: int
    score: float
    plateau: tuple[int, int]


class Curve:
    """A class's score at every level, kept as parts that add up: the curve of any union of parts is a sum.

    Parameters
    ----------
    table : counts of the class.
    measure : what is scored.
    parts : sample numbers of each part, such as the folds of a cross-validation.
    """

    def __init__(self, table: ClassStatistics, measure: Measure, parts: Sequence[NDArray[np.int64]]) -> None:
        from ensemble_kit.kernels import counts
        from ensemble_kit.metrics import coefficients

        self.table, self.measure, self.parts = table, measure, parts
        size, convention = table.high - table.low + 1, measure.convention
        kind = np.int64 if measure.objective == "pooled" else np.float64
        self._top, self._foot = np.zeros((len(parts), size), kind), np.zeros((len(parts), size), np.int64)
        a, b, c = coefficients(measure.metric)
        skip = convention.empty == "skip"
        empty = 0.0 if convention.empty == "skip" else float(convention.empty)
        t = table
        for k, part in enumerate(parts):
            top, foot = self._top[k], self._foot[k]
            own = part, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp
            if measure.objective == "pooled":
                counts.add_count_steps(*own, t.low, t.high, foot, top)
            else:
                options = a, b, c, convention.eps, empty, skip
                counts.add_score_steps(*own, t.truth, t.low, t.high, *options, top, foot)
            counts.sum_steps(top, foot)

    def scores(
        self,
        which: Sequence[int],
        at: NDArray[np.int64] | slice = slice(None),
    ) -> NDArray[np.float64]:
        """Score the levels `low … high`, or low + `at`, over some parts: float64; 1 where all samples are skipped."""
        top, foot = (sum(v[k][at] for k in which) for v in (self._top, self._foot))
        if self.measure.objective == "pooled":
            truth = self.table.truth[self.samples(which)].sum()
            return np.nan_to_num(self.measure.values(top, foot, truth), nan=1.0)
        return np.where(foot == 0, 1.0, top / np.maximum(foot, 1))

    def sums(self, which: Sequence[int]) -> tuple[Any, Any]:
        """Return what `scores` divides: sums of scores (or hits), and how many count (or pixels)."""
        return sum(self._top[k] for k in which), sum(self._foot[k] for k in which)

    def samples(self, which: Sequence[int]) -> NDArray[np.int64]:
        """Sample numbers of some parts."""
        return np.concatenate([self.parts[k] for k in which])

    def score_at(self, level: int, which: Sequence[int]) -> float:
        """Score one level exactly, as it is reported."""
        own = self.samples(which)
        tp, pred = self.table.at(min(level, self.table.high))
        return self.measure.of_class(tp[own], pred[own], self.table.truth[own])

    def best(self, which: Sequence[int] | None = None) -> Best:
        """Find the best level of the band; among equal maxima the nearest to 0.5, then the lower.

        Levels between two that occur give the same masks, so one stands for the segment. Float sums find the few
        segments near the maximum; exactly rounded sums decide among them, and are what is reported.
        """
        which = range(len(self.parts)) if which is None else which
        table = self.table
        top = LEVELS - 1 if not table.above.any() else table.high - 1
        ends = np.append(table.breaks[table.breaks < top], top)  # a segment is (end before, end]
        starts = np.append(table.low, ends[:-1] + 1)
        rough = self.scores(which, np.minimum(ends, table.high) - table.low)
        near = np.flatnonzero(rough >= rough.max() - _CLOSE)
        # neighbours with one float are one group: no sample of these parts changes between them
        groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | (np.diff(rough[near]) != 0)) + 1)
        exact = [rank(self.score_at(int(ends[g[0]]), which)) for g in groups]
        best = max(exact)
        spans = [(int(starts[g[0]]), int(ends[g[-1]])) for g, value in zip(groups, exact, strict=True) if value == best]
        plateaus = _joined(spans)
        level, plateau = min(((_nearest_to_half(*span), span) for span in plateaus), key=lambda p: _from_half(p[0]))
        return Best(level, self.score_at(level, which), plateau)

    def certain(self, which: Sequence[int] | None = None) -> tuple[bool, bool]:
        """Tell whether no level below, and none above, the band can reach the best one.

        Below it a mask has at least the pixels that it has at the band's lower edge; above it, at most the hits that
        it has at the upper edge.
        """
        which = range(len(self.parts)) if which is None else which
        own, table = self.samples(which), self.table
        if table.low == 0 and (table.high == LEVELS or not table.above[own].any()):
            return True, True
        best = rank(self.best(which).score)
        seen, truth, hits = table.at(table.low)[1][own], table.truth[own], table.above_tp[own]
        if self.measure.objective == "pooled":
            truth, hits, seen = (v.sum(keepdims=True) for v in (truth, hits, seen))
        below = best_case(truth, np.maximum(seen, truth), truth, self.measure)
        above = best_case(hits, hits, truth, self.measure)
        return (
            table.low == 0 or below < best,
            table.high == LEVELS or not table.above[own].any() or above < best,
        )


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans, both ends included, that touch."""
    out: list[tuple[int, int]] = []
    for first, last in spans:
        if out and out[-1][1] + 1 == first:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


def best_case(tp: Any, pred: Any, truth: NDArray[np.int64], measure: Measure) -> float:
    """Bound a class's score by each sample's best case; a sample without truth can at best become empty, worth 1."""
    eps = measure.convention.eps
    best = Measure("mean", measure.metric, Convention(eps, 1))
    if measure.convention.empty != "skip":
        return best.of_class(tp, pred, truth)
    some = truth > 0  # the others are skipped, or count as a mask of at least one pixel without a hit
    return max(rank(best.of_class(tp[some], pred[some], truth[some])), eps / (1 + eps))


def rank(score: float) -> float:
    """Rank a score; a class all of whose samples are skipped has nothing wrong."""
    return 1.0 if math.isnan(score) else score


def _from_half(level: int) -> tuple[int, int]:
    return abs(2 * level - (LEVELS - 1)), level


def _nearest_to_half(first: int, last: int) -> int:
    return min(max(first, (LEVELS - 1) // 2), last)


def gather(
    ensemble: Ensemble,
    truth: MaskSet,
    measures: Sequence[Measure],
    parts: Sequence[NDArray[np.int64]],
    subsets: Sequence[Sequence[int]],
    jobs: int | None = None,
    listener: Listener = nobody,
) -> Statistics:
    """Count in a band of levels; widen it, for the classes that need it, until every best level is certain.

    Parameters
    ----------
    measures : what will be asked of the statistics.
    parts, subsets : sample numbers of each part, and the unions of parts whose best levels will be asked for.
    """
    check_truth(ensemble, truth)
    todo = dict.fromkeys(range(len(ensemble.classes)), (0, 0))
    tables: dict[int, ClassStatistics] = {}
    while todo:
        bands = {c: (_LOWS[low], _HIGHS[high]) for c, (low, high) in todo.items()}
        tables.update(count(ensemble, truth, bands, jobs, listener))
        wider = {}
        for c, (low, high) in todo.items():
            curves = [Curve(tables[c], measure, parts) for measure in measures]
            sides = [curve.certain(subset) for curve in curves for subset in subsets]
            below, above = all(s[0] for s in sides), all(s[1] for s in sides)
            if not (below and above):
                wider[c] = low + (not below), high + (not above)
        todo = wider
    in_order = tuple(tables[c] for c in range(len(ensemble.classes)))
    return Statistics(ensemble.samples, ensemble.classes, in_order, source_of(ensemble, truth))


def tune_thresholds(
    ensemble: Ensemble,
    truth: MaskSet,
    objective: Objective = "mean",
    empty: Empty = 1,
    eps: float = 0.0,
    folds: int | None = None,
    groups: Groups = None,
    search: Search | str | Sequence[str] | None = None,
    seed: int = 0,
    metric: str = "dice",
    shrink: bool = True,
    statistics: Statistics | None = None,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> ThresholdSet:
    """Find the best threshold of every class over all 65,536 levels, at full plane resolution.

    Parameters
    ----------
    truth : masks of exactly the ensemble's samples and classes.
    objective : "mean" maximises each class's mean score over samples; "pooled" its score with pixels pooled.
    empty, eps : the convention, as for `dice`.
    folds : number of folds of a cross-validation, 3 or more; None gives the plain optimum without one.
    groups : what must not be on both sides of a split: a mapping of sample to group, or a regular expression whose
        first group names it.
    search : what else to search, with the exact best thresholds inside every trial: a `Search`, or the text of its
        `what`, such as "weights,mean" or "greedy"; the uniform ensemble is where it begins.
    seed : of the folds and the bootstrap.
    metric : "dice", "iou", or F-beta as "f2", "f0.5".
    shrink : with `folds`, a class whose out-of-fold gain is not above noise gets the shared threshold.
    statistics : of this ensemble and truth, from an earlier call; without them the stores are counted.

    Returns
    -------
    ThresholdSet
        Its `.score` is exactly what the same metric gives on `ensemble.vote(set)`.

    Raises
    ------
    IncompleteError
        Samples without truth.
    MismatchError
        Truth of other classes, samples or image sizes; statistics of something else.
    """
    check_kind("the ensemble", ensemble, Ensemble)
    check_kind("the truth", truth, MaskSet)
    measure = Measure(objective, metric, Convention(eps, empty))
    if search is not None:
        from ensemble_kit import search as joint

        return joint.tune(ensemble, truth, measure, search, folds, groups, seed, shrink, statistics, jobs, listener)
    counted = statistics_for(ensemble, truth, measure, folds, groups, seed, statistics, jobs, listener)
    return tune_from(counted, ensemble, measure, folds, groups, seed, shrink)


def tune_from(
    statistics: Statistics,
    ensemble: Ensemble,
    measure: Measure,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    shrink: bool = True,
) -> ThresholdSet:
    """Read the best thresholds off statistics; parameters as for `tune_thresholds`. No pixel is touched."""
    parts, names = _parts(ensemble, folds, groups, seed)
    curves = [Curve(table, measure, parts) for table in statistics.tables]
    half = ensemble.level_of(0.5)
    best = [curve.best() for curve in curves]
    crossed = None
    if folds:
        crossed = cross_validate(statistics, measure, parts, names, half, shrink, seed, curves)
        best = [
            b if crossed.classes[name].keeps else _common_best(curve, crossed.common_level)
            for name, curve, b in zip(ensemble.classes, curves, best, strict=True)
        ]
    pooled = Measure("pooled", "dice", measure.convention)
    classes = tuple(
        ClassThreshold(
            name,
            b.level,
            b.score,
            curve.score_at(half, range(len(parts))),
            b.plateau,
            int((curve.table.truth > 0).sum()),
            len(ensemble.samples),
            (curve.table.low, curve.table.high),
            Calibration.of(Curve(curve.table, pooled, parts).best(), ensemble),
        )
        for name, curve, b in zip(ensemble.classes, curves, best, strict=True)
    )
    scores = [_score_of_all(curves, measure, levels) for levels in ([b.level for b in best], [half] * len(best))]
    found = ThresholdSet.of(
        ensemble,
        classes,
        measure,
        Validation.of(ensemble.samples, scores[0], scores[1], crossed),
        {"method": "exact", "seed": seed, "trials": None},
    )
    found.curves = dict(zip(ensemble.classes, curves, strict=True))
    return found


def statistics_for(
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    known: Statistics | None = None,
    jobs: int | None = None,
    listener: Listener = nobody,
) -> Statistics:
    """Return statistics that answer every question of a tuning: `known` where they do, otherwise counted anew."""
    check_truth(ensemble, truth)
    parts, _ = _parts(ensemble, folds, groups, seed)
    every = range(len(parts))
    subsets: list[list[int]] = [list(every)]
    if folds:
        subsets += [[j for j in every if j not in (i, k)] for i in every for k in every if i <= k]
    if known is not None:
        if known.source != source_of(ensemble, truth):
            raise MismatchError(
                "statistics-differ",
                "cannot tune with these statistics",
                item="they were counted from other stores, another fusion or another truth",
                fix="pass the file of this ensemble, or remove it to count anew",
            )
        sides = [Curve(t, measure, parts).certain(s) for t in known.tables for s in subsets]
        if all(below and above for below, above in sides):
            return known
    return gather(ensemble, truth, [measure], parts, subsets, jobs, listener)


def _parts(
    ensemble: Ensemble, folds: int | None, groups: Groups, seed: int
) -> tuple[list[NDArray[np.int64]], list[str]]:
    names = group_of(ensemble.samples, groups)
    if not folds:
        return [np.arange(len(ensemble.samples))], names
    return make_folds(ensemble.samples, folds, groups, seed), names


def _common_best(curve: Curve, level: int) -> Best:
    """Describe a class that takes the common level: its score there, and the plateau of one segment."""
    table = curve.table
    after = int(np.searchsorted(table.breaks, level))
    first = int(table.breaks[after - 1]) + 1 if after > 0 else table.low
    last = (
        int(table.breaks[after]) if after < table.breaks.size else (LEVELS if not table.above.any() else table.high) - 1
    )
    return Best(level, curve.score_at(level, range(len(curve.parts))), (first, last))


def _score_of_all(curves: Sequence[Curve], measure: Measure, levels: Sequence[int]) -> float:
    counts = [curve.table.at(min(level, curve.table.high)) for curve, level in zip(curves, levels, strict=True)]
    tp, pred = (np.stack([c[k] for c in counts]) for k in (0, 1))
    return measure.of_all(tp, pred, np.stack([curve.table.truth for curve in curves]))
