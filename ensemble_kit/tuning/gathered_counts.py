"""Counts by level of one sample after another, put together class by class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ensemble_kit.scores.level_counts import LevelCounts
from ensemble_kit.tuning.count_file import CountFile, Mapped

if TYPE_CHECKING:
    from numpy.typing import NDArray

AT_ONCE = 16_000_000
"""Bytes of counts that are put in the order of classes at a time."""
HELD = 128_000_000
"""Bytes of counts that memory holds; more go to a temporary file, where there is room for them."""


class GatheredCounts:
    """Counts of samples as they come; some samples at a time they are put in the order of classes.

    So nothing is held twice but some samples of all classes; and of many samples, whose counts are in a file, no more
    than these.

    Parameters
    ----------
    classes : how many.
    most : tells how many entries a class has at most; None: all is held in memory.
    """

    def __init__(self, classes: int, most: Callable[[], int] | None = None) -> None:
        self._rows, self._bytes, self._held = list[LevelCounts](), 0, 0
        self._classes, self._most = [_Class() for _ in range(classes)], most
        self._file: CountFile | None = None

    def add(self, row: LevelCounts) -> None:
        """Add the counts of a sample, of all classes."""
        self._rows.append(row)
        self._bytes += sum(array.nbytes for array in row)
        if self._bytes > AT_ONCE:
            self._sort()

    def take(self, k: int) -> LevelCounts:
        """Return the k-th class of all samples, whose offsets are the samples'; it is held here no longer."""
        return self.placed(k)[0]

    def placed(self, k: int) -> tuple[LevelCounts, Mapped | None]:
        """Return the k-th class as `take` does, and where it lies in a file, if it does."""
        self._sort()
        arrays, mapped = self._classes[k].arrays(), None
        if self._file is not None:
            try:
                arrays, mapped = self._file.arrays(k)
            except OSError:  # it cannot be mapped
                arrays = self._file.read(k)
        own, self._classes[k] = self._classes[k], _Class()
        return own.counts(arrays), mapped

    def _sort(self) -> None:
        """Put the samples that came behind those that are there, class by class."""
        if not self._rows:
            return
        for k, own in enumerate(self._classes):
            arrays = own.note(self._rows, k)
            self._held += sum(array.nbytes for array in arrays)
            if self._file is None or not self._written(self._file, k, arrays):
                own.parts.append(arrays)
        self._rows, self._bytes = [], 0
        if self._most is not None and self._file is None and self._held > HELD:
            self._to_file(self._most())

    def _written(self, file: CountFile, k: int, arrays: Sequence[NDArray[Any]]) -> bool:
        """Write to the file; where it takes no more, all is brought back into memory, for good."""
        try:
            if _kinds(arrays) == file.kinds:
                file.add(k, arrays)
                return True
        except OSError:
            pass
        self._file = None
        for c, own in enumerate(self._classes):
            own.parts.append(file.read(c))
        return False

    def _to_file(self, most: int) -> None:
        """Bring what is there to a file; without room for one it stays, for good."""
        self._most, kinds = None, _kinds(self._classes[0].parts[0])
        try:
            file = CountFile(len(self._classes), kinds, most)
            for k, own in enumerate(self._classes):
                for arrays in own.parts:
                    if _kinds(arrays) != kinds:
                        return
                    file.add(k, arrays)
        except OSError:
            return
        self._file = file
        for own in self._classes:
            own.parts.clear()


class _Class:
    """Counts of one class: what is known of each sample, and its arrays by level, unless they are in a file."""

    def __init__(self) -> None:
        self._sizes: list[NDArray[np.int64]] = []
        self._above: list[NDArray[np.int64]] = []
        self._above_tp: list[NDArray[np.int64]] = []
        self.parts: list[Sequence[NDArray[Any]]] = []

    def note(self, rows: Sequence[LevelCounts], k: int) -> list[NDArray[Any]]:
        """Note the k-th class of some samples; return its arrays by level."""
        cuts = [slice(row.offsets[k], row.offsets[k + 1]) for row in rows]
        self._sizes.append(np.array([cut.stop - cut.start for cut in cuts]))
        self._above.append(np.array([row.above[k] for row in rows]))
        self._above_tp.append(np.array([row.above_tp[k] for row in rows]))
        own = [(row.levels[cut], row.pred[cut], row.tp[cut]) for row, cut in zip(rows, cuts, strict=True)]
        return [np.concatenate(arrays) for arrays in zip(*own, strict=True)]

    def arrays(self) -> list[NDArray[Any]]:
        """Return the arrays by level that memory holds."""
        if len(self.parts) < 2:
            return [array for own in self.parts for array in own]
        return [np.concatenate(own) for own in zip(*self.parts, strict=True)]

    def counts(self, arrays: Sequence[NDArray[Any]]) -> LevelCounts:
        """Return all samples, with these arrays by level."""
        above, above_tp = (np.concatenate(own) for own in (self._above, self._above_tp))
        levels, pred, tp = arrays
        return LevelCounts(np.cumsum([0, *np.concatenate(self._sizes)]), levels, pred, tp, above, above_tp)


def _kinds(arrays: Sequence[NDArray[Any]]) -> tuple[np.dtype[Any], ...]:
    return tuple(array.dtype for array in arrays)
