"""Pixels whose winner factors can change: the truth of some rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.masks.runs import Runs

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOID = 65535
"""The truth of a pixel that does not count."""


def truth_of(
    truth: ManyRuns, void: Runs, first: int, stop: int, width: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Draw the truth of some rows: each pixel's class, uint16 (n,), their number where none, and whether it counts."""
    C, begin, size = truth.offsets.size - 1, first * width, (stop - first) * width
    labels, counts = np.full(size, C, np.uint16), np.ones(size, np.bool_)
    own = truth.between(begin, begin + size)
    owners = np.repeat(np.arange(C), np.diff(own.offsets))
    for c, a, b in zip(owners.tolist(), (own.starts - begin).tolist(), (own.ends - begin).tolist(), strict=True):
        labels[a:b] = c
    hidden = ManyRuns.of([void]).between(begin, begin + size)
    for a, b in zip((hidden.starts - begin).tolist(), (hidden.ends - begin).tolist(), strict=True):
        counts[a:b] = False
    return labels, counts
