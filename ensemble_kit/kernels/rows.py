"""Decide and count the pixels of all classes row by row, by `exclusive.py`: rules 4 and 10, exactly.

These loops hold for every activation, mean and order of upsampling, for windows and for volumes; none is a fast one.
Each takes the rows `first … stop - 1`, counted through all slices of a volume, and knows positions in the whole of it.
Decisions leave out pixels that a class has for certain (`owners.py`).
"""

import numpy as np

from ensemble_kit.kernels.exclusive import make_row_room, put_scores, put_values
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.labels import runs_of
from ensemble_kit.kernels.open_row import make_open_room, put_open
from ensemble_kit.kernels.owners import make_owner_room, open_until, put_owners
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.stretches import append_row, longer, make_stretches


@kernel
def values(first, stop, members, scoring, exponentials, space):
    """Evaluate rows: int64 (C, rows, W), the fused level × 65536."""
    room, row = make_row_room(members, space), np.empty((members.order.shape[0], space.cols.shape[1]), np.int64)
    out = np.empty((row.shape[0], stop - first, row.shape[1]), np.int64)
    for y in range(first, stop):
        put_values(y, np.int64(0), row.shape[1], members, scoring, exponentials, space, room, row)
        for c in range(row.shape[0]):
            for x in range(row.shape[1]):
                out[c, y - first, x] = row[c, x]
    return out


@inline
def level_of(value, interpolate_members):
    """What a threshold compares with: rounded where members were interpolated, cut where the fused level was."""
    return (value + (32768 if interpolate_members else 0)) >> 16


@inline
def _share(row, x, winner, shares):
    """Level of the winner's share of the pixel, of fused and rounded `q`."""
    top, total = np.int64(0), np.int64(0)
    for c in range(row.shape[0]):
        top = max(top, (row[c, x] + 32768) >> 16)
    for c in range(row.shape[0]):
        total += shares[max((row[c, x] + 32768) >> 16, 0) + 65535 - top]
    own = shares[((row[winner, x] + 32768) >> 16) + 65535 - top]
    return (131070 * own + total) // (2 * total)


@kernel
def winners(first, stop, factors, offsets, least, shares, leading, certain, members, scoring, exponentials, space):
    """Runs of every class's pixels: those where its `value × factor + offset` is the largest, ties to the first class.

    Parameters
    ----------
    factors, offsets : int64 (C,).
    least : level that the winner reaches, or the pixel has no class.
    shares : the table of exponentials where `least` is a level of the winner's share of fused `q`, else empty.
    leading, certain : what leads cells, and when it wins, and reaches `least`, for certain.

    Returns
    -------
    starts, ends, offsets of the runs of all classes.
    """
    room, row = (
        make_open_room(members, exponentials, space),
        np.empty((members.order.shape[0], space.cols.shape[1]), np.int64),
    )
    width = space.cols.shape[1]
    names, label, best = make_owner_room(space), np.empty(width, np.int16), np.empty(width, np.int64)
    stretches, n = make_stretches(4 * width + 4096), 0
    for y in range(first, stop):
        put_owners(y, leading, certain, space, names, label)
        put_open(y, label, members, scoring, exponentials, space, room, row)
        begin = 0
        while begin < width:
            if label[begin] >= 0:
                begin += 1
                continue
            end = open_until(label, begin)
            for c in range(row.shape[0]):
                for x in range(begin, end):
                    score = row[c, x] * factors[c] + offsets[c]
                    if c == 0 or score > best[x]:
                        label[x], best[x] = c, score
            for x in range(begin, end):
                if row[label[x], x] < 0:  # no member has a say, and no class is the background
                    label[x] = -1
                elif least > 0:
                    if shares.size:
                        level = _share(row, x, label[x], shares)
                    else:
                        level = level_of(row[label[x], x], scoring.interpolate_members)
                    if level < least:
                        label[x] = -1
            begin = end
        if n + width > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + width)
        n = append_row(label, width, y * width, stretches, n)
    return runs_of(stretches.starts[:n], stretches.labels[:n], stop * width, row.shape[0])


