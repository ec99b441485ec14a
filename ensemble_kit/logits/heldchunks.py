"""Chunks that somebody still looks at: read again, they are the memory that is there already."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[int, int]
"""A sample's row, and the number of its chunk."""


class HeldChunks:
    """Chunks of volumes, by row and number, for as long as some view of them is alive.

    A volume is read slice by slice: each slice of a chunk would have it mapped, or decoded, again.
    """

    def __init__(self) -> None:
        self._known: dict[Key, tuple[weakref.ref[NDArray[np.generic]], slice]] = {}

    def get(self, key: Key, read: Callable[[], NDArray[np.float16]]) -> NDArray[np.float16]:
        """Return a chunk, flat and read-only; `read` it where nobody holds it."""
        known = self._known.get(key)
        owner = known[0]() if known else None
        if known and owner is not None:
            return owner.reshape(-1).view(np.uint8)[known[1]].view("<f2")
        found = read()
        owner = found if found.base is None or not isinstance(found.base, np.ndarray) else found.base
        begin = found.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
        self._known[key] = weakref.ref(owner, lambda _: self._known.pop(key, None)), slice(begin, begin + found.nbytes)
        return found
