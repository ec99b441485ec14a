"""Decide and count the pixels of all classes row by row of the image, by `exclusive.py`: rules 4 and 10, exactly.

These loops hold for every activation, mean and order of upsampling; none is a fast one.
"""

import numpy as np

from ensemble_kit.kernels.exclusive import make_row_room, put_scores, put_values
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.labels import runs_of
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.stretches import append_row, longer, make_stretches


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
    label, best = np.empty(width, np.int16), np.empty(width, np.int64)
    stretches, n = make_stretches(4 * width + 4096), 0
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
        if n + width > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + width)
        n = append_row(label, width, y * width, stretches, n)
    return runs_of(stretches.starts[:n], stretches.labels[:n], height * width, row.shape[0])


@kernel
def claims(levels, members, scoring, exponentials, axes):
    """Runs of every class's pixels: of the classes whose level reaches theirs, the one of the largest value.

    Ties go to the first class; where none reaches its level, the pixel has no class. `levels` is int64 (C,).
    """
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    height, width = axes.rows.shape[1], axes.cols.shape[1]
    label, best = np.empty(width, np.int16), np.empty(width, np.int64)
    stretches, n = make_stretches(4 * width + 4096), 0
    for y in range(height):
        put_values(y, members, scoring, exponentials, axes, room, row)
        label[:], best[:] = -1, -1
        for c in range(row.shape[0]):
            for x in range(width):
                if _level(row[c, x], scoring.interpolate_members) >= levels[c] and row[c, x] > best[x]:
                    label[x], best[x] = c, row[c, x]
        if n + width > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + width)
        n = append_row(label, width, y * width, stretches, n)
    return runs_of(stretches.starts[:n], stretches.labels[:n], height * width, row.shape[0])


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
def levels_within(classes, starts, ends, offsets, members, scoring, exponentials, axes):
    """Evaluate pixels of some classes one by one, each in its own runs, `offsets[k]:offsets[k+1]` of them.

    Returns
    -------
    cuts, positions, levels
        int64 (n + 1,), where the entries of each class begin; int64, ascending in a class, and uint16.
    """
    room, row = make_row_room(members, axes), np.empty((members.order.shape[0], axes.cols.shape[1]), np.int64)
    width, next_run, cuts = axes.cols.shape[1], offsets.copy(), np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        cuts[k + 1] = cuts[k]
        for r in range(offsets[k], offsets[k + 1]):
            cuts[k + 1] += ends[r] - starts[r]
    at, positions, levels = cuts.copy(), np.empty(cuts[-1], np.int64), np.empty(cuts[-1], np.uint16)
    for y in range(axes.rows.shape[1]):
        ready, stop = False, (y + 1) * width
        for k in range(classes.size):
            r = next_run[k]
            while r < offsets[k + 1] and starts[r] < stop:
                if not ready:
                    put_values(y, members, scoring, exponentials, axes, room, row)
                    ready = True
                for p in range(max(starts[r], y * width), min(ends[r], stop)):
                    positions[at[k]], levels[at[k]] = (
                        p,
                        _level(row[classes[k], p - y * width], scoring.interpolate_members),
                    )
                    at[k] += 1
                if ends[r] > stop:
                    break
                r += 1
            next_run[k] = r
    return cuts, positions, levels


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
