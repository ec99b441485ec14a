"""Answers as plain text, for pipes, files and dumb terminals; `cli.terminal` draws the same ones with rich."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble_kit.reports.report import Report

    Shown = str | Mapping[str, Any] | Report
    """What an answer is made of: lines of text, names with their values, or a table with its sentences."""


def text(shown: Sequence[Shown]) -> str:
    """Lay out an answer; an empty line sets off each table from what stands above it."""
    lines: list[str] = []
    for part in shown:
        if isinstance(part, str):
            lines.append(part)
        elif isinstance(part, Mapping):
            lines += _facts(part)
        else:
            lines += [*([""] if lines else []), *part.table(), "", *part.sentences]
    return "\n".join(lines)


def value(of: object) -> str:
    """Write a value: a list as its items with commas between."""
    return ", ".join(map(str, of)) if isinstance(of, (list, tuple)) else str(of)


def size(n: int | float) -> str:
    """Write a number of bytes in the largest unit that keeps it above 1: `1.5 GB`."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _facts(facts: Mapping[str, Any]) -> list[str]:
    width = max(map(len, facts))
    return [f"{name.ljust(width)}  {value(of)}" for name, of in facts.items()]
