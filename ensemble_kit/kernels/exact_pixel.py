"""One pixel of exclusive classes in integers, from the logits of its four cells (docs/concepts.md, rules 9 and 10)."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.conversions import number_at
from ensemble_kit.kernels.exclusive import exclusive_q
from ensemble_kit.kernels.fuse import softmax_levels
from ensemble_kit.kernels.jit import inline, kernel


class PixelRoom(NamedTuple):
    """What the evaluation of a pixel needs, of four cells; `logits` and `own` have classes in the member's order."""

    logits: NDArray[np.float32]
    own: NDArray[np.uint16]
    scores: NDArray[np.uint16]
    cells: NDArray[np.int64]
    between: NDArray[np.int64]
    values: NDArray[np.int64]


@inline
def make_pixel_room(classes):
    """Make the room of a pixel."""
    return PixelRoom(
        np.empty((classes, 4), np.float32),
        np.empty((classes, 4), np.uint16),
        np.empty((classes, 4), np.uint16),
        np.empty((classes, 4), np.int64),
        np.empty(classes, np.int64),
        np.empty(classes, np.int64),
    )


@kernel
def exact_label(y, x, band, contest, exactly, grids, room):
    """Find the class of a pixel of a band; -1 for none."""
    values, between, cells = room.values, room.between, room.cells
    values[:], cells[:] = 0, 32768
    for g in range(grids.cells.size):
        c, fy, fx = np.int64(grids.left[g, x]), grids.row_fractions[g, y], np.int64(grids.fractions[g, x])
        c2 = min(c + grids.across[g], grids.cells[g] - 1)
        for m in range(contest.firsts[g], contest.firsts[g + 1]):
            _put_scores(m, grids.upper[g, band], grids.lower[g, band], c, c2, contest, exactly, room)
            if not exactly.interpolate_members:
                for k in range(values.size):
                    for corner in range(4):
                        cells[k, corner] += exactly.weights[m, k] * np.int64(room.scores[k, corner])
                continue
            for k in range(values.size):
                a, b, d, e = room.scores[k]
                value = _interpolated(np.int64(a), np.int64(b), np.int64(d), np.int64(e), fy, fx)
                between[k] = (value + 32768) >> 16
            if not exactly.of_logits:
                _put_shares(between, exactly.exponentials)
            for k in range(values.size):
                values[k] += exactly.weights[m, k] * between[k]
    if not exactly.interpolate_members:  # members of one grid
        fy, fx = grids.row_fractions[0, y], np.int64(grids.fractions[0, x])
        for k in range(values.size):
            a, b, d, e = cells[k, 0] >> 16, cells[k, 1] >> 16, cells[k, 2] >> 16, cells[k, 3] >> 16
            values[k] = _interpolated(a, b, d, e, fy, fx)
    label, best = 0, values[0] * exactly.factors[0] + exactly.offsets[0]
    for k in range(1, values.size):
        score = values[k] * exactly.factors[k] + exactly.offsets[k]
        if score > best:
            label, best = k, score
    if exactly.least > 0 and _level(label, values, exactly) < exactly.least:
        return -1
    return label


@inline
def _put_scores(m, r, r2, c, c2, contest, exactly, room):
    """Put a member's `q`, or levels of its softmax, at the four cells around a pixel into `scores`."""
    for k in range(room.values.size):
        own = exactly.order[m, k]
        for corner in range(4):
            row, column = r2 if corner & 2 else r, c2 if corner & 1 else c
            room.logits[own, corner] = number_at(contest.at[m, k] + 2 * (row * contest.widths[m] + column))
    if exactly.interpolate_members or exactly.of_logits:
        exclusive_q(room.logits, exactly.temperatures[m], room.own)
    else:  # a sum in float32, which the order of classes changes
        softmax_levels(room.logits, exactly.temperatures[m], room.own)
    for k in range(room.values.size):
        room.scores[k] = room.own[exactly.order[m, k]]


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
def _interpolated(a, b, c, d, fy, fx):
    return (256 - fy) * ((256 - fx) * a + fx * b) + fy * ((256 - fx) * c + fx * d)


@inline
def _put_shares(q, exponentials):
    """Turn `q` of all classes into levels: (131070 E + Σ E) // (2 Σ E), E of q + 65535 - max q."""
    top, total = q.max(), np.int64(0)
    for c in range(q.size):
        q[c] = exponentials[q[c] + 65535 - top]
        total += q[c]
    for c in range(q.size):
        q[c] = (131070 * q[c] + total) // (2 * total)
