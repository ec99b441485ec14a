"""The best score of fused undecided pixels: among bins of levels first, and then among the levels of a few bins.

A union's score is known at the lower edge of each bin; inside it is at most what it would be if all hits there came
before all misses. Only bins that may hold the best level are looked at level by level.
"""

import numpy as np

from ensemble_kit.kernels.counts import score_pair
from ensemble_kit.kernels.jit import inline, kernel, routine
from ensemble_kit.kernels.undecided import STRIP, fuse, take_marks

_SHIFT = 9
"""Bins have 512 levels: their counts stay in the first-level cache, and some 4 % of pixels are looked at again."""
_LANES = 4
"""Neighbouring pixels are counted apart: in one bin, which most are, each would wait for the one before it."""


@kernel
def find_peaks(pixels, samples, unions, weights, fills, low, high, score, slack, sums, peaks):
    """Find the largest sum of scores of one class's undecided pixels over `low … high`, of each union of samples.

    It is that of `undecided.curves` but for rounding, since sums are in another order.

    Parameters
    ----------
    pixels, samples, unions, weights, fills, low, high : as for `undecided.curves` without a table.
    score : Score, with which empty pairs count.
    slack : by how much of a sum's number of samples rounding may change it.
    sums : uint32, of the strips and pixels that are fused at a time.
    peaks : float64 (U,), the sums are written here.
    """
    n = ((high - low) >> _SHIFT) + 1
    hits, misses = np.zeros((_LANES, n + 1), np.uint32), np.zeros((_LANES, n + 1), np.uint32)
    edges, rooms, scores = np.zeros((peaks.size, n)), np.zeros((peaks.size, n)), np.empty((3, n))
    no_bins, no_marks = np.empty(0, np.int64), np.empty(0, np.uint64)
    slots = no_bins, no_bins, no_marks, hits.ravel(), misses.ravel()
    for k in range(samples.size):
        pred, tp, area = _put_counts(pixels, samples[k], weights, fills, low, high, slots, sums)
        _put_scores(pred, tp, area, hits, misses, score, scores)
        hits[:] = 0
        misses[:] = 0
        for u in range(peaks.size):
            if unions[k, u]:
                edges[u] += scores[0]
                rooms[u] += scores[1]
    firsts, masks, last = np.zeros(n + 1, np.int64), np.zeros(n + 1, np.int64), 0
    for u in range(peaks.size):
        gate = edges[u].max() - slack * unions[:, u].sum()
        for b in range(n):
            if rooms[u, b] >= gate:
                masks[b], last = (1 << _SHIFT) - 1, max(b, last)
    for b in range(1, n + 1):  # neighbours that are not looked into share a slot
        alone = masks[b] + masks[b - 1] > 0
        firsts[b] = firsts[b - 1] + masks[b - 1] + alone
    _look_closer(pixels, samples, unions, weights, fills, low, high, score, firsts, masks, last + 1, sums, peaks)


@inline
def _put_scores(pred, tp, area, hits, misses, score, scores):
    """Write scores at the lower edges of bins, and the most that those in each bin can be."""
    at_edge, most, found = scores
    value = score_pair(pred, tp, area, score)[0]
    if pred + area == 0:
        value = max(value, score_pair(1, 0, 0, score)[0])  # with one more pixel
    for b in range(found.size):
        own, others = np.int64(0), np.int64(0)
        for lane in range(_LANES):
            own += hits[lane, b]
            others += misses[lane, b]
        pred, tp = pred + own, tp + own
        found[b], most[b] = tp, pred
        pred += others
        at_edge[b] = pred
    if area == 0:
        for b in range(found.size):
            edge = score_pair(at_edge[b], 0, 0, score)[0]
            most[b] = max(value, edge)
            value = edge if at_edge[b] > 0 else value
            at_edge[b] = edge
        return
    rest = score.b * area + score.eps
    for b in range(found.size):
        above = score.a * found[b] + score.eps
        less = rest - score.c * found[b]
        at_edge[b], most[b] = above / (at_edge[b] + less), above / (most[b] + less)
    most[0] = max(value, most[0], at_edge[0])
    for b in range(1, found.size):
        most[b] = max(most[b], at_edge[b], at_edge[b - 1])


