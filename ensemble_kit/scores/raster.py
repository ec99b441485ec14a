"""`Raster`: sources fused over the pixels of an image or a volume, a few slices of cells in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from ensemble_kit.kernels.arguments import Members, Scoring
from ensemble_kit.kernels.space import Leading, Space
from ensemble_kit.scores import leads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.spec.geometry import Placement

ROOM = 1 << 25
"""Bytes of codes that are held at a time, but for one slice of the image those around it."""


class Source(Protocol):
    """Cells of a box as 16-bit codes, slice by slice."""

    @property
    def placement(self) -> Placement:
        """Where they lie, on three axes."""

    @property
    def order(self) -> NDArray[np.int64]:
        """Where each class stands in the codes, int64 (C,)."""

    def codes(self, first: int, stop: int) -> NDArray[np.uint16]:
        """Return the slices `first … stop - 1` of the box, uint16 (C, slices, h, w); a row's cells are neighbours."""


class Laid(NamedTuple):
    """Some rows as kernels take them.

    Parameters
    ----------
    arguments : what `kernels.rows` takes.
    slices : of each source the first slice of cells, and the one behind the last.
    codes : kept alive, since their addresses are in the arguments.
    """

    arguments: tuple[Members, Scoring, NDArray[np.int64], Space]
    slices: Sequence[tuple[int, int]]
    codes: Sequence[NDArray[np.uint16]]

    def leading(self, bounds: leads.Bounds | None) -> Leading:
        """Find the class that leads each cell; without bounds nothing."""
        members, _, exponentials, space = self.arguments
        return leads.leading(members, exponentials, space, self.slices, bounds)


class Bounded(NamedTuple):
    """What `kernels.bounded_rows` takes of some rows, `*bounded`: bounds, then the rows as `Laid.arguments` has them.

    Parameters
    ----------
    extremes : the least and the largest score around each block of pixels, of each source from the slice `begins[m]`,
        uint16 (sources, 2, C, slices, rows, blocks).
    """

    extremes: NDArray[np.uint16]
    begins: NDArray[np.int64]
    members: Members
    scoring: Scoring
    space: Space


class Raster:
    """Sources fused over the pixels of an image (D, H, W), whose rows are counted through all slices.

    Parameters
    ----------
    exponentials : what makes shares of exclusive classes; empty where there are none.
    """

    def __init__(
        self, sources: Sequence[Source], scoring: Scoring, exponentials: NDArray[np.int64], space: Space
    ) -> None:
        self._sources, self._scoring, self._exponentials, self._space = sources, scoring, exponentials, space
        self._asked = _asked(space)
        self._order = np.stack([s.order for s in sources], axis=1)
        self.height, self.width = space.rows.shape[1], space.cols.shape[1]
        self.rows = space.slices.shape[1] * self.height

    def slabs(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, int]]:
        """Cut rows into ranges whose cells are held at a time: yield the first row, and the one behind the last."""
        stop = self.rows if stop is None else stop
        classes = self._order.shape[0]
        slices = [2 * classes * math.prod(s.placement.box.shape[1:]) for s in self._sources]
        while first < stop:
            z = begin = first // self.height
            while z + 1 < self._space.slices.shape[1] and self._cells(begin, z + 2, slices) <= ROOM:
                z += 1
            end = min((z + 1) * self.height, stop)
            yield first, end
            first = end

    def laid(self, first: int, stop: int) -> Laid:
        """Read the cells around some rows, one of `slabs`, and lay them out."""
        begin, end = first // self.height, -(-stop // self.height)
        codes: list[NDArray[np.uint16]] = []
        at = np.zeros((4, len(self._sources)), np.int64)
        slices = [self._around(k, begin, end) for k in range(len(self._sources))]
        for k, (source, (near, behind)) in enumerate(zip(self._sources, slices, strict=True)):
            if near < behind:
                own = source.codes(near, behind)
                codes.append(own)
                of_class, of_slice, of_row, _ = own.strides
                address = own.__array_interface__["data"][0] - near * of_slice
                at[:, k] = address, of_class, of_row // 2, of_slice
        address, class_bytes, widths, slice_bytes = at
        members = Members(address, class_bytes, widths, slice_bytes, self._order, self._space.weights[0])
        return Laid((members, self._scoring, self._exponentials, self._space), slices, codes)

    @property
    def all_heard(self) -> bool:
        """Whether some source of each set has a weight in each class."""
        return bool((self._space.weights.sum(axis=2) > 0).all())

    @property
    def alone(self) -> bool:
        """Whether a class has a value of its own: the others are not looked at."""
        return self._exponentials.size == 0

    @staticmethod
    def bounded(laid: Laid) -> Bounded:
        """Bound the scores of some rows that are laid out, by blocks of pixels; where classes are `alone`."""
        from ensemble_kit.kernels import bounded_rows

        members, scoring, _, space = laid.arguments
        begins, stops = np.array(laid.slices, np.int64).T
        classes, blocks = members.order.shape[0], -(-space.cols.shape[1] // bounded_rows.BLOCK)
        slices, rows = (stops - begins).max(), space.last[:, 0].max() + 1
        around = np.empty((begins.size, 2, classes, slices, rows, blocks), np.uint16)
        for m, kind in enumerate(scoring.table_of):
            bounded_rows.extremes(m, begins[m], stops[m], members, scoring.tables[kind], space, around[m])
        return Bounded(around, np.ascontiguousarray(begins), members, scoring, space)

    def _around(self, k: int, begin: int, end: int) -> tuple[int, int]:
        """Find the slices of cells of a source around some slices of the image: the first, the one behind the last."""
        asked = begin + np.flatnonzero(self._asked[k, begin:end])
        if not asked.size:
            return 0, 0
        near, between = self._space.slices[k, asked], self._space.slice_fractions[k, asked] > 0
        return int(near.min()), int((near + between).max()) + 1

    def _cells(self, begin: int, end: int, slices: Sequence[int]) -> int:
        around = [self._around(k, begin, end) for k in range(len(slices))]
        return sum(size * (b - a) for size, (a, b) in zip(slices, around, strict=True))


def _asked(space: Space) -> NDArray[np.bool_]:
    """Tell for each source in which slices of the image it has a say, bool (sources, D)."""
    heard = np.concatenate([space.weights.any(axis=1), np.zeros((1, space.weights.shape[2]), bool)])  # the last: none
    by_box: NDArray[np.bool_] = np.any(heard[space.sets], axis=(1, 2))
    return np.ascontiguousarray(by_box[space.slice_box].T)
