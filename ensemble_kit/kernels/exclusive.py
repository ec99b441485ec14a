"""The fused values of all classes, row by row of the image, and what follows from them; rules 9 and 10, exactly.

Of exclusive classes with upsample="logits" every class has a say in every other's score at a pixel, so a class
cannot be decided alone. These loops hold for every activation, mean and order of upsampling; none is a fast one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.runs import grown

CHUNK = 2048


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


@kernel
def values(first, stop, members, scoring, exponentials, axes):
    """Evaluate the rows `first … stop - 1` of the image: int64 (C, rows, W), the fused level × 65536."""
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    out = np.empty((row.shape[0], stop - first, row.shape[1]), np.int64)
    for y in range(first, stop):
        put_values(y, members, scoring, exponentials, axes, room, row)
        for c in range(row.shape[0]):
            for x in range(row.shape[1]):
                out[c, y - first, x] = row[c, x]
    return out


@inline
def _level(value, interpolate_members):
    """What a threshold compares with: rounded where members were interpolated, cut where the fused level was."""
    return (value + (32768 if interpolate_members else 0)) >> 16


@inline
def _share(row, x, winner, shares):
    """Level of the winner's share of the pixel, of fused and rounded `q`."""
    top, total = np.int64(0), np.int64(0)
    for c in range(row.shape[0]):
        top = max(top, (row[c, x] + 32768) >> 16)
    for c in range(row.shape[0]):
        total += shares[((row[c, x] + 32768) >> 16) + 65535 - top]
    own = shares[((row[winner, x] + 32768) >> 16) + 65535 - top]
    return (131070 * own + total) // (2 * total)


@kernel
def winners(factors, offsets, least, shares, members, scoring, exponentials, axes):
    """Runs of every class's pixels: those where its `value × factor + offset` is the largest, ties to the first class.

    Parameters
    ----------
    factors, offsets : int64 (C,).
    least : level that the winner reaches, or the pixel has no class.
    shares : the table of exponentials where `least` is a level of the winner's share of fused `q`, else empty.

    Returns
    -------
    starts, ends, offsets of the runs of all classes.
    """
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    height, width = axes.rows.shape[1], axes.cols.shape[1]
    label, best = np.empty(width, np.int64), np.empty(width, np.int64)
    owners, edges, n, last = np.empty(1024, np.int64), np.empty(1024, np.int64), 0, np.int64(-1)
    for y in range(height):
        put_values(y, members, scoring, exponentials, axes, room, row)
        for c in range(row.shape[0]):
            for x in range(width):
                score = row[c, x] * factors[c] + offsets[c]
                if c == 0 or score > best[x]:
                    label[x], best[x] = c, score
        if least > 0:
            for x in range(width):
                if shares.size:
                    level = _share(row, x, label[x], shares)
                else:
                    level = _level(row[label[x], x], scoring.interpolate_members)
                if level < least:
                    label[x] = -1
        for x in range(width):
            if label[x] == last:
                continue
            if n + 3 > edges.size:
                owners, edges = grown(owners), grown(edges)
            for owner in (last, label[x]):
                if owner >= 0:
                    owners[n], edges[n] = owner, y * width + x
                    n += 1
            last = label[x]
    if last >= 0:
        owners[n], edges[n] = last, height * width
        n += 1
    return runs_by_owner(owners[:n], edges[:n], row.shape[0])


@kernel
def runs_by_owner(owners, edges, n):
    """Sort the edges of `n` masks, found in ascending order, by mask: starts, ends, offsets."""
    offsets = np.zeros(n + 1, np.int64)
    for k in range(owners.size):
        offsets[owners[k] + 1] += 1
    for m in range(n):
        offsets[m + 1] += offsets[m]
    free, both = offsets[:n].copy(), np.empty(edges.size, np.int64)
    for k in range(owners.size):
        both[free[owners[k]]] = edges[k]
        free[owners[k]] += 1
    return both[::2].copy(), both[1::2].copy(), offsets // 2


@kernel
def decide(classes, levels, members, scoring, exponentials, axes):
    """Runs of the pixels of some classes whose level is at least theirs: starts, ends, offsets."""
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    height, width = axes.rows.shape[1], axes.cols.shape[1]
    owners, edges, n = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    on = np.zeros(classes.size, np.bool_)
    for y in range(height):
        put_values(y, members, scoring, exponentials, axes, room, row)
        while n + classes.size * (width + 1) > edges.size:
            owners, edges = grown(owners), grown(edges)
        for k in range(classes.size):
            now = on[k]
            for x in range(width):
                if (_level(row[classes[k], x], scoring.interpolate_members) >= levels[k]) != now:
                    owners[n], edges[n] = k, y * width + x
                    n, now = n + 1, not now
            on[k] = now
    for k in range(classes.size):
        if on[k]:
            owners[n], edges[n] = k, height * width
            n += 1
    return runs_by_owner(owners[:n], edges[:n], classes.size)


@kernel
def count(classes, bands, truth_starts, truth_ends, truth_offsets, counts, members, scoring, exponentials, axes):
    """Add the pixels of some classes, and the truth pixels among them, by level into `counts`, (n, levels, 2).

    Of the k-th class entry e is the level `bands[k, 0] + e`; the one behind its last level has all above.
    """
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    width, next_run = axes.cols.shape[1], truth_offsets.copy()
    for y in range(axes.rows.shape[1]):
        put_values(y, members, scoring, exponentials, axes, room, row)
        for k in range(classes.size):
            low, high, t = bands[k, 0], bands[k, 1], next_run[k]
            for x in range(width):
                p, level = y * width + x, _level(row[classes[k], x], scoring.interpolate_members)
                while t < truth_offsets[k + 1] and truth_ends[t] <= p:
                    t += 1
                if level >= low:
                    entry = min(level, high) - low
                    counts[k, entry, 0] += 1
                    counts[k, entry, 1] += t < truth_offsets[k + 1] and truth_starts[t] <= p
            next_run[k] = t


@kernel
def levels_within(starts, ends, cls, members, scoring, exponentials, axes):
    """Positions (int64, ascending) and levels (uint16) of one class's pixels in some runs, one by one."""
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    width, n, i, ready = axes.cols.shape[1], 0, 0, np.int64(-1)
    for k in range(starts.size):
        n += ends[k] - starts[k]
    positions, levels = np.empty(n, np.int64), np.empty(n, np.uint16)
    for k in range(starts.size):
        for p in range(starts[k], ends[k]):
            if p // width != ready:
                ready = p // width
                put_values(ready, members, scoring, exponentials, axes, room, row)
            positions[i], levels[i] = p, _level(row[cls, p % width], scoring.interpolate_members)
            i += 1
    return positions, levels


@kernel
def member_levels(rows, members, scoring, exponentials, axes):
    """Evaluate every member's score at some rows of the image, before fusing: uint16 (C, M, rows, W)."""
    room, classes = make_row_room(members, axes), members.order.shape[0]
    out = np.empty((classes, members.addresses.size, rows.size, axes.cols.shape[1]), np.uint16)
    for i in range(rows.size):
        for m in range(out.shape[1]):
            put_scores(rows[i], m, members, scoring, exponentials, axes, room, room.scores)
            for c in range(classes):
                for x in range(out.shape[3]):
                    out[c, m, i, x] = room.scores[c, x]
    return out
