"""Masks in a submission CSV: a family of formats, one for each dialect."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ensemble_kit.errors import DamagedError, IncompleteError, some
from ensemble_kit.formats.classes import order_classes
from ensemble_kit.formats.dialects import PRESETS, Dialect, columns_of
from ensemble_kit.formats.ids import Keys, check_fits, doubled, id_fields
from ensemble_kit.formats.maskformat import MaskFormat
from ensemble_kit.formats.row_order import RowOrder, read_order
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table, format_row, quoted, read_table
from ensemble_kit.masks.maskset import Key, MaskSet
from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

_BATCH = 256
"""Rows that are written in one call: their text stays in the cache on its way to the file."""

_WHOLE_FIX = "write one row for every sample and class, also for empty masks"


def read(path: Path, sizes: ImageSizes, classes: Sequence[str] | None, dialect: Dialect) -> MaskSet:
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
    *id_columns, runs_column = columns_of(table.header, dialect, path)
    keys = Keys(dialect, sizes.samples, classes, path).of(table.lines, [table.column(c) for c in id_columns])
    rows = {key: k for k, key in enumerate(keys)}
    if len(rows) < len(keys):
        raise doubled(path, keys, table.lines)
    if not rows:
        what, item = "cannot read masks: there are no rows", f"{path} has a header only"
        raise IncompleteError("rows-missing", what, item=item, fix=_WHOLE_FIX)
    shapes = {sample: sizes.of(sample, where=path.name) for sample, _ in keys}
    runs = _parse_column(table, runs_column, dialect, keys, shapes)
    names = _whole(path, dialect, classes, rows, shapes)
    none = len(keys)  # the empty mask, where a dialect leaves rows out
    indices = np.array([rows.get((s, c), none) for s in shapes for c in names], np.int64)
    return MaskSet.trusted(shapes, names, runs, indices.reshape(len(shapes), len(names)))


def write(masks: MaskSet, out: BinaryIO, dialect: Dialect, order: RowOrder | None = None) -> None:
    """Write a submission CSV: samples, then classes, in the set's order, or as a sample submission orders them.

    Raises
    ------
    MismatchError
        The dialect has one mask a sample and there are more, or two joined ids are equal.
    """
    check_fits(masks, dialect)
    order = order or RowOrder(dialect.columns, tuple(range(len(dialect.columns))), tuple(masks))
    keys = order.keys
    out.write(format_row(list(order.header)).encode())
    batches = (keys[begin : begin + _BATCH] for begin in range(0, len(keys), _BATCH))
    out.writelines(_rows(masks, batch, dialect, order.columns) for batch in batches)


def write_like(masks: MaskSet, out: BinaryIO, like: Path, dialect: Dialect) -> None:
    """Write a submission CSV with the header and the order of rows of a sample submission."""
    write(masks, out, dialect, read_order(like, dialect, masks))


def _rows(masks: MaskSet, keys: Sequence[Key], dialect: Dialect, columns: tuple[int, ...]) -> memoryview:
    """Write many rows in one call: what stands between the runs of two rows goes to the kernel as one piece."""
    from ensemble_kit.kernels import rle as kernels

    if dialect.order == "C":
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
    table: Table, column: int, dialect: Dialect, keys: Sequence[Key], shapes: Mapping[str, Shape]
) -> ManyRuns:
    """Read the runs of all rows in one call; behind them stands an empty mask."""
    from ensemble_kit.kernels import rle as kernels

    begins, ends = table.spans(column)
    token = dialect.empty.encode()
    for k in np.flatnonzero(ends - begins == len(token)).tolist() if token else ():
        if bytes(table.text.data[begins[k] : ends[k]]) == token:
            ends[k] = begins[k]
    pixels = {sample: math.prod(shape) for sample, shape in shapes.items()}
    sizes = np.array([pixels[sample] for sample, _ in keys], np.int64)
    starts, stops, offsets, fault = kernels.parse_texts(table.text, begins, ends, sizes, dialect.base, dialect.relative)
    if fault < len(keys):
        raise _fault(table, fault, column, dialect, keys[fault], shapes)
    runs = ManyRuns(starts, stops, np.append(offsets, offsets[-1]))
    if dialect.order == "C":
        return runs
    laid = [runs.mask(k, shapes[sample][::-1]) for k, (sample, _) in enumerate(keys)]
    return ManyRuns.of([*(mask.transposed() for mask in laid), Runs.empty((1, 1))])


def _fault(
    table: Table, row: int, column: int, dialect: Dialect, key: Key, shapes: Mapping[str, Shape]
) -> DamagedError:
    """Say what is wrong with a text that the kernel refused, and where it stands."""
    try:
        dialect.parse(table.column(column)[row], shapes[key[0]])
    except DamagedError as error:
        where = f"{table.path}, line {table.lines[row]}, sample {key[0]!r}, class {key[1]!r}"
        return DamagedError(error.code, "cannot read a mask", item=f"{where}: {error.item}", fix=error.fix)
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
    if dialect.sparse:
        found = dict.fromkeys(classes if classes is not None else dialect.classes) | found
    names = order_classes(found, classes, str(path))
    if len(keys) < len(samples) * len(names) and not dialect.sparse:
        missing = [(s, c) for s in samples for c in names if (s, c) not in keys]
        item = f"{path}: {len(missing)} of {len(samples) * len(names)} (sample, class) rows: {some(missing, 10)}"
        raise IncompleteError("rows-missing", "cannot read masks: rows are missing", item=item, fix=_WHOLE_FIX)
    return names


def of_dialect(dialect: Dialect) -> MaskFormat:
    """Return a dialect as a format."""
    return MaskFormat(
        dialect.name,
        partial(read, dialect=dialect),
        write=partial(write, dialect=dialect),
        write_like=partial(write_like, dialect=dialect),
        suffix=".csv",
        is_folder=False,
    )


FORMATS = tuple(map(of_dialect, PRESETS.values()))
"""One format a preset. None has a `sniff`: every file that is of no other format is read as a CSV."""
