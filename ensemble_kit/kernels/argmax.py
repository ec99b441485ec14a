"""Decide exclusive classes of members on one grid or several: each pixel's class, as runs of all classes.

Band by band of rows of pixels between the same rows of cells: where members agree (`agreement.py`), the pixels between
four cells have their class; the others are looked at more closely (`closer_look.py`). Labels of one band are all that
is kept besides runs.
"""

import numpy as np

from ensemble_kit.kernels.agreement import find_undecided, put_agreement, put_between, put_quads, put_strips
from ensemble_kit.kernels.closer_look import SPAN, look
from ensemble_kit.kernels.desk import IMAGE, column_of, desk_of, make_arrays, of_volume
from ensemble_kit.kernels.exact_pixel import CORNERS, exact_label, make_pixel_room
from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.labels import runs_of
from ensemble_kit.kernels.stretches import append_row, longer, make_stretches
from ensemble_kit.kernels.words import address_of, load64

GAP = 2
"""Strips that are decided and stand between two that are not are looked at with them, up to so many."""


@kernel
def decide(contest, exactly, grids):
    """Runs of each class's pixels, every pixel in at most one class.

    Returns
    -------
    starts, ends : int64 (runs,) of all classes; offsets : int64 (C + 1,), where each class's begin.
    undecided : how many strips of bands members did not agree upon.
    exact : how many pixels took integers.
    """
    H, W = grids.row_fractions.shape[1], grids.strip_of.size
    arrays = make_arrays(contest, grids, np.int64(2), np.int64(0))  # literals would be compiled apart
    stretches, n, undecided, exact = _walk(arrays, make_stretches(4 * W + 4096), contest, exactly, grids)
    starts, ends, offsets = runs_of(stretches.starts[:n], stretches.labels[:n], H * W, contest.at.shape[1])
    return starts, ends, offsets, undecided, exact


@routine
def _walk(arrays, stretches, contest, exactly, grids):
    """Go through the bands; return the stretches of labels, how many, and the numbers of `decide`."""
    W, rows, columns = grids.strip_of.size, arrays.rows, np.empty(grids.cols.shape[1], np.int64)
    no_fractions = np.zeros((1, 0), np.int64)
    desk = desk_of(contest, arrays, grids, IMAGE, no_fractions)
    room, held = make_pixel_room(contest.at.shape[1], CORNERS[:4]), np.full((grids.cells.size, 2), -1, np.int64)
    labels = arrays.quads[0] if desk.strip_labels == desk.quads else arrays.strips
    n, undecided, exact = np.int64(0), np.int64(0), np.int64(0)
    for band in range(grids.row_at.size - 1):
        first, stop = grids.row_at[band], grids.row_at[band + 1]
        agree(band, held, arrays.rows_of, grids, desk)
        found = find_undecided(desk, address_of(columns))
        undecided += found
        for x in range(W):
            rows[0, x] = labels[np.uint64(grids.strip_of[x])]
        if found:
            for y in range(1, stop - first):
                for x in range(W):
                    rows[y, x] = rows[0, x]
            look_closer(first, stop, found, address_of(columns), desk)
            exact += arrays.close[0]
            for k in range(1, arrays.close[0] + 1):
                y, x = arrays.close[k] // W, arrays.close[k] % W
                rows[y - first, x] = exact_label(0, y, x, arrays.rows_of, no_fractions, contest, exactly, grids, room)
            arrays.close[0] = 0
        if n + (stop - first) * W > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + (stop - first) * W)
        for y in range(first, stop):
            n = append_row(rows[y - first if found else 0], W, y * W, stretches, n)
    return stretches, n, undecided, exact


@inline
def agree(band, held, rows_of, grids, desk):
    """Find the class of each strip of a band; `held` are the rows whose agreement is known.

    Of a volume they are those of two slices, `rows_of[2:]`.
    """
    for g in range(grids.cells.size):
        r, r2 = grids.upper[g, band], grids.lower[g, band]
        if rows_of[0, g] == r and rows_of[1, g] == r2:
            continue
        rows_of[0, g], rows_of[1, g] = r, r2
        for row in (r, r2):
            if held[g, row & 1] != row:
                held[g, row & 1] = row
                if of_volume(desk):
                    put_between(row, g, desk)
                else:
                    put_agreement(row, g, desk)
        put_quads(g, desk)
    put_strips(desk)


@kernel
def look_closer(y0, y1, found, strips, desk):
    """Look at undecided strips, those that stand close together at once."""
    e = 0
    while e < found:
        s0 = load64(strips + 8 * e)
        s1 = s0
        while e + 1 < found:
            following = load64(strips + 8 * e + 8)
            if following - s1 > GAP + 1 or _wide(s0, following, desk):
                break
            e, s1 = e + 1, following
        e += 1
        look(s0, s1, y0, y1, desk)


@inline
def _wide(s0, s1, desk):
    """Whether the cells around strips are too many to be looked at together."""
    wide = False
    for g in range(desk.grids):
        wide |= column_of(g, s1, desk) - column_of(g, s0, desk) >= SPAN
    return wide
