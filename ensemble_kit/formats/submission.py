"""Masks in a submission CSV: a family of formats, one for each dialect."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ensemble_kit.errors import Caution, DamagedError, IncompleteError, some, warn
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.columns import columns_of
from ensemble_kit.formats.csv_options import EMPTY_MARK, CsvOptions, shell
from ensemble_kit.formats.dialects import PRESETS, Dialect
from ensemble_kit.formats.ids import Keys, check_fits, doubled, id_fields
from ensemble_kit.formats.maskformat import MaskFormat, Telling
from ensemble_kit.formats.row_evidence import contradicted, other_length
from ensemble_kit.formats.row_order import RowOrder, read_order, settled_order
from ensemble_kit.formats.settling import Settled, for_writing, settle
from ensemble_kit.formats.size_table import has_sizes
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table, format_row, quoted, read_table
from ensemble_kit.masks.maskset import MaskSet
from ensemble_kit.masks.objects import components, united
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.runs import Runs
from ensemble_kit.masks.stream import Masks
from ensemble_kit.spec.geometry import Shape

_BATCH = 256
"""Rows that are written in one call: their text stays in the cache on its way to the file."""

_CELL = 32767
"""Most characters that a spreadsheet's cell holds."""

_WHOLE_FIX = "write one row for every sample and class, also for empty masks"
_OBJECTS_FIX = f"{_WHOLE_FIX}; or, if what has no row is empty, pass --from-csv rows=object (csv='rows=object')"


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, how: Dialect | CsvOptions) -> MaskSet:
    """Read a submission CSV; `.rule` of the masks says what it was read as, and which columns were left out.

    Parameters
    ----------
    how : the dialect, or what the user says of one that is to be told by the header and the rows.

    Raises
    ------
    DamagedError
        A doubled row, or one that breaks the grammar, named by line, sample and class.
    IncompleteError
        A (sample, class) without a row.
    MismatchError
        A class that `classes` lacks.
    UsageError
        The file is of another dialect, or can be of several.
    """
    table = read_table(path)
    settled = Settled.of(how) if isinstance(how, Dialect) else settle(table, how, sizes, classes)
    dialect, columns = settled.dialect, columns_of(table, settled.dialect)
    *id_columns, runs_column = columns.numbers
    keys = Keys(dialect, sizes.samples, classes, path).of(table.lines, [table.column(c) for c in id_columns])
    slots = {key: k for k, key in enumerate(dict.fromkeys(keys))}
    if len(slots) < len(keys) and dialect.rows == "mask":
        raise doubled(path, keys, table.lines, str(replace(settled.options, rows="object")))
    if not slots:
        what, item = "cannot read masks: there are no rows", f"{path} has a header only"
        raise IncompleteError("rows-missing", what, item=item, fix=_WHOLE_FIX)
    also = f"--image-size {shlex.quote(str(path))}, whose columns say it" if has_sizes(table) else ""
    shapes = {sample: sizes.of(sample, where=path.name, also=also) for sample, _ in keys}
    parsed = _parse_column(table, runs_column, settled, keys, shapes)
    _warn_of_cells(table, runs_column)
    told = [settled.told(), *table.told(), *columns.told()]
    each = [shapes[sample] for sample, _ in keys]
    if doubt := contradicted(parsed.starts, parsed.offsets, each, dialect.order):
        other = "C" if dialect.order == "F" else "F"
        how_said = f"--from-csv order={other}, of ground truth --val-csv order={other}, csv={{'order': {other!r}}}"
        action = f"say order={other} ({how_said}), or check which side of the image size is the height"
        warn(Caution(f"{path}: {doubt}", action))
    elif doubt := other_length(parsed.starts, parsed.offsets, each):
        action = "pass the size at which the masks were made (--image-size), or resize them before"
        warn(Caution(f"{path}: {doubt}: the masks seem to be of another size", action))
    if dialect.rows == "object":
        parsed, note = united(parsed, [slots[key] for key in keys], [math.prod(shapes[s]) for s, _ in slots])
        told.append(note)
    runs = _laid(parsed, dialect, [shapes[sample] for sample, _ in slots])
    names = _whole(path, dialect, classes, slots, shapes)
    none = len(slots)  # the empty mask, where a dialect leaves rows out
    indices = np.array([slots.get((s, c), none) for s in shapes for c in names], np.int64)
    return MaskSet.trusted(shapes, names, runs, indices.reshape(len(shapes), len(names)), "; ".join(told))


