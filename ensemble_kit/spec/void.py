"""Pixels at which an image holds no data, as runs that a manifest keeps as a text."""

from __future__ import annotations

import base64
import math
import zlib
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.spec.geometry import Box, Placement, Shape, as_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 1 << 21
"""Most runs: those of a scene's slanted edges are two a row."""


class Intervals(Protocol):
    """Runs of pixels of an image; `masks.runs.Runs` are some."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each begins, in the flattened image."""

    @property
    def ends(self) -> NDArray[np.int64]:
        """Where each ends."""

    @property
    def shape(self) -> Shape:
        """The image's."""


def covers(void: Intervals, rows: tuple[int, int], columns: tuple[int, int]) -> bool:
    """Tell whether all pixels of an image in these rows and columns, each from the first on to the last, are void."""
    starts = np.arange(*rows) * void.shape[-1] + columns[0]
    which = np.searchsorted(void.starts, starts, "right") - 1
    if not void.starts.size:
        return not starts.size
    return bool(((which >= 0) & (void.ends[which] >= starts + columns[1] - columns[0])).all())


def hides(void: Intervals, cells: Box, placement: Placement) -> bool:
    """Tell whether an image holds no data at any pixel of a box of cells of its grid."""
    sides = zip(cells.start, cells.stop, placement.box.start, placement.box.stop, placement.image, strict=True)
    rows, columns = (  # from the first pixel that lies in the cells to the one behind the last
        (max(a - low, 0) * size // (high - low), -(-min(b - low, high - low) * size // (high - low)))
        for a, b, low, high, size in sides
    )
    return rows[0] >= rows[1] or columns[0] >= columns[1] or covers(void, rows, columns)


def pack(void: Intervals | None, image: Shape, sample: str) -> str:
    """Write runs as a text; "" where there are none.

    Raises
    ------
    UsageError
        They are of an image of another size, or too many.
    """
    if void is None or not void.starts.size:
        return ""
    if void.shape != image or void.starts.size > MOST:
        size = f"of {as_text(void.shape)} pixels for an image of {as_text(image)}"
        item = f"{sample!r}: {size}" if void.shape != image else f"{sample!r}: {void.starts.size} runs, {MOST} at most"
        fix = "pass the pixels of the scene itself"
        if void.shape == image:
            fix = "mark whole regions only: gdal_sieve, or unset the file's nodata: gdal_edit.py -unsetnodata FILE"
        raise UsageError("void-invalid", "cannot keep which pixels hold no data", item=item, fix=fix)
    edges = np.stack([void.starts, void.ends], 1).reshape(-1)
    steps = np.diff(edges, prepend=0).astype("<i8")
    return base64.b64encode(zlib.compress(steps.tobytes())).decode("ascii")


class Pixels(NamedTuple):
    """Runs as they were kept."""

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    shape: Shape


def unpack(text: str, image: Shape) -> Pixels:
    """Read what `pack` wrote; ValueError where it is no runs of an image of this size."""
    stream = zlib.decompressobj()
    try:
        steps = np.frombuffer(stream.decompress(base64.b64decode(text, validate=True), 16 * MOST), "<i8")
    except zlib.error as error:
        raise ValueError(str(error)) from None
    sound = stream.eof and steps.size and steps.size % 2 == 0 and (steps[1:] > 0).all() and steps[0] >= 0
    edges = np.cumsum(steps)
    if not sound or int(edges[-1]) > math.prod(image) or int(edges.max()) != int(edges[-1]):
        raise ValueError("no runs of an image")
    return Pixels(edges[::2].astype(np.int64), edges[1::2].astype(np.int64), image)
