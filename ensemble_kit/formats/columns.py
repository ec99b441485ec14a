"""The columns of a CSV's header: which are a dialect's, which are left out, and what a header without any may mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ensemble_kit.errors import UsageError, some
from ensemble_kit.formats.csv_options import CsvOptions, shell
from ensemble_kit.formats.dialects import PRESETS, Dialect
from ensemble_kit.formats.table import Table
from ensemble_kit.masks.rle import Order

_INDEX = re.compile(r"|Unnamed: \d+(_level_\d+|\.\d+)*")
"""What pandas calls the column of its index: nothing when it is written, `Unnamed: 0` when it is read and written."""

_OF_CLASSES = {"class", "classid", "classname", "label", "labelid", "category", "categoryid", "categoryname"}
"""Names, in small letters and without `_`, of columns that may hold classes, so that they are never left out unsaid."""

_ORDERS: tuple[Order, Order] = ("C", "F")
_RUNS = re.compile(r"-?\d+ \d+( \d+ \d+)*")
_LOOKED_AT = 64  # rows that tell which column holds runs


@dataclass(frozen=True)
class Columns:
    """Where a dialect's columns stand in a header.

    Parameters
    ----------
    numbers : of the dialect's columns, in its order.
    further : names of columns that are left out.
    index : names of columns that are pandas' index.
    """

    numbers: tuple[int, ...]
    further: tuple[str, ...] = ()
    index: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """Say which columns are left out."""
        out = [f"{_one(self.further)} left out"] if self.further else []
        return out + ([f"{_one(self.index)} left out, as the index that pandas wrote"] if self.index else [])


def _one(names: Sequence[str]) -> str:
    return f"column{'s' if len(names) > 1 else ''} {some(names, 12)}"


def find(header: Sequence[str], dialect: Dialect) -> Columns | None:
    """Find a dialect's columns in a header, whatever their order; None where one is not there."""
    if len(set(dialect.columns)) < len(dialect.columns) or not set(dialect.columns) <= set(header):
        return None
    others = [name for name in header if name not in dialect.columns]
    index = tuple(name for name in others if _INDEX.fullmatch(name))
    return Columns(
        tuple(header.index(name) for name in dialect.columns),
        tuple(name for name in others if name not in index),
        index,
    )


def columns_of(table: Table, dialect: Dialect, renamed: bool = False) -> Columns:
    """Find the dialect's columns in a file's header.

    Parameters
    ----------
    renamed : whether as many columns of other names are taken for the dialect's, in its order.

    Raises
    ------
    UsageError
        The header lacks one of them.
    """
    found = find(table.header, dialect)
    if found is None and renamed and len(table.header) == len(dialect.columns):
        found = Columns(tuple(range(len(table.header))))
    if found is None:
        have, wanted = ",".join(table.header)[:200], ",".join(dialect.columns)
        item = f"{table.path}: its columns are {have}, {dialect.name!r} has {wanted}"
        others = exact(table.header)
        also = f"; or pass another format: {either(f'--from {name}' for name in others)}" if others else ""
        fix = f"name its columns: {suggestion(table, with_order=False)}{also}"
        raise UsageError("csv-columns", "cannot read a CSV file in this dialect", item=item, fix=fix)
    return found


def exact(header: Sequence[str]) -> list[str]:
    """Return the names of the presets that have these columns, in any order; pandas' index does not count."""
    columns = sorted(name for name in header if not _INDEX.fullmatch(name))
    return [name for name, dialect in PRESETS.items() if sorted(dialect.columns) == columns]


def within(header: Sequence[str]) -> list[str]:
    """Return the names of the presets whose columns are among these, those with most columns only."""
    found = [name for name, dialect in PRESETS.items() if find(header, dialect) is not None]
    most = max((len(PRESETS[name].columns) for name in found), default=0)
    return [name for name in found if len(PRESETS[name].columns) == most]


def of_classes(names: Iterable[str]) -> list[str]:
    """Return the columns that may hold classes, by their names."""
    return [name for name in names if name.lower().replace("_", "") in _OF_CLASSES]


def suggestion(table: Table, with_order: bool = True) -> str:
    """Write the `--from-csv` that names this file's columns, as far as its rows tell them."""
    runs = _column_of_runs(table)
    others = [name for name in table.header if name != runs and not _INDEX.fullmatch(name)]
    classes = of_classes(others)[:1]
    ids = [name for name in others if name not in classes][:1]
    said = CsvOptions(id=ids[0] if ids else "ID", class_=classes[0] if classes else None, rle=runs or "RLE")
    if not with_order:
        return f"--from-csv {shell(said)}"
    rows, columns = (f"--from-csv {shell(replace(said, order=order))}" for order in _ORDERS)
    return f"{rows} (pixels are numbered along rows) or {columns} (down columns)"


def _column_of_runs(table: Table) -> str | None:
    """Return the column whose fields are runs or blank, and most often runs; None where none is."""
    best, name = 0, None
    for k, header in enumerate(table.header):
        fields = _fields(table, k)
        fits = sum(_RUNS.fullmatch(field) is not None for field in fields)
        if fits > best:
            best, name = fits, header
    likely = [h for h in table.header if re.search(r"rle|pixel|annotation|segmentation|predicted|encod", h.lower())]
    return name if name is not None else (likely[-1] if likely else None)


def _fields(table: Table, column: int) -> list[str]:
    """Return the first fields of a column."""
    begins, ends = (span[:_LOOKED_AT].tolist() for span in table.spans(column))
    return [bytes(table.text.data[a:b]).decode(errors="replace") for a, b in zip(begins, ends, strict=True)]


def looks_like_a_row(path: Path, header: Sequence[str]) -> UsageError | None:
    """Make the error of a file whose first line is not a header but a row; None where it is one."""
    if not any(_RUNS.fullmatch(name.strip()) for name in header):
        return None
    item = f"{path}: the first line, {','.join(header)[:120]}, is a row, not a header"
    fix = "write a header as the first line, such as id,rle or image_name,class,rle"
    return UsageError("csv-header", "cannot read a CSV file without a header", item=item, fix=fix)


def lists_files(table: Table) -> UsageError | None:
    """Make the error of a table that names files of masks; None where a column holds runs, or none names files."""
    for k, name in list(enumerate(table.header))[1:]:
        fields = _fields(table, k)
        if fields and all(re.search(r"\.(png|tiff?|jpe?g|bmp|npy|npz|gif|webp)$", f.lower()) for f in fields):
            item = f"{table.path}: the column {name!r} names files, such as {fields[0][:80]!r}"
            fix = "pass the folder of these files in place of the table"
            return UsageError("format-unknown", "cannot read masks from a table of files", item=item, fix=fix)
    return None


def either(texts: Iterable[str]) -> str:
    """Write `a, b or c`."""
    *most, last = texts
    return f"{', '.join(most)} or {last}" if most else last
