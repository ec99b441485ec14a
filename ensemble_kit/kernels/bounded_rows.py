"""Decide and count classes that have values of their own, row by row, where bounds leave a doubt: rules 3, 4 and 15.

What lies between cells is a mean of them, so the least and the largest score of the cells around a block of pixels
bound the fused level of each. Blocks on one side of a threshold, or of a band of levels, are not evaluated. The answers
are those of `rows`, which looks at every pixel.
"""

import numpy as np

from ensemble_kit.kernels.blocks import codes_at
from ensemble_kit.kernels.exclusive import make_row_room, put_class
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.rows import level_of, runs_by_owner
from ensemble_kit.kernels.runs import grown

BLOCK = 32
"""Pixels of a row that are bounded together."""


@kernel
def extremes(m, begin, stop, members, table, space, out):
    """Find the least and the largest score of the cells around each block of pixels, in each row of cells.

    Parameters
    ----------
    begin, stop : slices of cells of source `m`.
    out : uint16 (2, C, slices, rows, blocks), of which this source may have fewer slices and rows.
    """
    cols, last, width = space.cols[m], space.last[m], members.widths[m]
    for c in range(out.shape[1]):
        at = members.addresses[m] + members.order[c, m] * members.class_bytes[m]
        for s in range(stop - begin):
            for r in range(last[0] + 1):
                codes = codes_at(at + (begin + s) * members.slice_bytes[m] + 2 * r * width, last[1] + 1)
                for block in range(out.shape[4]):
                    own = cols[block * BLOCK : (block + 1) * BLOCK]
                    low, high = np.uint16(65535), np.uint16(0)
                    for k in range(own.min(), min(own.max() + 1, last[1]) + 1):
                        score = table[codes[k]]
                        low, high = min(low, score), max(high, score)
                    out[0, c, s, r, block], out[1, c, s, r, block] = low, high
    return out


@inline
def _around(found, begins, m, c, z, y, block, space):
    """The least and the largest score of a source around a block of pixels of a row."""
    near, a = space.slices[m, z] - begins[m], space.rows[m, y]
    far, b = near + (1 if space.slice_fractions[m, z] > 0 else 0), min(a + 1, space.last[m, 0])
    low, high = found[m, 0, c], found[m, 1, c]
    least = min(low[near, a, block], low[near, b, block], low[far, a, block], low[far, b, block])
    most = max(high[near, a, block], high[near, b, block], high[far, a, block], high[far, b, block])
    return np.int64(least), np.int64(most)


@inline
def _bounds(row, first, stop, block, c, found, begins, scoring, space):
    """The least and the largest level of a class in a block of pixels; of several sets of members, of all."""
    z, y = row // space.rows.shape[1], row % space.rows.shape[1]
    low, high = np.int64(1 << 20), -np.int64(1 << 20)
    for k in range(space.col_at.size - 1):
        if max(first, space.col_at[k]) >= min(stop, space.col_at[k + 1]):
            continue
        own = space.sets[space.slice_box[z], space.row_box[y], k]
        if own < 0 or space.weights[own, c].sum() == 0:
            level = level_of(space.outside[c], scoring.interpolate_members) if own < 0 else -np.int64(1 << 17)
            low, high = min(low, level), max(high, level)
            continue
        least, most = np.int64(0), np.int64(0)
        for m in range(space.weights.shape[2]):
            weight = space.weights[own, c, m]
            if weight > 0:
                one, other = _around(found, begins, m, c, z, y, block, space)
                least += weight * scoring.score_table[one]
                most += weight * scoring.score_table[other]
        low = min(low, level_of(least, scoring.interpolate_members))
        high = max(high, level_of(most, scoring.interpolate_members))
    return low, high


