"""Decide exclusive classes of members that share one grid: each pixel's class, as runs of all classes.

Row by row of cells: where members agree (`agreement.py`), the pixels between four cells have their class; the others
are looked at more closely (`closer_look.py`). Labels of one row of cells' pixels are all that is kept besides runs.
"""

import numpy as np

from ensemble_kit.kernels.agreement import put_agreement, put_quads
from ensemble_kit.kernels.closer_look import SPAN, look
from ensemble_kit.kernels.desk import desk_of, make_arrays
from ensemble_kit.kernels.exact_pixel import exact_label, make_pixel_room
from ensemble_kit.kernels.jit import kernel
from ensemble_kit.kernels.labels import runs_of
from ensemble_kit.kernels.quads import neighbours
from ensemble_kit.kernels.stretches import append_row, longer, make_stretches
from ensemble_kit.kernels.words import address_of, load64

GAP = 2
"""Quads that are decided and stand between two that are not are looked at with them, up to so many."""


@kernel
def decide(contest, exactly, pixels):
    """Runs of each class's pixels, every pixel in at most one class.

    Returns
    -------
    starts, ends : int64 (runs,) of all classes; offsets : int64 (C + 1,), where each class's begin.
    undecided : how many quads members did not agree upon.
    """
    H, W = pixels.row_fractions.size, pixels.col_fractions.size
    stretches, n, undecided = _walk(
        make_arrays(contest, pixels), make_stretches(4 * W + 4096), contest, exactly, pixels
    )
    starts, ends, offsets = runs_of(stretches.starts[:n], stretches.labels[:n], H * W, contest.at.shape[1])
    return starts, ends, offsets, undecided


@kernel
def _walk(arrays, stretches, contest, exactly, pixels):
    """Go through the rows of cells; return the stretches of labels, how many, and the number of undecided quads."""
    row_at, W = pixels.row_at, pixels.col_fractions.size
    h, rows, quads, left = row_at.size - 1, arrays.rows, arrays.quads, arrays.left
    down, across = neighbours(pixels.row_fractions, row_at), neighbours(pixels.col_fractions, pixels.col_at).max()
    desk, columns = desk_of(contest, arrays, pixels, across), np.empty(quads.size, np.int64)
    room, held = make_pixel_room(contest.at.shape[1]), np.full(2, -1, np.int64)
    n, undecided = np.int64(0), np.int64(0)
    for r in range(h):
        first, stop = row_at[r], row_at[r + 1]
        if first == stop:
            continue
        r2 = min(r + down[r], h - 1)
        for row in (r, r2):
            if held[row & 1] != row:
                held[row & 1] = row
                put_agreement(row, desk)
        found = put_quads(r, r2, desk, address_of(columns))
        undecided += found
        for x in range(W):
            rows[0, x] = quads[np.uint64(left[x])]
        if found:
            for y in range(1, stop - first):
                for x in range(W):
                    rows[y, x] = rows[0, x]
            _look_closer(r, r2, found, address_of(columns), desk)
            for k in range(1, arrays.close[0] + 1):
                y, x = arrays.close[k] // W, arrays.close[k] % W
                c, fy, fx = np.int64(left[x]), pixels.row_fractions[y], pixels.col_fractions[x]
                c2 = min(c + across, desk.width - 1)
                rows[y - first, x] = exact_label(r, r2, c, c2, fy, fx, contest, exactly, room)
            arrays.close[0] = 0
        if n + (stop - first) * W > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + (stop - first) * W)
        for y in range(first, stop):
            n = append_row(rows[y - first if found else 0], W, y * W, stretches, n)
    return stretches, n, undecided


@kernel
def _look_closer(r, r2, found, columns, desk):
    """Look at undecided quads, those that stand close together at once."""
    e = 0
    while e < found:
        c0 = load64(columns + 8 * e)
        c1 = c0
        while e + 1 < found:
            following = load64(columns + 8 * e + 8)
            if following - c1 > GAP + 1 or following - c0 >= SPAN:
                break
            e, c1 = e + 1, following
        e += 1
        if load64(desk.col_at + 8 * c0) < load64(desk.col_at + 8 * c1 + 8):
            look(r, r2, c0, c1, desk)
