"""What the rows of a CSV tell of its dialect: which presets they fit, and along what they number pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.errors import DamagedError, EnskError, UsageError
from ensemble_kit.formats.columns import Columns
from ensemble_kit.formats.dialects import Dialect
from ensemble_kit.formats.ids import Keys
from ensemble_kit.formats.sizes import ImageSizes
from ensemble_kit.formats.table import Table
from ensemble_kit.masks.rle import parse_text
from ensemble_kit.spec.geometry import MAX_PIXELS, Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOKED_AT = 1000
"""Rows that are read, spread over the file: enough to tell, and a file of a million takes no longer."""

_STARTS = 2**14
"""Starts that tell the order, of the first rows: more would take as long as reading them all."""

_NEAR, _LEAST_SIDE, _LEAST_HITS = 8, 16, 2


_LAYS = {"C": "along rows", "F": "down columns"}
_SIDES = {"C": "height", "F": "width"}
"""Of what is read in one order, the side of the image that starts are apart if it is in the other."""


@dataclass(frozen=True)
class Misfit:
    """How often a dialect cannot read rows, and the first of them.

    Parameters
    ----------
    share : of the rows that could tell.
    certain : whether a row holds what only another dialect's mark of an empty mask can be.
    line, why : the first of the rows, and what is wrong with it.
    """

    share: float
    certain: bool
    line: int = 0
    why: str = ""

    @property
    def rules_out(self) -> bool:
        """Whether damage to a few rows cannot be the reason."""
        return self.certain or self.share >= 0.5  # a single damaged row must not make another dialect out of a file


def misfits(
    table: Table, candidates: Sequence[tuple[Dialect, Columns]], sizes: ImageSizes, classes: Sequence[str] | None
) -> list[Misfit]:
    """Try dialects on rows of a table; tell how each fits."""
    total = len(table.lines)
    rows = np.unique(np.linspace(0, total - 1, min(total, _LOOKED_AT)).astype(np.int64)).tolist() if total else []
    readers = [_Reader(table, dialect, columns, sizes, classes) for dialect, columns in candidates]
    known = [any(reader.sample(row) in (sizes.samples or ()) for reader in readers) for row in rows]
    told = [[reader.refusal(row, named) for row, named in zip(rows, known, strict=True)] for reader in readers]
    tokens = {reader.dialect.empty for reader in readers} - {""}
    texts = [{reader.text(row) for reader in readers} for row in rows]
    telling = [
        any(column[k] is not None for column in told) or any(text.count(" ") >= 3 for text in texts[k])
        for k in range(len(rows))
    ]
    out = []
    for reader, column in zip(readers, told, strict=True):
        if reader.unfit is not None:
            out.append(Misfit(1.0, True, 1, reader.unfit))
            continue
        failed = [k for k, why in enumerate(column) if why is not None]
        certain = any(texts[k] & tokens for k in failed)
        share = len(failed) / max(1, sum(telling))
        out.append(Misfit(share, certain, table.lines[rows[failed[0]]], str(column[failed[0]])) if failed else _FITS)
    return out


_FITS = Misfit(0.0, False)


class _Reader:
    """Reads single rows in one dialect."""

    def __init__(
        self, table: Table, dialect: Dialect, columns: Columns, sizes: ImageSizes, classes: Sequence[str] | None
    ) -> None:
        self.dialect, self._table, self._sizes = dialect, table, sizes
        *at, runs = columns.numbers
        self._ids = list(zip(*(table.column(c) for c in at), strict=True))
        self._spans = tuple(span.tolist() for span in table.spans(runs))
        self._times = Counter(self._ids) if dialect.rows == "mask" else Counter[tuple[str, ...]]()
        self._fixed = frozenset(dialect.classes) if classes is None else frozenset()
        self.unfit: str | None = None
        self._keys: Keys | None = None
        try:
            self._keys = Keys(dialect, sizes.samples, classes, table.path)
        except UsageError:  # joined ids, whose classes are not known
            pass
        except EnskError as error:
            self.unfit = error.item

    def text(self, row: int) -> str:
        begin, end = self._spans[0][row], self._spans[1][row]
        return bytes(self._table.text.data[begin:end]).decode()

    def sample(self, row: int) -> str | None:
        """Return the sample of a row; None where the id cannot be read."""
        try:
            key = None if self._keys is None else self._keys.of([0], [[field] for field in self._ids[row]])[0]
        except EnskError:
            return None
        return None if key is None else key[0]

    def refusal(self, row: int, known: bool) -> str | None:
        """Say why this dialect cannot read a row; None where it can.

        Parameters
        ----------
        known : whether one of the dialects finds a sample in the row that has a size.
        """
        if self._keys is not None:
            try:
                sample, name = self._keys.of([self._table.lines[row]], [[field] for field in self._ids[row]])[0]
            except EnskError as error:
                return error.item
            if known and sample not in (self._sizes.samples or ()):
                return f"{sample!r} is not the id of a sample"
            if self._fixed and name not in self._fixed:
                return f"{name!r} is not one of its classes"
        if self._times[self._ids[row]] > 1:
            return f"{self._ids[row][0]!r} stands in several rows, and a row is a mask"
        text = self.text(row)
        if self.dialect.empty and text == self.dialect.empty:
            return None
        try:
            parse_text(text, self.shape(row), self.dialect.base, self.dialect.relative)
        except DamagedError as error:
            return error.item
        return None

    def shape(self, row: int) -> Shape:
        try:
            return self._sizes.of(self.sample(row) or "")
        except EnskError:
            return (1, MAX_PIXELS)


def apart(
    table: Table, dialect: Dialect, columns: Columns, sizes: ImageSizes, classes: Sequence[str] | None
) -> str | None:
    """Say along what rows seem to number pixels, by the distances of their starts; None where these do not tell."""
    reader = _Reader(table, dialect, columns, sizes, classes)
    runs, shapes = [], []
    for row in range(min(len(table.lines), _LOOKED_AT)):
        shape = reader.shape(row)
        try:
            starts, _ = parse_text(reader.text(row), shape, dialect.base, dialect.relative)
        except DamagedError:
            continue
        runs.append(starts)
        shapes.append(shape)
    offsets = np.cumsum([0, *(starts.size for starts in runs)])
    starts = np.concatenate(runs) if runs else np.zeros(0, np.int64)
    for order, other in (("C", "F"), ("F", "C")):
        if contradicted(starts, offsets, shapes, order):
            return f"most starts are the {_SIDES[order]} apart, as they are {_LAYS[other]}"
    return None


def contradicted(
    starts: NDArray[np.int64], offsets: NDArray[np.int64], shapes: Sequence[Shape], order: str
) -> str | None:
    """Say that runs are numbered along the other axis than `order`, where the distances of their starts tell.

    A region that spans several rows has a run in each, so that starts are mostly a row's length apart: the width, or
    down columns the height. Square images tell nothing.

    Parameters
    ----------
    starts, offsets : of all rows, numbered as in the file.
    shapes : (H, W) of each row's image.
    """
    offsets = offsets[: max(2, int(np.searchsorted(offsets, _STARTS)))]
    starts, counts = starts[: offsets[-1]][:_STARTS], np.diff(np.minimum(offsets, _STARTS))
    sides = np.array([(s[-2], s[-1]) for s in shapes[: counts.size]], np.int64).reshape(-1, 2)
    if starts.size < 2:
        return None
    far = np.diff(starts)
    same = np.repeat(np.arange(counts.size), counts)
    own = same[1:] == same[:-1]
    far, rows = far[own], same[1:][own]
    heights, widths = sides[rows, 0], sides[rows, 1]
    tells = (heights != widths) & (np.minimum(heights, widths) >= _LEAST_SIDE)
    lengths = {"C": widths[tells], "F": heights[tells]}
    near = {k: _near(far[tells] - length) for k, length in lengths.items()}
    other = "F" if order == "C" else "C"
    hits = int(near[other][_NEAR])
    if hits < _LEAST_HITS or hits < near[other].max() or hits <= 2 * near[order].max():
        return None
    told = f"{hits} of {int(tells.sum())}"
    return f"read {_LAYS[order]}, but most starts are the {_SIDES[order]} apart ({told}), as they are {_LAYS[other]}"


def other_length(starts: NDArray[np.int64], offsets: NDArray[np.int64], shapes: Sequence[Shape]) -> str | None:
    """Say that starts lie another length apart than rows and columns of the images are long: the size is another.

    The distance that is most common in a mask says how long a row was when the mask was made. It has to be the same in
    two thirds of the masks and in three at least, since one mask may hold two objects half a column apart.

    Parameters
    ----------
    starts, offsets, shapes : as of `contradicted`. Images of several sizes tell nothing.
    """
    sizes = {shape[-2:] for shape in shapes}
    if len(sizes) != 1:
        return None
    (sides,) = sizes
    most = []
    for k in range(min(len(shapes), _LOOKED_AT)):
        far = np.diff(starts[offsets[k] : offsets[k + 1]][:_STARTS])
        if far.size >= _NEAR:
            values, counts = np.unique(far, return_counts=True)
            most.append(int(values[counts.argmax()]))
    length = max(most, key=most.count, default=0)
    hits = sum(abs(far - length) <= 1 for far in most)
    if length < _LEAST_SIDE or hits < max(3, 2 * len(most) / 3) or min(abs(length - side) for side in sides) <= _NEAR:
        return None
    return f"most starts are {length} apart ({hits} of {len(most)} masks), and the images are {as_text(sides)}"


def _near(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the differences from -8 to 8."""
    return np.bincount(distances[np.abs(distances) <= _NEAR] + _NEAR, minlength=2 * _NEAR + 1)
