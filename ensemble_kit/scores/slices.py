"""Volumes read slice by slice: of each member the slices of cells between which the image's slices lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Member, VolumeMember
    from ensemble_kit.spec.geometry import Placement


class Slices:
    """One member's box of a sample, read slice by slice; two that follow each other are kept alive.

    A store keeps a chunk as long as one of its slices is looked at, so none is read twice.

    Parameters
    ----------
    least_width : columns that kernels expect; the last column of a narrower box is repeated.
    """

    def __init__(self, member: Member, sample: str, place: Placement, least_width: int = 1) -> None:
        self._member, self._sample, self._box = cast("VolumeMember", member), sample, place.box
        (_, top, left), (_, _, right), width = place.box.start, place.box.stop, place.grid[-1]
        self._missing = max(0, least_width - (right - left))
        self.width = right - left + self._missing if self._missing else width
        """Cells from one row to the next."""
        self._offset = 0 if self._missing else 2 * (top * width + left)
        self._kept: list[NDArray[np.uint16] | None] = [None, None]

    def take(self, number: int) -> tuple[int, int]:
        """Return where a slice of the box begins in the member's first class, and bytes from one class to the next.

        The memory is alive until the next slice but one is taken.
        """
        first = self._box.start[0] + number
        cells = self._member.read_slab(self._sample, first, first + 1)[:, 0].view(np.uint16)
        if self._missing:
            cells = np.pad(cells[:, *self._box.slices[1:]], ((0, 0), (0, 0), (0, self._missing)), mode="edge")
        elif not cells[0].flags.c_contiguous:
            cells = np.ascontiguousarray(cells)
        self._kept[number & 1] = cells
        return cells.__array_interface__["data"][0] + self._offset, cells.strides[0]
