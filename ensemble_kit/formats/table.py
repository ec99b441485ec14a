"""CSV files as text: an id `0007`, `NA` or `True` stays what it is, and a cut file is refused."""

from __future__ import annotations

import codecs
import csv
import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, UsageError, some

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MARKS = {  # the 32-bit marks begin with the 16-bit ones, so they are asked first
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}


class _Reader(Protocol):
    """What csv.reader returns; its type has no public name."""

    @property
    def line_num(self) -> int: ...
    def __next__(self) -> list[str]: ...
    def __iter__(self) -> Iterator[list[str]]: ...


@dataclass(frozen=True)
class Table:
    """A CSV file's header and rows, all text."""

    path: Path
    header: tuple[str, ...]
    lines: Sequence[int]
    """The line on which each row begins, counted from 1."""
    text: NDArray[np.uint8]
    """The fields of all rows in UTF-8, one byte between two, and `PAD` bytes behind the last, which kernels read."""
    marks: NDArray[np.int64]
    """Indices of the bytes before, between and behind the fields, int64 (rows * width + 1,)."""
    spaced: bool = False
    """Whether names of the header had a space before them; then those before fields are left out too."""

    def told(self) -> list[str]:
        """Say what was changed on reading."""
        return ["spaces behind commas left out, as the header has them"] if self.spaced else []

    def spans(self, column: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where the fields of a column begin and end in `text`, int64 (rows,) each."""
        width = len(self.header)
        return self.marks[:-1][column::width] + 1, self.marks[1:][column::width].copy()

    def column(self, column: int) -> list[str]:
        """Return the fields of a column."""
        text = self.text.data
        raw = [bytes(text[a:b]) for a, b in zip(*(span.tolist() for span in self.spans(column)), strict=True)]
        known = {field: field.decode() for field in set(raw)}  # ids repeat: a sample has a row for each class
        return [known[field] for field in raw]


def read_table(path: Path) -> Table:
    """Read a CSV file: UTF-8 with or without a byte order mark, commas, a header, a newline at the end.

    Raises
    ------
    DamagedError
        Another encoding, a doubled header, a row that is too short or too long, a quote that never ends, a last
        line that is cut.
    UsageError
        Another delimiter.
    """
    text, size = _load(path)
    return _plain(path, text, size) or _general(path, text[:size].tobytes())


def _load(path: Path) -> tuple[NDArray[np.uint8], int]:
    """Read a file, with room behind it that kernels read; return the file's size too."""
    from ensemble_kit.kernels.rle import PAD

    with path.open("rb", buffering=0) as file:
        text, size = np.empty(os.fstat(file.fileno()).st_size + PAD, np.uint8), 0
        while got := file.readinto(text.data[size:]):
            size += got
            if text.size < size + PAD:  # the size of a pipe is not known
                text = np.concatenate([text, np.empty_like(text)])
    return text, size


def _plain(path: Path, text: NDArray[np.uint8], size: int) -> Table | None:
    """Split a file in which every comma and newline ends a field, as in nearly every submission.

    Any other file, and any fault, gives None: `_general` reads the file, or names the fault.
    """
    from ensemble_kit.kernels import rle as kernels

    marks, plain, ascii_only = kernels.split_fields(text, size)
    if not plain or marks.size == 0 or marks[-1] != size - 1:
        return None
    ends_row = text[marks] == ord("\n")
    width = int(ends_row.argmax()) + 1
    ends_row = ends_row[: marks.size // width * width].reshape(-1, width)
    if marks.size % width or not ends_row[:, -1].all() or ends_row[:, :-1].any():
        return None
    try:
        if not ascii_only:
            codecs.decode(text[:size].data, "utf-8")
        header = bytes(text.data[: marks[width - 1]]).decode("utf-8-sig").split(",")
        _check_header(header, path)
    except (UnicodeDecodeError, EnskError):
        return None
    if header == [""] or _is_spaced(header):
        return None
    return Table(path, tuple(header), range(2, len(ends_row) + 1), text, marks[width - 1 :])


def _general(path: Path, raw: bytes) -> Table:
    """Read any file, or refuse it."""
    from ensemble_kit.kernels.rle import PAD

    text = _decode(path, raw)
    if text and not text.endswith(("\n", "\r")):
        why = f"its last line, {_line_of(text, len(text))}, has no newline at the end: the file was cut"
        raise _damaged("csv-cut", path, why, "write the file again; if it is whole, end it with a newline")
    # A mask of 2048 x 2048 can fill a field of megabytes. The limit is the process's, so it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), min(sys.maxsize, 2**31 - 1)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = _next(reader, path, 1)
    if not header:
        raise _damaged("csv-empty", path, "it has no header line", "write a header and one row a mask")
    spaced = _is_spaced(header)
    if spaced:  # as the masks of SIIM-ACR are published
        reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
        header = _next(reader, path, 1) or []
    _check_header(header, path)
    lines, fields = [], []
    for line, row in _rows(reader, path, len(header)):
        lines.append(line)
        fields += [field.encode() for field in row]
    marks = np.cumsum([-1, *(len(field) + 1 for field in fields)])
    held = np.frombuffer(bytearray(b",".join([*fields, bytes(PAD)])), np.uint8)
    return Table(path, tuple(header), lines, held, marks, spaced)


def format_row(fields: list[str]) -> str:
    r"""Write a row with the fewest quotes, as csv.writer does.

    csv.writer before Python 3.13 leaves a bare `\r` unquoted, which ends the row on reading: so this is our own.
    """
    return ",".join([quoted(f) for f in fields]) + "\n"


def quoted(field: str) -> str:
    """Quote a field if it needs it."""
    if "," in field or '"' in field or "\n" in field or "\r" in field:
        return '"' + field.replace('"', '""') + '"'
    return field


def _decode(path: Path, raw: bytes) -> str:
    name = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), None)
    if name is None and b"\0" in raw[: raw.find(b"\n") + 1 or None]:  # the header: an id may hold one
        name = "UTF-16 or binary (it holds NUL bytes)"
    if name is not None:
        raise _damaged("csv-encoding", path, f"its encoding is {name}, not UTF-8", "save it as UTF-8")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        where = f"byte 0x{raw[error.start]:02x} on line {line}"
        why = f"{where} is not UTF-8; its encoding may be Latin-1 or Windows-1252"
        raise _damaged("csv-encoding", path, why, "save it as UTF-8") from None


