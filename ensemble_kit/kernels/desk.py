"""Where everything lies that a walk over the cells of exclusive classes reads and writes, as plain numbers.

An array that is taken out of a tuple, or a view of one, is counted as a reference, by an atomic instruction: half the
time of a walk that does so for every sixteen pixels. Addresses are not counted; who makes a `Desk` keeps the arrays.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.words import address_of

CELLS = 32
"""Cells that are looked at together; the least width of a grid."""
PIXELS = 16


class DeskArrays(NamedTuple):
    """The memory of a walk; M members, C classes, w cells a row, W pixels a row.

    Parameters
    ----------
    labels : int16 (2, w + CELLS), the class that members agree upon in each cell of two rows, -1 where they do not; a
        row with an even number stands first, and its last cell is repeated.
    tops : float32 (2, M, w), each member's largest logit.
    leaders : int16 (3 w + 3 CELLS,), of 32 cells of one member's row the largest and the second largest key, the class.
    quads : int16 (w + CELLS,), classes of the pixels between four cells.
    near : int64 (C,), the classes that are looked at closely.
    peaks : float32 (C, 16), how near each class comes to the largest logit of a column of cells.
    limits : float32 (M, 2, 16), the largest logits of two rows of cells.
    lines, slopes : (M, C, 2, 16), scores of two rows of cells; of the pixels between them, and how they change from the
        upper to the lower row. Members that are fused on the grid stand first, as one; they are float32, others int32.
    powers, fused : float32 (C, 16).
    left, fractions : int32 (W + 16,), the cell left of each pixel, and the right one's share of 256.
    rows : int16 (rows, W + CELLS), classes of the pixels behind one row of cells.
    close : int64 (1 + rows · W,), how many of these pixels are too close to call, and which.
    """

    labels: NDArray[np.int16]
    tops: NDArray[np.float32]
    leaders: NDArray[np.int16]
    quads: NDArray[np.int16]
    near: NDArray[np.int64]
    peaks: NDArray[np.float32]
    limits: NDArray[np.float32]
    lines: NDArray[np.float32]
    slopes: NDArray[np.float32]
    powers: NDArray[np.float32]
    fused: NDArray[np.float32]
    left: NDArray[np.int32]
    fractions: NDArray[np.int32]
    rows: NDArray[np.int16]
    close: NDArray[np.int64]


class Desk(NamedTuple):
    """Sizes, numbers of `Contest`, and the addresses of its arrays and of those of `DeskArrays` and `Pixels`."""

    members: int
    classes: int
    width: int
    pixels: int
    across: int
    kind: int
    relative: np.float32
    absolute: np.float32
    ties: bool
    least: np.float32
    at: int
    widths: int
    weights: int
    scales: int
    temperatures: int
    margins: int
    factors: int
    labels: int
    tops: int
    leaders: int
    quads: int
    near: int
    peaks: int
    limits: int
    lines: int
    slopes: int
    powers: int
    fused: int
    left: int
    fractions: int
    rows: int
    close: int
    row_at: int
    row_fractions: int
    col_at: int


@kernel
def make_arrays(contest, pixels):
    """Make the memory of a walk."""
    members, classes = contest.at.shape
    w, W, most = pixels.col_at.size - 1, pixels.col_fractions.size, 1
    for r in range(pixels.row_at.size - 1):
        most = max(most, pixels.row_at[r + 1] - pixels.row_at[r])
    left, fractions = np.zeros(W + PIXELS, np.int32), np.zeros(W + PIXELS, np.int32)
    for c in range(w):
        for x in range(pixels.col_at[c], pixels.col_at[c + 1]):
            left[x], fractions[x] = c, pixels.col_fractions[x]
    return DeskArrays(
        np.empty((2, w + CELLS), np.int16),
        np.empty((2, members, w), np.float32),
        np.empty(3 * (w + CELLS), np.int16),
        np.empty(w + CELLS, np.int16),
        np.empty(classes, np.int64),
        np.empty((classes, PIXELS), np.float32),
        np.empty((members, 2, PIXELS), np.float32),
        np.zeros((members, classes, 2, PIXELS), np.float32),  # where one row is looked at, the other weighs nothing
        np.empty((members, classes, 2, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        left,
        fractions,
        np.empty((most, W + CELLS), np.int16),
        np.zeros(1 + most * W, np.int64),
    )


@inline
def desk_of(contest, arrays, pixels, across):
    """Take the addresses."""
    members, classes = contest.at.shape
    return Desk(
        members,
        classes,
        arrays.tops.shape[2],
        arrays.left.size - PIXELS,
        across,
        contest.kind,
        contest.relative,
        contest.absolute,
        contest.ties,
        contest.least,
        address_of(contest.at),
        address_of(contest.widths),
        address_of(contest.weights),
        address_of(contest.scales),
        address_of(contest.temperatures),
        address_of(contest.margins),
        address_of(contest.factors),
        address_of(arrays.labels),
        address_of(arrays.tops),
        address_of(arrays.leaders),
        address_of(arrays.quads),
        address_of(arrays.near),
        address_of(arrays.peaks),
        address_of(arrays.limits),
        address_of(arrays.lines),
        address_of(arrays.slopes),
        address_of(arrays.powers),
        address_of(arrays.fused),
        address_of(arrays.left),
        address_of(arrays.fractions),
        address_of(arrays.rows),
        address_of(arrays.close),
        address_of(pixels.row_at),
        address_of(pixels.row_fractions),
        address_of(pixels.col_at),
    )
