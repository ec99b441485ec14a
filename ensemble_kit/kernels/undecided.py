"""The pixels that members do not agree on, and the score of any weights over them.

A pixel that every member puts below the band, or every member puts above it, is decided for all convex weights; so
a trial of weights need only look at the others, kept as one 16-bit value per member.
"""

import numpy as np

from ensemble_kit.kernels.blocks import BLOCK, cells_around, draw_truth, find_keys, make_room, put_lines
from ensemble_kit.kernels.counts import score_pair
from ensemble_kit.kernels.jit import inline, kernel
from ensemble_kit.kernels.maps import maps_of
from ensemble_kit.kernels.runs import grown
from ensemble_kit.kernels.words import lowest

STRIP = 32
"""Pixels in a row that are passed over together where their largest values stay below the band."""


@kernel
def gather(cls, members, scoring, axes, low, high, keys_low, keys_high, stride, truth_starts, truth_ends):
    """Collect one class's undecided pixels of one sample.

    Parameters
    ----------
    members, scoring, axes : Members, Scoring, Axes, with `interpolate_members`; a code's value is its score.
    low, high : values; a pixel is decided where all members lie below `low`, or all at or above `high`.
    keys_low, keys_high : int64 (M,), the first key of each member whose value is at least `low`, and `high`.
    stride : every stride-th pixel of every stride-th row stands for the rest.

    Returns
    -------
    values uint16 (n, M), hits first; how many are hits; pixels above, and hits among them; hits in all.
    """
    maps, room = maps_of(members, cls), make_room(axes)
    M, height, width, first = maps.weights.size, axes.rows.shape[1], axes.cols.shape[1], stride // 2
    across = -(-width // BLOCK)
    extremes, keys = np.empty((2, maps.widths.max()), np.int16), np.empty((2, across), np.int16)
    some, every = np.empty(across, np.bool_), np.empty(across, np.bool_)
    truth = np.empty(BLOCK * width, np.uint8)
    hits, misses = np.empty(256 * M, np.uint16), np.empty(256 * M, np.uint16)
    pixels = np.empty((BLOCK * BLOCK, M), np.uint16)
    n_hits, n_misses, above, above_hits, area, t = 0, 0, 0, 0, 0, np.int64(0)
    for by in range(-(-height // BLOCK)):
        y0, y1 = by * BLOCK, min((by + 1) * BLOCK, height)
        t = draw_truth(truth, t, truth_starts, truth_ends, y0 * width, y1 * width)
        some[:], every[:] = False, True  # whether some member may reach low, and every one reaches high
        for m in range(M):
            find_keys(by, m, maps, scoring.key_masks, axes, extremes, keys)
            for bx in range(across):
                some[bx] |= keys[1, bx] >= keys_low[m]
                every[bx] &= keys[0, bx] >= keys_high[m]
        y_first = y0 + (first - y0) % stride
        for bx in range(across):
            x1 = min((bx + 1) * BLOCK, width)
            x_first = bx * BLOCK + (first - bx * BLOCK) % stride
            if x_first >= x1 or y_first >= y1:
                continue
            if every[bx] or not some[bx]:
                for y in range(y_first, y1, stride):
                    for x in range(x_first, x1, stride):
                        hit = truth[(y - y0) * width + x]
                        area += hit
                        if some[bx]:
                            above += 1
                            above_hits += hit
                continue
            for m in range(M):
                _put_values(m, y_first, y1, x_first, x1, stride, maps, scoring, axes, room, pixels)
            k = 0
            for y in range(y_first, y1, stride):
                for x in range(x_first, x1, stride):
                    reaches, below = False, False
                    for m in range(M):
                        reaches |= pixels[k, m] >= low
                        below |= pixels[k, m] < high
                    hit = truth[(y - y0) * width + x]
                    area += hit
                    if not below:
                        above += 1
                        above_hits += hit
                    elif reaches:
                        if hit:
                            if n_hits == hits.size:
                                hits = grown(hits)
                            for m in range(M):
                                hits[n_hits + m] = pixels[k, m]
                            n_hits += M
                        else:
                            if n_misses == misses.size:
                                misses = grown(misses)
                            for m in range(M):
                                misses[n_misses + m] = pixels[k, m]
                            n_misses += M
                    k += 1
    out = np.empty(n_hits + n_misses, np.uint16)
    for k in range(n_hits):
        out[k] = hits[k]
    for k in range(n_misses):
        out[n_hits + k] = misses[k]
    return out.reshape(-1, M), n_hits // M, above, above_hits, area


@inline
def _put_values(m, y0, y1, x0, x1, stride, maps, scoring, axes, room, pixels):
    """Write one member's interpolated values at every `stride`-th pixel of a block into `pixels[:, m]`, row by row."""
    lines, k = room.lines, 0
    r0, r1 = cells_around(y0, y1, axes.rows[m], axes.last[m, 0])
    put_lines(m, r0, r1, x0, x1, stride, maps, scoring, axes, room)
    for y in range(y0, y1, stride):
        a = axes.rows[m, y] - r0
        b, fraction = min(a + 1, r1 - r0), axes.row_fractions[m, y]
        for x in range((x1 - x0 + stride - 1) // stride):
            pixels[k, m] = ((256 - fraction) * lines[a, x] + fraction * lines[b, x] + 32768) >> 16
            k += 1


@kernel
def curves(pixels, samples, unions, table, weights, fills, low, high, score, pooled, room, best):
    """Fuse one class's undecided pixels, score them at every level of `low … high`, and find the best level.

    Only levels that occur are visited: each sample adds the *differences* of its score between them, and one sum
    from above turns differences into scores. Among scores within 1e-12 the level nearest to 0.5 is best, then the
    lower; where no sample counts a level is worth 1.

    Parameters
    ----------
    pixels : UndecidedPixels.
    samples : numbers of the samples that count.
    unions : bool (samples, U), which of them each of several unions has; all are scored from one look at the pixels.
    table : uint32 (S, M, 65536), of each set the member's integer weight times the level of a value; a pixel's level
        is `(sum + 32768) >> 16`. Or (S, M, 0), where values are levels already.
    weights : uint32 (S, M), of each set the members' integer weights; of a sum of 65536, or all 0: nobody has a say.
    fills : whether the pixels of sets without a say are on, at every level.
    score : Score.
    pooled : score the pixels of all samples together; then there is one union, of all.
    room : CurveRoom; `top`, and with `score.skip` `counted`, are written in `low … high`.
    best : int64 (U,), the best levels are written here.
    """
    _, _, offsets, splits, above, above_hits, truth, inside = pixels
    counts, touched, order, top, counted, sums = room
    top[low : high + 1] = 0
    if score.skip:
        counted[low : high + 1] = 0
    pred, tp, area = np.int64(0), np.int64(0), np.int64(0)
    half = np.uint64(0xFFFFFFFF)
    for k in range(samples.size):
        for j in range(len(weights)):
            g = samples[k] * len(weights) + j
            area += truth[g]
            if not weights[j].any():
                pred += inside[g] if fills else 0
                tp += truth[g] if fills else 0
                continue
            pred += above[g]
            tp += above_hits[g]
            fused, begin, split, end = (table[j], weights[j]), offsets[g], splits[g], offsets[g + 1]
            _scatter(pixels, begin, split, fused, low, high, np.uint64(1), counts, touched, sums)
            _scatter(pixels, split, end, fused, low, high, np.uint64(1) << np.uint64(32), counts, touched, sums)
        if pooled and k + 1 < samples.size:
            continue
        own = np.flatnonzero(unions[k])
        value, one = 0.0, 0
        for at in order[: take_marks(touched, high - low, order)]:
            hits = np.int64(counts[at] & half)
            tp += hits
            pred += hits + np.int64(counts[at] >> np.uint64(32))
            counts[at] = 0
            now, count = score_pair(pred, tp, area, score)
            step, more = now - value, count - one
            for union in own:
                top[high - at, union] += step
                if score.skip:
                    counted[high - at, union] += more
            value, one = now, count
        pred, tp, area = np.int64(0), np.int64(0), np.int64(0)
    for u in range(best.size):
        best[u] = min(unions[:, u].sum(), 1) if pooled else unions[:, u].sum()
    _find_best(top, counted, low, high, score.skip, best)


@kernel
def _find_best(top, counted, low, high, skip, best):
    """Turn differences into scores, and the number of each union's samples into its best level."""
    peak, gate, many = np.full(best.size, -1.0), np.full(best.size, -1.0), best.copy()
    best[:] = high
    for level in range(high, low - 1, -1):
        for u in range(best.size):
            if level < high:
                top[level, u] += top[level + 1, u]
                if skip:
                    counted[level, u] += counted[level + 1, u]
            if level > 65535 or (not skip and top[level, u] < gate[u]):  # beyond rounding
                continue
            count = counted[level, u] if skip else many[u]
            value = top[level, u] / count if count > 0 else 1.0
            if value >= peak[u] - 1e-12:
                if value > peak[u] + 1e-12 or abs(2 * level - 65535) <= abs(2 * best[u] - 65535):
                    best[u] = level
                peak[u] = max(value, peak[u])
                gate[u] = (peak[u] - 2e-12) * count


@kernel
def take_marks(touched, last, order):
    """Write the marks up to `last`, ascending, and 0, whether it is marked or not; clear them, and tell how many."""
    touched[0] |= np.uint64(1)
    n = 0
    for word in range((last >> 6) + 1):
        bits = np.int64(touched[word])
        touched[word] = 0
        while bits != 0:
            order[n] = word * 64 + lowest(bits)
            bits &= bits - 1
            n += 1
    return n


@kernel
def _scatter(pixels, first, stop, fused, low, high, one, counts, touched, sums):
    """Add `one` to the counts of every pixel's level, and mark the level; beyond the band, at its upper edge.

    Counts begin with those of the upper edge and descend. Strips of pixels whose largest values stay below the band are
    passed over.
    """
    values, peaks, (table, weights) = pixels.values, pixels.peaks, fused
    below = np.uint32(max(low * 65536 - 1, 0))
    if first == stop:
        return
    strips, room = (stop - 1) // STRIP + 1, sums.size // 2
    for begin in range(first // STRIP, strips, room):
        n, k = min(room, strips - begin), 0
        bounds, part = sums[:n], sums[room:]
        fuse(peaks, begin, table, weights, bounds)
        while k < n:
            last = k
            while last < n and last - k < room // STRIP and bounds[last] > below:
                last += 1
            start = max((begin + k) * STRIP, first)
            own = part[: max(min((begin + last) * STRIP, stop) - start, 0)]
            fuse(values, start, table, weights, own)
            for total in own:
                if total > below:
                    at = max(high - np.int64(total >> np.uint32(16)), 0)
                    counts[at] += one
                    touched[at >> 6] |= np.uint64(1) << np.uint64(at & 63)
            k = max(last, k + 1)


@inline
def fuse(values, start, table, weights, sums):
    """Fuse some columns of values, from `start` on."""
    sums[:] = 32768
    for m in range(weights.size):
        own, weight, levels = values[m, start : start + sums.size], weights[m], table[m]
        if levels.size > 0:
            for i in range(sums.size):
                sums[i] += levels[own[i]]
        else:
            for i in range(sums.size):
                sums[i] += np.uint32(weight * np.uint32(own[i]))


@kernel
def put_peaks(values, peaks):
    """Write the largest value of every strip of columns: uint16 (M, n), to uint16 (M, ceil(n / STRIP))."""
    for m in range(len(values)):
        for k in range(peaks.shape[1]):
            peaks[m, k] = values[m, k * STRIP : (k + 1) * STRIP].max()


@kernel
def kept_components(offsets, areas, hits, least, most, pred, tp):
    """Write the pixels and hits of each group's components that have at least so many pixels.

    Group g has the components `offsets[g]:offsets[g+1]`, and `least[g % least.size]` pixels are enough; of those only
    the `most` largest count (0: all), of equal ones the first.
    """
    taken = np.empty(max(most, 1), np.int64)
    for g in range(offsets.size - 1):
        pred[g] = 0
        tp[g] = 0
        enough = least[g % least.size]
        if most == 0:
            for i in range(offsets[g], offsets[g + 1]):
                if areas[i] >= enough:
                    pred[g] += areas[i]
                    tp[g] += hits[i]
            continue
        for k in range(most):
            best = -1
            for i in range(offsets[g], offsets[g + 1]):
                free = areas[i] >= enough
                for j in range(k):
                    free &= taken[j] != i
                if free and (best < 0 or areas[i] > areas[best]):
                    best = i
            if best < 0:
                break
            taken[k] = best
            pred[g] += areas[best]
            tp[g] += hits[best]
