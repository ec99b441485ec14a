"""The fused values of all classes at the pixels of a row: rules 2, 3, 5, 9 and 15, for every activation and order.

Of exclusive classes with upsample="logits" every class has a say in every other's score at a pixel, so a class
cannot be evaluated alone. Rows of a volume are counted through all its slices; an image is a volume of one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.jit import inline, kernel

CHUNK = 2048
OFF = -(1 << 33)
"""The value of a class where no member has a say in it: below every threshold, and of any factor below every score."""

_EXACT = 64
"""Classes up to which a share's quotient, cut from float64, is exact: it is off by 2^-37 at most, and below an integer
by 1 / (2 · 2^30 · classes) at least. Integer division is not a vector instruction: a pass took a sixth longer."""


class RowRoom(NamedTuple):
    """What one row of pixels needs: a row of cells, the members' scores, and the best and the sum over classes."""

    cells: NDArray[np.int64]
    scores: NDArray[np.int64]
    top: NDArray[np.int64]
    total: NDArray[np.int64]


@kernel
def exclusive_q(logits, temperature, out):
    """Write `Q` of exclusive classes, uint16 (C, cells): each logit, float32, less the cell's largest.

    ±inf is read as ±65504.
    """
    classes, cells = logits.shape
    top = np.empty(min(CHUNK, cells), np.float32)
    for first in range(0, cells, CHUNK):
        n = min(CHUNK, cells - first)
        top[:n] = -65504
        for c in range(classes):
            for k in range(n):
                top[k] = max(top[k], min(logits[c, first + k], np.float32(65504)))
        for c in range(classes):
            for k in range(n):
                z = max(min(logits[c, first + k], np.float32(65504)), np.float32(-65504))
                d = (np.float64(z) - np.float64(top[k])) / temperature
                out[c, first + k] = np.uint16((max(d, -32.0) + 32.0) / 32.0 * 65535.0 + 0.5)


@kernel
def make_row_room(members, space):
    """Make the room of a row of pixels."""
    classes, width = members.order.shape[0], space.cols.shape[1]
    return RowRoom(
        np.empty(space.last[:, 1].max() + 1, np.int64),
        np.empty((classes, width), np.int64),
        np.empty(width, np.int64),
        np.empty(width, np.int64),
    )


@inline
def _put_cells(z, y, first, stop, c, m, members, table, space, cells):
    """Mix the rows of cells around the pixels `first … stop - 1` of a row.

    Scores x 65536, or x 256 where the row lies in one slice of cells.
    """
    a, fraction, width = space.rows[m, y], space.row_fractions[m, y], members.widths[m]
    b, k, n = min(a + 1, space.last[m, 0]), space.cols[m, first], space.last[m, 1] + 1
    n = min(space.cols[m, stop - 1] + 2, n)
    begin = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
    begin += members.slice_bytes[m] * space.slices[m, z]
    upper, lower = codes_at(begin + 2 * a * width, n), codes_at(begin + 2 * b * width, n)
    for i in range(k, n):
        cells[i] = (256 - fraction) * np.int64(table[upper[i]]) + fraction * np.int64(table[lower[i]])
    behind = space.slice_fractions[m, z]
    if behind > 0:
        begin += members.slice_bytes[m]
        upper, lower = codes_at(begin + 2 * a * width, n), codes_at(begin + 2 * b * width, n)
        for i in range(k, n):
            far = (256 - fraction) * np.int64(table[upper[i]]) + fraction * np.int64(table[lower[i]])
            cells[i] = (256 - behind) * cells[i] + behind * far


@inline
def _across(first, stop, m, space, cells, line):
    """Interpolate a row of cells to the pixels `first … stop - 1` of a row."""
    cols, fractions, last = space.cols[m], space.col_fractions[m], space.last[m, 1]
    for x in range(first, stop):
        k = cols[x]
        line[x] = (256 - fractions[x]) * cells[k] + fractions[x] * cells[min(k + 1, last)]


@inline
def _put_shares(first, stop, q, exponentials, room):
    """Turn the `q` of all classes into their shares of the pixel, in place: rule 9."""
    top, total = room.top, room.total
    top[first:stop], total[first:stop] = 0, 0
    for c in range(q.shape[0]):
        for x in range(first, stop):
            top[x] = max(top[x], q[c, x])
    for c in range(q.shape[0]):
        for x in range(first, stop):
            q[c, x] = exponentials[q[c, x] + 65535 - top[x]]
            total[x] += q[c, x]
    if q.shape[0] <= _EXACT:
        for c in range(q.shape[0]):
            for x in range(first, stop):
                q[c, x] = np.int64(np.float64(131070 * q[c, x] + total[x]) / np.float64(2 * total[x]))
        return
    for c in range(q.shape[0]):
        for x in range(first, stop):
            q[c, x] = (131070 * q[c, x] + total[x]) // (2 * total[x])


