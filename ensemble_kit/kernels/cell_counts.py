"""Count pixels of members of one grid by level, between the events of `quads.py`, without an image of levels."""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.quads import (
    OFF,
    ON,
    find_events,
    find_sides,
    fused_between,
    look_closer,
    make_room,
    mark,
    neighbours,
    rows_in_use,
    score_cells,
)
from ensemble_kit.kernels.runs import grown


@kernel
def count(classes, bands, truth_starts, truth_ends, truth_offsets, histogram, like, reach, members, scoring, pixels):
    """Count pixels, and truth pixels among them, by effective level.

    Parameters
    ----------
    classes : int64 (n,), numbers of the classes to count.
    bands : int64 (n, 2), the levels `low … high-1` of each that are told apart.
    truth_starts, truth_ends : int64, runs of the truth; those of the k-th class are
        `truth_offsets[k]:truth_offsets[k+1]`.
    histogram : int64 (65536, 2) of zeros, and is handed back so.
    like : an array of the type that pixels are counted in, uint32 or int64.
    reach : Reach, of `low` and of `high`.
    members, scoring, pixels : Members, Scoring, Pixels.

    Returns
    -------
    offsets int64 (n + 1,), where each class's entries begin in the next three; levels uint16, ascending, those of the
    band that occur; their pixels and truth pixels at that level and above; then the pixels and the truth pixels
    at `high` and above, int64 (n,) each.
    """
    n_classes, h = classes.size, pixels.row_at.size - 1
    room = make_room(members, scoring, pixels)
    down = neighbours(pixels.row_fractions, pixels.row_at)
    across = neighbours(pixels.col_fractions, pixels.col_at).max()
    # most classes have so few pixels in the band that sorting them costs 5 ns each; adding them one by one to a
    # histogram that fills a cache, and taking them out of it, cost 15
    seen = np.empty(max(65536, 2 * pixels.col_fractions.size), np.int32)
    other = np.empty(seen.size, np.int32)
    above, above_hits = np.empty(n_classes, np.int64), np.empty(n_classes, np.int64)
    levels, pred, tp = np.empty(65536, np.uint16), np.empty(65536, like.dtype), np.empty(65536, like.dtype)
    offsets = np.zeros(n_classes + 1, np.int64)
    for k in range(n_classes):
        maps = maps_of(members, classes[k])
        mark(maps, reach.firsts[k], reach.spans[k], room.columns.size, room.any_bits, room.all_bits)
        used, t0, t1 = rows_in_use(room.any_bits), truth_offsets[k], truth_offsets[k + 1]
        truth = truth_starts[t0:t1], truth_ends[t0:t1]
        n, spilled, above[k], above_hits[k] = _count_rows(
            bands[k], truth, seen, histogram, k * h, used, down, across, maps, scoring, pixels, room
        )
        first = offsets[k]
        while first + (65536 if spilled else n) > levels.size:
            levels, pred, tp = grown(levels), grown(pred), grown(tp)
        if spilled:
            _add(seen[:n], histogram)
            n = _from_histogram(histogram, levels[first:], pred[first:], tp[first:])
        else:
            _sort(seen[:n], other)
            n = _from_sorted(seen[:n], levels[first:], pred[first:], tp[first:])
        offsets[k + 1] = first + n
        total, hits = above[k], above_hits[k]
        for e in range(first + n - 1, first - 1, -1):
            total += pred[e]
            hits += tp[e]
            pred[e], tp[e] = total, hits
    n = offsets[n_classes]
    return offsets, levels[:n].copy(), pred[:n].copy(), tp[:n].copy(), above, above_hits


