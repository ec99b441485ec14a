"""The one level that is best for all classes, summed up class by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.tuning.curve import Curve

Which = tuple[int, ...]
"""Numbers of some folds."""


class CommonLevels:
    """Sums over classes at every level of the band that all classes were counted in, for some unions of folds.

    They take 1 MB a union. A class without positives has no say.

    Parameters
    ----------
    curves : of all classes; what they hold is looked at only by `add`.
    unions : of folds.
    half : the level of 0.5, taken where no class has positives.
    """

    def __init__(self, curves: Sequence[Curve], unions: Iterable[Which], half: int) -> None:
        self._half, self._pooled = half, curves[0].measure.objective == "pooled"
        self._low, high = max(c.table.low for c in curves), min(c.table.high for c in curves)
        size = max(high - self._low, 0)
        self._sums = {which: (np.zeros(size), np.zeros(size, np.int64)) for which in unions}
        self._seen: set[Which] = set()

    def add(self, curve: Curve) -> None:
        """Add one class; sums of floats depend on their order, so classes are added in theirs."""
        for which, (top, foot) in self._sums.items():
            if curve.has_positives(which):
                curve.add_to(self._low, top, foot, which)
                self._seen.add(which)

    def level(self, which: Which) -> int:
        """Return the level that maximises the objective over all classes; the nearest to 0.5 among equals."""
        if which not in self._seen:
            return self._half
        top, foot = self._sums[which]
        score = top if self._pooled else np.where(foot == 0, 1.0, top / np.maximum(foot, 1))
        best = np.flatnonzero(score >= np.max(score) - 1e-12) + self._low
        return int(min(best.tolist(), key=lambda level: (abs(2 * level - (LEVELS - 1)), level)))


def common_level(curves: Sequence[Curve], which: Sequence[int], half: int = (LEVELS - 1) // 2) -> int:
    """Find the one level for all classes over some folds (see `CommonLevels`)."""
    sums = CommonLevels(curves, [tuple(which)], half)
    for curve in curves:
        sums.add(curve)
        curve.release()
    return sums.level(tuple(which))
