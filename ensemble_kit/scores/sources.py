"""Where the 16-bit codes of a box of cells come from, slice by slice: a member's logits, or members fused on a grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import numpy as np

from ensemble_kit.kernels.arguments import Scoring
from ensemble_kit.scores import exclusive, layouts, space
from ensemble_kit.scores.raster import Raster

_ROWS = 64
"""Rows of a grid whose values, int64, are held at a time."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs, VolumeMember
    from ensemble_kit.spec.fusion import Upsample
    from ensemble_kit.spec.geometry import Placement


class MemberSource:
    """A member's logits of one sample as codes. The slices that were read last are kept, since the next share some.

    Parameters
    ----------
    inputs, m : of which the member is number `m`.
    placement : the member's, on two axes or three.
    """

    def __init__(self, inputs: Inputs, m: int, sample: str, placement: Placement, upsample: Upsample) -> None:
        self.placement, self.classes = placement.solid, len(inputs.classes)
        self._is_image = len(placement.grid) == 2
        self._inputs, self._m, self._sample, self._upsample = inputs, m, sample, upsample
        self._held: tuple[int, NDArray[np.uint16]] | None = None

    @property
    def kind(self) -> layouts.Codes:
        """What the codes become."""
        fusion = self._inputs.fusion
        if self._inputs.activation == "softmax":
            return exclusive.codes(fusion, self._upsample)
        return "q" if self._upsample == "logits" or fusion.mean.of_logits else "levels"

    @property
    def order(self) -> NDArray[np.int64]:
        """Where each class stands in the codes, int64 (C,)."""
        if self._inputs.activation == "softmax":
            return np.arange(self.classes)
        return self._own_order

    @property
    def _own_order(self) -> NDArray[np.int64]:
        return layouts.order((self._inputs.members[self._m].classes,), self._inputs.classes)[:, 0]

    def codes(self, first: int, stop: int) -> NDArray[np.uint16]:
        """Return the codes of the slices `first … stop - 1` of the box, uint16 (C, slices, h, w)."""
        begin, held = self._held or (0, np.empty((self.classes, 0, 0, 0), np.uint16))
        end = begin + held.shape[1]
        if not begin <= first < end:
            held = self._read(first, stop)
        elif stop > end:
            held = np.concatenate([held[:, first - begin :], self._read(end, stop)], axis=1)
        else:
            return held[:, first - begin : stop - begin]
        self._held = first, held
        return held

    def _read(self, first: int, stop: int) -> NDArray[np.uint16]:
        member, (box_slices, *inside) = self._inputs.members[self._m], self.placement.box.slices
        z, cells = box_slices.start, (slice(None), slice(None), *inside)
        if self._is_image:
            logits = member.read(self._sample)[:, None][cells]
        else:
            logits = cast("VolumeMember", member).read_slab(self._sample, z + first, z + stop)[cells]
        logits = np.ascontiguousarray(logits)
        if self._inputs.activation == "sigmoid":
            return logits.view(np.uint16)
        fusion = self._inputs.fusion
        return exclusive.encode(logits, fusion.temperatures[self._m], self._own_order, fusion, self._upsample)


class HeldSource:
    """Codes of a grid of two axes that are in memory.

    Parameters
    ----------
    codes : uint16 (C, h, w).
    order : int64 (C,), where each class stands in them.
    """

    def __init__(
        self, codes: NDArray[np.uint16], placement: Placement, order: NDArray[np.int64], kind: layouts.Codes
    ) -> None:
        self.placement, self.order, self.kind = placement.solid, order, kind
        self._codes = codes[:, None, *placement.box.slices]

    def codes(self, first: int, stop: int) -> NDArray[np.uint16]:
        """Return the codes, uint16 (C, 1, h, w)."""
        return self._codes[:, first:stop]


class GridSource:
    """A set of members fused on the grid of its finest member, as upsample="scores" does before it interpolates.

    Scores of the others are interpolated to where the centres of its cells lie, and rounded.

    Parameters
    ----------
    members : of the set.
    scoring : of these members.
    weights : int64 (C, members).
    """

    def __init__(self, members: Sequence[MemberSource], scoring: Scoring, weights: NDArray[np.int64]) -> None:
        from ensemble_kit.kernels import tables

        self.placement = finest([m.placement for m in members])
        self.order = np.arange(len(weights))
        self._raster = Raster(
            members,
            scoring._replace(interpolate_members=True),
            tables.exponentials()[:0],
            space.of_grid([m.placement for m in members], self.placement, weights[None]),
        )
        self._height, self._width = self.placement.box.shape[1:]

    def codes(self, first: int, stop: int) -> NDArray[np.uint16]:
        """Fuse the slices `first … stop - 1` of the box, uint16 (C, slices, h, w)."""
        from ensemble_kit.kernels import rows

        out = np.empty((self.order.size, (stop - first) * self._height, self._width), np.uint16)
        begin = first * self._height
        for a, b in self._raster.slabs(begin, stop * self._height):
            laid = self._raster.laid(a, b)
            for row in range(a, b, _ROWS):
                some = rows.values(row, min(row + _ROWS, b), *laid.arguments)
                out[:, row - begin : row - begin + some.shape[1]] = (np.maximum(some, 0) + 32768) >> 16
        return out.reshape(len(out), stop - first, self._height, self._width)


def finest(placements: Sequence[Placement]) -> Placement:
    """Return the placement of the most cells, the first of equals: members are sorted by name."""
    return max(placements, key=lambda p: math.prod(p.grid))
