"""From counts by level to a score at every level, and back."""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel


@kernel
def counts_at(level, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write every sample's truth pixels and pixels at or above `level`.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, `pred` and `tp`, ascending by level.
    """
    for s in range(above.size):
        first, last = offsets[s], offsets[s + 1]
        while first < last:
            middle = (first + last) // 2
            if levels[middle] < level:
                first = middle + 1
            else:
                last = middle
        if first == offsets[s + 1]:
            out_tp[s], out_pred[s] = above_tp[s], above[s]
        else:
            out_tp[s], out_pred[s] = tp[first], pred[first]


@kernel
def counts_at_each(samples, at, start, stop, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write truth pixels and pixels of `samples[start:stop]`, each at or above a level of its own, by rows of these."""
    for row in range(at.shape[0]):
        for k in range(start, stop):
            s, level = samples[k], at[row, k]
            first, last = offsets[s], offsets[s + 1]
            while first < last:
                middle = (first + last) // 2
                if levels[middle] < level:
                    first = middle + 1
                else:
                    last = middle
            if first == offsets[s + 1]:
                out_tp[row, k], out_pred[row, k] = above_tp[s], above[s]
            else:
                out_tp[row, k], out_pred[row, k] = tp[first], pred[first]


@kernel
def add_score_steps(
    samples, offsets, levels, pred, tp, above, above_tp, truth, place, a, b, c, eps, empty, skip, total, counted
):
    """Add some samples' scores, as differences to the level above, which `sum_steps` sums.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, ascending, with the pixels `pred` and truth pixels
    `tp` at each and above; `above` and `above_tp` are those beyond all of them. A score is
    `(a tp + eps) / (pred + b truth - c tp + eps)`, and counts 1 in `counted`; a pair of two empty masks is worth
    `empty`, or does not count with `skip`.

    A sample's score changes only at levels that occur, so `total` and `counted` have a place for each of these,
    `place[level]`, ascending, and a last one for what lies above them all.
    """
    for s in samples:
        last, was = 0.0, 0
        for k in range(offsets[s + 1], offsets[s] - 1, -1):
            p, t = (pred[k], tp[k]) if k < offsets[s + 1] else (above[s], above_tp[s])
            if p + truth[s] == 0:
                value, one = (0.0, 0) if skip else (empty, 1)
            else:
                value, one = (a * t + eps) / (p + b * truth[s] - c * t + eps), 1
            at = np.int64(place[levels[k]]) if k < offsets[s + 1] else total.size - 1
            total[at] += value - last
            if one != was:
                counted[at] += one - was
            last, was = value, one


@kernel
def add_count_steps(samples, offsets, levels, pred, tp, above, above_tp, place, total_pred, total_tp):
    """Add some samples' pixels and truth pixels at or above each level, as differences to the level above; exact.

    Levels have places as in `add_score_steps`.
    """
    for s in samples:
        p, t = above[s], above_tp[s]
        total_pred[total_pred.size - 1] += p
        total_tp[total_tp.size - 1] += t
        for k in range(offsets[s + 1] - 1, offsets[s] - 1, -1):
            at = np.int64(place[levels[k]])
            total_pred[at] += pred[k] - p
            total_tp[at] += tp[k] - t
            p, t = pred[k], tp[k]


@kernel
def sum_steps(total, counted):
    """Turn differences to the level above into values, in place."""
    for k in range(total.size - 2, -1, -1):
        total[k] += total[k + 1]
        counted[k] += counted[k + 1]


@kernel
def mark_levels(levels, seen):
    """Mark the levels that occur; `seen` has 65,536 marks."""
    for level in levels:
        seen[level] = True


@kernel
def mean_of_folds(which, top, foot, out):
    """Write `top / foot`, both summed over the rows `which` in that order, and 1 where the foot is 0.

    `top` is (folds, n), `foot` the same or (folds, 1) where it is one for all.
    """
    wide = foot.shape[1] == out.size
    feet = np.zeros(foot.shape[1], np.int64)
    out[:] = 0
    for k in which:
        for j in range(out.size):
            out[j] += top[k, j]
        for j in range(feet.size):
            feet[j] += foot[k, j]
    if wide:
        for j in range(out.size):
            out[j] = out[j] / feet[j] if feet[j] else 1.0
    else:
        under = np.float64(feet[0])
        for j in range(out.size):
            out[j] = out[j] / under if under else 1.0


@kernel
def near_groups(values, close, firsts, lasts):
    """Find groups of equal neighbours among the values within `close` of the largest; return how many there are.

    Each one's first index and last go to `firsts` and `lasts`.
    """
    least = values[0]
    for j in range(values.size):
        least = max(least, values[j])
    least -= close
    found = 0
    for j in range(values.size):
        if values[j] >= least:
            if found and lasts[found - 1] == j - 1 and values[j - 1] == values[j]:
                lasts[found - 1] = j
            else:
                firsts[found] = lasts[found] = j
                found += 1
    return found


@kernel
def add_segments(values, columns, first, out):
    """Add what holds from segment to segment to the levels `first` and above of a band; one ends at each column."""
    start = 0
    for j in range(columns.size):
        for i in range(max(start - first, 0), min(columns[j] + 1 - first, out.size)):
            out[i] += values[j]
        start = columns[j] + 1


@inline
def score_pair(pred, tp, truth, score):
    """The score of a pair of masks, and whether it counts; see `arguments.Score`."""
    if pred + truth == 0:
        return (0.0, 0) if score.skip else (score.empty, 1)
    return (score.a * tp + score.eps) / (pred + score.b * truth - score.c * tp + score.eps), 1
