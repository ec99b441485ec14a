"""Masks in a submission CSV, in one of the dialects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ensemble_kit.errors import DamagedError, IncompleteError, MismatchError, UsageError, some
from ensemble_kit.formats.classes import assemble, check_wanted, order_classes
from ensemble_kit.formats.dialects import PRESETS, Dialect, Splitter, with_columns
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table, format_row, read_table
from ensemble_kit.masks import Key, MaskSet
from ensemble_kit.runs import Runs

_BATCH = 4096
"""Rows that are written in one call: a few MB of text."""

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
    keys = _Keys(dialect, sizes.samples, classes, path)
    masks: dict[Key, Runs] = {}
    lines: dict[Key, int] = {}
    for line, fields in table.rows:
        key = keys.of(line, [fields[p] for p in places[:-1]])
        if key in lines:
            raise _doubled(path, key, lines[key], line)
        lines[key] = line
        masks[key] = _parse(dialect, fields[places[-1]], sizes.of(key[0], where=path.name), (path, line, key))
    return _whole(path, dialect, sizes, classes, masks)


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
    keys = list(order.keys) if order else [(s, c) for s in masks.samples for c in masks.classes]
    out.write(format_row(list(header)).encode())
    row = [""] * len(places)
    for begin in range(0, len(keys), _BATCH):
        batch = keys[begin : begin + _BATCH]
        rows = []
        for (sample, name), text in zip(batch, dialect.texts([masks[key] for key in batch]), strict=True):
            values = (dialect.join(sample, name), name, text)
            for place, value in zip(places, values if len(places) == 3 else values[::2], strict=True):
                row[place] = value
            rows.append(format_row(row))
        out.write("".join(rows).encode())


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
    lines: dict[tuple[str, ...], int] = {}
    missing: list[tuple[str, ...]] = []
    for line, fields in table.rows:
        row = tuple(fields[p] for p in places[:-1])
        if row in lines:
            raise _doubled(path, row, lines[row], line)
        lines[row] = line
        if row not in known:
            missing.append(row)
    _check_same(path, masks, missing, [key for row, key in known.items() if row not in lines], len(lines))
    return Order(table.header, places, tuple(known[row] for row in lines))


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

    def of(self, line: int, fields: list[str]) -> Key:
        if self._split is not None:
            return self._apart(line, fields[0])
        key = (fields[0], fields[1] if len(fields) == 2 else self._only)
        if not all(key):
            raise self._refuse(
                "row-unnamed",
                f"line {line}: sample {key[0]!r}, class {key[1]!r}: a name is blank",
                "name the sample and the class of every row",
            )
        return key

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


def _parse(dialect: Dialect, text: str, size: tuple[int, int], where: tuple[Path, int, Key]) -> Runs:
    try:
        return dialect.parse(text, size)
    except DamagedError as error:
        path, line, (sample, name) = where
        raise DamagedError(
            error.code,
            "cannot read a mask",
            item=f"{path}, line {line}, sample {sample!r}, class {name!r}: {error.item}",
            fix=error.fix,
        ) from None


def _whole(
    path: Path, dialect: Dialect, sizes: ImageSizes, classes: Sequence[str] | None, masks: dict[Key, Runs]
) -> MaskSet:
    """Check that every sample has every class, and put the masks in order."""
    samples = tuple(dict.fromkeys(sample for sample, _ in masks))
    if not samples:
        raise IncompleteError(
            "rows-missing", "cannot read masks: there are no rows", item=f"{path} has a header only", fix=_WHOLE_FIX
        )
    found = dict.fromkeys(name for _, name in masks)
    if dialect.sparse:
        found = dict.fromkeys(classes if classes is not None else dialect.classes) | found
    names = order_classes(found, classes, str(path))
    if len(masks) < len(samples) * len(names):
        missing = [(s, c) for s in samples for c in names if (s, c) not in masks]
        if not dialect.sparse:
            raise IncompleteError(
                "rows-missing",
                "cannot read masks: rows are missing",
                item=f"{path}: {len(missing)} of {len(samples) * len(names)} (sample, class) rows: {some(missing, 10)}",
                fix=_WHOLE_FIX,
            )
        masks |= {key: Runs.empty(sizes.of(key[0], where=path.name)) for key in missing}
    return assemble(samples, names, masks)


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


def _doubled(path: Path, key: tuple[str, ...], first: int, second: int) -> DamagedError:
    return DamagedError(
        "row-doubled",
        "cannot read a CSV file with a row twice",
        item=f"{path}: {key if len(key) > 1 else key[0]!r} on line {first} and on line {second}",
        fix="keep one row for each sample and class",
    )
