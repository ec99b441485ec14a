"""From stores and a truth to a threshold set with its report."""

from __future__ import annotations

from typing import Any

from ensemble_kit.ensemble import Ensemble
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.spec.scoring import Measure
from ensemble_kit.tuning.folds import Groups


def judge_rank_rule(
    fused: Ensemble,
    truth: MaskSet,
    measure: Measure,
    folds: int | None,
    groups: Groups,
    seed: int,
    jobs: int | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Score the rank rule, which trains nothing, and with a temperature fitted out of fold: values, and sentences."""
    import numpy as np

    from ensemble_kit.tuning.calibration import fit_temperature, fold_temperatures, level_histogram, rank_scores
    from ensemble_kit.tuning.folds import make_folds

    every = [np.arange(len(fused.samples))]
    parts = make_folds(fused.samples, folds, groups, seed) if folds else every
    histogram = level_histogram(fused, truth, parts, jobs=jobs)
    scaling = fit_temperature(histogram, fused.fusion.mean)
    values: dict[str, Any] = {
        "score": rank_scores(fused, truth, measure, jobs=jobs).score,
        "scaling": scaling.to_dict(),
    }
    lines = [f"Rank rule per image, nothing trained: {values['score']:.4f}."]
    if folds:
        temperatures = fold_temperatures(histogram, parts, fused.fusion.mean)
        values["scaled"] = rank_scores(fused, truth, measure, temperatures, jobs=jobs).score
        lines = [f"{lines[0][:-1]}; with a temperature fitted out of fold: {values['scaled']:.4f}."]
    return values, [*lines, str(scaling)]
