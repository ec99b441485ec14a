"""One threshold for all classes, exact over all levels: counted in a band that is widened until it is certain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.events import Listener
from ensemble_kit.execution.executor import Executor
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.common_level import common_level
from ensemble_kit.tuning.counting import WIDER
from ensemble_kit.tuning.curve import Curve, best_case, or_perfect
from ensemble_kit.tuning.statistics import Statistics, count

if TYPE_CHECKING:
    from numpy.typing import NDArray


def widened(
    statistics: Statistics,
    ensemble: Ensemble,
    truth: MaskSet,
    measure: Measure,
    executor: Executor,
    listener: Listener,
) -> Statistics:
    """Count in wider bands until no shared level outside them can be better; the same statistics where none can.

    Each class's own best level is certain already; the best one for all of them together may still lie elsewhere.
    """
    every = [np.arange(len(statistics.samples))]
    for low, high in WIDER:
        if _certain([Curve(table, measure, every) for table in statistics.tables]):
            return statistics
        narrow = {
            c: (min(low, t.low), max(high, t.high))
            for c, t in enumerate(statistics.tables)
            if t.low > low or t.high < high
        }
        statistics = statistics.widened(count(ensemble, truth, narrow, executor, listener))
    return statistics


def _certain(curves: Sequence[Curve]) -> bool:
    """Tell whether the best shared level of the band that all classes have is the best of all levels.

    Classes without positives have no say in it.
    """
    curves = [c for c in curves if c.has_positives([0])]
    if not curves:
        return True
    low, high = max(c.table.low for c in curves), min(c.table.high for c in curves)
    best = _score(curves, common_level(curves, [0]))
    sides = []
    if low > 0:
        sides.append([_bound(c, np.maximum(c.table.at(low)[1], c.table.truth), c.table.truth) for c in curves])
    if high < LEVELS and any(c.table.at(high)[1].any() for c in curves):
        sides.append([_bound(c, *[c.table.at(high)[0]] * 2) for c in curves])
    # where pairs are skipped a level changes how many count, so the best class bounds the mean
    skips = curves[0].measure.convention.empty == "skip"
    return all((max(bounds) if skips else sum(bounds) / len(bounds)) < best for bounds in sides)


def _score(curves: Sequence[Curve], level: int) -> float:
    counts = [c.table.at(min(level, c.table.high)) for c in curves]
    tp, pred = (np.stack([own[k] for own in counts]) for k in (0, 1))
    return or_perfect(curves[0].measure.of_all(tp, pred, np.stack([c.table.truth for c in curves])))


def _bound(curve: Curve, pred: NDArray[np.int64], tp: NDArray[np.int64]) -> float:
    """Bound a class's score by masks that have all of `tp` right, and no fewer pixels than `pred`."""
    truth = curve.table.truth
    if curve.measure.objective == "pooled":
        pred, tp, truth = (v.sum(keepdims=True) for v in (pred, tp, truth))
    return best_case(tp, pred, truth, curve.measure)
