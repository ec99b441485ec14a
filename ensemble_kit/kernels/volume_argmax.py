"""Decide exclusive classes of volumes, some slices of the image at a time: the walk of `argmax.py` between two slices.

Where members agree is found once for each slice of cells; slices of the image that lie between the same two slices of
cells are decided together. A slice is entered some rows at a time, just before pixels between them are decided: what
is then looked at closely is still in the caches. Nothing of a volume is kept but the two slices and what was decided.
"""

import numpy as np

from ensemble_kit.kernels.agreement import find_undecided, put_flock
from ensemble_kit.kernels.argmax import agree, look_closer
from ensemble_kit.kernels.desk import CELLS, VOLUME, desk_of
from ensemble_kit.kernels.exact_pixel import CORNERS, exact_label, make_pixel_room
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.lanes import load_long, store
from ensemble_kit.kernels.stretches import append_row, longer
from ensemble_kit.kernels.words import address_of, code_at, load64, store16


@kernel
def decide_slices(slots, fractions, entered, heights, contest, exactly, grids, arrays):
    """Find the classes of slices of the image between the same slices of cells, into `arrays.rows`.

    Parameters
    ----------
    slots : int64 (2, G), where the slices of cells before and behind are kept, 0 or 1.
    fractions : int64 (slices, G), share of the slice of cells behind, of 256.
    entered : int64 (2, G), of how many rows of cells of each slice that is kept it is known what members agree upon;
        written, too.
    heights : int64 (G,), how many rows there are.

    Returns
    -------
    How many strips of bands members did not agree upon, and how many pixels took integers.
    """
    H, W, rows = grids.row_fractions.shape[1], grids.strip_of.size, arrays.rows
    desk, columns = desk_of(contest, arrays, grids, VOLUME, fractions), np.empty(grids.cols.shape[1], np.int64)
    room, held = make_pixel_room(contest.at.shape[1], CORNERS), np.full((grids.cells.size, 2), -1, np.int64)
    undecided, exact, strip_of = np.int64(0), np.int64(0), address_of(grids.strip_of)
    arrays.rows_of[:2] = -1
    for g in range(heights.size):
        arrays.rows_of[2, g], arrays.rows_of[3, g] = slots[0, g], slots[1, g]
    for band in range(grids.row_at.size - 1):
        first, stop = grids.row_at[band], grids.row_at[band + 1]
        for g in range(heights.size):
            for slot in slots[:, g]:
                while entered[slot, g] <= grids.lower[g, band]:
                    entered[slot, g] = put_flock(g, slot, entered[slot, g], heights[g], desk)
        agree(band, held, arrays.rows_of, grids, desk)
        found = find_undecided(desk, address_of(columns))
        undecided += found
        row = address_of(rows) + 2 * first * (W + CELLS)
        for x in range(W):
            store16(row + 2 * x, code_at(desk.strip_labels + 2 * load64(strip_of + 8 * x)))
        _repeat(first, stop, H, fractions.shape[0], W, rows)
        if found:
            look_closer(first, stop, found, address_of(columns), desk)
            exact += arrays.close[0]
            for k in range(1, arrays.close[0] + 1):
                row, x = arrays.close[k] // W, arrays.close[k] % W
                rows[row, x] = exact_label(
                    row // H, row % H, x, arrays.rows_of, fractions, contest, exactly, grids, room
                )
            arrays.close[0] = 0
    return undecided, exact


@inline
def _repeat(first, stop, height, slices, width, rows):
    """Copy row `first` to the other rows of a band, in every slice."""
    pitch, source = 2 * rows.shape[1], address_of(rows) + 2 * first * rows.shape[1]
    for z in range(slices):
        for y in range(0 if z else 1, stop - first):
            target = source + (z * height + y) * pitch
            for x in range(0, 2 * width, 2 * CELLS):
                store(target + x, load_long(source + x))


@kernel
def append_slices(first, which, height, width, rows, stretches, n):
    """Append slices of the image, from number `first` on, to stretches of one label.

    Parameters
    ----------
    which : int64 (slices,), where each was decided.
    rows : int16 (slices · height, width + CELLS), as `decide_slices` writes them.

    Returns
    -------
    The stretches, and how many they are.
    """
    for k in range(which.size):
        for y in range(height):
            if n + width > stretches.starts.size:
                stretches = longer(stretches, n, 2 * n + width)
            n = append_row(rows[which[k] * height + y], width, ((first + k) * height + y) * width, stretches, n)
    return stretches, n
