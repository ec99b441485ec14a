"""`Stretches`: an image cut where any of some masks begins or ends, so that along a stretch nothing changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.runs import Runs
from ensemble_kit.spec.geometry import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stretches(NamedTuple):
    """Stretches of the flattened image.

    Parameters
    ----------
    edges : int64 (n + 1,), ascending from 0 to the number of pixels.
    shape : of the image.
    """

    edges: NDArray[np.int64]
    shape: Shape

    @classmethod
    def of(cls, masks: Iterable[Runs], shape: Shape) -> Stretches:
        """Cut an image where one of the masks begins or ends."""
        ends = [edge for mask in masks for edge in (mask.starts, mask.ends)]
        return cls(np.unique(np.concatenate([np.array([0, np.prod(shape)], np.int64), *ends])), shape)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Pixels of each stretch, int64 (n,)."""
        return np.diff(self.edges)

    def sums(self, masks: Iterable[tuple[Runs, int]]) -> NDArray[np.int64]:
        """Add a number along each mask: int64 (n,)."""
        change = np.zeros(self.edges.size, np.int64)
        for mask, number in masks:
            change[np.searchsorted(self.edges, mask.starts)] += number
            change[np.searchsorted(self.edges, mask.ends)] -= number
        return change[:-1].cumsum()

    def runs(self, on: NDArray[np.bool_]) -> Runs:
        """Make a mask of the stretches that are on, bool (n,)."""
        change = np.diff(on.astype(np.int8), prepend=0, append=0)
        return Runs.trusted((self.edges[change == 1], self.edges[change == -1]), self.shape)
