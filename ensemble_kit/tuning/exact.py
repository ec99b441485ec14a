"""The best threshold of every class, exact over all 65,536 levels (docs/concepts.md#rule-8-best-threshold)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.records import Best, Calibration, ClassThreshold, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.choosing import Chooser, usual
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.crossval import cross_validate
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
    choose: Choice | None = None,
) -> ThresholdSet:
    """Read the best thresholds off statistics; parameters as for `tune_thresholds`. No pixel is looked at.

    With folds a class that no sample has takes the common level: only its false pixels would speak. Without them every
    level is the plain optimum, unless another way of choosing is asked for.
    """
    split, names = folds_of(ensemble.samples, folds, groups, seed)
    curves = [Curve(table, measure, split) for table in statistics.tables]
    half, mean, choose = ensemble.level_of(0.5), ensemble.fusion.mean, usual(choose, folds)
    crossed = None
    how: dict[str, Any] = {} if choose == "own" and not folds else {"choose": choose}
    how |= {"shared": True} if choose == "shared" else {}  # as before there was a choice
    if folds or choose != "own":
        chooser = Chooser(curves, names, half, choose, mean, seed)
        crossed, chosen = cross_validate(chooser, ensemble.classes) if folds else (None, chooser.on(chooser.every))
        best = [
            curve.best() if kept and choose != "bagged" else _at_level(curve, level)
            for curve, kept, level in zip(curves, chosen.keeps, chosen.levels, strict=True)
        ]
    else:
        best = [curve.best() for curve in curves]
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
            Calibration.of(Curve(curve.table, pooled, split).best(), mean),
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
        {"method": "exact", "seed": seed, "trials": None, **how},
        dict(zip(ensemble.classes, curves, strict=True)),
    )


def _at_level(curve: Curve, level: int) -> Best:
    """Describe a level that need not be the class's best: its score, and the plateau of one segment."""
    return Best(level, curve.score_at(level, range(len(curve.folds))), curve.table.segment(level))


def _score_of_all(curves: Sequence[Curve], measure: Measure, levels: Sequence[int]) -> float:
    counts = [curve.table.at(min(level, curve.table.high)) for curve, level in zip(curves, levels, strict=True)]
    tp, pred = (np.stack([c[k] for c in counts]) for k in (0, 1))
    return measure.of_all(tp, pred, np.stack([curve.table.truth for curve in curves]))
