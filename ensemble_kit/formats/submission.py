"""Masks in a submission CSV, in one of the dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import check_wanted, order_classes
from ensemble_kit.formats.dialects import PRESETS, Dialect, Splitter, with_columns
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table, format_row, quoted, read_table
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

_BATCH = 256
"""Rows that are written in one call: their text stays in the cache on its way to the file."""

ONLY_CLASS = "mask"
"""Class of a dialect that has one row a sample and no class, unless the caller names it."""

_WHOLE_FIX = "write one row for every sample and class, also for empty masks"


@dataclass(frozen=True)
class Order:
    """What a sample submission says: the header and the order of the rows."""

    header: tuple[str, ...]
    places: tuple[int, ...]
    """Where the dialect's columns stand in the header."""
    keys: tuple[Key, ...]


def recognise(path: Path) -> Dialect:
    """Return the preset that a file's header names.

    Raises
    ------
    UsageError
        No preset has these columns, or several have.
    """
    header = read_table(path).header
    names = with_columns(header)
    if len(names) == 1:
        return PRESETS[names[0]]
    if names:
        raise UsageError(
            "format-ambiguous",
            "cannot tell the dialect of a CSV file",
            item=f"{path}: the columns {','.join(header)} are those of {some(names)}",
            fix=f"name it: --format {names[0]} (format={names[0]!r})",
        )
    raise UsageError(
        "format-unknown",
        "cannot tell the dialect of a CSV file",
        item=f"{path}: no preset has the columns {','.join(header)[:200]}",
        fix=f"name the columns as one of the presets does: {', '.join(PRESETS)}",
    )


def read(path: Path, dialect: Dialect, sizes: ImageSizes, classes: Sequence[str] | None) -> MaskSet:
    """Read a submission CSV.

    Raises
    ------
    DamagedError
        A doubled row, or one that breaks the grammar, named by line, sample and class.
    IncompleteError
        A (sample, class) without a row.
    MismatchError
        A class that `classes` lacks.
    """
    table = read_table(path)
    places = _places(table, dialect)
    keys = _Keys(dialect, sizes.samples, classes, path).of(table.lines, [table.column(p) for p in places[:-1]])
    rows = {key: k for k, key in enumerate(keys)}
    if len(rows) < len(keys):
        raise _doubled(path, keys, table.lines)
    if not rows:
        raise IncompleteError(
            "rows-missing", "cannot read masks: there are no rows", item=f"{path} has a header only", fix=_WHOLE_FIX
        )
    planes = {sample: sizes.of(sample, where=path.name) for sample, _ in keys}
    runs = _parse_column(table, places[-1], dialect, keys, planes)
    names = _whole(path, dialect, classes, rows, planes)
    none = len(keys)  # the empty mask, where a dialect leaves rows out
    where = np.array([rows.get((s, c), none) for s in planes for c in names], np.int64)
    return MaskSet.trusted(planes, names, runs, where.reshape(len(planes), len(names)))


def write(masks: MaskSet, out: BinaryIO, dialect: Dialect, order: Order | None = None) -> None:
    """Write a submission CSV: samples, then classes, in the set's order, or as a sample submission orders them.

    Raises
    ------
    MismatchError
        The dialect has one mask a sample and there are more, or two joined ids are equal.
    """
    _check_fits(masks, dialect)
    header = order.header if order else dialect.columns
    places = order.places if order else tuple(range(len(dialect.columns)))
    keys = order.keys if order else tuple(masks)
    out.write(format_row(list(header)).encode())
    out.writelines(_rows(masks, keys[begin : begin + _BATCH], dialect, places) for begin in range(0, len(keys), _BATCH))


def _rows(masks: MaskSet, keys: Sequence[Key], dialect: Dialect, places: tuple[int, ...]) -> memoryview:
    """Write many rows in one call: what stands between two runs columns goes to the kernel as one piece."""
    from ensemble_kit.kernels import rle as kernels

    if dialect.order == "C":
        runs, where = masks.packed, masks.indices_of(keys)
    else:
        runs, where = ManyRuns.of([masks[key].transposed() for key in keys]), np.arange(len(keys))
    firsts, lasts = runs.offsets[where], runs.offsets[where + 1]
    ids = [tuple(quoted(field) for field in _id_fields(dialect, key)) for key in keys]
    *ids_at, runs_at = places
    in_order = sorted(range(len(ids_at)), key=ids_at.__getitem__)
    before = "".join(f"{{{k}}}," for k in in_order if ids_at[k] < runs_at)
    behind = "".join(f",{{{k}}}" for k in in_order if ids_at[k] > runs_at) + "\n"
    pieces = [before.format(*ids[0])]
    pieces += [behind.format(*one) + before.format(*other) for one, other in pairwise(ids)]
    if dialect.empty:
        for k in np.flatnonzero(firsts == lasts).tolist():
            pieces[k] += dialect.empty
    glue = [piece.encode() for piece in (*pieces, behind.format(*ids[-1]))]
    return kernels.format_texts(
        np.frombuffer(bytearray().join([*glue, bytes(kernels.PAD)]), np.uint8),
        np.cumsum([0, *map(len, glue)]),
        runs.starts,
        runs.ends,
        firsts,
        lasts,
        dialect.base,
        dialect.relative,
    ).data


