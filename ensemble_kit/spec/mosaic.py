"""`Mosaic`: the tiles of a scene, as boxes of cells on the scene's grid, and what each weighs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.errors import IncompleteError, MismatchError, UsageError
from ensemble_kit.once import once
from ensemble_kit.spec.geometry import Box, Shape, as_text

WEIGHT = 255
"""The weight in the middle of a tile; at its ends it is 1."""

WHOLE = 1e-3
"""Part of a cell by which a tile's place may miss a whole cell."""


@dataclass(frozen=True)
class Mosaic:
    """Which cells of a scene's grid each tile covers (docs/concepts.md#rule-16-tiles-of-a-scene).

    Parameters
    ----------
    grid : (h, w), the scene's.
    boxes : of the tiles, inside the grid; they may overlap, and together cover every cell.
    may_lack : whether cells may be without a tile, where the image holds no data.

    Raises
    ------
    MismatchError
        A tile that leaves the grid.
    UsageError
        Two tiles with the same box.
    IncompleteError
        Cells that no tile covers.

    Examples
    --------
    >>> mosaic = Mosaic((2, 6), (Box(0, 0, 2, 4), Box(0, 2, 2, 6)))
    >>> [columns.tolist() for _, columns in map(mosaic.weights, range(2))]
    [[255, 255, 191, 64], [64, 191, 255, 255]]
    """

    grid: Shape
    boxes: tuple[Box, ...]
    may_lack: bool = False

    def __post_init__(self) -> None:
        what = "cannot put the tiles of a scene together"
        h, w = self.grid
        for k, (y0, x0, y1, x1) in enumerate(self.boxes):
            if not (0 <= y0 < y1 <= h and 0 <= x0 < x1 <= w):
                item = f"tile {k} covers the cells {(y0, x0, y1, x1)} of a grid of {as_text(self.grid)}"
                fix = "pass y0, x0, y1, x1 inside the scene's grid; a tile outside it belongs to another scene"
                raise MismatchError("tile-outside", what, item=item, fix=fix)
        if len(set(self.boxes)) != len(self.boxes):
            twice = Counter(self.boxes).most_common(1)[0][0]
            fix = "pass each tile once; two predictions of one tile are two members, in a store each"
            raise UsageError("tile-twice", what, item=f"two tiles have the box {tuple(twice)}", fix=fix)
        if not self.may_lack and (hole := next(self._holes(), None)) is not None:
            raise self.lacks(hole)

    def lacks(self, hole: Box) -> IncompleteError:
        """Make the error of cells that should have a tile."""
        item = f"no tile covers the cells {tuple(hole)} of a grid of {as_text(self.grid)} ({len(self.boxes)} tiles)"
        fix = (
            "pass every tile of the scene, also those without a class; only where all pixels of the scene's image are "
        )
        fix += "nodata none is needed"
        what = "cannot put the tiles of a scene together"
        return IncompleteError("tiles-missing", what, item=item, fix=fix)

    @once
    def holes(self) -> list[Box]:
        """Boxes of cells without a tile, which cover all such cells."""
        return list(self._holes())

    def _holes(self) -> Iterator[Box]:
        """Go down the scene, and yield where no tile is.

        By how many tiles begin and end at each column: a table of all rows and columns would take gigabytes for a
        hundred thousand tiles that begin anywhere.
        """
        (ys, y_at), (xs, x_at) = (self._edges(axis) for axis in (0, 1))
        changes: list[list[tuple[Box, int]]] = [[] for _ in ys]
        for box in self.boxes:
            changes[y_at[box[0]]].append((box, 1))
            changes[y_at[box[2]]].append((box, -1))
        begun = np.zeros(len(xs), np.int64)
        for (top, foot), changed in zip(pairwise(ys), changes, strict=False):
            for box, step in changed:
                begun[x_at[box[1]]] += step
                begun[x_at[box[3]]] -= step
            for x in np.flatnonzero(np.cumsum(begun[:-1]) == 0).tolist():
                yield Box(top, xs[x], foot, xs[x + 1])

    def _edges(self, axis: int) -> tuple[list[int], dict[int, int]]:
        """Return where tiles begin and end on an axis, and the number of each such edge."""
        edges = sorted({0, self.grid[axis], *(b[axis] for b in self.boxes), *(b[axis + 2] for b in self.boxes)})
        return edges, {edge: k for k, edge in enumerate(edges)}

    @property
    def by_row(self) -> list[int]:
        """The numbers of the tiles, from the scene's top to its foot."""
        return sorted(range(len(self.boxes)), key=lambda k: self.boxes[k])

    def weights(self, k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the weights of a tile's rows and of its columns, int64; a cell weighs their product."""
        y0, x0, y1, x1 = self.boxes[k]
        h, w = self.grid
        return _ramp(y1 - y0, y0 == 0, y1 == h), _ramp(x1 - x0, x0 == 0, x1 == w)


@lru_cache(maxsize=64)
def _ramp(cells: int, first_is_edge: bool, last_is_edge: bool) -> NDArray[np.int64]:
    at = np.arange(cells, dtype=np.int64)
    near = 2 * np.minimum(at, cells - 1 - at) + 1
    out = np.maximum((2 * WEIGHT * near + cells) // (2 * cells), 1)
    kept = (first_is_edge & (2 * at < cells)) | (last_is_edge & (2 * at >= cells - 1))
    out[kept] = WEIGHT
    out.setflags(write=False)
    return out


def placed(row: float, column: float, shape: Sequence[int], grid: Shape, name: str) -> tuple[Box, tuple[slice, ...]]:
    """Return the box of a tile on its scene's grid, and which of its own cells are inside: it may reach beyond.

    Parameters
    ----------
    row, column : where the tile's first cell stands on the scene's grid.
    shape : (h, w), of the tile.
    name : what messages call it.

    Raises
    ------
    MismatchError
        The place is not a whole cell, or nothing of the tile is inside the grid.
    """
    what = "cannot put the tiles of a scene together"
    top, left = round(row), round(column)
    if abs(row - top) > WHOLE or abs(column - left) > WHOLE:
        item = f"tile {name} begins at row {row + 0:g}, column {column + 0:g} of the scene's grid: not at a whole cell"
        fix = "cut tiles at whole cells of the network's output: offsets that are multiples of its stride"
        raise MismatchError("tile-offset", what, item=item, fix=fix)
    h, w = shape
    box = Box(max(top, 0), max(left, 0), min(top + h, grid[0]), min(left + w, grid[1]))
    if min(box.shape) <= 0:
        item = f"tile {name}, {as_text(shape)} at row {top}, column {left}, is outside a grid of {as_text(grid)}"
        raise MismatchError("tile-outside", what, item=item, fix="leave it out, or name the scene it belongs to")
    inside = Box(box[0] - top, box[1] - left, box[2] - top, box[3] - left)
    return box, inside.slices
