"""`Report`: a table with sentences and warnings, for terminal, notebook and page alike."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """A table with its title, the sentences below it, and warnings."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