def read_order(path: Path, dialect: Dialect, masks: MaskSet) -> Order:
    """Read the order of a sample submission, which must name the same (sample, class) pairs as the masks.

    Its columns may have other names than the dialect's (a competition renames them), as long as there are as many:
    that the ids are the masks' own shows that they stand in the dialect's order.

    Raises
    ------
    IncompleteError
        It names pairs that the masks lack.
    MismatchError
        The masks hold pairs that it lacks.
    """
    table = read_table(path)
    places = _places(table, dialect, renamed=True)
    _check_fits(masks, dialect)
    known = {_id_fields(dialect, key): key for key in masks}
    rows = list(zip(*(table.column(p) for p in places[:-1]), strict=True))
    listed = set(rows)
    if len(listed) < len(rows):
        raise _doubled(path, rows, table.lines)
    missing = [row for row in rows if row not in known]
    _check_same(path, masks, missing, [key for row, key in known.items() if row not in listed], len(rows))
    return Order(table.header, places, tuple(known[row] for row in rows))


class _Keys:
    """Turns the id fields of a row into (sample, class)."""

    def __init__(
        self, dialect: Dialect, samples: frozenset[str] | None, classes: Sequence[str] | None, path: Path
    ) -> None:
        self._path, self._dialect = path, dialect
        known = check_wanted(classes) if classes is not None else dialect.classes
        self._only = _only_class(known, dialect, path) if dialect.by_sample else ""
        if dialect.template is not None and not known:
            raise UsageError(
                "classes-needed",
                "cannot take joined ids apart",
                item=f"{path}: {dialect.template} can be split in more than one place",
                fix="pass --classes FILE with one name a line (classes=[…])",
            )
        self._split = Splitter(dialect, known, samples) if dialect.template is not None else None

    def of(self, lines: Sequence[int], columns: Sequence[list[str]]) -> list[Key]:
        """Return the key of each row from its line and its id fields."""
        if self._split is not None:
            return [self._apart(line, joined) for line, joined in zip(lines, columns[0], strict=True)]
        keys = list(zip(columns[0], columns[1] if len(columns) == 2 else [self._only] * len(lines), strict=True))
        if not all(map(all, keys)):
            line, key = next((line, key) for line, key in zip(lines, keys, strict=True) if not all(key))
            raise self._refuse(
                "row-unnamed",
                f"line {line}: sample {key[0]!r}, class {key[1]!r}: a name is blank",
                "name the sample and the class of every row",
            )
        return keys

    def _apart(self, line: int, joined: str) -> Key:
        assert self._split is not None
        found = self._split.candidates(joined)
        if len(found) == 1:
            return found[0]
        if not found:
            raise MismatchError(
                "id-unknown",
                "cannot take a joined id apart",
                item=f"{self._path}, line {line}: {joined[:200]!r} is no {self._dialect.template} "
                "of a known class and sample",
                fix="pass the classes that the ids end in (--classes FILE, classes=[…])",
            )
        raise self._refuse(
            "id-ambiguous",
            f"line {line}: {joined[:200]!r} can mean (sample, class) {some(found)}",
            "pass image_size as a mapping of sample to (H, W): it names the samples",
        )

    def _refuse(self, code: str, why: str, fix: str) -> DamagedError:
        return DamagedError(code, "cannot read a CSV file", item=f"{self._path}, {why}", fix=fix)


def _places(table: Table, dialect: Dialect, renamed: bool = False) -> tuple[int, ...]:
    """Find the dialect's columns in the header, whatever their order."""
    if sorted(table.header) == sorted(dialect.columns):
        return tuple(table.header.index(name) for name in dialect.columns)
    if renamed and len(table.header) == len(dialect.columns):
        return tuple(range(len(table.header)))
    others = [name for name in with_columns(table.header) if name != dialect.name]
    raise UsageError(
        "csv-columns",
        "cannot read a CSV file in this dialect",
        item=f"{table.path}: its columns are {','.join(table.header)[:200]}, "
        f"{dialect.name!r} has {','.join(dialect.columns)}",
        fix=f"pass --format {others[0]}" if others else "name the columns so, or pass another --format",
    )


def _only_class(known: tuple[str, ...], dialect: Dialect, path: Path) -> str:
    if len(known) > 1:
        raise MismatchError(
            "classes-too-many",
            "cannot read masks of several classes",
            item=f"{path}: {dialect.name!r} has one mask a sample, {len(known)} classes are wanted",
            fix="pass one class, or another --format",
        )
    return known[0] if known else ONLY_CLASS


