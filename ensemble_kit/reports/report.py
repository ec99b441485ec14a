"""`Report`: a table with its legend, sentences and warnings, for terminal, notebook and page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ensemble_kit.errors import Caution


@dataclass(frozen=True)
class Report:
    """A table with its title, what its columns mean, the sentences below it, and warnings.

    Parameters
    ----------
    legend : what the columns hold, once for the table: which reduction and convention a figure is of.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    legend: str
    lines: list[str] = field(default_factory=list)
    warnings: list[Caution] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """The legend, and the sentences below it."""
        return [self.legend, *self.lines]

    def table(self) -> list[str]:
        """Lay out title and table in lines of text: the first column to the left, the others to the right."""
        widths = [max(map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]

        def line(cells: Sequence[str]) -> str:
            padded = (c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(cells, widths, strict=True)))
            return "  ".join(padded).rstrip()

        rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
        return [*([self.title] if self.title else []), line(self.columns), rule, *map(line, self.rows)]

    def __str__(self) -> str:
        return "\n".join([*self.table(), "", *self.sentences, *(f"warning: {text}" for text in self.warnings)])
