"""The best threshold of a class together with its least area: over all 65,536 levels and every area.

A mask of fewer pixels than the least area is emptied, which only gates samples: at each level the samples stand in the
order of their areas, and every least area is one cut of that order (docs/concepts.md#rule-14-rules-across-classes).
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.decisions.areas import LeastArea
from ensemble_kit.decisions.ruletext import plain
from ensemble_kit.once import once
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure, coefficients
from ensemble_kit.thresholds.records import Best
from ensemble_kit.tuning.class_statistics import ClassStatistics
from ensemble_kit.tuning.curve import Curve, best_case, or_perfect
from ensemble_kit.tuning.resampling import Counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLOSE = 1e-9  # sums of a few thousand float64 in [0, 1] are nearer than this to exact ones
_COARSE = 256  # levels from one to the next of those that are looked at first


class Setting(NamedTuple):
    """The level of a class, its least area, and the levels of the classes that enclose it under `nested`.

    Parameters
    ----------
    least : None empties no mask.
    enclosing : of the outermost first; none where nothing does.
    """

    level: int
    least: LeastArea | None = None
    enclosing: tuple[int, ...] = ()

    def pixels(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pixels that a mask needs in images of so many pixels, int64 of their shape."""
        if self.least is None:
            return np.zeros_like(images)
        return np.array([self.least.least((size,)) for size in images.tolist()], np.int64)


