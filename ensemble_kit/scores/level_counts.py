"""`LevelCounts`: pixels of several classes of one sample by level, as counting returns them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LevelCounts(NamedTuple):
    """Pixels and truth pixels of several classes of one sample, by level.

    Parameters
    ----------
    offsets : int64 (n + 1,); the k-th class has the entries `offsets[k]:offsets[k+1]` of the next three.
    levels : uint16, the levels of the band that occur, ascending within a class.
    pred, tp : uint32, for images of 2^32 pixels int64: pixels, and truth pixels, at that level and above.
    above, above_tp : int64 (n,), those above the band.
    """

    offsets: NDArray[np.int64]
    levels: NDArray[np.uint16]
    pred: NDArray[Any]
    tp: NDArray[Any]
    above: NDArray[np.int64]
    above_tp: NDArray[np.int64]

    def of(self, k: int) -> tuple[NDArray[np.uint16], NDArray[Any], NDArray[Any], int, int]:
        """Return the k-th class's levels, pred, tp, above and above_tp."""
        own = slice(self.offsets[k], self.offsets[k + 1])
        return self.levels[own], self.pred[own], self.tp[own], int(self.above[k]), int(self.above_tp[k])

    def without(self, hits: LevelCounts) -> LevelCounts:
        """Leave out pixels: those that `hits`, counts of the same classes and bands, has as truth pixels."""
        return self._replace(pred=self.pred - hits.tp, above=self.above - hits.above_tp)

    @classmethod
    def joined(cls, classes: Sequence[tuple[Any, ...]]) -> LevelCounts:
        """Join classes, each as `of` returns it."""
        levels, pred, tp, above, above_tp = zip(*classes, strict=True)
        return cls(
            np.cumsum([0, *(v.size for v in levels)]),
            np.concatenate(levels),
            np.concatenate(pred),
            np.concatenate(tp),
            np.array(above),
            np.array(above_tp),
        )