def write(masks: Masks, out: BinaryIO, how: Dialect | CsvOptions, order: RowOrder | None = None) -> None:
    """Write a submission CSV: samples, then classes, in the set's order, or as a sample submission orders them.

    Raises
    ------
    MismatchError
        The dialect has one mask a sample and there are more, or two joined ids are equal.
    """
    dialect = how if isinstance(how, Dialect) else for_writing(how)
    check_fits(masks, dialect)
    header, columns = (order.header, order.columns) if order else (dialect.columns, tuple(range(len(dialect.columns))))
    out.write(format_row(list(header)).encode())
    for piece, keys in _with_keys(masks, order):
        batches = (keys[begin : begin + _BATCH] for begin in range(0, len(keys), _BATCH))
        out.writelines(_rows(piece, batch, dialect, columns) for batch in batches)


def write_like(masks: Masks, out: BinaryIO, like: Path, how: Dialect | CsvOptions) -> None:
    """Write a submission CSV with the header and the order of rows of a sample submission."""
    write(masks, out, *_order_of(like, masks, how))


def _order_of(like: Path, masks: Masks, how: Dialect | CsvOptions) -> tuple[Dialect, RowOrder]:
    dialect = how if isinstance(how, Dialect) else settled_order(like, masks, how, "write").dialect
    return dialect, read_order(like, dialect, masks)


def _with_keys(masks: Masks, order: RowOrder | None) -> Iterator[tuple[MaskSet, Sequence[Key]]]:
    """Give masks as they are made, with the keys of their rows; all at once where a sample's rows stand apart."""
    if order is None:
        yield from ((piece, tuple(piece)) for piece in masks.pieces())
    elif order.samples is None:
        whole = masks.whole()
        yield whole, order.keys if whole else ()  # a rehearsal makes none
    else:
        rows = iter(order.keys)
        for piece in masks.arranged(order.samples, masks.classes).pieces():
            yield piece, tuple(islice(rows, len(piece)))


def _rows(masks: MaskSet, keys: Sequence[Key], dialect: Dialect, columns: tuple[int, ...]) -> memoryview:
    """Write many rows in one call: what stands between the runs of two rows goes to the kernel as one piece."""
    from ensemble_kit.kernels import rle as kernels

    if dialect.rows == "object":
        objects = [(key, part) for key in keys for part in components(masks[key]) or [masks[key]]]
        keys = [key for key, _ in objects]
        runs = ManyRuns.of([part if dialect.order == "C" else part.transposed() for _, part in objects])
        indices = np.arange(len(keys))
    elif dialect.order == "C":
        runs, indices = masks.packed, masks.indices_of(keys)
    else:
        runs, indices = ManyRuns.of([masks[key].transposed() for key in keys]), np.arange(len(keys))
    firsts, lasts = runs.offsets[indices], runs.offsets[indices + 1]
    ids = [tuple(quoted(field) for field in id_fields(dialect, key)) for key in keys]
    *ids_at, runs_at = columns
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


def _parse_column(
    table: Table, column: int, settled: Settled, keys: Sequence[Key], shapes: Mapping[str, Shape]
) -> ManyRuns:
    """Read the runs of all rows in one call, numbered from 0 as the dialect numbers pixels."""
    from ensemble_kit.kernels import rle as kernels

    begins, ends = table.spans(column)
    dialect = settled.dialect
    token = dialect.empty.encode()
    for k in np.flatnonzero(ends - begins == len(token)).tolist() if token else ():
        if bytes(table.text.data[begins[k] : ends[k]]) == token:
            ends[k] = begins[k]
    pixels = {sample: math.prod(shape) for sample, shape in shapes.items()}
    sizes = np.array([pixels[sample] for sample, _ in keys], np.int64)
    starts, stops, offsets, fault = kernels.parse_texts(table.text, begins, ends, sizes, dialect.base, dialect.relative)
    if fault < len(keys):
        raise _fault(table, fault, column, settled, keys[fault], shapes)
    return ManyRuns(starts, stops, offsets)


def _warn_of_cells(table: Table, column: int) -> None:
    """Warn of fields as long as a spreadsheet's cell can be: what does not fit is cut without a word."""
    begins, ends = table.spans(column)
    full = np.flatnonzero(ends - begins == _CELL)
    if full.size:
        lines = some((table.lines[k] for k in full.tolist()), 10)
        doubt = f"{table.path}: masks of exactly {_CELL} characters, a spreadsheet's limit, may be cut: lines {lines}"
        warn(Caution(doubt, "write the file anew from where the masks come, without a spreadsheet between"))


