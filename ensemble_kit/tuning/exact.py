"""The best threshold of every class: exact over all 65,536 levels, read off the statistics (design §3.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.errors import check_kind
from ensemble_kit.execution.events import Listener, nobody
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.mean import LEVELS
from ensemble_kit.spec.scoring import Convention, Empty, Measure, Objective
from ensemble_kit.thresholds.records import Best, Calibration, ClassThreshold, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.counting import _parts, statistics_for
from ensemble_kit.tuning.crossval import cross_validate
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.statistics import Statistics

if TYPE_CHECKING:
    from ensemble_kit.tuning.search import Search


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
        from ensemble_kit.tuning import search as joint

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
