"""Counts by level of one sample after another, put together class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.scores.level_counts import LevelCounts

if TYPE_CHECKING:
    from numpy.typing import NDArray

_AT_ONCE = 32_000_000
"""Bytes of counts that are put in the order of classes at a time."""


class GatheredCounts:
    """Counts of samples as they come; some samples at a time they are put in the order of classes.

    So what is held twice, while the table of a class is made, is that class and some samples of all.
    """

    def __init__(self, classes: int) -> None:
        self._rows, self._bytes = list[LevelCounts](), 0
        self._classes: list[list[LevelCounts]] = [[] for _ in range(classes)]

    def add(self, row: LevelCounts) -> None:
        """Add the counts of a sample, of all classes."""
        self._rows.append(row)
        self._bytes += sum(array.nbytes for array in row)
        if self._bytes > _AT_ONCE:
            self._sort()

    def take(self, k: int) -> LevelCounts:
        """Return the k-th class of all samples, whose offsets are the samples'; it is held here no longer."""
        self._sort()
        found, self._classes[k] = self._classes[k], []
        return found[0] if len(found) == 1 else _put_together(found)

    def _sort(self) -> None:
        if self._rows:
            for k, own in enumerate(self._classes):
                own.append(_of_class(self._rows, k))
            self._rows, self._bytes = [], 0


def _of_class(rows: Sequence[LevelCounts], k: int) -> LevelCounts:
    """Return the k-th class of some samples."""
    cuts = [slice(row.offsets[k], row.offsets[k + 1]) for row in rows]

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(row, name)[cut] for row, cut in zip(rows, cuts, strict=True)])

    sizes = [cut.stop - cut.start for cut in cuts]
    above, above_tp = (np.array([getattr(row, name)[k] for row in rows]) for name in ("above", "above_tp"))
    return LevelCounts(np.cumsum([0, *sizes]), joined("levels"), joined("pred"), joined("tp"), above, above_tp)


def _put_together(parts: Sequence[LevelCounts]) -> LevelCounts:
    """Join one class's samples."""
    ends = np.cumsum([0, *(p.levels.size for p in parts)])
    offsets = [p.offsets[:-1] + end for p, end in zip(parts, ends[:-1].tolist(), strict=True)]
    arrays = (np.concatenate([p[i] for p in parts]) for i in range(1, 6))
    return LevelCounts(np.concatenate([*offsets, ends[-1:]]), *arrays)
