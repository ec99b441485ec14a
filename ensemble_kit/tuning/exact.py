"""The best threshold of every class, exact over all 65,536 levels (docs/concepts.md#rule-8-best-threshold)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.execution.executor import THREADS, Executor, in_threads, threads_here
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.thresholds.crossed import Choice
from ensemble_kit.thresholds.records import Best, Calibration, ClassThreshold, Validation
from ensemble_kit.thresholds.thresholdset import ThresholdSet
from ensemble_kit.tuning.choosing import Chooser, usual
from ensemble_kit.tuning.counting import folds_of
from ensemble_kit.tuning.crossval import cross_validate
from ensemble_kit.tuning.curve import Curve
from ensemble_kit.tuning.folds import Groups
from ensemble_kit.tuning.resampling import Counts
from ensemble_kit.tuning.statistics import Statistics


def tune_from(
    statistics: Statistics,
    ensemble: Ensemble,
    measure: Measure,
    folds: int | None = None,
    groups: Groups = None,
    seed: int = 0,
    choose: Choice | None = None,
    executor: Executor = THREADS,
    judged: bool = True,
) -> ThresholdSet:
    """Read the best thresholds off statistics; parameters as for `tune_thresholds`. No pixel is looked at.

    Without `judged` the levels are the same, and no cross-validation is told of.

    Classes are worked on in as many threads of this process as the executor has.

    With folds a class that no sample has takes the common level: only its false pixels would speak. Without them every
    level is the plain optimum, unless another way of choosing is asked for.
    """
    threads = threads_here(executor)
    split, names = folds_of(ensemble.samples, folds, groups, seed)
    curves = [Curve(table, measure, split) for table in statistics.tables]
    half, mean, choose = ensemble.level_of(0.5), ensemble.fusion.mean, usual(choose, folds)
    crossed = None
    how: dict[str, Any] = {} if choose == "own" and not folds else {"choose": choose}
    how |= {"shared": True} if choose == "shared" else {}  # as before there was a choice
    if folds or choose != "own":
        chooser = Chooser(curves, names, half, choose, mean, seed, threads)
        if folds and judged:
            crossed, chosen = cross_validate(chooser, ensemble.classes)
        else:
            chosen = chooser.on(chooser.every)
        levels = [
            None if kept and choose != "bagged" else level
            for kept, level in zip(chosen.keeps, chosen.levels, strict=True)
        ]
    else:
        levels = [None] * len(curves)
    every, pooled = [np.arange(len(ensemble.samples))], Measure("pooled", "dice", measure.convention)

    def described(c: int) -> tuple[ClassThreshold, list[Counts]]:
        curve, level, table = curves[c], levels[c], curves[c].table
        pixels = Curve(table, pooled, every)
        best = curve.best() if level is None else _at_level(curve, level)
        found = ClassThreshold(
            ensemble.classes[c],
            best.level,
            best.score,
            curve.score_at(half, range(len(split))),
            best.plateau,
            int((table.truth > 0).sum()),
            len(ensemble.samples),
            (table.low, table.high),
            Calibration.of(pixels.best(), mean),
        )
        counts = [table.at(min(level, table.high), release=False) for level in (best.level, half)]
        curve.release()
        pixels.release()
        return found, counts

    classes, counts = zip(*in_threads(described, range(len(curves)), threads), strict=True)
    scores = [_score_of_all(curves, measure, [own[k] for own in counts]) for k in (0, 1)]
    return ThresholdSet.of(
        classes,
        ensemble.fusion,
        ensemble.records,
        measure,
        Validation.of(ensemble.samples, scores[0], scores[1], crossed),
        {"method": "exact", "seed": seed, "trials": None, **how},
        dict(zip(ensemble.classes, curves, strict=True)),
        member_classes=ensemble.member_classes,
    )


def _at_level(curve: Curve, level: int) -> Best:
    """Describe a level that need not be the class's best: its score, and the plateau of one segment."""
    return Best(level, curve.score_at(level, range(len(curve.folds))), curve.table.segment(level))


def _score_of_all(curves: Sequence[Curve], measure: Measure, counts: Sequence[Counts]) -> float:
    tp, pred = (np.stack([c[k] for c in counts]) for k in (0, 1))
    return measure.of_all(tp, pred, np.stack([curve.table.truth for curve in curves]))
