"""A page of values as one HTML file: sections of sentences, tables, charts and pictures, with every text escaped.

The page asks for nothing: its policy (Content-Security-Policy) allows its own style, the one script whose digest it
names, and pictures within the file, or beside it where they are kept apart.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

from ensemble_kit.errors import Caution
from ensemble_kit.reports.report import Report
from ensemble_kit.reports.svg import Svg


@dataclass(frozen=True)
class Sentences:
    """A list of sentences."""

    kind: ClassVar[str] = "sentences"
    lines: Sequence[str]


@dataclass(frozen=True)
class Cautions:
    """What to be wary of, each with what to do."""

    kind: ClassVar[str] = "cautions"
    lines: Sequence[Caution]


@dataclass(frozen=True)
class Figures:
    """A few large figures, each with its name and what it is of."""

    kind: ClassVar[str] = "figures"
    items: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Commands:
    """Command lines, to be copied."""

    kind: ClassVar[str] = "commands"
    lines: Sequence[tuple[str, str]]
    """What each does, and the command."""


@dataclass(frozen=True)
class Table:
    """A table whose first column has names; it is sorted by a click on a column's head.

    Parameters
    ----------
    last : whether the last row is of all the others, and stays last.
    shades : of each cell, between 0 and 1, in the rows and columns behind the names; None: no cell is shaded.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: str = ""
    last: bool = False
    shades: Sequence[Sequence[float]] | None = None
    sorts: bool = True

    @property
    def words(self) -> list[bool]:
        """Tell which columns hold words, which stand at the left, and not numbers."""
        starts = [{row[k][:1] for row in self.rows} for k in range(len(self.columns))]
        return [not own <= set("+-–0123456789 ") | {""} for own in starts]

    @classmethod
    def of(cls, report: Report, last: bool = False) -> Table:
        """Take the table of a report, with its legend."""
        return cls(report.title, report.columns, report.rows, report.legend, last)


@dataclass(frozen=True)
class Chart:
    """A drawing, with the words that stand for it where it is not seen."""

    kind: ClassVar[str] = "chart"
    svg: Svg
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Charts:
    """Several small drawings side by side."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]
    caption: str = ""


@dataclass(frozen=True)
class View:
    """One picture of several layers, of which one at a time is seen on the image.

    Parameters
    ----------
    title, note : what it shows, in words.
    size : width and height of a layer in pixels.
    base : address of the image (data: or a file beside the page); None: layers lie on black.
    layers : name and address of each.
    shown : the name of the layer that is seen first.
    blinks : whether two of the layers are "truth" and "answer", which can be seen by turns.
    """

    title: str
    note: str
    size: tuple[int, int]
    base: str | None
    layers: Sequence[tuple[str, str]]
    shown: str
    blinks: bool = False


@dataclass(frozen=True)
class Key:
    """What colours mean: name and colour of each."""

    kind: ClassVar[str] = "key"
    heading: str
    colours: Sequence[tuple[str, tuple[int, int, int]]]


@dataclass(frozen=True)
class Views:
    """Pictures under a heading."""

    kind: ClassVar[str] = "views"
    heading: str
    views: Sequence[View]


Block = Sentences | Cautions | Figures | Facts | Commands | Table | Chart | Charts | Key | Views


@dataclass(frozen=True)
class Section:
    """A part of a page: its anchor, its heading, a sentence on what it answers, and what it holds."""

    anchor: str
    heading: str
    lead: str
    blocks: Sequence[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Page:
    """A whole page.

    Parameters
    ----------
    title, subtitle : what it is of.
    foot : what made it, and when.
    apart : whether pictures lie beside the page, in a folder.
    """

    title: str
    subtitle: str
    sections: Sequence[Section]
    foot: str
    apart: bool = False

    @property
    def pictures(self) -> int:
        """How many pictures of samples it has."""
        return sum(len(block.views) for s in self.sections for block in s.blocks if isinstance(block, Views))

    def html(self) -> str:
        """Write the page: one file, UTF-8."""
        script, style = (_text(name) for name in ("page.js", "page.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        # `style` and `script` are the kit's own files; all else is escaped
        return str(_template().render(page=self, script=script, style=style, policy=policy(digest, self.apart)))


def policy(digest: str, apart: bool) -> str:
    """Return what the page allows itself: nothing from elsewhere."""
    pictures = "data: 'self' file:" if apart else "data:"
    return f"default-src 'none'; img-src {pictures}; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _text(name: str) -> str:
    return (files("ensemble_kit.reports") / name).read_text("utf-8")


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("page.html"))