class AreaCurve:
    """A class's best score over all least areas, at every level, for several choices of folds.

    Parameters
    ----------
    table : counts of the class; they tell areas (`Statistics.tells_areas`) where pixels are void.
    measure : what is maximised.
    folds : sample numbers of each.
    choices : unions of folds, whose best levels and areas will be asked for.
    images : int64 (samples,), pixels of each sample's image. Where they differ a least area is a share.
    """

    def __init__(
        self,
        table: ClassStatistics,
        measure: Measure,
        folds: Sequence[NDArray[np.int64]],
        choices: Sequence[Sequence[int]],
        images: NDArray[np.int64],
    ) -> None:
        self.plain, self.images = Curve(table, measure, folds), images
        self._choices = [tuple(sorted(which)) for which in choices]
        top = LEVELS - 1 if not table.above.any() else table.high - 1
        self._ends = np.append(table.breaks[table.breaks < top], top)  # a segment is (end before, end]
        self._own, self._gated = dict[tuple[int, ...], Setting](), dict[tuple[int, ...], Setting]()

    @once
    def _near(self) -> dict[tuple[int, ...], tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Find, for each choice of folds, the segments that come near its best score, and their scores."""
        from ensemble_kit.kernels import least_areas
        from ensemble_kit.kernels.arguments import Score

        table, measure, choices = self.plain.table, self.plain.measure, self._choices
        convention, (a, b, c) = measure.convention, coefficients(measure.metric)
        skip, pooled = convention.empty == "skip", measure.objective == "pooled"
        use, form = np.zeros((table.truth.size, len(choices))), np.zeros((len(choices), 2))
        for j, which in enumerate(choices):
            use[self.plain.samples(which), j] = 1
        if pooled:
            form[:, 0] = table.truth @ use
            form[:, 1] = b * form[:, 0] + convention.eps
        area, above_area = table.areas
        laid = least_areas.AreaTable(
            table.offsets, table.levels, table.pred, table.tp, area, table.above, table.above_tp, above_area,
            table.truth,
        )  # fmt: skip
        score = Score(a, b, c, float(convention.eps), 0.0 if skip else float(convention.empty), skip)
        rest, none = (laid, self._units, self._most, use, form), np.full(len(choices), -1.0)
        few = self._ends[::_COARSE].copy()  # contiguous, as all are: another layout compiles the kernel again
        floor = least_areas.best_by_level(few, *rest, none, score, pooled).max(axis=1) - 2 * _CLOSE
        rough = least_areas.best_by_level(self._ends, *rest, floor, score, pooled)
        near = [np.flatnonzero(scores >= scores.max() - _CLOSE) for scores in rough]
        return {which: (n, scores[n]) for which, n, scores in zip(choices, near, rough, strict=True)}

    @property
    def _units(self) -> NDArray[np.float64]:
        """What areas are divided by before they are compared: of images of several sizes they become shares."""
        return self.images.astype(np.float64) if self._shares else np.ones(self.images.size)

    @property
    def _shares(self) -> bool:
        return bool((self.images != self.images[0]).any())

    @property
    def _most(self) -> float:
        """A share is 100 % at most, which keeps a mask of the whole image; a number of pixels can be above it."""
        return 1.0 if self._shares else np.inf

    def certain(self, which: Sequence[int], areas: bool) -> tuple[bool, bool]:
        """Tell whether no level below the band, and none above it, can be better.

        The bounds are those of `Curve.certain`; with `areas` a mask below the band may be emptied, too.
        """
        table, own, measure = self.plain.table, self.plain.samples(which), self.plain.measure
        below, above = table.low == 0, table.high == LEVELS or not table.above[own].any()
        if below and above:
            return True, True
        truth, hits, seen = table.truth[own], table.above_tp[own], table.at(table.low)[1][own]
        least = [or_perfect(self.score(self.own(which), which))]
        reached = [best_below(seen, truth, measure, False)]
        if areas:
            least.append(or_perfect(self.score(self.gated(which), which)))
            reached.append(best_below(seen, truth, measure, True))
        if measure.objective == "pooled":
            hits, truth = hits.sum(keepdims=True), truth.sum(keepdims=True)
        return (
            below or all(bound < best for bound, best in zip(reached, least, strict=True)),
            above or best_case(hits, hits, truth, measure) < least[0],
        )

    def own(self, which: Sequence[int]) -> Setting:
        """Find the best level on some folds, one of the choices, without a least area."""
        key = tuple(sorted(which))
        if key not in self._own:
            self._own[key] = Setting(self.plain.best(which).level)
        return self._own[key]

    def gated(self, which: Sequence[int]) -> Setting:
        """Find the best level and least area on some folds, one of the choices.

        Among equal maxima none is emptied; then the level nearest to 0.5, then the lower; then the smallest range of
        areas, and its middle on a logarithmic scale.
        """
        key = tuple(sorted(which))
        if key not in self._gated:
            self._gated[key] = self._find_gated(key)
        return self._gated[key]

    def _find_gated(self, which: tuple[int, ...]) -> Setting:
        without = self.own(which)
        near, rough = self._near[which]
        # neighbours with one float are one group: between them only masks change that are empty anyway
        groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | (np.diff(rough) != 0)) + 1)
        samples = self.plain.samples(which)
        scores = [self._cuts(int(self._ends[g[0]]), samples)[0] for g in groups]
        best = max(scores)
        if best <= or_perfect(self.score(without, which)):
            return without
        level = min(
            (self._near_half(g) for g, score in zip(groups, scores, strict=True) if score == best),
            key=lambda level: (abs(2 * level - (LEVELS - 1)), level),
        )
        _, (low, high) = self._cuts(level, samples)  # which areas are emptied differs within a group
        return Setting(level, self._between(low, high))

    def _near_half(self, segments: NDArray[np.int64]) -> int:
        """Return the level nearest to 0.5 in neighbouring segments."""
        first = self._ends[segments[0] - 1] + 1 if segments[0] else self.plain.table.low
        return min(max(int(first), (LEVELS - 1) // 2), int(self._ends[segments[-1]]))

    def counts(self, setting: Setting) -> Counts:
        """Return hits and pixels of every sample at a setting, int64 (samples,) each."""
        tp, pred = self.plain.table.at(min(setting.level, self.plain.table.high))
        if setting.least is None:
            return tp, pred
        stays = self._area_at(setting.level) >= setting.pixels(self.images)
        return tp * stays, pred * stays

    def score(self, setting: Setting, which: Sequence[int]) -> float:
        """Score a setting on some folds, as it is reported."""
        own, (tp, pred) = self.plain.samples(which), self.counts(setting)
        return self.plain.measure.of_class(tp[own], pred[own], self.plain.table.truth[own])

    def described(self, setting: Setting) -> Best:
        """Describe a setting on all folds: its score, and the levels around it with the same score."""
        every = range(len(self.plain.folds))
        table = self.plain.table.emptied(setting.pixels(self.images)) if setting.least else self.plain.table
        best = Curve(table, self.plain.measure, self.plain.folds).best(every)
        if best.level == setting.level:
            return best
        return Best(setting.level, self.score(setting, every), (setting.level, setting.level))

    def _cuts(self, level: int, own: NDArray[np.int64]) -> tuple[float, tuple[Fraction, Fraction]]:
        """Return the best score of a level over all least areas, and between which two areas the first of them lies.

        Float sums find the few cuts near the maximum, exactly rounded sums decide among them.
        """
        table, measure = self.plain.table, self.plain.measure
        (tp, pred), area, size = table.at(min(level, table.high)), self._area_at(level), self._units
        order = own[np.argsort((area / size)[own], kind="stable")]
        tp, pred, truth, size = tp[order], pred[order], table.truth[order], (area / size)[order]
        cuts = np.flatnonzero(np.append(True, np.append(size[1:] > size[:-1], size[-1] < self._most)))
        rough = _scores_of_cuts(tp, pred, truth, measure)[cuts]
        near = cuts[rough >= rough.max() - _CLOSE].tolist()
        stays = np.arange(order.size)
        exact = {k: or_perfect(measure.of_class(tp * (stays >= k), pred * (stays >= k), truth)) for k in near}
        best = max(exact.values())
        first = next(k for k in near if exact[k] == best)
        after = [k for k in cuts.tolist() if k > first]
        end = next((k for k in after if exact.get(k) != best), order.size + 1)
        last = max(k for k in (first, *after) if k < end)
        sizes = [self._size(area, int(s)) for s in order]
        high = sizes[last] if last < order.size else Fraction(1) if self._shares else Fraction(int(self.images[0]) + 1)
        return best, (sizes[first - 1] if first else Fraction(0), high)

    def _size(self, area: NDArray[np.int64], s: int) -> Fraction:
        return Fraction(int(area[s]), int(self.images[s]) if self._shares else 1)

    def _area_at(self, level: int) -> NDArray[np.int64]:
        from ensemble_kit.kernels import counts

        table = self.plain.table
        area, above_area = table.areas
        out, again = np.empty_like(above_area), np.empty_like(above_area)
        at = min(level, table.high), table.offsets, table.levels
        counts.counts_at(*at, area, area, above_area, above_area, out, again)
        return out

    def _between(self, low: Fraction, high: Fraction) -> LeastArea:
        """Choose the least area that empties masks of `low` and keeps those of `high`: the middle on a log scale.

        Masks to come differ from these by factors, and the middle is as far from the largest that has to go as from
        the smallest that has to stay.
        """
        middle = (float(low) * float(high)) ** 0.5
        if not self._shares:
            return LeastArea(min_area=min(max(round(middle), int(low) + 1), int(high)))
        percent, digits = 100 * middle, 1
        while True:
            text = plain(Decimal(f"{percent:.{digits - 1}e}"))
            if low < Fraction(text) / 100 <= high:
                return LeastArea(min_share=float(Decimal(text).scaleb(-2)))
            digits += 1


def _scores_of_cuts(
    tp: NDArray[np.int64], pred: NDArray[np.int64], truth: NDArray[np.int64], measure: Measure
) -> NDArray[np.float64]:
    """Score samples in an order of which the first k are emptied, for every k from none to all: float64 (n + 1,)."""
    if measure.objective == "pooled":
        tp, pred = (np.append(v[::-1].cumsum()[::-1], 0) for v in (tp, pred))
        return np.nan_to_num(measure.values(tp, pred, truth.sum()), nan=1.0)
    kept, empty = measure.values(tp, pred, truth), measure.values(0 * tp, 0 * pred, truth)
    top = _kept_and_emptied(np.nan_to_num(kept), np.nan_to_num(empty))
    foot = _kept_and_emptied(1.0 - np.isnan(kept), 1.0 - np.isnan(empty))
    return np.where(foot == 0, 1.0, top / np.maximum(foot, 1))


def _kept_and_emptied(kept: NDArray[np.float64], empty: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.append(0, empty.cumsum()) + np.append(kept[::-1].cumsum()[::-1], 0)


def best_below(seen: NDArray[np.int64], truth: NDArray[np.int64], measure: Measure, areas: bool) -> float:
    """Bound a class's score where masks have at least the pixels `seen` and all of the truth; or none, with `areas`."""
    (a, b, c), eps, empty = coefficients(measure.metric), measure.convention.eps, measure.convention.empty
    least, pooled = np.maximum(seen, truth), measure.objective == "pooled"
    if not areas:
        hits, pixels, true = (v.sum(keepdims=True) for v in (truth, least, truth)) if pooled else (truth, least, truth)
        return best_case(hits, pixels, true, measure)
    worth = max(1.0 if empty == "skip" else float(empty), eps / (1 + eps))  # of two empty masks, or nearly
    has = truth > 0
    if not has.any():
        return worth
    if pooled:
        order = np.argsort(-truth / np.maximum(least, 1), kind="stable")  # the best ones are kept first
        tp, pred = (np.append(0, v[order].cumsum()) for v in (truth, least))
        return float(((a * tp + eps) / (pred + b * truth.sum() - c * tp + eps)).max())
    kept = (a * truth + eps)[has] / (least + (b - c) * truth + eps)[has]
    scores = np.maximum(kept, eps / (b * truth + eps)[has])
    if empty == "skip":
        return max(float(scores.mean()), eps / (1 + eps))
    return float((scores.sum() + worth * (~has).sum()) / has.size)
