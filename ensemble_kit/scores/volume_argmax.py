"""Exclusive classes of a volume, decided slab by slab and without a resampled volume: runs, and slices of a label map.

Members may lie on several grids, boxes and kinds of axes; margins and tolerances are those of `argmax.py`, since a cell
and a pixel are rounded as often as in an image.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.masks.packed import ManyRuns
from ensemble_kit.scores import argmax, layouts
from ensemble_kit.scores.slices import Slices
from ensemble_kit.scores.volume_axes import Depth, depth_of, kinds_of, plane_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Contest, Exactly, Grids
    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.fusion import Upsample
    from ensemble_kit.spec.geometry import Placement

TOGETHER = 1 << 22
"""Bytes of labels of the slices of an image that are decided together."""


class Laid(NamedTuple):
    """How a volume is decided: what kernels take, and where slices of cells come from."""

    contest: Contest
    exactly: Exactly
    grids: Grids
    depth: Depth
    slices: Sequence[Slices]
    of_grid: NDArray[np.int64]
    heights: NDArray[np.int64]
    image: tuple[int, ...]


class Looked(NamedTuple):
    """How many strips of bands members did not agree upon, and how many voxels took integers."""

    strips: int
    exact: int


def contest(
    inputs: Inputs,
    sample: str,
    placements: Sequence[Placement],
    upsample: Upsample,
    factors: NDArray[np.int64],
    offsets: NDArray[np.int64],
    least: int,
) -> Laid | None:
    """Lay out how the classes of a volume compete, as `argmax.contest` does; None where that has no fast way."""
    from ensemble_kit.kernels.desk import CELLS

    weights = layouts.weights(inputs.fusion.weights)
    shapes = [kinds_of(p) for p in placements]
    used = np.array(sorted(np.flatnonzero(weights.max(axis=0) > 0).tolist(), key=lambda m: shapes.index(shapes[m])))
    own = [placements[m] for m in used]
    boxes = tuple(dict.fromkeys([shapes[m] for m in used]))
    if any(p.window is not None for p in placements):
        return None
    if upsample == "scores" and any(
        (p.grid, p.box, p.kinds) != (placements[0].grid, placements[0].box, placements[0].kinds) for p in placements
    ):
        return None
    doubts = argmax.doubts_of(inputs, upsample, factors, offsets, least, len(used), len(boxes))
    if doubts is None:
        return None
    slices = [Slices(inputs.members[m], sample, placements[m], CELLS) for m in used]
    of_grid = np.array([boxes.index(shapes[m]) for m in used])
    at = np.zeros((2 * len(used), len(inputs.classes)), np.int64)
    return Laid(
        argmax.rules_of(doubts, inputs, used, of_grid, at, np.array([s.width for s in slices])),
        argmax.exactly_of(inputs, used, upsample, factors, offsets, least),
        plane_of(boxes, own[0].image),
        depth_of(boxes, own[0].image[0]),
        slices,
        of_grid,
        np.array([shape[1] for shape, _ in boxes]),
        own[0].image,
    )


def winners(
    laid: Laid, take: Callable[[int, NDArray[np.unsignedinteger]], None] | None = None
) -> tuple[ManyRuns, Looked]:
    """Decide a volume: the masks of all classes, each voxel in at most one; and what was looked at.

    Parameters
    ----------
    take : called with the number of a slice and labels (slices, H, W) from there on, the largest number where there is
        none; uint8 of up to 255 classes, else uint16.
    """
    from ensemble_kit.kernels import labels, volume_argmax
    from ensemble_kit.kernels.stretches import make_stretches

    D, H, W = laid.image
    classes = laid.contest.at.shape[1]
    stretches, n, looked = make_stretches(W + 4096), 0, Looked(0, 0)
    kind: type[np.unsignedinteger] = np.uint8 if classes <= 255 else np.uint16
    for first, which, rows, found in _decided(laid):
        looked = Looked(*np.add(looked, found).tolist())
        stretches, n = volume_argmax.append_slices(first, which, H, W, rows, stretches, n)
        if take is not None:
            own = rows[: H * (which[-1] + 1), :W].astype(kind).reshape(-1, H, W)
            take(first, own if len(own) == len(which) else own[which])
    return ManyRuns(*labels.runs_of(stretches.starts[:n], stretches.labels[:n], D * H * W, classes)), looked


def _decided(laid: Laid) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int16], tuple[int, int]]]:
    """Yield the first of some slices of the image, where each was decided, the rows, and what was looked at."""
    from ensemble_kit.kernels import volume_argmax
    from ensemble_kit.kernels.desk import make_arrays

    most = max(1, TOGETHER // (2 * laid.image[1] * laid.image[2]))
    most = min(most, int(np.diff(laid.depth.at).max()))
    arrays = make_arrays(laid.contest, laid.grids, laid.heights.max(), most)
    held, entered = np.full((2, laid.heights.size), -1), np.zeros((2, laid.heights.size), np.int64)
    for band, (first, stop) in enumerate(pairwise(laid.depth.at.tolist())):
        before, behind = laid.depth.before[:, band], laid.depth.behind[:, band]
        for g in range(laid.heights.size):
            for number in (int(before[g]), int(behind[g])):
                if held[number & 1, g] != number:
                    held[number & 1, g], entered[number & 1, g] = number, 0
                    _take(number, g, laid)
        slots = np.stack([before & 1, behind & 1])
        for begin in range(first, stop, most):
            shares, which = _distinct(laid.depth.fractions[:, begin : min(begin + most, stop)].T)
            found = volume_argmax.decide_slices(
                slots, shares, entered, laid.heights, laid.contest, laid.exactly, laid.grids, arrays
            )
            yield begin, which, arrays.rows, found


def _take(number: int, g: int, laid: Laid) -> None:
    """Take a slice of cells of a grid's members."""
    slot, members = number & 1, len(laid.slices)
    for m in np.flatnonzero(laid.of_grid == g).tolist():
        begin, of_class = laid.slices[m].take(number)
        laid.contest.at[slot * members + m] = begin + laid.exactly.order[m] * of_class


def _distinct(shares: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Leave out slices that repeat the one before; return the others, and which each slice is."""
    new = np.ones(len(shares), np.bool_)
    new[1:] = (shares[1:] != shares[:-1]).any(axis=1)
    return np.ascontiguousarray(shares[new]), np.cumsum(new) - 1
