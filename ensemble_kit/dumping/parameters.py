"""Numbers of a preprocessing, read strictly, and the words that refuse them."""

from __future__ import annotations

import math
from typing import Any

from ensemble_kit.errors import UsageError


def is_number(value: object) -> bool:
    """Tell whether a value is a finite number; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object, most: int) -> bool:
    """Tell whether a value is a whole number from 1 to `most`."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= most


def one_each(name: str, value: object, count: int) -> tuple[float, ...]:
    """Read one number a channel; one number, or as many of one value, stand for all."""
    if not isinstance(value, list | tuple) or not value or not all(is_number(v) for v in value):
        raise invalid(name, value, "finite numbers, one a channel")
    if len(value) == count:
        return tuple(float(v) for v in value)
    if len({float(v) for v in value}) > 1:
        raise invalid(name, tuple(value), f"one number, or {count}: the network is fed {count} channels")
    return (float(value[0]),) * count


def pair_of(name: str, value: object) -> tuple[float, float] | None:
    """Read a range (low, high), or a window (centre, width); None stays None."""
    if value is None:
        return None
    pair: list[Any] | tuple[Any, ...] = value if isinstance(value, list | tuple) else ()
    first, second = pair if len(pair) == 2 and all(is_number(v) for v in pair) else (0, 0)
    if not (first < second if name == "range" else second > 0):
        raise invalid(
            name, value, "(low, high) with low < high" if name == "range" else "(centre, width), a width above 0"
        )
    return float(first), float(second)


def check_scale(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Refuse what is not on the 0..1 scale.

    Pixels within 0..1 have a mean within 0..1 and a standard deviation of at most 0.5; an std of 1 leaves the values
    as they are. Anything larger was measured on 0..255 or 0..65535; with it the network's outputs would be wrong, and
    nothing would show it.
    """
    if min(mean) < 0:
        raise invalid("mean", mean, "numbers from 0 to 1")
    if min(std) <= 0:
        raise invalid("std", std, "numbers above 0, at most 1")
    if max(*mean, *std) <= 1:
        return
    scale = 255 if max(*mean, *std) <= 255 else 65535
    bytes_mean = max(mean) > 1
    bytes_std = max(std) > 1 or (bytes_mean and set(std) == {1.0})  # an std of 1 divides by nothing on its own scale
    divided = (
        ",".join(f"{v / scale if ours else v:.6g}" for v in values)
        for values, ours in ((mean, bytes_mean), (std, bytes_std))
    )
    raise UsageError(
        "preprocess-invalid",
        "cannot use preprocessing",
        item=f"mean = {mean}, std = {std}; images are brought to 0..1 first, so at most 1 is possible",
        fix=f"divide by {scale}: --mean {next(divided)} --std {next(divided)}",
    )


def invalid(name: str, value: object, wanted: str) -> UsageError:
    """Make the error of a value that preprocessing cannot use."""
    return UsageError(
        "preprocess-invalid", "cannot use preprocessing", item=f"{name} = {value!r}", fix=f"pass {name} as {wanted}"
    )
