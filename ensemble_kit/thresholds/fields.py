"""Values of a set's file, each checked to be what it has to be; a TypeError or ValueError where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ensemble_kit.spec.factors import LEAST, MOST
from ensemble_kit.spec.mean import LEVELS


def stable(value: float) -> float | None:
    """Return a number in full, since a loaded score must still equal the vote's; None for NaN."""
    return None if math.isnan(value) else value


def number(value: float | None) -> float:
    """Return a number; NaN for None."""
    return math.nan if value is None else float(value)


def as_object(value: object) -> dict[str, Any]:
    """Return an object of JSON."""
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not an object")
    return value


def as_list(value: object) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    return value


def as_text(value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def as_whole(value: object) -> int:
    """Return an integer."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is not a whole number")
    return value


def as_level(value: object) -> int:
    """Return a level, 0 … 65535."""
    if type(value) is not int or not 0 <= value < LEVELS:
        raise ValueError(f"level {value!r} is not in 0 … 65535")
    return value


def as_factor(value: object) -> int:
    """Return a factor of argmax, 512 … 8388608."""
    if type(value) is not int or not LEAST <= value <= MOST:
        raise ValueError(f"factor {value!r} is not in {LEAST} … {MOST}")
    return value


def check_told(c: dict[str, Any], key: str, decides: int, meant: Callable[[float], int], value: float) -> None:
    """Refuse a number beside the integer that decides and not the same: somebody has edited one of the two."""
    told = c.get(key)
    if told is not None and meant(float(told)) != decides and not math.isclose(float(told), value, rel_tol=1e-9):
        raise ValueError(f"class {c['name']!r} has {key} {told!r}, but {decides} decides, which is {value!r}")
