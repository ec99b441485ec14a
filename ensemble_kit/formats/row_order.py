"""The order of a sample submission: its header, and its rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path

from ensemble_kit.errors import IncompleteError, MismatchError, some
from ensemble_kit.formats.columns import columns_of
from ensemble_kit.formats.csv_options import CsvOptions
from ensemble_kit.formats.dialects import Dialect
from ensemble_kit.formats.ids import Splitter, check_fits, doubled, id_fields
from ensemble_kit.formats.settling import Purpose, Settled, settle
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import read_table
from ensemble_kit.masks.idforms import difference
from ensemble_kit.masks.packedmasks import Key
from ensemble_kit.masks.stream import Masks


@dataclass(frozen=True)
class RowOrder:
    """What a sample submission says: the header and the order of the rows.

    Parameters
    ----------
    header : names of its columns.
    columns : the number of each of the dialect's columns in the header.
    keys : (sample, class) of each row.
    """

    header: tuple[str, ...]
    columns: tuple[int, ...]
    keys: tuple[Key, ...]

    @property
    def samples(self) -> tuple[str, ...] | None:
        """The samples in the order of their rows; None where the rows of a sample stand apart."""
        blocks = [sample for sample, _ in groupby(sample for sample, _ in self.keys)]
        return tuple(blocks) if len(set(blocks)) == len(blocks) else None


def settled_order(path: Path, masks: Masks, options: CsvOptions, purpose: Purpose) -> Settled:
    """Tell the dialect of a sample submission, with the samples, sizes and classes of the masks.

    Parameters
    ----------
    purpose : "write", or "order" where only its ids are read.

    Raises
    ------
    UsageError
        As `settle` says.
    """
    sizes = ImageSizes({sample: masks.image_size(sample) for sample in masks.samples})
    return settle(read_table(path), options, sizes, masks.classes, purpose)


def samples_listed(path: Path, classes: Sequence[str], dialect: Dialect | None = None) -> tuple[str, ...]:
    """List the samples that a sample submission names, whatever masks there are.

    Parameters
    ----------
    classes : in which joined ids end.
    dialect : of the file; None: told by its header.
    """
    table = read_table(path)
    known = dialect or settle(table, CsvOptions(), ImageSizes(), classes, "order").dialect
    return _samples_of(table.column(columns_of(table, known, renamed=True).numbers[0]), known, classes)


def _samples_of(ids: Iterable[str], dialect: Dialect, classes: Sequence[str]) -> tuple[str, ...]:
    """Take the samples out of a column of ids; joined ids that end in no class are left out."""
    if dialect.template is None:
        return tuple(dict.fromkeys(ids))
    split = Splitter(dialect, classes)
    return tuple(dict.fromkeys(sample for joined in ids for sample, _ in split.candidates(joined)[:1]))


def read_order(path: Path, dialect: Dialect, masks: Masks) -> RowOrder:
    """Read the order of a sample submission, which must name the same (sample, class) pairs as the masks.

    Its columns may have other names than the dialect's (a competition renames them), as long as there are as many:
    the ids are those of the masks only if the columns stand in the dialect's order. With a row an object, an id may
    stand in several rows.

    Raises
    ------
    IncompleteError
        It names pairs that the masks lack.
    MismatchError
        The masks hold pairs that it lacks.
    """
    table = read_table(path)
    found = columns_of(table, dialect, renamed=True)
    if found.further or found.index:
        what, others = "cannot write in the form of a sample submission", some((*found.index, *found.further), 10)
        fix = f"pass a copy of {path.name} with the columns {', '.join(dialect.columns)} only"
        raise MismatchError("like-columns", what, item=f"{path} has columns beside masks: {others}", fix=fix)
    columns = found.numbers
    check_fits(masks, dialect)
    known = {id_fields(dialect, key): key for key in product(masks.samples, masks.classes)}
    rows = list(zip(*(table.column(c) for c in columns[:-1]), strict=True))
    listed = set(rows)
    if len(listed) < len(rows) and dialect.rows == "mask":
        raise doubled(path, rows, table.lines, "rows=object", "--csv")
    missing = [row if len(row) > 1 else row[0] for row in rows if row not in known]
    extra = [key for row, key in known.items() if row not in listed]
    counts = f"{path} has {len(rows)} rows, there are {len(known)} masks; "
    without_row = f"{len(extra)} without a row"
    samples = _samples_of((row[0] for row in rows), dialect, masks.classes) if missing and extra else ()
    if missing and extra and (differs := difference(masks.samples, samples)):
        what = "cannot write in the order of a sample submission: it names other samples"
        item = f"{counts}{len(missing)} without a mask; {differs[0]}"
        raise IncompleteError("rows-missing", what, item=item, fix=differs[1])
    if missing:
        what = "cannot write in the order of a sample submission: masks are missing"
        item = f"{counts}{len(missing)} without a mask: {some(missing, 10)}{f'; {without_row}' if extra else ''}"
        raise IncompleteError("rows-missing", what, item=item, fix="make masks of all its samples and classes")
    if extra:
        what = "cannot write in the order of a sample submission: it lacks rows"
        fix = "pass the sample submission of these samples, or leave it out"
        raise MismatchError("rows-extra", what, item=f"{counts}{without_row}: {some(extra, 10)}", fix=fix)
    return RowOrder(table.header, columns, tuple(known[row] for row in dict.fromkeys(rows)))
