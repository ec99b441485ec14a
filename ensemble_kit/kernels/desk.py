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

IMAGE, VOLUME = (0, 1), (0, 1, 2, 3)
"""The rows of cells around a pixel. A compiled kernel knows how long a tuple is: one of images has no code of volumes,
nor one loop or address more."""

FLOCK = 4096
"""Cells of a slice of a volume, whole rows of them, of which one class is read after the other."""


class DeskArrays(NamedTuple):
    """The memory of a walk; G grids, the widest of w cells a row, M members, C classes, W pixels a row.

    An image lies on one slice of cells, the slices of a volume between two: S is 1 or 2. Two rows of cells are kept
    of an image's logits, all of a volume's two slices.

    Parameters
    ----------
    rows_of : int64 (4, G), upper and lower row of cells of the band; and where the slices before and behind are kept,
        0 or 1, the same where no pixel lies between two.
    windows : int64 (G,), the first of the 16 columns of cells that are looked at closely.
    labels : int16 (G, 2, w + CELLS), the class that a grid's members agree upon in each cell of two rows, -1 where they
        do not; a row with an even number stands first, and its last cell is repeated.
    slice_labels : int16 (G, S, rows, w + CELLS), the same in each slice of a volume; of an image nothing.
    tops : float32 (S, rows, M, w), each member's largest logit.
    leaders : int16 (rows, 3 w + 3 CELLS), of 32 cells of one member's rows the largest and the second largest key, the
        class.
    quads : int16 (G, w + CELLS), classes of the pixels between four cells of one grid.
    strips : int16 (strips + CELLS,), the class upon which all grids agree, else -1; 0 behind the last.
    near : int64 (C,), the classes that are looked at closely.
    peaks : float32 (C, 16), how near each class comes to the largest logit of a column of cells.
    limits : float32 (M, 4, 16), the largest logits of the rows of cells.
    lines : (S, M, C, 2, 16), scores of two rows of cells of each slice. Members that are fused on the grid stand first,
        as one; they are float32, others int32.
    mixed : (M, C, 2, 16), those between two slices; int32 are 256 times as large.
    slopes : (S, M, C, 2, 16), scores of the pixels between two rows, and how they change from the upper to the lower
        row; between two slices, of int32 without their lowest byte, and of that byte.
    powers, fused : float32 (C, 16).
    rows : int16 (rows, W + CELLS), classes of the pixels of one band; of a volume (slices · H, W + CELLS).
    close : int64 (1 + pixels,), how many pixels of the band are too close to call, and which.
    """

    rows_of: NDArray[np.int64]
    windows: NDArray[np.int64]
    labels: NDArray[np.int16]
    slice_labels: NDArray[np.int16]
    tops: NDArray[np.float32]
    leaders: NDArray[np.int16]
    quads: NDArray[np.int16]
    strips: NDArray[np.int16]
    near: NDArray[np.int64]
    peaks: NDArray[np.float32]
    limits: NDArray[np.float32]
    lines: NDArray[np.float32]
    mixed: NDArray[np.float32]
    slopes: NDArray[np.float32]
    powers: NDArray[np.float32]
    fused: NDArray[np.float32]
    rows: NDArray[np.int16]
    close: NDArray[np.int64]


class Desk(NamedTuple):
    """Sizes, numbers of `Contest`, and the addresses of its arrays and of those of `DeskArrays` and `Grids`.

    `width` is that of the widest grid, which rows of cells are laid out for; `row_fractions`, `left`, `fractions` and
    `cols` have a row for each grid, of `height`, `pixels` + 16 twice, and `strips` items. `sides` is `IMAGE` or
    `VOLUME`; `slices` of the image are decided together, whose shares of 256 of the slice of cells behind stand in
    `slice_fractions`, int64 (slices, grids). Of an image row r of cells is kept as row `r & 1`, of a volume as row r of
    `kept`.
    """

    grids: int
    members: int
    classes: int
    width: int
    strips: int
    height: int
    pixels: int
    sides: tuple[int, ...]
    slices: int
    kept: int
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
    slice_labels: int
    tops: int
    leaders: int
    quads: int
    strip_labels: int
    near: int
    peaks: int
    limits: int
    lines: int
    mixed: int
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
    slice_fractions: int


