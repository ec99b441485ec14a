"""Counts by level in a temporary file, which vanishes with them; memory holds what is looked at."""

from __future__ import annotations

import mmap
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Mapped(NamedTuple):
    """Where a class's arrays lie in a file that is mapped."""

    file: mmap.mmap
    start: int
    size: int

    def release(self) -> None:
        """Give back the memory of what was looked at; it is read again where it is needed."""
        self.file.madvise(mmap.MADV_DONTNEED, self.start, self.size)


class CountFile:
    """Arrays of many classes that grow at their ends, each in a place of its own of one file with holes.

    All arrays of a class have one length.

    Parameters
    ----------
    classes : how many.
    kinds : type of each array of a class.
    most : items of an array at most.

    Raises
    ------
    OSError
        There is no place for it; as of `add`.
    """

    def __init__(self, classes: int, kinds: Sequence[np.dtype[Any]], most: int) -> None:
        self.kinds, page = tuple(kinds), mmap.ALLOCATIONGRANULARITY
        rooms = [-(-max(most, 1) * kind.itemsize // page) * page for kind in kinds]
        self._places, self._size = np.cumsum([0, *rooms]).tolist(), sum(rooms)
        self._counts = np.zeros(classes, np.int64)
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as this
        weakref.finalize(self, self._file.close)
        self._mapped: mmap.mmap | None = None

    def add(self, k: int, arrays: Iterable[NDArray[Any]]) -> None:
        """Put as many items behind those of class `k`, of each array; all of them, or none."""
        size = 0
        for i, array in enumerate(arrays):
            size, left = array.size, np.ascontiguousarray(array).view(np.uint8).data
            self._file.seek(self._place(k, i) + int(self._counts[k]) * array.itemsize)
            while left:
                left = left[self._file.write(left) :]
        self._counts[k] += size

    def read(self, k: int) -> list[NDArray[Any]]:
        """Bring the arrays of class `k` back into memory."""
        found = [np.empty(int(self._counts[k]), kind) for kind in self.kinds]
        for i, array in enumerate(found):
            self._file.seek(self._place(k, i))
            left = array.view(np.uint8).data
            while got := self._file.readinto(left):
                left = left[got:]
        return found

    def arrays(self, k: int) -> tuple[list[NDArray[Any]], Mapped]:
        """View the arrays of class `k`, and tell where they lie; nothing is added any more."""
        if self._mapped is None:
            self._file.truncate(self._size * self._counts.size)
            self._mapped = mmap.mmap(
                self._file.fileno(), 0, access=mmap.ACCESS_WRITE
            )  # kernels take no read-only arrays
            self._file.close()
        n = int(self._counts[k])
        found = [
            np.frombuffer(self._mapped, kind, n, self._place(k, i)) if n else np.empty(0, kind)
            for i, kind in enumerate(self.kinds)
        ]
        return found, Mapped(self._mapped, self._place(k, 0), self._size)

    def _place(self, k: int, i: int) -> int:
        return int(k * self._size + self._places[i])
