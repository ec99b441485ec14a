"""The threshold or factor of one class, as the file of a set holds it."""

from __future__ import annotations

import math
from typing import Any

from ensemble_kit.spec.mean import Mean
from ensemble_kit.thresholds.crossed import CrossValidation
from ensemble_kit.thresholds.crossed_file import folds_dict
from ensemble_kit.thresholds.fields import as_factor, as_level, as_text, check_told, number, stable
from ensemble_kit.thresholds.records import Calibration, ClassFactor, ClassThreshold


def factor_dict(c: ClassFactor, crossed: CrossValidation | None) -> dict[str, Any]:
    """Write the factor of a class."""
    return {
        "name": c.name,
        "factor": c.factor / 65536,
        "score": stable(c.score),
        "score_at_one": stable(c.score_at_one),
        "plateau": list(c.plateau),
        "positives": c.positives,
        "samples": c.samples,
        "folds": folds_dict(c.name, crossed),
    }


def factor_from(c: dict[str, Any], factor: int) -> ClassFactor:
    """Read what `factor_dict` wrote; the factor that decides stands in the decision."""
    check_told(c, "factor", factor, lambda told: math.floor(65536 * told + 0.5), factor / 65536)
    return ClassFactor(
        c["name"],
        factor,
        number(c["score"]),
        number(c["score_at_one"]),
        (as_factor(c["plateau"][0]), as_factor(c["plateau"][1])),
        int(c["positives"]),
        int(c["samples"]),
    )


def class_dict(c: ClassThreshold, mean: Mean, crossed: CrossValidation | None) -> dict[str, Any]:
    """Write the threshold of a class."""
    return {
        "name": c.name,
        "level": c.level,
        "threshold": stable(mean.probability_of(c.level)),
        "score": stable(c.score),
        "score_at_half": stable(c.score_at_half),
        "plateau": list(c.plateau),
        "positives": c.positives,
        "samples": c.samples,
        "band": list(c.band),
        "calibration": {"threshold": stable(c.calibration.threshold), "half_dice": stable(c.calibration.half_dice)},
        "folds": folds_dict(c.name, crossed),
    }


def class_from(c: dict[str, Any], mean: Mean) -> ClassThreshold:
    """Read what `class_dict` wrote."""
    level = as_level(c["level"])
    check_told(c, "threshold", level, mean.level_of, mean.probability_of(level))
    return ClassThreshold(
        as_text(c["name"]),
        level,
        number(c["score"]),
        number(c["score_at_half"]),
        (as_level(c["plateau"][0]), as_level(c["plateau"][1])),
        int(c["positives"]),
        int(c["samples"]),
        (int(c["band"][0]), int(c["band"][1])),
        Calibration(number(c["calibration"]["threshold"]), number(c["calibration"]["half_dice"])),
    )
