"""What a cross-validation found, as the file of a set holds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ensemble_kit.thresholds.crossed import UNKNOWN, ClassFolds, CrossValidation, Interval
from ensemble_kit.thresholds.fields import number, stable


def crossed_dict(crossed: CrossValidation) -> dict[str, Any]:
    """Write a cross-validation, but for what stands with each class."""
    return {
        "groups": crossed.groups,
        "shrink": crossed.shrink,
        "scores": {name: stable(score) for name, score in crossed.scores.items()},
        "gain": _interval_list(crossed.gain),
        "as_decided": None if crossed.as_decided is None else _interval_list(crossed.as_decided),
        "score": None if crossed.score is None else _interval_list(crossed.score),
        "common_level": crossed.common_level,
    }


def crossed_from(
    folds: int, d: dict[str, Any], classes: dict[str, dict[str, Any]], check: Callable[[object], int]
) -> CrossValidation:
    """Read a cross-validation; `classes` are the `folds_dict` of each, `check` reads a level or a factor."""
    return CrossValidation(
        int(folds),
        int(d["groups"]),
        bool(d["shrink"]),
        {name: number(score) for name, score in d["scores"].items()},
        _interval_from(d["gain"]),
        check(d["common_level"]),
        {
            name: ClassFolds(
                tuple(check(v) for v in c["levels"]), _interval_from(c["gain"]), bool(c["keeps"]), number(c["score"])
            )
            for name, c in classes.items()
        },
        _interval_or_none(d["as_decided"]) if "as_decided" in d else UNKNOWN if d["shrink"] else None,
        _interval_or_none(d.get("score")),
    )


def _interval_list(interval: Interval) -> list[float | None]:
    return [stable(interval.value), stable(interval.low), stable(interval.high)]


def _interval_from(values: list[float | None]) -> Interval:
    value, low, high = (number(v) for v in values)
    return Interval(value, low, high)


def _interval_or_none(values: list[float | None] | None) -> Interval | None:
    return None if values is None else _interval_from(values)


def folds_dict(name: str, crossed: CrossValidation | None) -> dict[str, Any] | None:
    """Write what a cross-validation found of one class."""
    if crossed is None:
        return None
    own = crossed.classes[name]
    return {
        "levels": list(own.levels),
        "gain": _interval_list(own.gain),
        "keeps": own.keeps,
        "score": stable(own.score),
    }
