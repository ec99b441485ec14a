"""The best threshold of every class, exact over all 65,536 levels (docs/concepts.md#rule-8-best-threshold)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.records import Best, Calibration, ClassThreshold, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.crossval import cross_validate, shared_level
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.statistics import Statistics


def tune_from(
    statistics: Statistics,
    ensemble: Ensemble,
    measure: Measure,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    shrink: bool = True,
    shared: bool = False,
) -> ThresholdSet:
    """Read the best thresholds off statistics; parameters as for `tune_thresholds`. No pixel is looked at.

    With folds a class that no sample has takes the common level: only its false pixels would speak. Without them every
    level is the plain optimum.
    """
    split, names = folds_of(ensemble, folds, groups, seed)
    curves = [Curve(table, measure, split) for table in statistics.tables]
    half = ensemble.level_of(0.5)
    best = [curve.best() for curve in curves]
    crossed = None
    if folds:
        shrinks = shrink and not shared
        crossed = cross_validate(statistics, measure, split, names, half, shrinks, seed, curves, shared)
        best = [
            b if crossed.classes[name].keeps else _common_best(curve, crossed.common_level)
            for name, curve, b in zip(ensemble.classes, curves, best, strict=True)
        ]
    elif shared:
        level = shared_level(curves, range(len(split)), half)
        best = [_common_best(curve, level) for curve in curves]
    pooled = Measure("pooled", "dice", measure.convention)
    classes = tuple(
        ClassThreshold(
            name,
            b.level,
            b.score,
            curve.score_at(half, range(len(split))),
            b.plateau,
            int((curve.table.truth > 0).sum()),
            len(ensemble.samples),
            (curve.table.low, curve.table.high),
            Calibration.of(Curve(curve.table, pooled, split).best(), ensemble.fusion.mean),
        )
        for name, curve, b in zip(ensemble.classes, curves, best, strict=True)
    )
    scores = [_score_of_all(curves, measure, levels) for levels in ([b.level for b in best], [half] * len(best))]
    return ThresholdSet.of(
        classes,
        ensemble.fusion,
        ensemble.records,
        measure,
        Validation.of(ensemble.samples, scores[0], scores[1], crossed),
        {"method": "exact", "seed": seed, "trials": None, **({"shared": True} if shared else {})},
        dict(zip(ensemble.classes, curves, strict=True)),
    )


def _common_best(curve: Curve, level: int) -> Best:
    """Describe a class that takes the common level: its score there, and the plateau of one segment."""
    return Best(level, curve.score_at(level, range(len(curve.folds))), curve.table.segment(level))


def _score_of_all(curves: Sequence[Curve], measure: Measure, levels: Sequence[int]) -> float:
    counts = [curve.table.at(min(level, curve.table.high)) for curve, level in zip(curves, levels, strict=True)]
    tp, pred = (np.stack([c[k] for c in counts]) for k in (0, 1))
    return measure.of_all(tp, pred, np.stack([curve.table.truth for curve in curves]))
