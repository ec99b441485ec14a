"""Bootstrap over groups: intervals of scores and gains, and which gains are above noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

Counts = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""Truth pixels and pixels, (classes, samples) each."""
Pair = tuple[Counts, "Counts | None", "NDArray[np.int64]"]
"""Counts of one outcome, of another (None: the score of the first is meant, not its gain), and pixels of the truth."""

RESAMPLES = 2000
DRAWN = 1 << 22  # numbers that are drawn at a time: 32 MB, and as many as weights
KEPT = 32_000_000  # draws that are kept, a byte each, for the next question about as many groups
_DECISIONS = 400  # resamples behind one keep-or-share decision
_NOISE = 0.16  # a gain stands above noise where this quantile of its bootstrap is above 0: one standard error


class Resampler:
    """Draws groups with replacement and scores outcomes on what was drawn.

    Parameters
    ----------
    names : the group of each sample.
    """

    def __init__(self, names: Sequence[str], seed: int) -> None:
        self._index = np.unique(np.array(names, object).astype(str), return_inverse=True)[1]
        self._seed = seed
        self._kept: tuple[tuple[int, int], NDArray[np.uint8]] | None = None

    def gains(
        self,
        measure: Measure,
        pairs: Sequence[Pair],
        samples: NDArray[np.int64] | None = None,
        resamples: int = RESAMPLES,
    ) -> NDArray[np.float64]:
        """Return the gain of one outcome over another, or its score, in each resample; all pairs see the same ones.

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
            [_scored(measure, *(v[:, use] for v in (*counts, truth))) for counts in both if counts is not None]
            for *both, truth in pairs
        ]
        at, out = 0, np.empty((len(pairs), resamples))
        for drawn in self._draws(groups, resamples, max(1, DRAWN // index.size)):
            weights = drawn[:, index].astype(np.float64)
            for k, (gained, *base) in enumerate(scored):
                out[k, at : at + len(drawn)] = gained(weights) - sum(other(weights) for other in base)
            at += len(drawn)
            del drawn, weights  # before the next are drawn
        return out

    def _draws(self, groups: int, resamples: int, rows: int) -> Iterator[NDArray[Any]]:
        """Yield how often each resample has each group, some resamples at a time.

        They follow from the seed and these numbers alone, and folds mostly have equally many groups.
        """
        asked, kept = (groups, resamples), None
        if self._kept is not None and self._kept[0] == asked:
            for at in range(0, resamples, rows):
                yield self._kept[1][at : at + rows]
            return
        if groups * resamples <= KEPT:
            kept = np.empty((resamples, groups), np.uint8)
        rng = np.random.default_rng(self._seed)
        for at in range(0, resamples, rows):
            drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=min(rows, resamples - at))
            if kept is not None:
                kept[at : at + rows] = drawn  # 256 times is beyond chance
            yield drawn
        if kept is not None:
            self._kept = asked, kept

    def intervals(self, measure: Measure, pairs: Sequence[Pair]) -> list[Interval]:
        """Return the gain of one outcome over another, or its score, with its interval, for each pair."""
        found = []
        for (one, other, truth), gains in zip(pairs, self.gains(measure, pairs), strict=True):
            if not len(truth):
                found.append(Interval(0.0, 0.0, 0.0))
                continue
            value = measure.of_all(*one, truth) - (0 if other is None else measure.of_all(*other, truth))
            known = gains[~np.isnan(gains)]
            low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
            found.append(Interval(value, float(low), float(high)))
        return found

    def interval(self, measure: Measure, one: Counts, other: Counts | None, truth: NDArray[np.int64]) -> Interval:
        """Return the gain of one outcome over another, or its score, with its interval; 0 where no class counts."""
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