@kernel
def make_arrays(contest, grids, kept, slices):
    """Make the memory of a walk over an image, or over a volume whose image's slices are decided so many at a time.

    Parameters
    ----------
    kept : rows of cells of a slice that are kept: of an image 2.
    slices : of a volume's image that are decided together; 0 of an image.
    """
    members, classes, volume = contest.widths.size, contest.at.shape[1], min(slices, 1)
    G, w, W, H = grids.cells.size, grids.cells.max(), grids.strip_of.size, grids.row_fractions.shape[1]
    most = 0
    for band in range(grids.row_at.size - 1):
        most = max(most, grids.row_at[band + 1] - grids.row_at[band])
    together = max(1, FLOCK // w)
    rows, room = max(slices * H, most), max(slices, 1) * most * W
    rows_of = np.full((4, G), -1, np.int64)
    rows_of[2:] = 0
    return DeskArrays(
        rows_of,
        np.zeros(G, np.int64),
        np.empty((G, 2, w + CELLS), np.int16),
        np.empty((volume * G, 2, kept, w + CELLS), np.int16),
        np.empty((1 + volume, kept, members, w), np.float32),
        np.empty((together, 3 * (w + CELLS)), np.int16),
        np.zeros((G, w + CELLS), np.int16),
        np.zeros(grids.cols.shape[1] + CELLS, np.int16),
        np.empty(classes, np.int64),
        np.empty((classes, PIXELS), np.float32),
        np.empty((members, 4, PIXELS), np.float32),
        np.zeros((1 + volume, members, classes, 2, PIXELS), np.float32),  # what is not looked at weighs nothing
        np.empty((volume * members, classes, 2, PIXELS), np.float32),
        np.empty((1 + volume, members, classes, 2, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        np.empty((classes, PIXELS), np.float32),
        np.empty((rows, W + CELLS), np.int16),
        np.zeros(1 + room, np.int64),
    )


@inline
def desk_of(contest, arrays, grids, sides, slice_fractions):
    """Take the addresses; `slice_fractions` are those of a volume's slices, (1, 0) of an image."""
    members, classes, strips = contest.widths.size, contest.at.shape[1], address_of(arrays.strips)
    if grids.cells.size == 1 and grids.cols.shape[1] == grids.cells[0]:
        strips = address_of(arrays.quads)  # they are the same
    return Desk(
        grids.cells.size,
        members,
        classes,
        arrays.tops.shape[3],
        grids.cols.shape[1],
        grids.row_fractions.shape[1],
        grids.strip_of.size,
        sides,
        slice_fractions.shape[0],
        arrays.tops.shape[1],
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
        address_of(arrays.slice_labels),
        address_of(arrays.tops),
        address_of(arrays.leaders),
        address_of(arrays.quads),
        strips,
        address_of(arrays.near),
        address_of(arrays.peaks),
        address_of(arrays.limits),
        address_of(arrays.lines),
        address_of(arrays.mixed),
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
        address_of(slice_fractions),
    )


@inline
def of_volume(desk):
    """Whether pixels lie between two slices of cells."""
    return len(desk.sides) == len(VOLUME)


@inline
def members_of(g, desk):
    """First member of a grid, and the one behind its last."""
    return load64(desk.firsts + 8 * g), load64(desk.firsts + 8 * g + 8)


@inline
def rows_of(g, desk):
    """Upper and lower row of a grid's cells in this band."""
    return load64(desk.rows_of + 8 * g), load64(desk.rows_of + 8 * (desk.grids + g))


@inline
def slots_of(g, desk):
    """Where a grid's slices of cells before and behind this slice of the image are kept."""
    if not of_volume(desk):
        return 0, 0
    return load64(desk.rows_of + 8 * (2 * desk.grids + g)), load64(desk.rows_of + 8 * (3 * desk.grids + g))


@inline
def side_of(g, s, desk):
    """Row of cells, where its slice is kept, and whether it is another than the sides of a smaller number."""
    (r, r2), (slot, slot2) = rows_of(g, desk), slots_of(g, desk)
    repeated = (s & 1 != 0 and r2 == r) or (s & 2 != 0 and slot2 == slot)
    return r2 if s & 1 else r, slot2 if s & 2 else slot, not repeated


@inline
def column_of(g, strip, desk):
    """A grid's column of cells left of a strip."""
    return load64(desk.cols + 8 * (g * desk.strips + strip))
