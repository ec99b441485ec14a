"""A class's score at every level, and the best of them with its certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Convention, Measure, coefficients
from ensemble_kit.thresholds.records import Best
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.class_statistics import ClassStatistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLOSE = 1e-9  # sums of a few thousand float64 in [0, 1] are nearer than this to exact ones


class _Sums(NamedTuple):
    """What a curve's scores are made of.

    Parameters
    ----------
    ends : int64 (segments,), the last level of each; a segment is what lies above the one before it.
    columns : int64 (segments + 1,), the ends as levels of the band above `low`, and that of the levels above it.
    top, foot : (folds, segments + 1), sums of scores and how many count, or hits and pixels; of the mean objective the
        foot is (folds, 1) where it is one for all.
    """

    ends: NDArray[np.int64]
    columns: NDArray[np.int64]
    top: NDArray[Any]
    foot: NDArray[np.int64]


@dataclass
class _Solved:
    """What was found of a class for one measure and some folds: its best levels, and sums that are held for more."""

    best: dict[tuple[int, ...], Best]
    sums: _Sums | None = None


class Curve:
    """A class's score at every level, fold by fold: the curve of any union of folds is a sum.

    Levels between two that occur give the same masks: they are one segment, and one column is made of each. The sums
    are made when they are first asked for, and held until `release`; what was found best is kept with the counts,
    for every curve of this measure and these folds.

    Parameters
    ----------
    table : counts of the class.
    measure : what is scored.
    folds : sample numbers of each; one fold of all without a cross-validation.
    """

    def __init__(self, table: ClassStatistics, measure: Measure, folds: Sequence[NDArray[np.int64]]) -> None:
        self.table, self.measure, self.folds = table, measure, folds
        key = (measure, *(fold.tobytes() for fold in folds))
        self._solved: _Solved = table.solved.setdefault(key, _Solved({}))

    def release(self) -> None:
        """Give back the memory of the sums, and of a table in a file."""
        self._solved.sums = None
        self.table.release()

    @property
    def nbytes(self) -> int:
        """Bytes of the sums that are held."""
        return sum(array.nbytes for array in self._solved.sums or ())

    def load(self) -> _Sums:
        """Make the sums at every segment, or take those that are held."""
        if self._solved.sums is None:
            self._solved.sums = self._sum()
        return self._solved.sums

    def _sum(self) -> _Sums:
        from ensemble_kit.kernels import counts

        t, measure, convention = self.table, self.measure, self.measure.convention
        size, top_level = t.high - t.low + 1, LEVELS - 1 if not t.above.any() else t.high - 1
        ends = np.append(t.breaks[t.breaks < top_level], top_level)  # a segment is (end before, end]
        columns = np.append(ends[:-1], [min(top_level, t.high), t.high]) - t.low
        pooled, skip = measure.objective == "pooled", convention.empty == "skip"
        kind = np.int64 if pooled else np.float64
        tops = np.empty((len(self.folds), columns.size), kind)
        feet = np.empty((len(self.folds), columns.size if pooled or skip else 1), np.int64)
        a, b, c = coefficients(measure.metric)
        empty = 0.0 if convention.empty == "skip" else float(convention.empty)
        top, foot = np.empty(size, kind), np.empty(size, np.int64)
        for k, fold in enumerate(self.folds):
            top[:], foot[:] = 0, 0
            for some in t.in_turn(fold):
                own = some, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp
                if pooled:
                    counts.add_count_steps(*own, t.low, t.high, foot, top)
                else:
                    options = a, b, c, convention.eps, empty, skip
                    counts.add_score_steps(*own, t.truth, t.low, t.high, *options, top, foot)
            counts.sum_steps(top, foot)
            for kept, levels in ((tops, top), (feet, foot)):
                np.take(levels, columns[: kept.shape[1]], out=kept[k], mode="clip")  # "raise" would buffer `out`
        return _Sums(ends, columns, tops, feet)

    def scores(self, which: Sequence[int]) -> NDArray[np.float64]:
        """Score the levels `low … high` over some folds: float64; 1 where all samples are skipped."""
        return np.repeat(self._by_segment(which), np.diff(self.load().columns, prepend=-1))

    def _by_segment(self, which: Sequence[int]) -> NDArray[np.float64]:
        """Score each segment, and the levels above the band."""
        from ensemble_kit.kernels import counts

        sums = self.load()
        if self.measure.objective == "pooled":
            top, foot = (sum(v[k] for k in which) for v in (sums.top, sums.foot))
            truth = self.table.truth[self.samples(which)].sum()
            return np.nan_to_num(self.measure.values(top, foot, truth), nan=1.0)
        out = np.empty(sums.columns.size)
        counts.mean_of_folds(np.array(which, np.int64), sums.top, sums.foot, out)
        return out

    def add_to(self, low: int, top: NDArray[np.float64], foot: NDArray[np.int64], which: Sequence[int]) -> None:
        """Add the sums over some folds at the levels `low` and above to those of other classes.

        Of the pooled objective, whose classes count alike, that is the score, and the foot stays as it is.
        """
        from ensemble_kit.kernels import counts

        sums, first = self.load(), low - self.table.low
        if self.measure.objective == "pooled":
            counts.add_segments(self._by_segment(which), sums.columns, first, top)
            return
        tops, feet = (sum(v[k] for k in which) for v in (sums.top, sums.foot))
        counts.add_segments(tops, sums.columns, first, top)
        if feet.size == 1:
            foot += feet
        else:
            counts.add_segments(feet, sums.columns, first, foot)

    @property
    def band(self) -> tuple[int, int]:
        """Levels that were counted, half-open."""
        return self.table.low, self.table.high

    def samples(self, which: Sequence[int]) -> NDArray[np.int64]:
        """Return the sample numbers of some folds."""
        return np.concatenate([self.folds[k] for k in which])

    def has_positives(self, which: Sequence[int]) -> bool:
        """Tell whether a sample of some folds has the class."""
        return bool(self.table.truth[self.samples(which)].any())

    def score_at(self, level: int, which: Sequence[int]) -> float:
        """Score one level exactly, as it is reported."""
        own = self.samples(which)
        tp, pred = self.table.at(min(level, self.table.high), release=False)
        return self.measure.of_class(tp[own], pred[own], self.table.truth[own])

    def best(self, which: Sequence[int] | None = None) -> Best:
        """Find the best level of the band; among equal maxima the nearest to 0.5, then the lower.

        Levels between two that occur give the same masks, so one stands for the segment. Float sums find the few
        segments near the maximum; exactly rounded sums decide among them, and are what is reported.
        """
        which = tuple(range(len(self.folds)) if which is None else which)
        found = self._solved.best
        if which not in found:
            found[which] = self._find_best(which)
        return found[which]

    def _find_best(self, which: tuple[int, ...]) -> Best:
        ends, rough = self.load().ends, self._by_segment(which)[:-1]
        near = np.flatnonzero(rough >= rough.max() - _CLOSE)
        # neighbours with one float are one group: no sample of these folds changes between them
        groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | (np.diff(rough[near]) != 0)) + 1)
        exact = {int(g[0]): self.score_at(int(ends[g[0]]), which) for g in groups}
        best = max(map(or_perfect, exact.values()))
        joined = [(int(g[0]), int(g[-1])) for g in groups if or_perfect(exact[int(g[0])]) == best]
        spans = [(int(ends[first - 1]) + 1 if first else self.table.low, int(ends[last])) for first, last in joined]
        plateaus = _joined(spans)
        level, plateau = min(((_nearest_to_half(*span), span) for span in plateaus), key=lambda p: _from_half(p[0]))
        segment = int(np.searchsorted(ends, level))
        score = exact[segment] if segment in exact else self.score_at(level, which)
        return Best(level, score, plateau)

    @cached_property
    def _widest(self) -> NDArray[np.int64]:
        return self.table.at(self.table.low, release=False)[1]

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
        seen, truth, hits = self._widest[own], table.truth[own], table.above_tp[own]
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