def _laid(runs: ManyRuns, dialect: Dialect, shapes: Sequence[Shape]) -> ManyRuns:
    """Turn masks that are numbered down columns; behind them stands an empty mask."""
    if dialect.order == "C":
        return runs._replace(offsets=np.append(runs.offsets, runs.offsets[-1]))
    laid = [runs.mask(k, shape[::-1]).transposed() for k, shape in enumerate(shapes)]
    return ManyRuns.of([*laid, Runs.empty((1, 1))])


def _fault(
    table: Table, row: int, column: int, settled: Settled, key: Key, shapes: Mapping[str, Shape]
) -> DamagedError:
    """Say what is wrong with a text that the kernel refused, and where it stands."""
    text = table.column(column)[row]
    try:
        settled.dialect.parse(text, shapes[key[0]])
    except DamagedError as error:
        where, fix = f"{table.path}, line {table.lines[row]}, sample {key[0]!r}, class {key[1]!r}", error.fix
        if EMPTY_MARK.fullmatch(text) and not settled.options.empty:
            said = replace(settled.options, empty=text)
            fix += f"; or, if {text!r} stands for an empty mask, pass --from-csv {shell(said)} (csv={str(said)!r})"
        if len(text) == _CELL:
            fix = f"take the file as it was before a spreadsheet cut cells of more than {_CELL} characters"
        return DamagedError(error.code, "cannot read a mask", item=f"{where}: {error.item}", fix=fix)
    raise AssertionError("two readers of one text differ")


def _whole(
    path: Path,
    dialect: Dialect,
    classes: Sequence[str] | None,
    keys: Mapping[Key, int],
    samples: Mapping[str, Shape],
) -> tuple[str, ...]:
    """Check that every sample has every class; return the classes in order."""
    found = dict.fromkeys(name for _, name in keys)
    wanted = classes if classes is not None else dialect.classes or None
    if dialect.has_holes:
        found = dict.fromkeys(wanted or ()) | found
        names = order_classes(found, wanted, str(path))
    else:
        names = order_classes(found, classes, str(path))
    if len(keys) < len(samples) * len(names) and not dialect.has_holes:
        missing = [(s, c) for s in samples for c in names if (s, c) not in keys]
        item = f"{path}: {len(missing)} of {len(samples) * len(names)} (sample, class) rows: {some(missing, 10)}"
        raise IncompleteError("rows-missing", "cannot read masks: rows are missing", item=item, fix=_OBJECTS_FIX)
    return names


def of_dialect(dialect: Dialect) -> MaskFormat:
    """Return a dialect as a format."""
    return _format(dialect.name, dialect)


def of_options(options: CsvOptions) -> MaskFormat:
    """Return CSV as a format whose dialect is told by what the user says, and by the header and the rows of a file."""
    return _format("csv", options)


def in_pieces(masks: Masks, like: Path | None, how: Dialect | CsvOptions) -> bool:
    """Tell whether rows are written as masks are made: not where the rows of a sample stand apart."""
    return like is None or _order_of(like, masks, how)[1].samples is not None


def telling(masks: Masks, like: Path | None, how: Dialect | CsvOptions) -> Telling:
    """Say in which dialect masks are written."""
    if isinstance(how, Dialect):
        settled = Settled.of(how)
    else:
        settled = settled_order(like, masks, how, "write") if like is not None else Settled(for_writing(how), (), how)
    split = ", a connected component (8 neighbours)" if settled.dialect.rows == "object" else ""
    return Telling(f"written: {settled.told()}{split}")


def _format(name: str, how: Dialect | CsvOptions) -> MaskFormat:
    return MaskFormat(
        name,
        partial(read, how=how),
        write=partial(write, how=how),
        write_like=partial(write_like, how=how),
        in_pieces=partial(in_pieces, how=how),
        telling=partial(telling, how=how),
        suffix=".csv",
        is_folder=False,
    )


CSV = of_options(CsvOptions())
"""A CSV of any dialect. It has no `sniff`: every file that is of no other format is read as a CSV."""

FORMATS = (*map(of_dialect, PRESETS.values()), CSV)
"""One format a preset, and CSV itself."""
