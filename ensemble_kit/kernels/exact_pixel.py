"""One pixel of exclusive classes in integers, from the logits of its cells (docs/concepts.md, rules 9, 10 and 13)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.conversions import number_at
from ensemble_kit.kernels.exclusive import exclusive_q
from ensemble_kit.kernels.fuse import softmax_levels
from ensemble_kit.kernels.jit import inline, kernel

CORNERS = (0, 1, 2, 3, 4, 5, 6, 7)
"""The cells around a voxel, of which a pixel of an image has four.

Bits of a number tell where the cell lies: 1 is right, 2 is below, 4 is behind.
"""


class PixelRoom(NamedTuple):
    """What the evaluation of a pixel needs; `logits` and `own` have classes in the member's order.

    `corners` are its cells' numbers: how long the tuple is a compiled kernel knows.
    """

    corners: tuple[int, ...]
    logits: NDArray[np.float32]
    own: NDArray[np.uint16]
    scores: NDArray[np.uint16]
    cells: NDArray[np.int64]
    between: NDArray[np.int64]
    values: NDArray[np.int64]


@inline
def make_pixel_room(classes, corners):
    """Make the room of a pixel of an image, the first four of `CORNERS`, or of a volume."""
    return PixelRoom(
        corners,
        np.empty((classes, len(corners)), np.float32),
        np.empty((classes, len(corners)), np.uint16),
        np.empty((classes, len(corners)), np.uint16),
        np.empty((classes, len(corners)), np.int64),
        np.empty(classes, np.int64),
        np.empty(classes, np.int64),
    )


@kernel
def exact_label(z, y, x, rows_of, slice_fractions, contest, exactly, grids, room):
    """Find the class of a pixel of the band that lies between the rows of cells `rows_of`; -1 for none."""
    values, between, cells = room.values, room.between, room.cells
    volume = len(room.corners) == len(CORNERS)
    values[:], cells[:] = 0, 32768
    for g in range(grids.cells.size):
        c, fy, fx = np.int64(grids.left[g, x]), grids.row_fractions[g, y], np.int64(grids.fractions[g, x])
        c2 = min(c + grids.across[g], grids.cells[g] - 1)
        for m in range(contest.firsts[g], contest.firsts[g + 1]):
            _put_scores(m, g, c, c2, rows_of, contest, exactly, room)
            if not exactly.interpolate_members:
                for k in range(values.size):
                    for corner in room.corners:
                        cells[k, corner] += exactly.weights[m, k] * np.int64(room.scores[k, corner])
                continue
            for k in range(values.size):
                value = _interpolated(room.scores[k], 0, fy, fx)
                if volume:
                    fz = slice_fractions[z, g]
                    value = ((256 - fz) * value + fz * _interpolated(room.scores[k], 4, fy, fx)) >> 8
                between[k] = (value + 32768) >> 16
            if not exactly.of_logits:
                _put_shares(between, exactly.exponentials)
            for k in range(values.size):
                values[k] += exactly.weights[m, k] * between[k]
    if not exactly.interpolate_members:  # members of one grid
        fy, fx = grids.row_fractions[0, y], np.int64(grids.fractions[0, x])
        for k in range(values.size):
            for corner in room.corners:
                cells[k, corner] >>= 16
            values[k] = _interpolated(cells[k], 0, fy, fx)
            if volume:
                fz = slice_fractions[z, 0]
                values[k] = ((256 - fz) * values[k] + fz * _interpolated(cells[k], 4, fy, fx)) >> 8
    label, best = 0, values[0] * exactly.factors[0] + exactly.offsets[0]
    for k in range(1, values.size):
        score = values[k] * exactly.factors[k] + exactly.offsets[k]
        if score > best:
            label, best = k, score
    if exactly.least > 0 and _level(label, values, exactly) < exactly.least:
        return -1
    return label


@inline
def _put_scores(m, g, c, c2, rows_of, contest, exactly, room):
    """Put a member's `q`, or levels of its softmax, at the cells around a pixel into `scores`."""
    for k in range(room.values.size):
        own = exactly.order[m, k]
        for corner in room.corners:
            row, column, slot = rows_of[(corner >> 1) & 1, g], c2 if corner & 1 else c, 0
            if len(room.corners) == len(CORNERS):
                slot = rows_of[2 + (corner >> 2), g]
            begin = contest.at[slot * contest.widths.size + m, k]
            room.logits[own, corner] = number_at(begin + 2 * (row * contest.widths[m] + column))
    if exactly.interpolate_members or exactly.of_logits:
        exclusive_q(room.logits, exactly.temperatures[m], room.own)
    else:  # a sum in float32, which the order of classes changes
        softmax_levels(room.logits, exactly.temperatures[m], room.own)
    for k in range(room.values.size):
        for corner in room.corners:
            room.scores[k, corner] = room.own[exactly.order[m, k], corner]


@inline
def _level(label, values, exactly):
    """What `least` compares with: the winner's fused score, of logits its share of the fused `q`."""
    if not exactly.of_logits:
        return (values[label] + (32768 if exactly.interpolate_members else 0)) >> 16
    for k in range(values.size):
        values[k] = (values[k] + 32768) >> 16
    _put_shares(values, exactly.exponentials)
    return values[label]


@inline
def _interpolated(cells, first, fy, fx):
    """Interpolate four cells of a slice, from number `first` on: level × 65536."""
    upper = (256 - fx) * np.int64(cells[first]) + fx * np.int64(cells[first + 1])
    lower = (256 - fx) * np.int64(cells[first + 2]) + fx * np.int64(cells[first + 3])
    return (256 - fy) * upper + fy * lower


@inline
def _put_shares(q, exponentials):
    """Turn `q` of all classes into levels: (131070 E + Σ E) // (2 Σ E), E of q + 65535 - max q."""
    top, total = q.max(), np.int64(0)
    for c in range(q.size):
        q[c] = exponentials[q[c] + 65535 - top]
        total += q[c]
    for c in range(q.size):
        q[c] = (131070 * q[c] + total) // (2 * total)
