"""Counts at the levels of a ladder, and the best of them in draws of groups."""

import numpy as np

from ensemble_kit.kernels.jit import inline, kernel

AT_ONCE = 16
"""Groups whose rows are added at a time."""


@kernel
def counts_on_ladder(samples, ladder, offsets, levels, pred, tp, above, above_tp, out_tp, out_pred):
    """Write some samples' truth pixels and pixels at or above each level of `ladder`, which ascends.

    Sample s has the entries `offsets[s]:offsets[s+1]` of `levels`, `pred` and `tp`, ascending by level; `above` and
    `above_tp` are those above them all.
    """
    for row, s in enumerate(samples):
        k, last = offsets[s], offsets[s + 1]
        for j in range(ladder.size):
            while k < last and levels[k] < ladder[j]:
                k += 1
            out_tp[row, j] = tp[k] if k < last else above_tp[s]
            out_pred[row, j] = pred[k] if k < last else above[s]


@inline
def _add_rows(rows, often, count, values, out):
    """Add `count` rows of values to `out`, one after the other, each some times; four in one pass over `out`."""
    k = 0
    while k + 4 <= count:
        a, b, c, d = often[k], often[k + 1], often[k + 2], often[k + 3]
        va, vb, vc, vd = values[rows[k]], values[rows[k + 1]], values[rows[k + 2]], values[rows[k + 3]]
        for j in range(out.size):
            out[j] = (((out[j] + a * va[j]) + b * vb[j]) + c * vc[j]) + d * vd[j]
        k += 4
    while k < count:
        a, va = often[k], values[rows[k]]
        for j in range(out.size):
            out[j] += a * va[j]
        k += 1


@kernel
def add_to_draws(draws, first, top, foot, tops, feet):
    """Add the groups from `first` on to the sums of each draw: their rows of `top` and `foot`, as often as it has them.

    `tops` is (draws, levels), `feet` the same or (draws, 1) where it is one for all levels. Sums run over groups in
    their order, so the result is the same on any machine, and however many groups are added at a time; rows of levels
    are added at once, which takes vector instructions. Groups are taken some at a time for all draws, so that their
    rows stay in the first-level cache.
    """
    rows, often = np.empty(AT_ONCE, np.int64), np.empty(AT_ONCE)
    for start in range(0, top.shape[0], AT_ONCE):
        stop = min(start + AT_ONCE, top.shape[0])
        for b in range(draws.shape[0]):
            count = 0
            for g in range(start, stop):
                times = draws[b, first + g]
                rows[count], often[count] = g, times
                count += 1 if times else 0
            _add_rows(rows, often, count, top, tops[b])
            _add_rows(rows, often, count, foot, feet[b])


@inline
def _largest(values):
    """The largest of values of 0 or more, four chains of comparisons side by side."""
    a = b = c = d = 0.0
    j = 0
    while j + 4 <= values.size:
        a, b, c, d = max(a, values[j]), max(b, values[j + 1]), max(c, values[j + 2]), max(d, values[j + 3])
        j += 4
    while j < values.size:
        a = max(a, values[j])
        j += 1
    return max(a, b, c, d)


@kernel
def best_of_draws(tops, feet, order, out):
    """Write, for each draw, the index of the level with the best `tops / feet`; the first in `order` of equal ones."""
    wide, scores = feet.shape[1] == tops.shape[1], np.empty(tops.shape[1])
    for b in range(tops.shape[0]):
        if wide:
            for j in range(scores.size):
                scores[j] = tops[b, j] / feet[b, j] if feet[b, j] > 0 else 1.0
        elif feet[b, 0] > 0:
            under = feet[b, 0]
            for j in range(scores.size):
                scores[j] = tops[b, j] / under
        else:
            scores[:] = 1.0
        best = _largest(scores)
        for j in order:
            if scores[j] == best:
                out[b] = j
                break
