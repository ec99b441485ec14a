"""Answers as a terminal shows them, laid out by rich. Imported only where there is a terminal to draw on.

rich makes text; the caller prints it, with the same care for closed and full streams as plain text. Every name becomes
a `Text`, escaped before, so neither the terminal nor rich's markup obeys it.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ensemble_kit.cli.plain import value
from ensemble_kit.cli.streams import printable

if TYPE_CHECKING:
    from ensemble_kit.cli.plain import Shown
    from ensemble_kit.reports.report import Report

_NAME = "cyan"
_GAP, _LEAST_VALUE = 2, 12  # cells between two columns, and for the values beside names


class _Stand(io.StringIO):
    """Stands in for a stream where rich asks what it is, and where rich flushes it: the terminal may be gone."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The stream's own."""
        return self._stream.encoding or "utf-8"

    def isatty(self) -> bool:
        """Tell what the stream is."""
        return self._stream.isatty()


def console_for(stream: TextIO) -> Console:
    """Make a console that lays out text for a stream and leaves it to `capture()`."""
    return Console(file=_Stand(stream))


def draw(shown: Sequence[Shown], stream: TextIO) -> str:
    """Draw an answer for a stream, in its width and colours; end without a newline."""
    console = console_for(stream)
    with console.capture() as drawn:
        for k, part in enumerate(shown):
            if isinstance(part, str):
                console.print(_text(part), soft_wrap=True)  # verbatim: a command may be copied from it
            elif isinstance(part, Mapping):
                console.print(_facts(part.items(), console.width))
            else:
                apart = [Text()] if k else []
                console.print(Group(*apart, *_report(part, console.width)), overflow="ignore", crop=False)
    return drawn.get().rstrip("\n")


def _report(report: Report, width: int) -> list[RenderableType]:
    title = [_sentence(report.title, width, "bold")] if report.title else []
    return [*title, _tables(report, width), Text(), *(_sentence(line, width) for line in report.sentences)]


def _sentence(text: str, width: int, style: str = "") -> Text:
    """Break between words and never inside one, such as a path."""
    lines = textwrap.wrap(printable(text), width, break_long_words=False, break_on_hyphens=False)
    return Text("\n".join(lines), style)


def _tables(report: Report, width: int) -> RenderableType:
    """Draw a table whose every cell is whole.

    Where it is too wide, its heads are broken; then its columns are dealt to several tables, each of which begins with
    the first column; and where even two columns are too wide, each row becomes a block of lines.
    """
    for between in (" ", "\n"):
        heads = [name.replace(" ", between) for name in report.columns]
        columns = [[_text(cell) for cell in column] for column in zip(heads, *report.rows, strict=True)]
        widths = [max(cell_len(line) for cell in column for line in cell.plain.split("\n")) for column in columns]
        groups = _dealt(widths, width)
        if len(groups) == 1:
            break
    if any(_total(widths, group) > width for group in groups):
        rows = [zip(report.columns, row, strict=True) for row in report.rows]
        return _apart(_facts([(name, cell) for name, cell in row if cell], width) for row in rows)
    return _apart(_table([columns[k] for k in group]) for group in groups)


def _dealt(widths: Sequence[int], width: int) -> list[list[int]]:
    """Deal columns to as few tables as fit, in their order."""
    groups = [[0]]
    for k in range(1, len(widths)):
        if len(groups[-1]) > 1 and _total(widths, [*groups[-1], k]) > width:
            groups.append([0])
        groups[-1].append(k)
    return groups


def _total(widths: Sequence[int], group: Sequence[int]) -> int:
    return sum(widths[k] for k in group) + _GAP * (len(group) - 1)


def _table(columns: Sequence[Sequence[Text]]) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for k, (head, *_) in enumerate(columns):
        table.add_column(head, justify="right" if k else "left", style="" if k else _NAME, no_wrap=True)
    for row in zip(*(column[1:] for column in columns), strict=True):
        table.add_row(*row)
    return table


def _apart(parts: Iterable[RenderableType]) -> RenderableType:
    """Put an empty line between."""
    return Group(*[each for part in parts for each in (Text(), part)][1:])


def _facts(facts: Iterable[tuple[str, Any]], width: int) -> RenderableType:
    """Draw names and their values beside each other, or where that leaves no room for values, one after the other."""
    pairs = [(_text(name, _NAME), _text(value(of))) for name, of in facts]
    if width < max(name.cell_len for name, _ in pairs) + 2 + _LEAST_VALUE:
        return Group(*(Text.assemble(name, " ", of, overflow="fold") for name, of in pairs))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for pair in pairs:
        grid.add_row(*pair)
    return grid


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style)