def _parse_column(
    table: Table, column: int, dialect: Dialect, keys: Sequence[Key], planes: Mapping[str, tuple[int, int]]
) -> ManyRuns:
    """Read the runs of all rows in one call; behind them stands an empty mask."""
    from ensemble_kit.kernels import rle as kernels

    begins, ends = table.spans(column)
    token = dialect.empty.encode()
    for k in np.flatnonzero(ends - begins == len(token)).tolist() if token else ():
        if bytes(table.text.data[begins[k] : ends[k]]) == token:
            ends[k] = begins[k]
    pixels = {sample: H * W for sample, (H, W) in planes.items()}
    sizes = np.array([pixels[sample] for sample, _ in keys], np.int64)
    starts, stops, offsets, fault = kernels.parse_texts(table.text, begins, ends, sizes, dialect.base, dialect.relative)
    if fault < len(keys):
        raise _named(table, fault, column, dialect, keys[fault], planes)
    runs = ManyRuns(starts, stops, np.append(offsets, offsets[-1]))
    if dialect.order == "C":
        return runs
    laid = [runs.mask(k, planes[sample][::-1]) for k, (sample, _) in enumerate(keys)]
    return ManyRuns.of([*(mask.transposed() for mask in laid), Runs.empty((1, 1))])


def _named(
    table: Table, row: int, column: int, dialect: Dialect, key: Key, planes: Mapping[str, tuple[int, int]]
) -> DamagedError:
    """Say what is wrong with a text that the kernel refused, and where it stands."""
    try:
        dialect.parse(table.column(column)[row], planes[key[0]])
    except DamagedError as error:
        return DamagedError(
            error.code,
            "cannot read a mask",
            item=f"{table.path}, line {table.lines[row]}, sample {key[0]!r}, class {key[1]!r}: {error.item}",
            fix=error.fix,
        )
    raise AssertionError("two readers of one text differ")


def _whole(
    path: Path,
    dialect: Dialect,
    classes: Sequence[str] | None,
    keys: Mapping[Key, int],
    samples: Mapping[str, tuple[int, int]],
) -> tuple[str, ...]:
    """Check that every sample has every class; return the classes in order."""
    found = dict.fromkeys(name for _, name in keys)
    if dialect.sparse:
        found = dict.fromkeys(classes if classes is not None else dialect.classes) | found
    names = order_classes(found, classes, str(path))
    if len(keys) < len(samples) * len(names) and not dialect.sparse:
        missing = [(s, c) for s in samples for c in names if (s, c) not in keys]
        raise IncompleteError(
            "rows-missing",
            "cannot read masks: rows are missing",
            item=f"{path}: {len(missing)} of {len(samples) * len(names)} (sample, class) rows: {some(missing, 10)}",
            fix=_WHOLE_FIX,
        )
    return names


def _check_fits(masks: MaskSet, dialect: Dialect) -> None:
    """Refuse masks that a dialect cannot tell apart."""
    if dialect.by_sample and len(masks.classes) > 1:
        raise MismatchError(
            "classes-too-many",
            "cannot write masks of several classes",
            item=f"{dialect.name!r} has one mask a sample, these have {len(masks.classes)} classes",
            fix="write one class at a time, or pass another --format",
        )
    if dialect.template is None:
        return
    ids: dict[str, Key] = {}
    for key in masks:
        other = ids.setdefault(dialect.join(*key), key)
        if other != key:
            raise MismatchError(
                "id-ambiguous",
                "cannot join sample and class to one id",
                item=f"{other!r} and {key!r} both give {dialect.join(*key)!r}",
                fix="rename a class, or pass a dialect with a class column",
            )


def _id_fields(dialect: Dialect, key: Key) -> tuple[str, ...]:
    return key if len(dialect.columns) == 3 else (dialect.join(*key),)


def _check_same(
    path: Path, masks: Mapping[Key, Runs], missing: list[tuple[str, ...]], extra: list[Key], rows: int
) -> None:
    counts = f"{path} has {rows} rows, there are {len(masks)} masks; "
    if missing:
        raise IncompleteError(
            "rows-missing",
            "cannot write in the order of a sample submission: masks are missing",
            item=f"{counts}{len(missing)} without a mask: {some(_short(missing), 10)}"
            + (f"; {len(extra)} without a row" if extra else ""),
            fix="make masks of all its samples and classes",
        )
    if extra:
        raise MismatchError(
            "rows-extra",
            "cannot write in the order of a sample submission: it lacks rows",
            item=f"{counts}{len(extra)} without a row: {some(extra, 10)}",
            fix="pass the sample submission of these samples, or leave it out",
        )


def _short(rows: list[tuple[str, ...]]) -> list[object]:
    return [row if len(row) > 1 else row[0] for row in rows]


def _doubled(path: Path, rows: Sequence[tuple[str, ...]], lines: Sequence[int]) -> DamagedError:
    """Name the first row that stands twice."""
    seen: dict[tuple[str, ...], int] = {}
    first, second, row = next(
        (seen[r], line, r) for r, line in zip(rows, lines, strict=True) if seen.setdefault(r, line) != line
    )
    return DamagedError(
        "row-doubled",
        "cannot read a CSV file with a row twice",
        item=f"{path}: {row if len(row) > 1 else row[0]!r} on line {first} and on line {second}",
        fix="keep one row for each sample and class",
    )
