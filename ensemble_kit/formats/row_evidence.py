"""What the rows of a CSV tell of its dialect: which presets they fit, and along what they number pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
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
from ensemble_kit.spec.geometry import MAX_PIXELS, Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOOKED_AT = 1000
"""Rows that are read, spread over the file: enough to tell, and a file of a million takes no longer."""

_STARTS = 2**18
"""Starts that tell the order, of the first rows: they need a megabyte or two."""

_NEAR, _LEAST_SIDE, _LEAST_HITS = 8, 16, 2


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
            parse_text(text, self._shape(row), self.dialect.base, self.dialect.relative)
        except DamagedError as error:
            return error.item
        return None

    def _shape(self, row: int) -> Shape:
        try:
            return self._sizes.of(self.sample(row) or "")
        except EnskError:
            return (1, MAX_PIXELS)


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
    side = ("width", "height")[other == "F"]
    lays = {"C": "along rows", "F": "down columns"}
    return (
        f"read {lays[order]}, but most starts are the {side} apart ({hits} of {int(tells.sum())}), as they are "
        f"{lays[other]}"
    )


def _near(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the differences from -8 to 8."""
    return np.bincount(distances[np.abs(distances) <= _NEAR] + _NEAR, minlength=2 * _NEAR + 1)


def pixels(shapes: Mapping[str, Shape]) -> dict[str, int]:
    """Count the pixels of each sample's image."""
    return {sample: math.prod(shape) for sample, shape in shapes.items()}
