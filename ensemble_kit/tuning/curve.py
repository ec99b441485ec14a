"""A class's score at every level, and the best of them with its certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Convention, Measure, coefficients
from ensemble_kit.thresholds.records import Best
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLOSE = 1e-9  # sums of a few thousand float64 in [0, 1] are nearer than this to exact ones


class Curve:
    """A class's score at every level, kept fold by fold: the curve of any union of folds is a sum.

    Parameters
    ----------
    table : counts of the class.
    measure : what is scored.
    folds : sample numbers of each; one fold of all without a cross-validation.
    """

    def __init__(self, table: ClassStatistics, measure: Measure, folds: Sequence[NDArray[np.int64]]) -> None:
        from ensemble_kit.kernels import counts

        self.table, self.measure, self.folds = table, measure, folds
        size, convention = table.high - table.low + 1, measure.convention
        kind = np.int64 if measure.objective == "pooled" else np.float64
        self._top, self._foot = np.zeros((len(folds), size), kind), np.zeros((len(folds), size), np.int64)
        a, b, c = coefficients(measure.metric)
        skip = convention.empty == "skip"
        empty = 0.0 if convention.empty == "skip" else float(convention.empty)
        t = table
        for k, fold in enumerate(folds):
            top, foot = self._top[k], self._foot[k]
            own = fold, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp
            if measure.objective == "pooled":
                counts.add_count_steps(*own, t.low, t.high, foot, top)
            else:
                options = a, b, c, convention.eps, empty, skip
                counts.add_score_steps(*own, t.truth, t.low, t.high, *options, top, foot)
            counts.sum_steps(top, foot)
        table.release()

    def scores(
        self,
        which: Sequence[int],
        at: NDArray[np.int64] | slice = slice(None),
    ) -> NDArray[np.float64]:
        """Score the levels `low … high`, or low + `at`, over some folds: float64; 1 where all samples are skipped."""
        top, foot = (sum(v[k][at] for k in which) for v in (self._top, self._foot))
        if self.measure.objective == "pooled":
            truth = self.table.truth[self.samples(which)].sum()
            return np.nan_to_num(self.measure.values(top, foot, truth), nan=1.0)
        return np.where(foot == 0, 1.0, top / np.maximum(foot, 1))

    @property
    def band(self) -> tuple[int, int]:
        """Levels that were counted, half-open."""
        return self.table.low, self.table.high

    def sums(self, which: Sequence[int]) -> tuple[Any, Any]:
        """Return what `scores` divides: sums of scores (or hits), and how many count (or pixels)."""
        return sum(self._top[k] for k in which), sum(self._foot[k] for k in which)

    def samples(self, which: Sequence[int]) -> NDArray[np.int64]:
        """Return the sample numbers of some folds."""
        return np.concatenate([self.folds[k] for k in which])

    def has_positives(self, which: Sequence[int]) -> bool:
        """Tell whether a sample of some folds has the class."""
        return bool(self.table.truth[self.samples(which)].any())

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
        which = range(len(self.folds)) if which is None else which
        table = self.table
        top = LEVELS - 1 if not table.above.any() else table.high - 1
        ends = np.append(table.breaks[table.breaks < top], top)  # a segment is (end before, end]
        starts = np.append(table.low, ends[:-1] + 1)
        rough = self.scores(which, np.minimum(ends, table.high) - table.low)
        near = np.flatnonzero(rough >= rough.max() - _CLOSE)
        # neighbours with one float are one group: no sample of these folds changes between them
        groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | (np.diff(rough[near]) != 0)) + 1)
        exact = [or_perfect(self.score_at(int(ends[g[0]]), which)) for g in groups]
        best = max(exact)
        spans = [(int(starts[g[0]]), int(ends[g[-1]])) for g, value in zip(groups, exact, strict=True) if value == best]
        plateaus = _joined(spans)
        level, plateau = min(((_nearest_to_half(*span), span) for span in plateaus), key=lambda p: _from_half(p[0]))
        return Best(level, self.score_at(level, which), plateau)

    def certain(self, which: Sequence[int] | None = None) -> tuple[bool, bool]:
        """Tell whether no level below the band, and none above it, can reach the best score.

        Below it a mask has at least the pixels that it has at the band's lower edge; above it, at most the hits that
        it has at the upper edge.
        """
        which = range(len(self.folds)) if which is None else which
        own, table = self.samples(which), self.table
        if table.low == 0 and (table.high == LEVELS or not table.above[own].any()):
            return True, True
        best = or_perfect(self.best(which).score)
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
    return max(or_perfect(best.of_class(tp[some], pred[some], truth[some])), eps / (1 + eps))


def or_perfect(score: float) -> float:
    """Return a score, or 1 where it is NaN: a class whose samples are all skipped has no error."""
    return 1.0 if math.isnan(score) else score


def _from_half(level: int) -> tuple[int, int]:
    return abs(2 * level - (LEVELS - 1)), level


def _nearest_to_half(first: int, last: int) -> int:
    return min(max(first, (LEVELS - 1) // 2), last)


def curves_of(tuned: ThresholdSet) -> dict[str, Curve]:
    """Return the curves that a tuning left in its set, by class."""
    return cast("dict[str, Curve]", dict(tuned.curves))
