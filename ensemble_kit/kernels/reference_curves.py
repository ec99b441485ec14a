"""What the kernels of sums by segment return, in plain NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def mean_of_folds(which: Sequence[int], top: NDArray[np.float64], foot: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divide the sums of some rows; 1 where their foot is 0."""
    tops, feet = (np.zeros(v.shape[1], v.dtype) for v in (top, foot))
    for k in which:
        tops, feet = tops + top[k], feet + foot[k]
    return np.where(feet == 0, 1.0, tops / np.maximum(feet, 1))


def spread(values: NDArray[Any], columns: NDArray[np.int64], first: int, size: int) -> NDArray[Any]:
    """Return what holds at `size` levels from `first` on, of segments that end at `columns`."""
    return np.repeat(values, np.diff(columns, prepend=-1))[first : first + size]


def near_groups(values: NDArray[np.float64], close: float) -> list[tuple[int, int]]:
    """Return the first and last index of each group of equal neighbours among the values near the largest."""
    near = np.flatnonzero(values >= values.max() - close)
    groups = np.split(near, np.flatnonzero((np.diff(near) > 1) | (np.diff(values[near]) != 0)) + 1)
    return [(int(group[0]), int(group[-1])) for group in groups]
