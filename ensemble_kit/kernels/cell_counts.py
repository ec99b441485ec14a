"""Count pixels of members of one grid by level, between the events of `quads.py`, without an image of levels.

Levels of spans of mixed quads are written behind each other, with a bit for pixels of the truth, which are whole
stretches of a row. Few are sorted, many added to a histogram: of soft logits 3.8 ns a pixel, three quarters of them for
its level, against 16 where each pixel was interpolated, compared with the truth, and counted by itself.
"""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.quads import OFF, ON, any_between, find_events, find_kinds, mark, neighbours, rows_in_use
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.settling import score_cells, settle
from ensemble_kit.kernels.spans import LANES, end_of_span, evaluate, make_room, walk_of
from ensemble_kit.kernels.words import address_of

HIT = 65536
"""What a code of a truth pixel has added to its level."""

SORTED = 16384
"""Codes that are sorted; from about here on a histogram, a pass over all its levels included, takes less time."""


@kernel
def count(classes, bands, truth_starts, truth_ends, truth_offsets, histogram, reach, members, scoring, pixels):
    """Count pixels, and truth pixels among them, by effective level.

    Parameters
    ----------
    classes : int64 (n,), numbers of the classes to count.
    bands : int64 (n, 2), the levels `low … high-1` of each that are told apart.
    truth_starts, truth_ends : int64, runs of the truth; those of the k-th class are
        `truth_offsets[k]:truth_offsets[k+1]`.
    histogram : uint32 or int64 (2 HIT,) of zeros, and is handed back so; pixels are counted in its type.
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
    across = any_between(pixels.col_fractions)
    seen = np.empty(max(SORTED, 2 * pixels.col_fractions.size) + 2 * LANES, np.int32)
    other = np.empty(seen.size, np.int32)
    above, above_hits = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    levels, pred, tp = np.empty(65536, np.uint16), np.empty(65536, histogram.dtype), np.empty(65536, histogram.dtype)
    offsets = np.zeros(n_classes + 1, np.int64)
    for k in range(n_classes):
        maps, events = maps_of(members, classes[k]), room.events
        mark(maps, reach.firsts[k], reach.spans[k], events.columns.size, events.any_bits, events.all_bits)
        used, t0, t1 = rows_in_use(events.any_bits), truth_offsets[k], truth_offsets[k + 1]
        truth = truth_starts[t0:t1], truth_ends[t0:t1]
        n, spilled, on, on_hits = _count_rows(
            bands[k], truth, seen, histogram, k * h, used, down, across, maps, scoring, pixels, room
        )
        first, (low, high) = offsets[k], bands[k]
        while first + (65536 if spilled else n) > levels.size:
            levels, pred, tp = grown(levels), grown(pred), grown(tp)
        if spilled:
            _add(seen[:n], histogram)
            n, total, hits = _from_histogram(histogram, low, high, levels[first:], pred[first:], tp[first:])
        else:
            n, total, hits = _in_band(seen[:n], low, high)
            _sort(seen[:n], other)
            n = _from_sorted(seen[:n], levels[first:], pred[first:], tp[first:])
        offsets[k + 1] = first + n
        total += on
        hits += on_hits
        above[k], above_hits[k] = total, hits
        for e in range(first + n - 1, first - 1, -1):
            total += pred[e]
            hits += tp[e]
            pred[e], tp[e] = total, hits
    n = offsets[n_classes]
    return offsets, levels[:n].copy(), pred[:n].copy(), tp[:n].copy(), above, above_hits


@kernel
def _count_rows(band, truth, seen, histogram, row_offset, used, down, across, maps, scoring, pixels, room):
    """Write a code for each pixel of a mixed quad into `seen`: its level, plus `HIT` for a truth pixel.

    Where they do not fit, they go on into the histogram. Return how many are in `seen`, whether any are not, and the
    pixels and truth pixels of the quads that are on.
    """
    low, high = band[0], band[1]
    truth_starts, truth_ends = truth
    row_at, row_fractions, col_at, _ = pixels
    columns, kinds, walk = room.events.columns, room.events.kinds, walk_of(maps, scoring, pixels, room)
    h, W = row_at.size - 1, pixels.col_fractions.size
    n, spilled, found_levels = 0, False, address_of(seen)
    on, on_hits, t, runs = np.int64(0), np.int64(0), 0, truth_starts.size
    for r in range(h):
        if not used[r] or row_at[r] == row_at[r + 1]:
            continue
        r2 = min(r + down[r], h - 1)
        if find_kinds(r, r2, across, walk.events):
            score_cells(r, r2, row_offset, walk)
            settle(r, r2, across, low, high, walk)
        found = find_events(walk.events)
        for y in range(row_at[r], row_at[r + 1]):
            e = 0
            while e < found:
                c, kind = columns[e], kinds[e]
                if kind == OFF:
                    e += 1
                    continue
                e = e + 1 if kind == ON else end_of_span(e, found, columns, kinds)
                p, q = y * W + col_at[c], y * W + (col_at[columns[e]] if e < found else W)
                if kind == ON:
                    on += q - p
                else:
                    stop = columns[e - 1] + 1
                    q = y * W + col_at[stop]
                    evaluate(r, r2, across, c, stop, row_fractions[y], walk, found_levels + 4 * n)
                while t < runs and truth_ends[t] <= p:
                    t += 1
                while t < runs and truth_starts[t] < q:
                    begin, end = max(p, truth_starts[t]), min(q, truth_ends[t])
                    if kind == ON:
                        on_hits += end - begin
                    else:
                        for x in range(n + begin - p, n + end - p):
                            seen[x] |= HIT
                    if truth_ends[t] > q:
                        break
                    t += 1
                n += 0 if kind == ON else q - p
            if n + W + LANES > seen.size:
                _add(seen[:n], histogram)
                n, spilled = 0, True
    return n, spilled, on, on_hits


@inline
def _add(codes, histogram):
    """Count codes in the histogram."""
    for k in range(codes.size):
        histogram[codes[k]] += 1


@inline
def _in_band(codes, low, high):
    """Keep the codes of a band of levels, in place; return how many, and how many codes and hits lie above it."""
    n, above, hits = 0, np.int64(0), np.int64(0)
    for k in range(codes.size):
        level, hit = np.int64(codes[k]) & 0xFFFF, np.int64(codes[k]) >> 16
        codes[n] = codes[k]
        n += (level >= low) & (level < high)
        above += level >= high
        hits += hit & (level >= high)
    return n, above, hits


@inline
def _sort(seen, other):
    """Sort codes by level, by counting: first by the low byte, into `other`, then by the high one, back."""
    firsts = np.zeros((2, 257), np.int64)
    for k in range(seen.size):
        firsts[0, (seen[k] & 255) + 1] += 1
        firsts[1, ((seen[k] >> 8) & 255) + 1] += 1
    for b in range(1, 257):
        firsts[0, b] += firsts[0, b - 1]
        firsts[1, b] += firsts[1, b - 1]
    for k in range(seen.size):
        b = seen[k] & 255
        other[firsts[0, b]] = seen[k]
        firsts[0, b] += 1
    for k in range(seen.size):
        b = (other[k] >> 8) & 255
        seen[firsts[1, b]] = other[k]
        firsts[1, b] += 1


@inline
def _from_sorted(seen, levels, pixels, hits):
    """Write the levels that occur in sorted codes, and the pixels and truth pixels of each; return how many."""
    n, level, here, hits_here = -1, np.int64(-1), np.int64(0), np.int64(0)
    for k in range(seen.size):
        own = np.int64(seen[k]) & 0xFFFF
        same = np.int64(own == level)  # nothing to mispredict, and nothing to read back
        level, here, hits_here = own, same * here + 1, same * hits_here + (np.int64(seen[k]) >> 16)
        n += 0 if same else 1
        levels[n], pixels[n], hits[n] = level, here, hits_here
    return n + 1


@inline
def _from_histogram(histogram, low, high, levels, pixels, hits):
    """Write the levels of a band that occur, and the pixels and truth pixels of each; zeros are left.

    Return how many, and the pixels and truth pixels above the band.
    """
    n, above, above_hits = 0, np.int64(0), np.int64(0)
    for level in range(low, high):
        own_hits = np.int64(histogram[level + HIT])
        own = np.int64(histogram[level]) + own_hits
        levels[n], pixels[n], hits[n] = level, own, own_hits  # written always: nothing to mispredict
        n += own != 0
    for level in range(high, HIT):
        above += np.int64(histogram[level])
        above_hits += np.int64(histogram[level + HIT])
    for code in range(histogram.size):
        histogram[code] = 0
    return n, above + above_hits, above_hits
