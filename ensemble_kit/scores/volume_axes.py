"""The cells around the voxels of a volume: of each slice of the image, and of its rows and columns."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.kernels.arguments import Axes
from ensemble_kit.scores import layouts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ensemble_kit.kernels.arguments import Grids
    from ensemble_kit.spec.geometry import AxisKind, Placement, Shape

Kinds = tuple["Shape", tuple["AxisKind", ...]]
"""Shape of a box, and the kinds of its axes: members of one are looked at together."""


class Depth(NamedTuple):
    """Which slices of cells of each of G boxes lie around the slices of an image of depth D.

    Parameters
    ----------
    at : int64 (bands + 1,), first slice of the image of each range that lies between the same slices of every box.
    before, behind : int64 (G, bands), slices of cells; the same where no slice of the image lies between two.
    fractions : int64 (G, D), share of the slice behind, of 256.
    """

    at: NDArray[np.int64]
    before: NDArray[np.int64]
    behind: NDArray[np.int64]
    fractions: NDArray[np.int64]


def kinds_of(place: Placement) -> Kinds:
    """Return what the layout of a member's box depends on."""
    return place.box.shape, place.kinds


@lru_cache(maxsize=16)
def depth_of(boxes: tuple[Kinds, ...], depth: int) -> Depth:
    """Lay out the slices of an image between those of boxes."""
    found = [axis(shape[0], depth, kinds[0]) for shape, kinds in boxes]
    cells, fractions = (np.stack(part) for part in zip(*found, strict=True))
    at, before = layouts.stretches(cells)
    between = np.maximum.reduceat(fractions, at[:-1], axis=1) > 0
    last = np.array([[shape[0] - 1] for shape, _ in boxes])
    return Depth(at, before, np.minimum(before + between, last), fractions)


@lru_cache(maxsize=16)
def plane_of(boxes: tuple[Kinds, ...], image: Shape) -> Grids:
    """Lay out the bands and strips of a slice of the image between the rows and columns of boxes."""
    sides = []
    for k in (1, 2):
        found = [axis(shape[k], image[k], kinds[k]) for shape, kinds in boxes]
        sides.append([np.stack(part) for part in zip(*found, strict=True)])
    (rows, row_fractions), (cols, col_fractions) = sides
    last = np.array([shape[1:] for shape, _ in boxes]) - 1
    return layouts.grids_of(Axes(rows, row_fractions, cols, col_fractions, last))


def axis(n_in: int, n_out: int, kind: AxisKind) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cell before each index of an axis, and fraction (of 256) of the cell behind it."""
    from ensemble_kit.kernels import tables

    centres = 2 * np.arange(n_out, dtype=np.int64) + 1
    return tables.cells_around(centres, 1, (0, n_out), n_in, kind == "nearest")