@kernel
def put_scores(row, first, stop, m, members, scoring, exponentials, space, room, out):
    """Write one member's scores of the pixels `first … stop - 1` of a row, with upsample="logits".

    They are interpolated and rounded, turned into shares where there are `exponentials`, and brought to the mean's
    scale.

    Parameters
    ----------
    out : int64 (C, W).
    """
    z, y = row // space.rows.shape[1], row % space.rows.shape[1]
    shift = 16 if space.slice_fractions[m, z] == 0 else 24
    half = np.int64(1) << (shift - 1)
    for c in range(out.shape[0]):
        _put_cells(z, y, first, stop, c, m, members, scoring.tables[scoring.table_of[m]], space, room.cells)
        _across(first, stop, m, space, room.cells, out[c])
        for x in range(first, stop):
            out[c, x] = (out[c, x] + half) >> shift
    if exponentials.size:
        _put_shares(first, stop, out, exponentials, room)
    for c in range(out.shape[0]):
        for x in range(first, stop):
            out[c, x] = scoring.score_table[out[c, x]]


@kernel
def put_values(row, begin, end, members, scoring, exponentials, space, room, out):
    """Write fused values of pixels `begin … end - 1` of a row into `out`, int64 (C, W): the level x 65536, unrounded.

    With upsample="scores" each set of members is one source of fused levels, of the set's number.
    """
    z, y = row // space.rows.shape[1], row % space.rows.shape[1]
    for k in range(space.col_at.size - 1):
        first, stop = max(begin, space.col_at[k]), min(end, space.col_at[k + 1])
        own = space.sets[space.slice_box[z], space.row_box[y], k]
        if first >= stop:
            continue
        if own < 0:
            for c in range(out.shape[0]):
                out[c, first:stop] = space.outside[c]
            continue
        if not scoring.interpolate_members:
            for c in range(out.shape[0]):
                _put_cells(z, y, first, stop, c, own, members, scoring.tables[scoring.table_of[own]], space, room.cells)
                _across(first, stop, own, space, room.cells, out[c])
                if space.slice_fractions[own, z] > 0:
                    for x in range(first, stop):
                        out[c, x] >>= 8
        else:
            _fuse(row, first, stop, space.weights[own], members, scoring, exponentials, space, room, out)
        for c in range(out.shape[0]):
            if space.weights[own, c].sum() == 0:
                out[c, first:stop] = OFF


@inline
def _fuse(row, first, stop, weights, members, scoring, exponentials, space, room, out):
    """Fuse the scores of the members that have a weight."""
    for c in range(out.shape[0]):
        out[c, first:stop] = 0
    for m in range(weights.shape[1]):
        if weights[:, m].max() == 0:
            continue
        put_scores(row, first, stop, m, members, scoring, exponentials, space, room, room.scores)
        for c in range(out.shape[0]):
            weight = weights[c, m]
            for x in range(first, stop):
                out[c, x] += weight * room.scores[c, x]


@kernel
def put_class(row, first, stop, c, members, scoring, space, room, out):
    """Write the fused values of one class at the pixels `first … stop - 1` of a row into `out`, int64 (W,).

    The class has a value of its own: no shares are made.
    """
    z, y = row // space.rows.shape[1], row % space.rows.shape[1]
    for k in range(space.col_at.size - 1):
        a, b = max(first, space.col_at[k]), min(stop, space.col_at[k + 1])
        own = space.sets[space.slice_box[z], space.row_box[y], k]
        if a >= b:
            continue
        if own < 0 or space.weights[own, c].sum() == 0:
            out[a:b] = space.outside[c] if own < 0 else OFF
        elif not scoring.interpolate_members:
            _put_cells(z, y, a, b, c, own, members, scoring.tables[scoring.table_of[own]], space, room.cells)
            _across(a, b, own, space, room.cells, out)
            if space.slice_fractions[own, z] > 0:
                for x in range(a, b):
                    out[x] >>= 8
        else:
            out[a:b] = 0
            for m in range(members.addresses.size):
                if space.weights[own, c, m] > 0:
                    _add_score(z, y, a, b, c, m, space.weights[own, c, m], members, scoring, space, room, out)


@inline
def _add_score(z, y, first, stop, c, m, weight, members, scoring, space, room, out):
    """Add one member's score of a class, interpolated and rounded, times its weight."""
    shift, line = 16 if space.slice_fractions[m, z] == 0 else 24, room.top
    half = np.int64(1) << (shift - 1)
    _put_cells(z, y, first, stop, c, m, members, scoring.tables[scoring.table_of[m]], space, room.cells)
    _across(first, stop, m, space, room.cells, line)
    for x in range(first, stop):
        out[x] += weight * scoring.score_table[(line[x] + half) >> shift]
