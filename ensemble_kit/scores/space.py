"""Which cells lie around the pixels of an image or a volume, and which members have a say in which box of it.

The arithmetic: docs/concepts.md, rules 3, 5 and 15. Placements have three axes here (`Placement.solid`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ensemble_kit.errors import MismatchError
from ensemble_kit.kernels import tables
from ensemble_kit.kernels.space import Space
from ensemble_kit.spec.label_table import is_background

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ensemble_kit.scores.inputs import Inputs
    from ensemble_kit.spec.geometry import Placement

Table = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""Cell before each pixel of an axis, and fraction of the one behind it."""


class Boxes(NamedTuple):
    """The boxes into which windows cut an image, and the members that have a say in each.

    Parameters
    ----------
    at : of each axis int64 (boxes + 1,), where they begin.
    sets : int64 (boxes by slice, by row, by column), number of the set of members; -1 is none.
    members : of each set, the numbers of its members.
    """

    at: tuple[NDArray[np.int64], ...]
    sets: NDArray[np.int64]
    members: tuple[tuple[int, ...], ...]

    @property
    def cover(self) -> bool:
        """Tell whether some member has a say at every pixel."""
        return bool((self.sets >= 0).all())


def boxes(placements: Sequence[Placement]) -> Boxes:
    """Cut an image by the windows of its members."""
    windows, image = [p.covered for p in placements], placements[0].image
    at = tuple(
        np.unique([0, n, *(edge for w in windows for edge in (w.start[a], w.stop[a]))]) for a, n in enumerate(image)
    )
    found = dict[tuple[int, ...], int]()
    sets = np.full([edges.size - 1 for edges in at], -1, np.int64)
    for box in np.ndindex(sets.shape):
        first = [int(edges[k]) for edges, k in zip(at, box, strict=True)]
        inside = tuple(m for m, w in enumerate(windows) if _holds(w.start, w.stop, first))
        if inside:
            sets[box] = found.setdefault(inside, len(found))
    return Boxes(at, sets, tuple(found))


def _holds(start: Sequence[int], stop: Sequence[int], point: Sequence[int]) -> bool:
    return all(a <= p < b for a, b, p in zip(start, stop, point, strict=True))


def of_image(sources: Sequence[Placement], cut: Boxes, weights: NDArray[np.int64], outside: NDArray[np.int64]) -> Space:
    """Lay out the pixels of an image over the cells of some sources.

    Parameters
    ----------
    weights : int64 (sets, C, sources).
    outside : int64 (C,), values where no member has a say.
    """
    image = sources[0].image
    centres = [2 * np.arange(n, dtype=np.int64) + 1 for n in image]
    found = [[_in_window(p, a, centres[a]) for p in sources] for a in range(3)]
    return _laid(sources, found, cut, weights, outside)


def of_whole(placements: Sequence[Placement]) -> Space:
    """Lay out the pixels of an image over the cells of members that all saw the whole of it, without weights."""
    solid = [p.solid for p in placements]
    return of_image(solid, boxes(solid), np.zeros((1, 0, len(solid)), np.int64), np.zeros(0, np.int64))


def of_grid(sources: Sequence[Placement], grid: Placement, weights: NDArray[np.int64]) -> Space:
    """Lay out the cells of a box over the cells of other boxes, as if they were pixels where their centres lie.

    Parameters
    ----------
    weights : int64 (1, C, sources); all sources have a say everywhere.
    """
    found = []
    for a, cells in enumerate(grid.box.shape):
        start, stop = grid.covered.start[a], grid.covered.stop[a]
        centres = 2 * start * cells + (2 * np.arange(cells, dtype=np.int64) + 1) * (stop - start)
        found.append([_table(p, a, centres, cells) for p in sources])
    everywhere = tuple(np.array([0, n]) for n in grid.box.shape)
    cut = Boxes(everywhere, np.zeros((1, 1, 1), np.int64), (tuple(range(len(sources))),))
    return _laid(sources, found, cut, weights, np.zeros(weights.shape[1], np.int64))


def _table(p: Placement, axis: int, centres: NDArray[np.int64], unit: int) -> Table:
    window = p.covered.start[axis], p.covered.stop[axis]
    return tables.cells_around(centres, unit, window, p.box.shape[axis], p.kinds[axis] == "nearest")


def _in_window(p: Placement, axis: int, centres: NDArray[np.int64]) -> Table:
    """Lay out an axis of an image; outside the window, where the member is not asked, with its first cell."""
    own = slice(p.covered.start[axis], p.covered.stop[axis])
    near, fractions = np.zeros_like(centres), np.zeros_like(centres)
    near[own], fractions[own] = _table(p, axis, centres[own], 1)
    return near, fractions


def _laid(
    sources: Sequence[Placement],
    found: Sequence[Sequence[Table]],
    cut: Boxes,
    weights: NDArray[np.int64],
    outside: NDArray[np.int64],
) -> Space:
    (zs, in_z), (ys, in_y), (xs, in_x) = (map(np.stack, zip(*axis, strict=True)) for axis in found)
    slice_box, row_box = (np.repeat(np.arange(edges.size - 1), np.diff(edges)) for edges in cut.at[:2])
    last = np.array([p.box.shape[1:] for p in sources], np.int64) - 1
    col_at = cut.at[2].astype(np.int64)
    return Space(zs, in_z, ys, in_y, xs, in_x, last, slice_box, row_box, col_at, cut.sets, weights, outside)


def outside(inputs: Inputs) -> NDArray[np.int64]:
    """Values where no member has a say (rule 5), int64 (C,): overlapping classes are off.

    Of exclusive classes the first that is called background has the pixel; where none is, it has no class.
    """
    from ensemble_kit.kernels import exclusive as kernels

    out = np.full(len(inputs.classes), kernels.OFF, np.int64)
    named = [c for c, name in enumerate(inputs.classes) if is_background(name)]
    if inputs.activation == "softmax" and named:
        out[named[0]] = 65535 << 16
    return out


def undecided_outside(sample: str, what: str) -> MismatchError:
    """Say that pixels where no member has a say have no class, since none is the background.

    Parameters
    ----------
    what : what cannot be done.
    """
    return MismatchError(
        "window-outside",
        what,
        item=f"sample {sample!r}: pixels outside every member's window have no class, since none is called background",
        fix="dump the background as a class of that name, or members that saw the whole image",
    )
