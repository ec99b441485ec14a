"""Fused shares of exclusive classes at some pixels of a row, in the order "logits", a few pixels at a time.

The arithmetic: docs/concepts.md#rule-9-exclusive-classes.

The same integers as `exclusive.put_values`, which evaluates whole rows: here they have 32 bits where they fit, and
stay in the first cache from the first class to the last.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.conversions import upper_bits, without_byte
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.lanes import add, all_ints, both, load_ints, maximum, multiply, pick_ints, store, subtract
from ensemble_kit.kernels.words import address_of

PIXELS = 64
MOST = 64
"""Classes up to which a quotient that is cut from float64 is exact; see `exclusive.py`."""


class ShareRoom(NamedTuple):
    """What some pixels need: cells of a row by class, `q` and exponentials by class, the cells beside each pixel.

    Parameters
    ----------
    cells : int32 (C, columns), interpolated between two rows, times 256; between two slices, too, the bits of uint32,
        times 65536.
    scores, fused : int32 and uint32 (C, PIXELS).
    left, right, fractions, top : int32 (PIXELS,).
    total : float64 (PIXELS,).
    """

    cells: NDArray[np.int32]
    scores: NDArray[np.int32]
    fused: NDArray[np.uint32]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    fractions: NDArray[np.int32]
    top: NDArray[np.int32]
    total: NDArray[np.float64]


@inline
def make_share_room(members, axes):
    """Make the room of some pixels."""
    classes, columns = members.order.shape[0], axes.last[:, 1].max() + 1
    return ShareRoom(
        np.empty((classes, columns), np.int32),
        np.empty((classes, PIXELS), np.int32),
        np.empty((classes, PIXELS), np.uint32),
        np.empty(PIXELS, np.int32),
        np.empty(PIXELS, np.int32),
        np.empty(PIXELS, np.int32),
        np.empty(PIXELS, np.int32),
        np.empty(PIXELS, np.float64),
    )


@kernel
def put_shares(row, xs, weights, members, scoring, powers, space, room, out):
    """Write the fused values of pixels `xs`, ascending, of a row into `out`, uint32 (C, n): the level x 65536.

    There are at most `MOST` classes.

    Parameters
    ----------
    weights : int64 (C, M), of the members that have a say there.
    powers : the exponentials, int32.
    """
    out[:] = 0
    z, y, table = row // space.rows.shape[1], row % space.rows.shape[1], scoring.score_table
    for m in range(weights.shape[1]):
        if weights[:, m].max() == 0:
            continue
        last, deep = space.last[m, 1], space.slice_fractions[m, z] > 0
        _put_cells(z, y, space.cols[m, xs[0]], min(space.cols[m, xs[-1]] + 2, last + 1), m, members, space, room.cells)
        for first in range(0, xs.size, PIXELS):
            n = min(PIXELS, xs.size - first)
            blocks = -(-n // 16)
            for k in range(16 * blocks):
                x = xs[first + min(k, n - 1)]
                left = space.cols[m, x]
                room.left[k], room.right[k] = left, min(left + 1, last)
                room.fractions[k] = space.col_fractions[m, x]
            _put_powers(blocks, deep, address_of(powers), room)
            for c in range(out.shape[0]):
                _add_shares(room.scores[c], room.total, table, weights[c, m], out[c, first : first + n])


@inline
def _put_cells(z, y, first, stop, m, members, space, cells):
    """Interpolate a member's `q` between the rows of cells, and the slices of them, beside a row of pixels."""
    a, fraction, width = space.rows[m, y], np.int32(space.row_fractions[m, y]), members.widths[m]
    b, behind = min(a + 1, space.last[m, 0]), np.int32(space.slice_fractions[m, z])
    for c in range(cells.shape[0]):
        begin = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
        begin += members.slice_bytes[m] * space.slices[m, z]
        upper, lower, line = codes_at(begin + 2 * a * width, stop), codes_at(begin + 2 * b * width, stop), cells[c]
        if behind == 0:
            for k in range(first, stop):
                line[k] = np.int32(upper[k]) * np.int32(256 - fraction) + np.int32(lower[k]) * fraction
            continue
        begin += members.slice_bytes[m]
        far, below = codes_at(begin + 2 * a * width, stop), codes_at(begin + 2 * b * width, stop)
        for k in range(first, stop):
            one = np.int32(upper[k]) * np.int32(256 - fraction) + np.int32(lower[k]) * fraction
            other = np.int32(far[k]) * np.int32(256 - fraction) + np.int32(below[k]) * fraction
            line[k] = one * np.int32(256 - behind) + other * behind


@inline
def _put_powers(blocks, deep, powers, room):
    """Interpolate `q` to some blocks of pixels, and put exponentials of all classes in their place, and their sum.

    Parameters
    ----------
    deep : whether cells are times 65536. The sum of two, times 2^24, is then made of their upper bits and last byte.
    """
    classes, scores, total = room.scores.shape[0], room.scores, room.total
    cells, row = address_of(room.cells), 4 * room.cells.shape[1]
    byte, half = all_ints(255), all_ints(1 << 23)
    for block in range(0, 64 * blocks, 64):
        left, right = load_ints(address_of(room.left) + block), load_ints(address_of(room.right) + block)
        fractions, q = load_ints(address_of(room.fractions) + block), address_of(scores) + block
        rest, top = subtract(all_ints(256), fractions), all_ints(0)
        for c in range(classes):
            a, b = pick_ints(cells + row * c, left), pick_ints(cells + row * c, right)
            if deep:
                low = add(multiply(rest, both(a, byte)), multiply(fractions, both(b, byte)))
                value = add(multiply(rest, without_byte(a)), multiply(fractions, without_byte(b)))
                value = upper_bits(add(value, without_byte(add(low, half))))
            else:
                value = upper_bits(add(add(multiply(rest, a), multiply(fractions, b)), all_ints(32768)))
            top = maximum(value, top)
            store(q + 4 * PIXELS * c, value)
        top = subtract(all_ints(65535), top)
        for c in range(classes):
            at = q + 4 * PIXELS * c
            store(at, pick_ints(powers, add(load_ints(at), top)))
    total[:] = 0
    for c in range(classes):
        for k in range(16 * blocks):
            total[k] += scores[c, k]


@inline
def _add_shares(q, total, table, weight, out):
    """Add a class's shares of some pixels, weighted: (131070 E + sum of E) // (2 sum of E), on the mean's scale."""
    for k in range(out.size):
        out[k] += np.uint32(weight) * np.uint32(table[np.int32((131070.0 * q[k] + total[k]) / (2.0 * total[k]))])
