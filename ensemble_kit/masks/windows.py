"""Masks of a window of an image, and masks of the image: each cut or moved to the other, on two axes or three."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.geometry import Box, Shape


def placed(masks: ManyRuns, window: Box, image: Shape) -> ManyRuns:
    """Move masks of a window to where it lies in the image.

    Examples
    --------
    >>> from ensemble_kit.spec.geometry import Box
    >>> ManyRuns(*map(np.array, ([1], [4], [0, 1]))).starts  # of 2 x 3 pixels: the last two of a row, the next's first
    array([1])
    >>> placed(ManyRuns(*map(np.array, ([1], [4], [0, 1]))), Box(1, 1, 3, 4), (4, 5)).ends
    array([ 9, 12])
    """
    owners, rows, starts, ends = _by_row(masks, window.shape[-1])
    at = _position(rows, window.shape, window.start, image)
    return _joined(owners, at + starts, at + ends, masks.offsets.size)


def inside(window: Box, image: Shape) -> Runs:
    """Return the pixels of an image that lie in a window.

    Examples
    --------
    >>> from ensemble_kit.spec.geometry import Box
    >>> print(inside(Box(1, 1, 3, 4), (4, 5)).text())
    7 3 12 3
    """
    whole = Runs.trusted((np.zeros(1, np.int64), np.array([math.prod(window.shape)])), window.shape)
    return placed(ManyRuns.of([whole]), window, image).mask(0, image)


def cut(masks: ManyRuns, window: Box, image: Shape) -> ManyRuns:
    """Cut masks of an image to a window, whose pixels are counted from its start."""
    owners, rows, starts, ends = _by_row(masks, image[-1])
    first, stop = window.start[-1], window.stop[-1]
    starts, ends = np.maximum(starts, first) - first, np.minimum(ends, stop) - first
    kept, left = starts < ends, rows
    for size, a, b in zip(image[-2::-1], window.start[-2::-1], window.stop[-2::-1], strict=True):
        left, index = np.divmod(left, size)
        kept &= (a <= index) & (index < b)
    back = tuple(-a for a in window.start[:-1])
    at = _position(rows[kept], image, (*back, 0), window.shape)
    return _joined(owners[kept], at + starts[kept], at + ends[kept], masks.offsets.size)


def _by_row(masks: ManyRuns, width: int) -> tuple[NDArray[np.int64], ...]:
    """Cut runs at the ends of rows: mask, row (through all slices), and first and last column, of each piece."""
    first, last = masks.starts // width, (masks.ends - 1) // width
    pieces = last - first + 1
    of = np.repeat(np.arange(pieces.size), pieces)
    rows = first[of] + np.arange(of.size) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    owners = np.repeat(np.arange(masks.offsets.size - 1), np.diff(masks.offsets))[of]
    begin = rows * width
    return owners, rows, np.maximum(masks.starts[of] - begin, 0), np.minimum(masks.ends[of] - begin, width)


def _position(rows: NDArray[np.int64], given: Shape, offset: Shape, wanted: Shape) -> NDArray[np.int64]:
    """Find where rows of one raster begin in another, which lies `offset` pixels before it on each axis."""
    indices, left = [], rows
    for size in given[-2::-1]:
        left, index = np.divmod(left, size)
        indices.append(index)
    at = np.zeros_like(rows)
    for index, a, size in zip(reversed(indices), offset, wanted, strict=False):
        at = at * size + index + a
    return at * wanted[-1] + offset[-1]


def _joined(owners: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], offsets: int) -> ManyRuns:
    """Join pieces of the same mask that meet."""
    apart = np.ones(owners.size + 1, np.bool_)
    apart[1:-1] = (owners[1:] != owners[:-1]) | (starts[1:] != ends[:-1])
    return ManyRuns(
        starts[apart[:-1]], ends[apart[1:]], np.searchsorted(owners[apart[:-1]], np.arange(offsets)).astype(np.int64)
    )
