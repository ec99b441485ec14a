"""CSV as text only: an id `0007`, `NA` or `True` stays what it is, and a cut file is refused."""

from __future__ import annotations

import codecs
import csv
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ensemble_kit.errors import DamagedError, UsageError, some

_MARKS = {  # the 32-bit marks begin with the 16-bit ones, so they are asked first
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class _Reader(Protocol):
    """What csv.reader returns: a type without a public name."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...
    def __iter__(self) -> Iterator[list[str]]: ...


@dataclass(frozen=True)
class Table:
    """A CSV file's header and rows, all text; `rows` can be walked once."""

    path: Path
    header: tuple[str, ...]
    rows: Iterator[tuple[int, list[str]]]
    """The line on which a row begins, counted from 1, and its fields, as many as the header has."""


def read_table(path: Path) -> Table:
    """Open a CSV file: UTF-8 with or without a mark, commas, a header, a newline at the end.

    Raises
    ------
    DamagedError
        Another encoding, a doubled header, a row that is too short or too long, a quote that never ends, a last
        line that is cut.
    UsageError
        Another delimiter.
    """
    text = _decode(path)
    if text and not text.endswith(("\n", "\r")):
        raise _damaged(
            "csv-cut",
            path,
            f"its last line, {_line_of(text, len(text))}, has no newline at the end: the file was cut",
            "write the file again; if it is whole, end it with a newline",
        )
    # A mask of 2048 x 2048 can fill a field of megabytes. The limit is the process's, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _next(reader, path, 1)
    if not header:
        raise _damaged("csv-empty", path, "it has no header line", "write a header and one row a mask")
    _check_header(header, path)
    return Table(path, tuple(header), _rows(reader, path, len(header)))


def format_row(fields: list[str]) -> str:
    r"""Write a row with the fewest quotes, as csv.writer does.

    csv.writer before Python 3.13 leaves a bare `\r` unquoted, which ends the row on reading: so this is our own.
    """
    return ",".join([_quoted(f) for f in fields]) + "\n"


def _quoted(field: str) -> str:
    if "," in field or '"' in field or "\n" in field or "\r" in field:
        return '"' + field.replace('"', '""') + '"'
    return field


def _decode(path: Path) -> str:
    raw = path.read_bytes()
    name = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    if name is None and b"\0" in raw[: raw.find(b"\n") + 1 or None]:  # the header: an id may hold one
        name = "UTF-16 or binary (it holds NUL bytes)"
    if name is not None:
        raise _damaged("csv-encoding", path, f"its encoding is {name}, not UTF-8", "save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _damaged(
            "csv-encoding",
            path,
            f"byte 0x{raw[error.start]:02x} on line {line} is not UTF-8; its encoding may be Latin-1 or Windows-1252",
            "save it as UTF-8",
        ) from None


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise _damaged(
            "csv-header-doubled", path, f"its header has {some(twice)} more than once", "give every column its own name"
        )
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            raise UsageError(
                "csv-delimiter",
                "cannot read a CSV file",
                item=f"{path} is delimited by {name}",
                fix="save it with commas",
            )


def _rows(reader: _Reader, path: Path, width: int) -> Iterator[tuple[int, list[str]]]:
    while True:
        line = reader.line_num + 1
        fields = _next(reader, path, line)
        if fields is None:
            return
        if len(fields) != width:
            raise _damaged(
                "csv-fields",
                path,
                f"line {line} has {len(fields)} fields, the header has {width}",
                "write every row with all fields; quote a field that holds a comma",
            )
        yield line, fields


def _next(reader: _Reader, path: Path, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise _damaged(
            "csv-quote",
            path,
            f"the row that begins on line {line}: {error}",
            "close the quote, or write the file again if it was cut",
        ) from None


def _line_of(text: str, end: int) -> int:
    return text.count("\n", 0, end) + 1


def _damaged(code: str, path: Path, why: str, fix: str) -> DamagedError:
    return DamagedError(code, "cannot read a CSV file", item=f"{path}: {why}", fix=fix)