def _is_spaced(header: list[str]) -> bool:
    return len(header) > 1 and all(name.startswith(" ") for name in header[1:])


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        why = f"its header has {some(twice)} more than once"
        raise _damaged("csv-header-doubled", path, why, "give every column its own name")
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(header) == 1 and mark in header[0]:
            item = f"{path} is delimited by {name}"
            raise UsageError("csv-delimiter", "cannot read a CSV file", item=item, fix="save it with commas")


def _rows(reader: _Reader, path: Path, width: int) -> Iterator[tuple[int, list[str]]]:
    while True:
        line = reader.line_num + 1
        fields = _next(reader, path, line)
        if fields is None:
            return
        if len(fields) != width:
            why = f"line {line} has {len(fields)} fields, the header has {width}"
            fix = "write every row with all fields; quote a field that holds a comma"
            raise _damaged("csv-fields", path, why, fix if fields else "take the blank lines out")
        yield line, fields


def _next(reader: _Reader, path: Path, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        why = f"the row that begins on line {line}: {error}"
        raise _damaged("csv-quote", path, why, "close the quote, or write the file again if it was cut") from None


def _line_of(text: str, end: int) -> int:
    return text.count("\n", 0, end) + 1


def _damaged(code: str, path: Path, why: str, fix: str) -> DamagedError:
    return DamagedError(code, "cannot read a CSV file", item=f"{path}: {why}", fix=fix)