@kernel
def decide(first, stop, classes, levels, found, begins, members, scoring, space):
    """Runs of the pixels of some classes whose level is at least theirs: starts, ends, offsets.

    Parameters
    ----------
    found : the `extremes` of each source, from its slice `begins[m]` on, uint16 (sources, 2, C, slices, rows, blocks).
        A tuple would be compiled again for every number of sources.
    """
    room, width = make_row_room(members, space), space.cols.shape[1]
    line, on = np.empty(width, np.int64), np.zeros(classes.size, np.bool_)
    owners, edges, n = np.empty(1024, np.int64), np.empty(1024, np.int64), 0
    for row in range(first, stop):
        while n + classes.size * (width + 1) > edges.size:
            owners, edges = grown(owners), grown(edges)
        for k in range(classes.size):
            now = on[k]
            for block in range((width + BLOCK - 1) // BLOCK):
                a, b = block * BLOCK, min((block + 1) * BLOCK, width)
                low, high = _bounds(row, a, b, block, classes[k], found, begins, scoring, space)
                if low >= levels[k] or high < levels[k]:
                    if (low >= levels[k]) != now:
                        owners[n], edges[n] = k, row * width + a
                        n, now = n + 1, not now
                    continue
                put_class(row, a, b, classes[k], members, scoring, space, room, line)
                for x in range(a, b):
                    if (level_of(line[x], scoring.interpolate_members) >= levels[k]) != now:
                        owners[n], edges[n] = k, row * width + x
                        n, now = n + 1, not now
            on[k] = now
    for k in range(classes.size):
        if on[k]:
            owners[n], edges[n] = k, stop * width
            n += 1
    return runs_by_owner(owners[:n], edges[:n], classes.size)


@kernel
def count(first, stop, classes, bands, truth, counts, found, begins, members, scoring, space):
    """Add the pixels of some classes, and the truth pixels among them, by level into `counts`, as `rows.count` does."""
    truth_starts, truth_ends, truth_offsets = truth
    room, width = make_row_room(members, space), space.cols.shape[1]
    line, next_run = np.empty(width, np.int64), truth_offsets.copy()
    for row in range(first, stop):
        for k in range(classes.size):
            low, high, t, last = bands[k, 0], bands[k, 1], next_run[k], truth_offsets[k + 1]
            for block in range((width + BLOCK - 1) // BLOCK):
                a, b = block * BLOCK, min((block + 1) * BLOCK, width)
                least, most = _bounds(row, a, b, block, classes[k], found, begins, scoring, space)
                if most < low:
                    continue
                p, end = row * width + a, row * width + b
                while t < last and truth_ends[t] <= p:
                    t += 1
                if least >= high or least == most:
                    entry, i = min(least, high) - low, t
                    counts[k, entry, 0] += b - a
                    while i < last and truth_starts[i] < end:
                        counts[k, entry, 1] += min(truth_ends[i], end) - max(truth_starts[i], p)
                        i += 1
                    continue
                put_class(row, a, b, classes[k], members, scoring, space, room, line)
                for x in range(a, b):
                    p, level = row * width + x, level_of(line[x], scoring.interpolate_members)
                    while t < last and truth_ends[t] <= p:
                        t += 1
                    if level >= low:
                        entry = min(level, high) - low
                        counts[k, entry, 0] += 1
                        counts[k, entry, 1] += t < last and truth_starts[t] <= p
            next_run[k] = t


@kernel
def levels_within(classes, starts, ends, offsets, members, scoring, space):
    """Evaluate pixels of some classes one by one, each in its own runs, as `rows.levels_within` does."""
    room, width = make_row_room(members, space), space.cols.shape[1]
    line, cuts = np.empty(width, np.int64), np.zeros(classes.size + 1, np.int64)
    for k in range(classes.size):
        cuts[k + 1] = cuts[k]
        for r in range(offsets[k], offsets[k + 1]):
            cuts[k + 1] += ends[r] - starts[r]
    at, positions, levels = 0, np.empty(cuts[-1], np.int64), np.empty(cuts[-1], np.uint16)
    for k in range(classes.size):
        for r in range(offsets[k], offsets[k + 1]):
            p = starts[r]
            while p < ends[r]:
                row = p // width
                end = min(ends[r], (row + 1) * width)
                put_class(row, p - row * width, end - row * width, classes[k], members, scoring, space, room, line)
                for x in range(p, end):
                    level = level_of(line[x - row * width], scoring.interpolate_members)
                    positions[at], levels[at] = x, max(level, 0)
                    at += 1
                p = end
    return cuts, positions, levels
