"""Fused shares of exclusive classes at some pixels of a row, in the order "logits", a few pixels at a time.

The arithmetic: docs/concepts.md#rule-9-exclusive-classes.

The same integers as `exclusive.put_values`, which evaluates whole rows: here they have 32 bits where they fit, and
stay in the first cache from the first class to the last.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.conversions import upper_bits
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.lanes import add, all_ints, load_ints, maximum, multiply, pick_ints, store, subtract
from ensemble_kit.kernels.words import address_of

PIXELS = 64
MOST = 64
"""Classes up to which a quotient that is cut from float64 is exact; see `exclusive.py`."""


class ShareRoom(NamedTuple):
    """What some pixels need: cells of a row by class, `q` and exponentials by class, the cells beside each pixel.

    Parameters
    ----------
    cells : int32 (C, columns), interpolated between two rows, times 256.
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
def put_shares(y, xs, members, powers, axes, room, out):
    """Write the fused values of pixels `xs` of row `y` into `out`, uint32 (C, n): the level x 65536.

    `powers` are the exponentials, int32. The mean is of probabilities, and there are at most `MOST` classes.
    """
    out[:] = 0
    for m in range(members.addresses.size):
        _put_cells(y, m, members, axes, room.cells)
        last = axes.last[m, 1]
        for first in range(0, xs.size, PIXELS):
            n = min(PIXELS, xs.size - first)
            for k in range(PIXELS):
                x = xs[first + min(k, n - 1)]
                left = axes.cols[m, x]
                room.left[k], room.right[k] = left, min(left + 1, last)
                room.fractions[k] = axes.col_fractions[m, x]
            _put_powers(address_of(powers), room)
            for c in range(out.shape[0]):
                _add_shares(room.scores[c], room.total, members.weights[c, m], out[c, first : first + n])


@inline
def _put_cells(y, m, members, axes, cells):
    """Interpolate a member's `q` between the two rows of cells beside a row of pixels."""
    a, fraction, width = axes.rows[m, y], np.int32(axes.row_fractions[m, y]), members.widths[m]
    b, n = min(a + 1, axes.last[m, 0]), axes.last[m, 1] + 1
    for c in range(cells.shape[0]):
        begin = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
        upper, lower, line = codes_at(begin + 2 * a * width, n), codes_at(begin + 2 * b * width, n), cells[c]
        for k in range(n):
            line[k] = np.int32(upper[k]) * np.int32(256 - fraction) + np.int32(lower[k]) * fraction


@inline
def _put_powers(powers, room):
    """Interpolate `q` to the pixels, and put exponentials of all classes in their place, and their sum."""
    classes, scores, total = room.scores.shape[0], room.scores, room.total
    cells, row = address_of(room.cells), 4 * room.cells.shape[1]
    for block in range(0, 4 * PIXELS, 64):
        left, right = load_ints(address_of(room.left) + block), load_ints(address_of(room.right) + block)
        fractions, q = load_ints(address_of(room.fractions) + block), address_of(scores) + block
        rest, top = subtract(all_ints(256), fractions), all_ints(0)
        for c in range(classes):
            value = add(
                multiply(rest, pick_ints(cells + row * c, left)), multiply(fractions, pick_ints(cells + row * c, right))
            )
            value = upper_bits(add(value, all_ints(32768)))
            top = maximum(value, top)
            store(q + 4 * PIXELS * c, value)
        top = subtract(all_ints(65535), top)
        for c in range(classes):
            at = q + 4 * PIXELS * c
            store(at, pick_ints(powers, add(load_ints(at), top)))
    total[:] = 0
    for c in range(classes):
        for k in range(PIXELS):
            total[k] += scores[c, k]


@inline
def _add_shares(q, total, weight, out):
    """Add a class's shares of some pixels, weighted: (131070 E + sum of E) // (2 sum of E)."""
    for k in range(out.size):
        out[k] += np.uint32(weight) * np.uint32(np.int32((131070.0 * q[k] + total[k]) / (2.0 * total[k])))