@routine
def _look_closer(pixels, samples, unions, weights, fills, low, high, score, firsts, masks, n, sums, peaks):
    """Score each level of some of the first n bins, and stretches of others at their lower edges."""
    floor, size = max(low, high - (n << _SHIFT) + 1), firsts[n]
    hits, misses = np.zeros(size + 1, np.uint32), np.zeros(size + 1, np.uint32)
    touched, order = np.zeros((size >> 6) + 1, np.uint64), np.empty(size + 1, np.int64)
    top = np.zeros((size, peaks.size))
    slots = firsts, masks, touched, hits, misses
    for k in range(samples.size):
        pred, tp, area = _put_counts(pixels, samples[k], weights, fills, floor, high, slots, sums)
        own, value = np.flatnonzero(unions[k]), 0.0
        for slot in order[: take_marks(touched, size, order)]:
            tp += hits[slot]
            pred += np.int64(hits[slot]) + np.int64(misses[slot])
            hits[slot], misses[slot] = 0, 0
            if slot < size:  # not below the floor
                now = score_pair(pred, tp, area, score)[0]
                for union in own:
                    top[slot, union] += now - value
                value = now
    first = 1 if high > 65535 and masks[0] > 0 else 0  # a level beyond the last
    for u in range(peaks.size):
        total, peaks[u] = 0.0, -1.0
        for at in range(size):
            total += top[at, u]
            if at >= first:
                peaks[u] = max(peaks[u], total)


@inline
def _put_counts(pixels, sample, weights, fills, floor, high, slots, sums):
    """Count one sample's pixels of `floor … high` by slot; return pixels and hits above, and hits in all."""
    firsts, masks, touched, hits, misses = slots
    pred, tp, area = np.int64(0), np.int64(0), np.int64(0)
    for j in range(len(weights)):
        g = sample * len(weights) + j
        area += pixels.truth[g]
        if not weights[j].any():
            pred += pixels.inside[g] if fills else 0
            tp += pixels.truth[g] if fills else 0
            continue
        pred += pixels.above[g]
        tp += pixels.above_hits[g]
        begin, split, end = pixels.offsets[g], pixels.splits[g], pixels.offsets[g + 1]
        _scatter(pixels, begin, split, weights[j], floor, high, firsts, masks, touched, hits, sums)
        _scatter(pixels, split, end, weights[j], floor, high, firsts, masks, touched, misses, sums)
    return pred, tp, area


@routine
def _scatter(pixels, first, stop, weights, floor, high, firsts, masks, touched, counts, sums):
    """Count pixels by slot, descending: those above the band come first, those below the floor last.

    Slots are bins, in lanes; or those of some bins' levels, and one for others, which are marked. Strips of pixels
    whose largest values stay below the floor are passed over.
    """
    below, lowest, highest = np.uint32(max(floor * 65536 - 1, 0)), np.uint32(floor), np.uint32(high)
    bins = ((high - floor) >> _SHIFT) + 1
    rest, lane = np.uint32(bins << _SHIFT), counts.size // _LANES
    if first == stop:
        return
    strips = (stop - 1) // STRIP + 1
    bounds, own, no_table = sums[STRIP:], sums[:STRIP], np.empty((weights.size, 0), np.uint32)
    for begin in range(first // STRIP, strips, bounds.size):
        n = min(bounds.size, strips - begin)
        fuse(pixels.peaks, begin, no_table, weights, bounds[:n])
        for k in range(n):
            if bounds[k] <= below:
                continue
            start = (begin + k) * STRIP
            if start + STRIP <= pixels.values.shape[1]:
                _fuse_strip(pixels.values, start, weights, own)
            else:
                fuse(pixels.values, start, no_table, weights, own[: pixels.values.shape[1] - start])
            for i in range(STRIP):
                level = min(np.uint32(own[i] >> np.uint32(16)), highest)
                own[i] = rest if level < lowest else highest - level
            for i in range(max(first - start, 0), min(stop - start, STRIP)):
                at = own[i] >> _SHIFT
                if masks.size == 0:
                    counts[(i % _LANES) * lane + at] += np.uint32(1)
                else:
                    slot = firsts[at] + (own[i] & masks[at])
                    counts[slot] += np.uint32(1)
                    touched[slot >> 6] |= np.uint64(1) << np.uint64(slot & 63)


@inline
def _fuse_strip(values, start, weights, sums):
    """Fuse a whole strip as `fuse` does; by three members a loop, which the compiler turns into vectors."""
    last, stop = weights.size - 1, start + STRIP
    for m in range(0, weights.size, 3):
        at, then = min(m + 1, last), min(m + 2, last)
        own, second, third = values[m, start:stop], values[at, start:stop], values[then, start:stop]
        u, v, w = weights[m], np.uint32(weights[at] * (m < last)), np.uint32(weights[then] * (m + 1 < last))
        if m == 0:
            for i in range(STRIP):
                both = np.uint32(v * np.uint32(second[i])) + np.uint32(w * np.uint32(third[i]))
                sums[i] = np.uint32(32768) + np.uint32(u * np.uint32(own[i])) + both
        else:
            for i in range(STRIP):
                both = np.uint32(v * np.uint32(second[i])) + np.uint32(w * np.uint32(third[i]))
                sums[i] += np.uint32(u * np.uint32(own[i])) + both
