"""JSON read and written strictly: no NaN, no number that overflows, no key twice, UTF-8 only."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ensemble_kit.errors import DamagedError


def load(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    DamagedError
        The text is not strict JSON; the error says where.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, f"byte {error.start} is not UTF-8") from None
    try:
        return parse(text)
    except ValueError as error:
        raise _refused(path, str(error)) from None


def parse(text: str) -> Any:
    """Read JSON from text; raises ValueError, and nothing else, where it is not strict."""
    try:
        return json.loads(text, parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def dump(value: object) -> bytes:
    """Write a value as compact UTF-8 JSON that ends in a newline."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return (text + "\n").encode()


def plain_number(value: float) -> float | None:
    """Return a number as JSON can hold it, to nine decimals; None where it is not finite."""
    return round(float(value), 9) if math.isfinite(value) else None


def _refused(path: Path, why: str) -> DamagedError:
    fix = "write the file again as strict JSON in UTF-8"
    return DamagedError("json-invalid", "cannot read a JSON file", item=f"{path}: {why}", fix=fix)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:24]} is too large")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return out