@kernel
def claims(first, stop, levels, leading, certain, members, scoring, exponentials, space):
    """Runs of every class's pixels: of the classes whose level reaches theirs, the one of the largest value.

    Ties go to the first class; where none reaches its level, the pixel has no class. `levels` is int64 (C,).

    Parameters
    ----------
    leading, certain : what leads cells, and when it reaches its level for certain, and no other class its own.
    """
    room, row = (
        make_open_room(members, exponentials, space),
        np.empty((members.order.shape[0], space.cols.shape[1]), np.int64),
    )
    width = space.cols.shape[1]
    names, label, best = make_owner_room(space), np.empty(width, np.int16), np.empty(width, np.int64)
    stretches, n = make_stretches(4 * width + 4096), 0
    for y in range(first, stop):
        put_owners(y, leading, certain, space, names, label)
        put_open(y, label, members, scoring, exponentials, space, room, row)
        begin = 0
        while begin < width:
            if label[begin] >= 0:
                label[begin] = label[begin] if levels[label[begin]] < 65536 else -1
                begin += 1
                continue
            end = open_until(label, begin)
            best[begin:end] = -1
            for c in range(row.shape[0]):
                for x in range(begin, end):
                    if level_of(row[c, x], scoring.interpolate_members) >= levels[c] and row[c, x] > best[x]:
                        label[x], best[x] = c, row[c, x]
            begin = end
        if n + width > stretches.starts.size:
            stretches = longer(stretches, n, 2 * n + width)
        n = append_row(label, width, y * width, stretches, n)
    return runs_of(stretches.starts[:n], stretches.labels[:n], stop * width, row.shape[0])


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
def decide(first, stop, classes, levels, leading, certain, members, scoring, exponentials, space):
    """Runs of the pixels of some classes whose level is at least theirs: starts, ends, offsets.

    Parameters
    ----------
    leading, certain : what leads cells, and when it reaches its level for certain, and no other class its own.
    """
    room, row = (
        make_open_room(members, exponentials, space),
        np.empty((members.order.shape[0], space.cols.shape[1]), np.int64),
    )
    width = space.cols.shape[1]
    owners, edges, n = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    names, owner, on = (
        make_owner_room(space),
        np.empty(width, np.int16),
        np.zeros(classes.size, np.bool_),
    )
    for y in range(first, stop):
        put_owners(y, leading, certain, space, names, owner)
        put_open(y, owner, members, scoring, exponentials, space, room, row)
        while n + classes.size * (width + 1) > edges.size:
            owners, edges = grown(owners), grown(edges)
        begin = 0
        while begin < width:
            if owner[begin] >= 0:
                if begin == 0 or owner[begin] != owner[begin - 1]:
                    for k in range(classes.size):
                        if (levels[k] < (65536 if owner[begin] == classes[k] else 1)) != on[k]:
                            owners[n], edges[n] = k, y * width + begin
                            n, on[k] = n + 1, not on[k]
                begin += 1
                continue
            end = open_until(owner, begin)
            for k in range(classes.size):
                now = on[k]
                for x in range(begin, end):
                    if (level_of(row[classes[k], x], scoring.interpolate_members) >= levels[k]) != now:
                        owners[n], edges[n] = k, y * width + x
                        n, now = n + 1, not now
                on[k] = now
            begin = end
    for k in range(classes.size):
        if on[k]:
            owners[n], edges[n] = k, stop * width
            n += 1
    return runs_by_owner(owners[:n], edges[:n], classes.size)


@kernel
def count(first, stop, classes, bands, truth, counts, members, scoring, exponentials, space):
    """Add the pixels of some classes, and the truth pixels among them, by level into `counts`, (n, levels, 2).

    `truth` are starts, ends and offsets of runs. Of the k-th class entry e is the level `bands[k, 0] + e`; the one
    behind its last level has all above.
    """
    room, row = make_row_room(members, space), np.empty((members.order.shape[0], space.cols.shape[1]), np.int64)
    truth_starts, truth_ends, truth_offsets = truth
    width, next_run = space.cols.shape[1], truth_offsets.copy()
    for y in range(first, stop):
        put_values(y, np.int64(0), row.shape[1], members, scoring, exponentials, space, room, row)
        for k in range(classes.size):
            low, high, t = bands[k, 0], bands[k, 1], next_run[k]
            for x in range(width):
                p, level = y * width + x, level_of(row[classes[k], x], scoring.interpolate_members)
                while t < truth_offsets[k + 1] and truth_ends[t] <= p:
                    t += 1
                if level >= low:
                    entry = min(level, high) - low
                    counts[k, entry, 0] += 1
                    counts[k, entry, 1] += t < truth_offsets[k + 1] and truth_starts[t] <= p
            next_run[k] = t


@kernel
def levels_within(first, stop, classes, starts, ends, offsets, members, scoring, exponentials, space):
    """Evaluate pixels of some classes one by one, each in its own runs, `offsets[k]:offsets[k+1]` of them.

    Returns
    -------
    cuts, positions, levels
        int64 (n + 1,), where the entries of each class begin; int64, ascending in a class, and uint16.
    """
    room, row = make_row_room(members, space), np.empty((members.order.shape[0], space.cols.shape[1]), np.int64)
    width, next_run, cuts = space.cols.shape[1], offsets.copy(), np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        cuts[k + 1] = cuts[k]
        for r in range(offsets[k], offsets[k + 1]):
            cuts[k + 1] += ends[r] - starts[r]
    at, positions, levels = cuts.copy(), np.empty(cuts[-1], np.int64), np.empty(cuts[-1], np.uint16)
    for y in range(first, stop):
        ready, end = False, (y + 1) * width
        for k in range(classes.size):
            r = next_run[k]
            while r < offsets[k + 1] and starts[r] < end:
                if not ready:
                    put_values(y, np.int64(0), row.shape[1], members, scoring, exponentials, space, room, row)
                    ready = True
                for p in range(max(starts[r], y * width), min(ends[r], end)):
                    level = level_of(row[classes[k], p - y * width], scoring.interpolate_members)
                    positions[at[k]], levels[at[k]] = p, max(level, 0)
                    at[k] += 1
                if ends[r] > end:
                    break
                r += 1
            next_run[k] = r
    return cuts, positions, levels


@kernel
def member_levels(rows, members, scoring, exponentials, space):
    """Evaluate every member's score at some rows of the image, before fusing: uint16 (C, M, rows, W)."""
    room, classes = make_row_room(members, space), members.order.shape[0]
    out = np.empty((classes, members.addresses.size, rows.size, space.cols.shape[1]), np.uint16)
    for i in range(rows.size):
        for m in range(out.shape[1]):
            put_scores(rows[i], np.int64(0), out.shape[3], m, members, scoring, exponentials, space, room, room.scores)
            for c in range(classes):
                for x in range(out.shape[3]):
                    out[c, m, i, x] = room.scores[c, x]
    return out
