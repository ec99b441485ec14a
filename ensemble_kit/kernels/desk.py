"""Where everything lies that a walk over the cells of exclusive classes reads and writes, as plain numbers.

An array that is taken out of a tuple, or a view of one, is counted as a reference, by an atomic instruction: half the
time of a walk that does so for every sixteen pixels. Addresses are not counted; who makes a `Desk` keeps the arrays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import address_of, load64

CELLS = 32
"""Cells that are looked at together; the least width of a grid."""
PIXELS = 16


class DeskArrays(NamedTuple):
    """The memory of a walk; G grids, the widest of w cells a row, M members, C classes, W pixels a row.

    Parameters
    ----------
    rows_of : int64 (2, G), upper and lower row of cells of the band.
    windows : int64 (G,), the first of the 16 columns of cells that are looked at closely.
    labels : int16 (G, 2, w + CELLS), the class that a grid's members agree upon in each cell of two rows, -1 where they
        do not; a row with an even number stands first, and its last cell is repeated.
    tops : float32 (2, M, w), each member's largest logit.
    leaders : int16 (3 w + 3 CELLS,), of 32 cells of one member's row the largest and the second largest key, the class.
    quads : int16 (G, w + CELLS), classes of the pixels between four cells of one grid.
    strips : int16 (strips + CELLS,), the class upon which all grids agree, else -1; 0 behind the last.
    near : int64 (C,), the classes that are looked at closely.
    peaks : float32 (C, 16), how near each class comes to the largest logit of a column of cells.
    limits : float32 (M, 2, 16), the largest logits of two rows of cells.
    lines, slopes : (M, C, 2, 16), scores of two rows of cells; of the pixels between them, and how they change from the
        upper to the lower row. Members that are fused on the grid stand first, as one; they are float32, others int32.
    powers, fused : float32 (C, 16).
    rows : int16 (rows, W + CELLS), classes of the pixels of one band.
    close : int64 (1 + rows · W,), how many of these pixels are too close to call, and which.
    """

    rows_of: NDArray[np.int64]
    windows: NDArray[np.int64]
    labels: NDArray[np.int16]
    tops: NDArray[np.float32]
    leaders: NDArray[np.int16]
    quads: NDArray[np.int16]
    strips: NDArray[np.int16]
    near: NDArray[np.int64]
    peaks: NDArray[np.float32]
    limits: NDArray[np.float32]
    lines: NDArray[np.float32]
    slopes: NDArray[np.float32]
    powers: NDArray[np.float32]
    fused: NDArray[np.float32]
    rows: NDArray[np.int16]
    close: NDArray[np.int64]


class Desk(NamedTuple):
    """Sizes, numbers of `Contest`, and the addresses of its arrays and of those of `DeskArrays` and `Grids`.

    `width` is that of the widest grid, which rows of cells are laid out for; `row_fractions`, `left`, `fractions` and
    `cols` have a row for each grid, of `height`, `pixels` + 16 twice, and `strips` items.
    """

    grids: int
    members: int
    classes: int
    width: int
    strips: int
    height: int
    pixels: int
    kind: int
    relative: np.float32
    absolute: np.float32
    ties: bool
    least: np.float32
    firsts: int
    at: int
    widths: int
    weights: int
    heaviest: int
    scales: int
    temperatures: int
    margins: int
    factors: int
    rows_of: int
    windows: int
    labels: int
    tops: int
    leaders: int
    quads: int
    strip_labels: int
    near: int
    peaks: int
    limits: int
    lines: int
    slopes: int
    powers: int
    fused: int
    rows: int
    close: int
    cells: int
    col_at: int
    cols: int
    across: int
    row_fractions: int
    left: int
    fractions: int


@kernel
def make_arrays(contest, grids):
    """Make the memory of a walk."""
    members, classes = contest.at.shape
    G, w, W = grids.cells.size, grids.cells.max(), grids.strip_of.size
    most = np.diff(grids.row_at).max()
    return DeskArrays(
        np.full((2, G), -1, np.int64),
        np.zeros(G, np.int64),
        np.empty((G, 2, w + CELLS), np.int16),
        np.empty((2, members, w), np.float32),
        np.empty(3 * (w + CELLS), np.int16),
        np.zeros((G, w + CELLS), np.int16),
        np.zeros(grids.cols.shape[1] + CELLS, np.int16),
        np.empty(classes, np.int64),
        np.empty((classes, PIXELS), np.float32),
        np.empty((members, 2, PIXELS), np.float32),
        np.zeros((members, classes, 2, PIXELS), np.float32),  # where one row is looked at, the other weighs nothing
        np.empty((members, classes, 2, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        np.empty((most, W + CELLS), np.int16),
        np.zeros(1 + most * W, np.int64),
    )


@inline
def desk_of(contest, arrays, grids):
    """Take the addresses."""
    members, classes = contest.at.shape
    strips = address_of(arrays.strips)
    if grids.cells.size == 1 and grids.cols.shape[1] == grids.cells[0]:
        strips = address_of(arrays.quads)  # they are the same
    return Desk(
        grids.cells.size,
        members,
        classes,
        arrays.tops.shape[2],
        grids.cols.shape[1],
        grids.row_fractions.shape[1],
        grids.strip_of.size,
        contest.kind,
        contest.relative,
        contest.absolute,
        contest.ties,
        contest.least,
        address_of(contest.firsts),
        address_of(contest.at),
        address_of(contest.widths),
        address_of(contest.weights),
        address_of(contest.heaviest),
        address_of(contest.scales),
        address_of(contest.temperatures),
        address_of(contest.margins),
        address_of(contest.factors),
        address_of(arrays.rows_of),
        address_of(arrays.windows),
        address_of(arrays.labels),
        address_of(arrays.tops),
        address_of(arrays.leaders),
        address_of(arrays.quads),
        strips,
        address_of(arrays.near),
        address_of(arrays.peaks),
        address_of(arrays.limits),
        address_of(arrays.lines),
        address_of(arrays.slopes),
        address_of(arrays.powers),
        address_of(arrays.fused),
        address_of(arrays.rows),
        address_of(arrays.close),
        address_of(grids.cells),
        address_of(grids.col_at),
        address_of(grids.cols),
        address_of(grids.across),
        address_of(grids.row_fractions),
        address_of(grids.left),
        address_of(grids.fractions),
    )


@inline
def members_of(g, desk):
    """First member of a grid, and the one behind its last."""
    return load64(desk.firsts + 8 * g), load64(desk.firsts + 8 * g + 8)


@inline
def rows_of(g, desk):
    """Upper and lower row of a grid's cells in this band."""
    return load64(desk.rows_of + 8 * g), load64(desk.rows_of + 8 * (desk.grids + g))


@inline
def column_of(g, strip, desk):
    """A grid's column of cells left of a strip."""
    return load64(desk.cols + 8 * (g * desk.strips + strip))
