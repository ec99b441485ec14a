"""The fused values of all classes at the pixels of a row: rule 9, and those of the other activations and orders.

Of exclusive classes with upsample="logits" every class has a say in every other's score at a pixel, so a class
cannot be evaluated alone.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.jit import inline, kernel

CHUNK = 2048
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
def make_row_room(members, axes):
    """Make the room of a row of pixels."""
    classes, width = members.order.shape[0], axes.cols.shape[1]
    return RowRoom(
        np.empty(axes.last[:, 1].max() + 1, np.int64),
        np.empty((classes, width), np.int64),
        np.empty(width, np.int64),
        np.empty(width, np.int64),
    )


@inline
def _across(m, axes, cells, line):
    """Interpolate a row of cells to the pixels of a row."""
    cols, fractions, last = axes.cols[m], axes.col_fractions[m], axes.last[m, 1]
    for x in range(line.size):
        k = cols[x]
        line[x] = (256 - fractions[x]) * cells[k] + fractions[x] * cells[min(k + 1, last)]


@inline
def _put_shares(q, exponentials, room):
    """Turn the `q` of all classes into their shares of the pixel, in place: rule 9."""
    top, total = room.top, room.total
    top[:], total[:] = 0, 0
    for c in range(q.shape[0]):
        for x in range(top.size):
            top[x] = max(top[x], q[c, x])
    for c in range(q.shape[0]):
        for x in range(top.size):
            q[c, x] = exponentials[q[c, x] + 65535 - top[x]]
            total[x] += q[c, x]
    if q.shape[0] <= _EXACT:
        for c in range(q.shape[0]):
            for x in range(top.size):
                q[c, x] = np.int64(np.float64(131070 * q[c, x] + total[x]) / np.float64(2 * total[x]))
        return
    for c in range(q.shape[0]):
        for x in range(top.size):
            q[c, x] = (131070 * q[c, x] + total[x]) // (2 * total[x])


@kernel
def put_scores(y, m, members, scoring, exponentials, axes, room, out):
    """Write one member's scores of row `y` of the image into `out`, int64 (C, W), with upsample="logits".

    They are interpolated and rounded, turned into shares where there are `exponentials`, and brought to the mean's
    scale.
    """
    table, width, cells = scoring.tables[scoring.table_of[m]], members.widths[m], room.cells
    last, fraction, n = axes.last[m, 0], axes.row_fractions[m, y], axes.last[m, 1] + 1
    a = axes.rows[m, y]
    b = min(a + 1, last)
    for c in range(out.shape[0]):
        first = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
        upper, lower = codes_at(first + 2 * a * width, n), codes_at(first + 2 * b * width, n)
        for k in range(n):
            cells[k] = (256 - fraction) * np.int64(table[upper[k]]) + fraction * np.int64(table[lower[k]])
        _across(m, axes, cells, out[c])
        for x in range(out.shape[1]):
            out[c, x] = (out[c, x] + 32768) >> 16
    if exponentials.size:
        _put_shares(out, exponentials, room)
    for c in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[c, x] = scoring.score_table[out[c, x]]


@inline
def _fused_cell(addresses, offset, weights, scoring, k):
    total = np.int64(32768)
    for m in range(addresses.size):
        code = codes_at(addresses[m] + offset, k + 1)[k]
        total += weights[m] * scoring.tables[scoring.table_of[m], code]
    return total >> 16


@kernel
def put_values(y, members, scoring, exponentials, axes, room, out):
    """Write the fused values of row `y` of the image into `out`, int64 (C, W): the level × 65536, before rounding."""
    if scoring.interpolate_members:
        out[:] = 0
        for m in range(members.addresses.size):
            put_scores(y, m, members, scoring, exponentials, axes, room, room.scores)
            for c in range(out.shape[0]):
                weight = members.weights[c, m]
                for x in range(out.shape[1]):
                    out[c, x] += weight * room.scores[c, x]
        return
    cells, fraction, addresses = room.cells, axes.row_fractions[0, y], np.empty(members.addresses.size, np.int64)
    a = axes.rows[0, y]
    b = min(a + 1, axes.last[0, 0])
    for c in range(out.shape[0]):
        weights = members.weights[c]
        for m in range(addresses.size):
            addresses[m] = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
        upper, lower = 2 * a * members.widths[0], 2 * b * members.widths[0]  # fused on the grid that all share
        for k in range(axes.last[0, 1] + 1):
            cells[k] = (256 - fraction) * _fused_cell(addresses, upper, weights, scoring, k)
            cells[k] += fraction * _fused_cell(addresses, lower, weights, scoring, k)
        _across(0, axes, cells, out[c])
