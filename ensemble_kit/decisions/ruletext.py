"""The text form of a rule, `NAME[:ARGUMENT[,ARGUMENT…]][@CLASS[,CLASS…]]`, without what its words mean."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import dataclass
from decimal import Decimal

MM3 = "mm3"
"""What stands behind a size in cubic millimetres."""

_CONNECTIVITY = "connectivity="
_WHOLE = re.compile(r"\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"\d+(\.\d+)?", re.ASCII)


@dataclass(frozen=True)
class RuleText:
    """A rule's text, taken apart.

    Parameters
    ----------
    name : what stands before `:`.
    arguments : what stands between `:` and `@`, without the connectivity.
    connectivity : its last argument where that is `connectivity=…`, else None.
    classes : names behind the first `@`; None without one.

    Examples
    --------
    >>> RuleText.of('drop-small:200,connectivity=4@Ulna,"a, b"')
    RuleText(name='drop-small', arguments=('200',), connectivity='4', classes=('Ulna', 'a, b'))
    >>> str(RuleText("gate", ("0.5", "1")))
    'gate:0.5,1'
    """

    name: str
    arguments: tuple[str, ...] = ()
    connectivity: str | None = None
    classes: tuple[str, ...] | None = None

    @classmethod
    def of(cls, text: str) -> RuleText:
        """Take a text apart.

        Raises
        ------
        csv.Error
            The classes are not a line of CSV.
        """
        head, at, names = text.partition("@")
        name, colon, inside = head.partition(":")
        arguments = inside.split(",") if colon else []
        connectivity = None
        if arguments and arguments[-1].startswith(_CONNECTIVITY):
            connectivity = arguments.pop().removeprefix(_CONNECTIVITY)
        classes = tuple(next(csv.reader([names], strict=True), ())) if at else None
        return cls(name, tuple(arguments), connectivity, classes)

    def __str__(self) -> str:
        arguments = [*self.arguments, *([] if self.connectivity is None else [_CONNECTIVITY + self.connectivity])]
        text = f"{self.name}:{','.join(arguments)}" if arguments else self.name
        if self.classes is None:
            return text
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(self.classes)
        return f"{text}@{line.getvalue()}"


def whole(text: str) -> int:
    """Read a whole number of at most 18 digits; ValueError for any other text."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def decimal(text: str) -> Decimal:
    """Read a number without a sign and an exponent; ValueError for any other text."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return Decimal(text)


def cubic(text: str) -> float | None:
    """Read a size in mm³, `100mm3` or `100mm³`; None for one without this unit, ValueError for no number before it."""
    bare = text.replace("³", "3")
    return float(decimal(bare.removesuffix(MM3))) if bare.endswith(MM3) else None


def plain(number: Decimal) -> str:
    """Write a decimal without an exponent and without trailing zeros."""
    shown = f"{number:f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
