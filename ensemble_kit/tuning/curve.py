"""A class's score at every level, and the best of them with its certificate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ensemble_kit.once import once
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Convention, Measure, coefficients, mean
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
        top_level = LEVELS - 1 if not t.above.any() else t.high - 1
        ends = np.append(t.breaks[t.breaks < top_level], top_level)  # a segment is (end before, end]
        columns = np.append(ends[:-1], [min(top_level, t.high), t.high]) - t.low
        place = np.empty(LEVELS, np.int32)  # the column of each level that occurs
        place[t.breaks] = np.arange(t.breaks.size)
        pooled, skip = measure.objective == "pooled", convention.empty == "skip"
        wide = pooled or skip
        tops = np.zeros((len(self.folds), columns.size), np.int64 if pooled else np.float64)
        feet = np.zeros((len(self.folds), columns.size if wide else 1), np.int64)
        a, b, c = coefficients(measure.metric)
        empty = 0.0 if skip else float(convention.empty)
        for k, fold in enumerate(self.folds):
            top, foot = tops[k], feet[k] if wide else np.zeros(columns.size, np.int64)
            for some in t.in_turn(fold):
                own = some, t.offsets, t.levels, t.pred, t.tp, t.above, t.above_tp
                if pooled:
                    counts.add_count_steps(*own, place, foot, top)
                else:
                    options = a, b, c, convention.eps, empty, skip
                    counts.add_score_steps(*own, t.truth, place, *options, top, foot)
            counts.sum_steps(top, foot)
            feet[k] = foot[: feet.shape[1]]
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
        from ensemble_kit.kernels import counts

        ends, rough = self.load().ends, self._by_segment(which)[:-1]
        # neighbours with one float are one group: no sample of these folds changes between them
        firsts, lasts = (np.empty(rough.size, np.int64) for _ in range(2))
        found = counts.near_groups(rough, _CLOSE, firsts, lasts)
        groups = list(zip(firsts[:found].tolist(), lasts[:found].tolist(), strict=True))
        exact = {first: self.score_at(int(ends[first]), which) for first, _ in groups}
        best = max(map(or_perfect, exact.values()))
        joined = [(first, last) for first, last in groups if or_perfect(exact[first]) == best]
        spans = [(int(ends[first - 1]) + 1 if first else self.table.low, int(ends[last])) for first, last in joined]
        plateaus = _joined(spans)
        level, plateau = min(((_nearest_to_half(*span), span) for span in plateaus), key=lambda p: _from_half(p[0]))
        segment = int(np.searchsorted(ends, level))
        score = exact[segment] if segment in exact else self.score_at(level, which)
        return Best(level, score, plateau)

    @once
    def _outside(self) -> _Outside:
        return _Outside(self.table, self.measure)

    def certain(self, which: Sequence[int] | None = None) -> tuple[bool, bool]:
        """Tell whether no level below the band, and none above it, can reach the best score.

        Below it a mask has at least the pixels that it has at the band's lower edge; above it, at most the hits that
        it has at the upper edge. The best level is looked for only where none of a few levels scores more than that.
        """
        which = range(len(self.folds)) if which is None else which
        own, table, outside = self.samples(which), self.table, self._outside
        low = table.low == 0
        high = table.high == LEVELS or not table.above[own].any()
        if low and high:
            return True, True
        sides = low or outside.below(own), high or outside.above(own)
        least = outside.least(own)
        if not all(side is True or side < least for side in sides):
            least = or_perfect(self.best(which).score)
        below, above = (side is True or side < least for side in sides)
        return below, above


def _joined(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join spans, both ends included, that touch."""
    out: list[tuple[int, int]] = []
    for first, last in spans:
        if out and out[-1][1] + 1 == first:
            out[-1] = (out[-1][0], last)
        else:
            out.append((first, last))
    return out


class _Outside:
    """What levels outside a band score at best on some samples, and what a level inside it scores.

    Sample by sample that is found once; any union of folds asks for a mean of it.
    """

    def __init__(self, table: ClassStatistics, measure: Measure) -> None:
        self._measure, self._truth, self._hits = measure, table.truth, table.above_tp
        self._pooled = measure.objective == "pooled"
        self._widest = table.at(table.low, release=False)[1]
        few = {min(max(k * LEVELS // 4, table.low), table.high) for k in (1, 2, 3)}
        tried = [table.at(level, release=False) for level in sorted(few)]
        self._inside = max(tried, key=lambda at: or_perfect(measure.of_class(at[0], at[1], table.truth)))
        if not self._pooled:
            truth, hits = self._truth, self._hits
            sides = (truth, np.maximum(self._widest, truth)), (hits, hits)
            self._cases = [_best_cases(tp, pred, truth, measure) for tp, pred in sides]
            self._values = measure.values(*self._inside, truth)

    def below(self, own: NDArray[np.int64]) -> float:
        """Bound the score below the band: a mask has at least the pixels that it has at the band's lower edge."""
        if self._pooled:
            truth, seen = (v[own].sum(keepdims=True) for v in (self._truth, self._widest))
            return best_case(truth, np.maximum(seen, truth), truth, self._measure)
        return _of_cases(self._cases[0][own], self._measure)

    def above(self, own: NDArray[np.int64]) -> float:
        """Bound the score above the band: a mask has at most the hits that it has at the band's upper edge."""
        if self._pooled:
            truth, hits = (v[own].sum(keepdims=True) for v in (self._truth, self._hits))
            return best_case(hits, hits, truth, self._measure)
        return _of_cases(self._cases[1][own], self._measure)

    def least(self, own: NDArray[np.int64]) -> float:
        """Score a level of the band, exactly: the best level scores no less."""
        if self._pooled:
            return or_perfect(self._measure.of_class(*(v[own] for v in (*self._inside, self._truth))))
        return or_perfect(mean(self._values[own]))


def _best_cases(tp: Any, pred: Any, truth: NDArray[np.int64], measure: Measure) -> NDArray[np.float64]:
    """Bound each sample's score; NaN of one without truth that is skipped, or counts as a mask without a hit."""
    values = Measure("mean", measure.metric, Convention(measure.convention.eps, 1)).values(tp, pred, truth)
    return values if measure.convention.empty != "skip" else np.where(truth > 0, values, np.nan)


def _of_cases(values: NDArray[np.float64], measure: Measure) -> float:
    eps = measure.convention.eps
    return mean(values) if measure.convention.empty != "skip" else max(or_perfect(mean(values)), eps / (1 + eps))


def best_case(tp: Any, pred: Any, truth: NDArray[np.int64], measure: Measure) -> float:
    """Bound a class's score by each sample's best case; a sample without truth can at best become empty, worth 1."""
    return _of_cases(_best_cases(tp, pred, truth, measure), measure)


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