@kernel
def _count_rows(band, truth, seen, histogram, row_offset, used, down, across, maps, scoring, pixels, room):
    """Write a code for each pixel of the band into `seen`: twice its level, plus one for a truth pixel.

    Where they do not fit, they go on into the histogram. Return how many are in `seen`, whether any are not, and the
    pixels and truth pixels above the band.
    """
    low, high = band[0], band[1]
    truth_starts, truth_ends = truth
    row_at, row_fractions, col_at, col_fractions = pixels
    columns, kinds, interpolate_members = room.columns, room.kinds, scoring.interpolate_members
    h, w, W = row_at.size - 1, col_at.size - 1, col_fractions.size
    sides = np.empty((2, maps.weights.size if interpolate_members else 1), np.int64)
    n, spilled = 0, False
    above, above_hits, t, runs = np.int64(0), np.int64(0), 0, truth_starts.size
    for r in range(h):
        if not used[r] or row_at[r] == row_at[r + 1]:
            continue
        r2 = min(r + down[r], h - 1)
        found = find_events(r, r2, across, room)
        score_cells(r, r2, across, found, row_offset, maps, scoring, room)
        found = look_closer(r, r2, across, found, low, high, maps.weights, interpolate_members, room)
        for y in range(row_at[r], row_at[r + 1]):
            for e in range(found):
                if kinds[e] == OFF:
                    continue
                c = columns[e]
                p = y * W + col_at[c]
                while t < runs and truth_ends[t] <= p:
                    t += 1
                if kinds[e] == ON:
                    q = y * W + (col_at[columns[e + 1]] if e + 1 < found else W)
                    above += q - p
                    while t < runs and truth_starts[t] < q:
                        above_hits += min(q, truth_ends[t]) - max(p, truth_starts[t])
                        if truth_ends[t] > q:
                            break
                        t += 1
                    continue
                find_sides(room.scores, r, r2, c, min(c + across, w - 1), row_fractions[y], sides)
                for x in range(col_at[c], col_at[c + 1]):
                    fx = col_fractions[x]
                    if interpolate_members:
                        level = fused_between(sides, fx, scoring.score_table, maps.weights)
                    else:
                        level = ((256 - fx) * sides[0, 0] + fx * sides[1, 0]) >> 16
                    while t < runs and truth_ends[t] <= y * W + x:
                        t += 1
                    hit = t < runs and truth_starts[t] <= y * W + x
                    seen[n] = 2 * level + hit
                    n += (level >= low) & (level < high)
                    above += level >= high
                    above_hits += (level >= high) & hit
            if n + W > seen.size:
                _add(seen[:n], histogram)
                n, spilled = 0, True
    return n, spilled, above, above_hits


@inline
def _add(seen, histogram):
    """Count codes, each twice a level plus one for a truth pixel, in the histogram."""
    for k in range(seen.size):
        histogram[seen[k] >> 1, 0] += 1
        histogram[seen[k] >> 1, 1] += seen[k] & 1


@inline
def _sort(seen, other):
    """Sort codes by level, by counting: first by the low byte, into `other`, then by the high one, back."""
    firsts = np.zeros((2, 257), np.int64)
    for k in range(seen.size):
        firsts[0, ((seen[k] >> 1) & 255) + 1] += 1
        firsts[1, (seen[k] >> 9) + 1] += 1
    for b in range(1, 257):
        firsts[0, b] += firsts[0, b - 1]
        firsts[1, b] += firsts[1, b - 1]
    for k in range(seen.size):
        b = (seen[k] >> 1) & 255
        other[firsts[0, b]] = seen[k]
        firsts[0, b] += 1
    for k in range(seen.size):
        b = other[k] >> 9
        seen[firsts[1, b]] = other[k]
        firsts[1, b] += 1


@inline
def _from_sorted(seen, levels, pixels, hits):
    """Write the levels that occur in sorted codes, and the pixels and truth pixels of each; return how many."""
    n, level, here, hits_here = -1, np.int64(-1), np.int64(0), np.int64(0)
    for k in range(seen.size):
        same = np.int64(seen[k] >> 1 == level)  # nothing to mispredict, and nothing to read back
        level, here, hits_here = np.int64(seen[k] >> 1), same * here + 1, same * hits_here + (seen[k] & 1)
        n += 0 if same else 1
        levels[n], pixels[n], hits[n] = level, here, hits_here
    return n + 1


@inline
def _from_histogram(histogram, levels, pixels, hits):
    """Write the levels that occur, and the pixels and truth pixels of each; return how many. Zeros are left."""
    n = 0
    for level in range(histogram.shape[0]):
        if histogram[level, 0] != 0:
            levels[n], pixels[n], hits[n] = level, histogram[level, 0], histogram[level, 1]
            histogram[level, 0], histogram[level, 1] = 0, 0
            n += 1
    return n
