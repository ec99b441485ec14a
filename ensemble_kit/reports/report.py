"""`Report`: a table with sentences and warnings, for terminal, notebook and page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Report:
    """A table with its title, the sentences below it, and warnings."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def table(self) -> list[str]:
        """Lay out title and table in lines of text: the first column to the left, the others to the right."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = (c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True)))
            return "  ".join(padded).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return [*([self.title] if self.title else []), line(self.columns), rule, *map(line, self.rows)]

    def __str__(self) -> str:
        told = [*self.lines, *(f"warning: {text}" for text in self.warnings)]
        return "\n".join([*self.table(), *(["", *told] if told else [])])
